package counter

import (
	"fmt"
	"math"

	"github.com/kemi-go/kemi"
)

// Limit is the highest rate of a counter that is believed, per second. The zero
// Limit believes up to 1e15, and of a 32-bit counter that went down, that it has
// wrapped if this makes at most 1e7 per second.
type Limit struct {
	// Max is a fixed limit. 0: none.
	Max float64

	// Of names a gauge with the same host and labels, such as the speed of the same
	// interface; the limit is Times its value. While the gauge is not known, or its
	// value is not above Above, Max holds. "": only Max.
	Of    string
	Times float64
	Above float64
}

const (
	anyMax    = 1e15 // no machine counts faster
	anyMax32  = 1e7  // segments, interrupts, context switches of a large machine
	speedName = "if_speed_bits"
)

// StandardLimits returns a new map with the limits of the standard profiles:
//
//   - octets of an interface: 1.1 times its if_speed_bits. A speed of 10 Mbit/s or less
//     is not believed, because net-snmp says 10 Mbit/s of every interface whose speed
//     it does not know, loopback and the virtual ones of a guest among them. Then the limit
//     is 1 Tbit/s.
//   - errors and discards of an interface: 1.5e9 a second, the smallest packets at 1 Tbit/s.
//   - ticks of the CPUs (100 a second and CPU): those of 4096 CPUs.
func StandardLimits() map[string]Limit {
	octets := Limit{Max: 1e12 / 8, Of: speedName, Times: 1.1 / 8, Above: 10e6}
	packets := Limit{Max: 1.5e9}
	return map[string]Limit{
		"if_in_octets": octets, "if_out_octets": octets,
		"if_in_errors": packets, "if_out_errors": packets,
		"if_in_discards": packets, "if_out_discards": packets,
		"cpu_ticks": {Max: 100 * 4096},
	}
}

func (l Limit) check(name string) error {
	for _, f := range [...]float64{l.Max, l.Times, l.Above} {
		if !(f >= 0) || math.IsInf(f, 0) {
			return fmt.Errorf("counter: limit of %s: %v is not a number from 0 up", name, f)
		}
	}
	if (l.Of != "") != (l.Times > 0) {
		return fmt.Errorf("counter: limit of %s: Of and Times belong together: set both or neither", name)
	}
	return nil
}

// limit returns what is plausible for a series now.
func (r *Rates) limit(h *host, d *def, labels kemi.Labels, t int64) float64 {
	l := &d.limit
	if l.Of != "" {
		if ref, ok := h.references[key{l.Of, labels}]; ok && max(t-ref.t, ref.t-t) <= r.gap && ref.v > l.Above {
			return l.Times * ref.v
		}
	}
	if l.Max > 0 {
		return l.Max
	}
	return anyMax
}

// wrapLimit bounds the rate of a wrap where nothing is said about the counter.
func wrapLimit(l Limit) float64 {
	if l.Max == 0 && l.Of == "" {
		return anyMax32
	}
	return anyMax
}
