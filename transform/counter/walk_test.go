package counter_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

// walk makes the polls of a few hosts as they come off a topic: counters that grow,
// wrap and are reset, agents that are started anew, values out of their mind, polls
// that are missed, incomplete, delivered again or, if late is set, out of order.
func walk(rng *rand.Rand, rounds int, late bool) [][]kemi.Metric {
	type row struct {
		name   string
		labels kemi.Labels
		kind   kemi.Kind
		speed  bool
		v      uint64
		f      float64
	}
	type machine struct {
		labels kemi.Labels
		phase  float64
		up     float64
		rows   []*row
	}
	var machines []*machine
	for i := range 3 {
		m := &machine{labels: kemi.LabelsOf("host", fmt.Sprint("h", i)), phase: float64(20 * i), up: rng.Float64() * 500}
		if i == 1 {
			m.up = wrap497 - 60*float64(rng.IntN(rounds))
		}
		for j := range 2 {
			l := m.labels.With("interface", fmt.Sprint("eth", j))
			m.rows = append(m.rows, &row{name: "if_in_octets", labels: l, kind: kemi.KindCounter32, speed: true, v: uint64(rng.Uint32())},
				&row{name: "if_out_octets", labels: l, kind: kemi.KindCounter, v: rng.Uint64()})
		}
		m.rows = append(m.rows, &row{name: "segments", labels: m.labels, kind: kemi.KindCounter32, v: uint64(rng.Uint32())},
			&row{name: "seconds", labels: m.labels, kind: kemi.KindFloatCounter})
		machines = append(machines, m)
	}
	var polls [][]kemi.Metric
	now := 0.0
	for range rounds {
		step := 60.0
		if rng.IntN(40) == 0 {
			step *= 4 + 3*rng.Float64() // some of these are longer than MaxGap
		}
		now += step
		for _, m := range machines {
			t := start.Add(time.Duration((now + m.phase + rng.Float64()) * 1e9))
			m.up += step
			if m.up > wrap497 {
				m.up -= wrap497
			}
			if rng.IntN(30) == 0 {
				m.up = rng.Float64() * step
				for _, r := range m.rows {
					r.v, r.f = uint64(rng.IntN(1e6)), 0
				}
			}
			var p []kemi.Metric
			if rng.IntN(20) > 0 {
				p = append(p, kemi.Gauge("agent_uptime_seconds", m.labels, t, m.up+rng.Float64()*3))
			}
			for _, r := range m.rows {
				switch {
				case rng.IntN(60) == 0:
					r.v, r.f = uint64(rng.IntN(1000)), 0 // a reset of one counter
				case rng.IntN(60) == 0:
					r.v = rng.Uint64() // out of its mind
				default:
					r.v += uint64(rng.Float64() * step * 2e7)
					r.f += rng.Float64() * step
				}
				if r.speed && rng.IntN(10) > 0 {
					p = append(p, kemi.Gauge("if_speed_bits", r.labels, t, []float64{10e6, 100e6, 1e9}[rng.IntN(3)]))
				}
				if rng.IntN(20) == 0 {
					continue
				}
				switch r.kind {
				case kemi.KindCounter:
					p = append(p, kemi.Counter(r.name, r.labels, t, r.v))
				case kemi.KindCounter32:
					p = append(p, kemi.Counter32(r.name, r.labels, t, uint32(r.v)))
				default:
					f := r.f
					if rng.IntN(30) == 0 {
						f = math.NaN()
					}
					p = append(p, kemi.FloatCounter(r.name, r.labels, t, f))
				}
			}
			if len(p) == 0 || rng.IntN(15) == 0 {
				continue // a missed poll
			}
			polls = append(polls, p)
		}
		if rng.IntN(25) == 0 { // a consumer went back a little
			polls = append(polls, polls[max(0, len(polls)-1-rng.IntN(12)):]...)
		}
		if n := len(polls); late && n > 4 && rng.IntN(10) == 0 {
			i, j := n-1-rng.IntN(4), n-1-rng.IntN(4)
			polls[i], polls[j] = polls[j], polls[i]
		}
	}
	return polls
}

// model says the same as the package, slowly: all readings are kept, numbers are
// exact fractions, and each rule stands by itself.
type model struct {
	maxGap   time.Duration
	accepted map[string][]reading
	uptimes  map[string][]reading
	speeds   map[string][]reading
	counts   counter.Stats
}

type reading struct {
	t  time.Time
	m  kemi.Metric
	up float64 // NaN: not known
}

func last(rs []reading) *reading {
	if len(rs) == 0 {
		return nil
	}
	return &rs[len(rs)-1]
}

// repeats tells whether t is not new after the last of rs.
func (o *model) repeats(rs []reading, t time.Time) bool {
	l := last(rs)
	return l != nil && !t.After(l.t) && l.t.Sub(t) <= o.maxGap
}

func (o *model) restarted(before, now float64, dt time.Duration) bool {
	s := dt.Seconds()
	switch {
	case math.IsNaN(before) || math.IsNaN(now):
		return false
	case now < before:
		grown := now + wrap497 - before
		return !(grown > 0 && grown <= 2*s)
	default:
		return now != before && now-before < 0.9*s && now < s
	}
}

func (o *model) poll(p []kemi.Metric) (out []kemi.Metric) {
	host, t := p[0].Host(), p[0].Time
	up, event := math.NaN(), false
	for _, m := range p {
		switch m.Name {
		case "agent_uptime_seconds":
			old := o.uptimes[host]
			if !o.repeats(old, t) {
				if l := last(old); l != nil && t.After(l.t) && t.Sub(l.t) <= o.maxGap {
					event = o.restarted(l.m.Float(), m.Float(), t.Sub(l.t))
				}
				o.uptimes[host] = append(old, reading{t: t, m: m})
			}
		case "if_speed_bits":
			if k := m.Labels.String(); !o.repeats(o.speeds[k], t) {
				o.speeds[k] = append(o.speeds[k], reading{t: t, m: m})
			}
		}
	}
	if l := last(o.uptimes[host]); l != nil && l.t.Equal(t) {
		up = l.m.Float()
	}
	for _, m := range p {
		if m.Kind == kemi.KindGauge {
			out = append(out, m)
			if m.Name == "agent_uptime_seconds" && event {
				o.counts.Restarts++
				out = append(out, kemi.Gauge("agent_restarted", m.Labels, t, 1))
			}
			continue
		}
		o.counts.Counters++
		if rate, ok := o.rate(m, up); ok {
			o.counts.Rates++
			out = append(out, kemi.Gauge(m.Name+"_rate", m.Labels, t, rate))
		}
	}
	return out
}

func exact(m kemi.Metric) *big.Rat {
	if m.Kind == kemi.KindFloatCounter {
		return new(big.Rat).SetFloat64(m.Float())
	}
	return new(big.Rat).SetInt(new(big.Int).SetUint64(m.Uint()))
}

func (o *model) rate(m kemi.Metric, up float64) (float64, bool) {
	if math.IsNaN(m.Float()) {
		o.counts.Invalid++
		return 0, false
	}
	k := m.Name + m.Labels.String()
	rs := o.accepted[k]
	if o.repeats(rs, m.Time) {
		o.counts.Repeated++
		return 0, false
	}
	o.accepted[k] = append(rs, reading{m.Time, m, up})
	l := last(rs)
	if l == nil || m.Time.Before(l.t) || m.Time.Sub(l.t) > o.maxGap {
		o.counts.Primed++
		return 0, false
	}
	dt := m.Time.Sub(l.t)
	if o.restarted(l.up, up, dt) {
		o.counts.Restarted++
		return 0, false
	}
	seconds := dt.Seconds()
	if grown := up - l.up; !math.IsNaN(grown) {
		if grown < 0 {
			grown += wrap497
		}
		if math.Abs(grown-seconds) <= seconds/10 {
			seconds = grown
		}
	}
	limit := 1e15
	if m.Name == "if_in_octets" || m.Name == "if_out_octets" {
		limit = 1e12 / 8
		if s := last(o.speeds[m.Labels.String()]); s != nil && s.t.Sub(m.Time).Abs() <= o.maxGap && s.m.Float() > 10e6 {
			limit = s.m.Float() * 1.1 / 8
		}
	}
	delta := new(big.Rat).Sub(exact(m), exact(l.m))
	wrapped := false
	if delta.Sign() < 0 && m.Kind == kemi.KindCounter32 {
		delta.Add(delta, new(big.Rat).SetInt64(1<<32))
		wrapped = true
	}
	if delta.Sign() < 0 {
		o.counts.Resets++
		return 0, false
	}
	rate, _ := new(big.Rat).Quo(delta, new(big.Rat).SetFloat64(seconds)).Float64()
	if wrapped && (rate > limit || m.Name == "segments" && rate > 1e7) {
		o.counts.Resets++
		return 0, false
	}
	if rate > limit {
		o.counts.Implausible++
		return 0, false
	}
	if wrapped {
		o.counts.Wraps++
	}
	return rate, true
}

func newModel(maxGap time.Duration) *model {
	return &model{maxGap: maxGap, accepted: map[string][]reading{}, uptimes: map[string][]reading{}, speeds: map[string][]reading{}}
}

func same(a, b kemi.Metric) bool {
	d := math.Abs(a.Float() - b.Float())
	return a.Name == b.Name && a.Labels == b.Labels && a.Time.Equal(b.Time) && a.Kind == b.Kind &&
		(d <= 1e-12*math.Abs(b.Float()) || math.IsNaN(a.Float()) && math.IsNaN(b.Float()))
}

func TestWalksAgreeWithTheModel(t *testing.T) {
	var sum counter.Stats
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r, o := newRates(t, counter.Config{}), newModel(5*time.Minute)
		for i, p := range walk(rng, 150, true) {
			rng.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
			got, wanted := feed(t, r, p), o.poll(p)
			if !slices.EqualFunc(got, wanted, same) {
				t.Fatalf("seed %d, poll %d:\n got %v\nwant %v", seed, i, got, wanted)
			}
		}
		s := balanced(t, r)
		if s != o.counts {
			t.Fatalf("seed %d: counts\n got %+v\nwant %+v", seed, s, o.counts)
		}
		for i, n := range []*uint64{&sum.Wraps, &sum.Restarts, &sum.Restarted, &sum.Resets, &sum.Implausible, &sum.Repeated, &sum.Primed, &sum.Invalid} {
			*n += []uint64{s.Wraps, s.Restarts, s.Restarted, s.Resets, s.Implausible, s.Repeated, s.Primed, s.Invalid}[i]
		}
	}
	for _, n := range []uint64{sum.Wraps, sum.Restarts, sum.Restarted, sum.Resets, sum.Implausible, sum.Repeated, sum.Primed, sum.Invalid} {
		if n < 100 {
			t.Errorf("the walks hardly met one of the cases: %+v", sum)
		}
	}
}

func TestBatchesMayBeCutAnywhere(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		polls := walk(rng, 100, true)
		for _, p := range polls { // uptime and speeds first, as a poll that is cut needs them
			slices.SortStableFunc(p, func(a, b kemi.Metric) int { return int(min(a.Kind, 1)) - int(min(b.Kind, 1)) })
		}
		wanted := feed(t, newRates(t, counter.Config{}), polls...)

		records := slices.Concat(polls...)
		var cut [][]kemi.Metric
		for len(records) > 0 {
			n := min(len(records), 1+rng.IntN(1+rng.IntN(200)))
			cut, records = append(cut, records[:n]), records[n:]
		}
		if got := feed(t, newRates(t, counter.Config{}), cut...); !slices.EqualFunc(got, wanted, same) {
			t.Fatalf("seed %d: cut into %d batches instead of %d, the output differs", seed, len(cut), len(polls))
		}
	}
}
