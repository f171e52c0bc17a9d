package snmp_test

import (
	"math"
	"slices"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// Numbers that cannot be make no metric, and are counted; what came beside them is
// given out.
func TestNumbersThatCannotBe(t *testing.T) {
	const ucd = "1.3.6.1.4.1.2021."
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		oid   string
		value any
		lost  []string
	}{
		{ucd + "4.20.0", -900_000_000, []string{"memory_total_bytes"}},
		{ucd + "4.21.0", float32(-4), []string{"memory_free_bytes"}},
		{ucd + "4.27.0", -9, []string{"memory_available_bytes"}},
		{ucd + "4.27.0", nan, []string{"memory_available_bytes"}},
		{ucd + "10.1.5.2", -15700, []string{"load5"}},
		{"1.3.6.1.2.1.25.1.6.0", nan, []string{"processes"}},
		{"1.3.6.1.2.1.25.1.6.0", -1, []string{"processes"}},
		{"1.3.6.1.2.1.25.1.5.0", inf, []string{"users"}},
		{"1.3.6.1.2.1.6.10.0", nan, []string{"tcp_in_segments"}},
		{"1.3.6.1.2.1.31.1.1.1.6.2", nan, []string{"if_in_octets"}},
		{"1.3.6.1.2.1.25.2.3.1.4.31", inf, []string{"disk_total_bytes", "disk_used_bytes"}},
	} {
		a := newAgent(t).linux()
		p := newPoller(t)
		want := poll(t, p, jobFor(a))
		a.set(c.oid, c.value)
		got := poll(t, p, jobFor(a))
		for _, name := range c.lost {
			if len(got.named(name)) != len(want.named(name))-1 {
				t.Errorf("%s = %v: %s", c.oid, c.value, got.named(name))
			}
		}
		if len(got) != len(want)-len(c.lost) || p.Stats().Nonsense != uint64(len(c.lost)) {
			t.Errorf("%s = %v: %d metrics instead of %d, %d numbers counted", c.oid, c.value, len(got), len(want), p.Stats().Nonsense)
		}
		if slices.ContainsFunc(got, func(m kemi.Metric) bool { return math.IsNaN(m.Float()) || m.Float() < 0 }) {
			t.Errorf("%s = %v: %s", c.oid, c.value, got)
		}
	}
}

// On an agent without MemAvailable a part below 0 does not hide in the sum.
func TestNonsenseInASum(t *testing.T) {
	const memory = "1.3.6.1.4.1.2021.4."
	a := newAgent(t).linux()
	a.remove(memory + "27")
	a.set(memory+"14.0", -500)
	p := newPoller(t)
	if ms := poll(t, p, jobFor(a)); len(ms.named("memory_available_bytes")) != 0 || p.Stats().Nonsense != 2 {
		t.Errorf("%d numbers counted, want 2: %s", p.Stats().Nonsense, ms.named("memory_available_bytes"))
	}
}

// Of a profile of one's own a gauge may be below 0, unless it says otherwise; a float
// counter may not.
func TestNumbersOfOnesOwn(t *testing.T) {
	const ours = "1.3.6.1.4.1.99999."
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1), ours+"1.0", -5, ours+"2.0", float32(math.Inf(-1)), ours+"3.0", float32(-1))
	p := newPoller(t, func(c *snmp.Config) {
		c.Profiles = []snmp.Profile{{Name: "ours", Scalars: []snmp.Scalar{
			{Name: "celsius", OIDs: []string{ours + "1.0"}},
			{Name: "made", OIDs: []string{ours + "1.0"}, Gauge: func(v []snmp.Value) (float64, bool) { return v[0].Float(), true }},
			{Name: "size", OIDs: []string{ours + "1.0"}, NotNegative: true},
			{Name: "cold", OIDs: []string{ours + "2.0"}},
			{Name: "joules", OIDs: []string{ours + "3.0"}, Kind: kemi.KindFloatCounter},
		}}}
	})
	ms := poll(t, p, jobFor(a))
	if ms.value(t, "celsius") != -5 || ms.value(t, "made") != -5 {
		t.Errorf("%s", ms)
	}
	if n := len(ms.named("size")) + len(ms.named("cold")) + len(ms.named("joules")); n != 0 || p.Stats().Nonsense != 3 {
		t.Errorf("%d numbers that cannot be came out, %d were counted", n, p.Stats().Nonsense)
	}
}
