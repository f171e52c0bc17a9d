package counter_test

import (
	"math"
	"slices"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

func octets(s float64, v uint64) kemi.Metric { return kemi.Counter("if_in_octets", eth0, at(s), v) }
func speed(s, v float64) kemi.Metric         { return kemi.Gauge("if_speed_bits", eth0, at(s), v) }

func TestImplausibleRateIsDropped(t *testing.T) {
	// A single value near 2^64, as Junos was seen to send.
	r := newRates(t, counter.Config{Drops: true})
	out := feed(t, r,
		poll(speed(0, 1e9), octets(0, 0)),
		poll(speed(60, 1e9), octets(60, math.MaxUint64-7)),
		poll(speed(120, 1e9), octets(120, 1200)),
		poll(speed(180, 1e9), octets(180, 1800)))
	want(t, out, "if_in_octets_rate", 10)
	if s := balanced(t, r); s.Implausible != 1 || s.Resets != 1 {
		t.Errorf("%+v", s)
	}
	var told []string
	for _, m := range out {
		if m.Name == counter.DroppedMetric {
			told = append(told, m.Labels.Get("counter")+" "+m.Labels.Get("reason")+" "+m.Labels.Get("interface"))
		}
	}
	if !slices.Equal(told, []string{"if_in_octets implausible eth0", "if_in_octets reset eth0"}) {
		t.Errorf("told: %v", told)
	}
}

func TestRateUpToTheLimitIsKept(t *testing.T) {
	// 1.1 times 80 Mbit/s are 11e6 octets a second.
	for _, tc := range []struct {
		octets uint64
		want   []float64
	}{{11e6, []float64{11e6}}, {11e6 + 1, nil}} {
		r := newRates(t, counter.Config{})
		want(t, feed(t, r, poll(octets(0, 0), speed(0, 80e6)), poll(octets(1, tc.octets), speed(1, 80e6))), "if_in_octets_rate", tc.want...)
	}
}

func TestSpeedOfOtherInterfaceDoesNotCount(t *testing.T) {
	other := kemi.Gauge("if_speed_bits", eth0.With("interface", "eth1"), at(60), 20e6)
	r := newRates(t, counter.Config{})
	want(t, feed(t, r, poll(octets(0, 0)), poll(octets(60, 6e9), other)), "if_in_octets_rate", 1e8)
}

func TestNominalSpeedIsNotBelieved(t *testing.T) {
	// net-snmp says 10 Mbit/s of loopback, and of a guest's virtual interfaces.
	for _, bits := range []float64{0, 10e6} {
		r := newRates(t, counter.Config{})
		out := feed(t, r, poll(octets(0, 0), speed(0, bits)), poll(octets(60, 6e9), speed(60, bits)), poll(octets(120, 1e15), speed(120, bits)))
		want(t, out, "if_in_octets_rate", 1e8)
		if s := balanced(t, r); s.Implausible != 1 {
			t.Errorf("%+v", s)
		}
	}
}

func TestOldSpeedIsNotUsed(t *testing.T) {
	r := newRates(t, counter.Config{})
	polls := [][]kemi.Metric{poll(octets(0, 0), speed(0, 100e6))}
	for i := 1; i <= 6; i++ {
		polls = append(polls, poll(octets(float64(60*i), uint64(i)*6e9)))
	}
	// 1e8 octets a second are too many for 100 Mbit/s, as long as that speed is known.
	want(t, feed(t, r, polls...), "if_in_octets_rate", 1e8)
	if s := balanced(t, r); s.Implausible != 5 {
		t.Errorf("%+v", s)
	}
}

func TestAnythingHasACeiling(t *testing.T) {
	r := newRates(t, counter.Config{})
	want(t, feed(t, r, poll(c64(0, 0)), poll(c64(60, 1<<60))), "c_rate")
	// A limit of the user's raises it.
	r = newRates(t, counter.Config{Limits: map[string]counter.Limit{"c": {Max: 1e18}}})
	want(t, feed(t, r, poll(c64(0, 0)), poll(c64(1, 1<<59))), "c_rate", 1<<59)
}

func TestUserLimitReplacesTheStandardOne(t *testing.T) {
	r := newRates(t, counter.Config{Limits: map[string]counter.Limit{"if_in_octets": {Max: 100}}})
	out := feed(t, r, poll(octets(0, 0), speed(0, 1e9)), poll(octets(1, 101), speed(1, 1e9)), poll(octets(2, 201), speed(2, 1e9)))
	want(t, out, "if_in_octets_rate", 100)
}
