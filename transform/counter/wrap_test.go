package counter_test

import (
	"math"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

func TestCounter64NeverWraps(t *testing.T) {
	r := newRates(t, counter.Config{Deltas: true})
	out := feed(t, r, poll(c64(0, math.MaxUint64-5)), poll(c64(60, math.MaxUint64)), poll(c64(120, 4)), poll(c64(180, 4)))
	want(t, out, "c_delta", 5, 0)
	if s := balanced(t, r); s.Resets != 1 || s.Wraps != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCounter32Wraps(t *testing.T) {
	r := newRates(t, counter.Config{Deltas: true})
	out := feed(t, r, poll(c32(0, math.MaxUint32-9)), poll(c32(60, math.MaxUint32)), poll(c32(120, 0)), poll(c32(180, 60)))
	want(t, out, "c_delta", 9, 1, 60)
	if s := balanced(t, r); s.Wraps != 1 || s.Resets != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCounter32GoesAllTheWayWithoutWrap(t *testing.T) {
	r := newRates(t, counter.Config{Deltas: true})
	want(t, feed(t, r, poll(c32(0, 0)), poll(c32(60, math.MaxUint32))), "c_delta", math.MaxUint32)
}

func TestImplausibleWrapIsAReset(t *testing.T) {
	// 2^32-1e9 in a minute would be 5.5e7 a second, above what is believed unasked.
	r := newRates(t, counter.Config{})
	want(t, feed(t, r, poll(c32(0, 1e9)), poll(c32(60, 5)), poll(c32(120, 65))), "c_rate", 1)
	if s := balanced(t, r); s.Resets != 1 {
		t.Errorf("%+v", s)
	}
	// Unless the user knows that it is that fast.
	r = newRates(t, counter.Config{Limits: map[string]counter.Limit{"c": {Max: 1e8}}, Deltas: true})
	want(t, feed(t, r, poll(c32(0, 1e9)), poll(c32(60, 5))), "c_delta", 1<<32-1e9+5)
}

func TestSpeedOfTheInterfaceTellsWrapFromReset(t *testing.T) {
	in := func(s float64, v uint32) kemi.Metric { return kemi.Counter32("if_in_octets", eth0, at(s), v) }
	speed := func(s, v float64) kemi.Metric { return kemi.Gauge("if_speed_bits", eth0, at(s), v) }
	for _, tc := range []struct {
		speed float64
		wraps uint64
	}{{100e6, 0}, {1e9, 1}} {
		// 3.3e9 octets in a minute are 440 Mbit/s. The speed may come after the octets.
		r := newRates(t, counter.Config{})
		out := feed(t, r, poll(in(0, 1e9), speed(0, tc.speed)), poll(in(60, 5), speed(60, tc.speed)))
		s := balanced(t, r)
		if s.Wraps != tc.wraps || s.Resets != 1-tc.wraps || uint64(len(numbers(out, "if_in_octets_rate"))) != tc.wraps {
			t.Errorf("at %v bit/s: %+v", tc.speed, s)
		}
	}
}
