package counter_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	web1  = kemi.LabelsOf("host", "web1")
	eth0  = kemi.LabelsOf("host", "web1", "interface", "eth0", "ifindex", "2")
)

// What a flow looks for in the stage.
var (
	_ kemi.Forker[kemi.Metric, kemi.Metric] = (*counter.Rates)(nil)
	_ kemi.Warmer                           = (*counter.Rates)(nil)
)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * 1e9)) }

func newRates(tb testing.TB, c counter.Config) *counter.Rates {
	tb.Helper()
	r, err := counter.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// feed hands over each poll as a batch of its own and returns all that came out.
func feed(tb testing.TB, r kemi.Transform[kemi.Metric, kemi.Metric], polls ...[]kemi.Metric) []kemi.Metric {
	tb.Helper()
	var out []kemi.Metric
	for _, p := range polls {
		before := slices.Clone(p)
		var err error
		if out, err = r.Apply(context.Background(), out, p); err != nil {
			tb.Fatal(err)
		}
		if !slices.Equal(p, before) {
			tb.Fatal("Apply changed its input")
		}
	}
	return out
}

func poll(ms ...kemi.Metric) []kemi.Metric { return ms }

func uptime(t, seconds float64) kemi.Metric {
	return kemi.Gauge("agent_uptime_seconds", web1, at(t), seconds)
}

func c64(t float64, v uint64) kemi.Metric { return kemi.Counter("c", web1, at(t), v) }
func c32(t float64, v uint32) kemi.Metric { return kemi.Counter32("c", web1, at(t), v) }

// numbers are the values of the metrics of one name.
func numbers(ms []kemi.Metric, name string) []float64 {
	var vs []float64
	for _, m := range ms {
		if m.Name == name {
			vs = append(vs, m.Float())
		}
	}
	return vs
}

func want(tb testing.TB, out []kemi.Metric, name string, vs ...float64) {
	tb.Helper()
	if got := numbers(out, name); !slices.Equal(got, vs) {
		tb.Errorf("%s: %v, want %v", name, got, vs)
	}
}

// balanced returns the counts after checking that every counter is in one of them.
func balanced(tb testing.TB, r *counter.Rates) counter.Stats {
	tb.Helper()
	s := r.Stats()
	if sum := s.Rates + s.Primed + s.Repeated + s.Restarted + s.Resets + s.Implausible + s.Invalid; sum != s.Counters {
		tb.Errorf("%d counters, but the counts sum up to %d: %+v", s.Counters, sum, s)
	}
	return s
}

func TestCounterBecomesRate(t *testing.T) {
	r := newRates(t, counter.Config{})
	out := feed(t, r, poll(c64(0, 1000)), poll(c64(60, 1600)), poll(c64(120, 1600)))
	want(t, out, "c_rate", 10, 0)
	if len(out) != 2 || out[0] != kemi.Gauge("c_rate", web1, at(60), 10) {
		t.Errorf("got %v", out)
	}
}

func TestGaugesPassInOrder(t *testing.T) {
	load := func(s float64) kemi.Metric { return kemi.Gauge("load1", web1, at(s), s) }
	mem := func(s float64) kemi.Metric { return kemi.Gauge("mem", web1, at(s), s) }
	r := newRates(t, counter.Config{KeepCounters: true, Deltas: true})
	feed(t, r, poll(load(0), c64(0, 1), mem(0)))
	got := feed(t, r, poll(load(10), c64(10, 21), mem(10)))
	wanted := poll(load(10), c64(10, 21), kemi.Gauge("c_rate", web1, at(10), 2), kemi.Gauge("c_delta", web1, at(10), 20), mem(10))
	if !slices.Equal(got, wanted) {
		t.Errorf("got %v, want %v", got, wanted)
	}
}

func TestLargeCountersLoseNoBits(t *testing.T) {
	r := newRates(t, counter.Config{Deltas: true})
	// As float64s, the two are equal.
	out := feed(t, r, poll(c64(0, 1<<62)), poll(c64(1, 1<<62+3)), poll(c64(2, 1<<62+4)))
	want(t, out, "c_delta", 3, 1)
}

func TestFractionsCount(t *testing.T) {
	cpu := func(s, v float64) kemi.Metric { return kemi.FloatCounter("cpu", web1, at(s), v) }
	r := newRates(t, counter.Config{Drops: true})
	out := feed(t, r, poll(cpu(0, 0.5)), poll(cpu(10, 5.5)), poll(cpu(20, math.NaN())), poll(cpu(30, math.Inf(1))),
		poll(cpu(40, 20.5)), poll(cpu(50, 1)), poll(cpu(60, 2)))
	want(t, out, "cpu_rate", 0.5, 0.5, 0.1)
	if s := balanced(t, r); s.Invalid != 2 || s.Resets != 1 {
		t.Errorf("%+v", s)
	}
	want(t, out, counter.DroppedMetric, 1, 1, 1)
}

func TestMissedPollKeepsTheRateRight(t *testing.T) {
	r := newRates(t, counter.Config{})
	out := feed(t, r, poll(c64(0, 0)), poll(c64(180, 1800)), poll(c64(480, 4800)))
	want(t, out, "c_rate", 10, 10)
}

func TestGapIsNotBridged(t *testing.T) {
	r := newRates(t, counter.Config{MaxGap: 3 * time.Minute})
	out := feed(t, r, poll(c64(0, 0)), poll(c64(180.5, 1805)), poll(c64(240.5, 2405)))
	want(t, out, "c_rate", 10)
	if s := balanced(t, r); s.Primed != 2 {
		t.Errorf("%+v", s)
	}
}

func TestRedeliveryIsIgnored(t *testing.T) {
	r := newRates(t, counter.Config{})
	a, b, c := poll(c64(0, 0)), poll(c64(60, 600)), poll(c64(120, 1800))
	out := feed(t, r, a, b, b, a, c, b, c)
	want(t, out, "c_rate", 10, 20)
	if s := balanced(t, r); s.Repeated != 4 {
		t.Errorf("%+v", s)
	}
	// Twice in one batch, too.
	out = feed(t, newRates(t, counter.Config{}), slices.Concat(a, a, b, b, c))
	want(t, out, "c_rate", 10, 20)
}

func TestClockSetBackIsANewBeginning(t *testing.T) {
	r := newRates(t, counter.Config{})
	// A Time far in the future must not silence a host until then.
	out := feed(t, r, poll(c64(0, 0)), poll(c64(1e9, 1)), poll(c64(120, 1200)), poll(c64(180, 1800)))
	want(t, out, "c_rate", 10)
	balanced(t, r)
}

func TestRenumberedRowIsANewSeries(t *testing.T) {
	in := func(s float64, ifindex string, v uint64) kemi.Metric {
		return kemi.Counter("if_in_octets", eth0.With("ifindex", ifindex), at(s), v)
	}
	r := newRates(t, counter.Config{})
	out := feed(t, r, poll(in(0, "2", 100)), poll(in(60, "3", 1e9)), poll(in(120, "3", 1e9+600)))
	want(t, out, "if_in_octets_rate", 10)
}

func TestChangedKindIsANewSeries(t *testing.T) {
	r := newRates(t, counter.Config{})
	out := feed(t, r, poll(c32(0, 100)), poll(c64(60, 1<<40)), poll(c64(120, 1<<40+60)))
	want(t, out, "c_rate", 1)
	balanced(t, r)
}

func TestHostsAreApart(t *testing.T) {
	c := func(host string, s float64, v uint64) kemi.Metric {
		return kemi.Counter("c", kemi.LabelsOf("host", host), at(s), v)
	}
	up := func(host string, s, v float64) kemi.Metric {
		return kemi.Gauge("agent_uptime_seconds", kemi.LabelsOf("host", host), at(s), v)
	}
	r := newRates(t, counter.Config{})
	out := feed(t, r,
		poll(c("a", 0, 0), up("a", 0, 500), c("b", 0, 1000), up("b", 0, 9000)),
		poll(c("a", 60, 6), up("a", 60, 1), c("b", 60, 1060), up("b", 60, 9060)))
	want(t, out, "c_rate", 1)
	want(t, out, counter.RestartedMetric, 1)
}

func TestConfigIsChecked(t *testing.T) {
	for text, c := range map[string]counter.Config{
		"negative":           {Interval: -1},
		"shorter than":       {Interval: time.Hour, MaxGap: time.Minute},
		"limit of x: -1":     {Limits: map[string]counter.Limit{"x": {Max: -1}}},
		"limit of x: NaN":    {Limits: map[string]counter.Limit{"x": {Max: math.NaN()}}},
		"limit of x: Of and": {Limits: map[string]counter.Limit{"x": {Of: "y"}}},
	} {
		if _, err := counter.New(c); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: error %v, want one with %q", c, err, text)
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	r := newRates(t, counter.Config{})
	batch := hostPoll("web1", 0)
	dst := make([]kemi.Metric, 0, 2*len(batch))
	allocs := testing.AllocsPerRun(100, func() {
		advance(batch, time.Minute)
		dst, _ = r.Apply(context.Background(), dst[:0], batch)
	})
	if allocs > 0 {
		t.Errorf("%v allocations per poll of %d metrics", allocs, len(batch))
	}
	if s := balanced(t, r); s.Rates < 100*40 {
		t.Errorf("the poll makes too few rates to be a test: %+v", s)
	}
}
