package counter_test

import (
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

const wrap497 = 42949672.96 // seconds

func TestTimeIsTheAgents(t *testing.T) {
	for _, tc := range []struct {
		name           string
		dt, up1, up2   float64
		delta          uint64
		rate           float64
		restart, drops uint64
	}{
		{"the answer was late by 3 s", 60, 1000, 1063, 630, 10, 0, 0},
		{"10 % are sane", 60, 1000, 1066, 660, 10, 0, 0},
		{"above 10 %, Times count", 60, 1000, 1066.1, 600, 10, 0, 0},
		{"below 10 %, Times count", 60, 1000, 1053, 600, 10, 0, 0},
		{"an uptime that stands still", 60, 0, 0, 600, 10, 0, 0},
		{"went down", 60, 1000, 12, 600, 0, 1, 1},
		{"went down by little", 60, 1000, 999, 600, 0, 1, 1},
		{"two restarts close together", 60, 10, 35, 600, 0, 1, 1},
		{"wrap after 497 days", 60, wrap497 - 20, 40, 600, 10, 0, 0},
		{"wrap, but the answer was late", 60, wrap497 - 20, 43, 630, 10, 0, 0},
		{"wrap, very late: Times count", 60, wrap497 - 20, 60, 600, 10, 0, 0},
		{"wrap, not in reach", 60, wrap497 - 200, 40, 600, 0, 1, 1},
		{"restart at 496 days", 60, wrap497 - 86400, 30, 600, 0, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRates(t, counter.Config{})
			// The uptime comes last: order within a poll does not count.
			out := feed(t, r, poll(c64(0, 5), uptime(0, tc.up1)), poll(c64(tc.dt, 5+tc.delta), uptime(tc.dt, tc.up2)))
			if tc.drops == 0 {
				if got := numbers(out, "c_rate"); len(got) != 1 || got[0] < tc.rate*(1-1e-7) || got[0] > tc.rate*(1+1e-7) {
					t.Errorf("rate %v, want %v", got, tc.rate)
				}
			} else {
				want(t, out, "c_rate")
			}
			s := balanced(t, r)
			if s.Restarts != tc.restart || s.Restarted != tc.drops || uint64(len(numbers(out, counter.RestartedMetric))) != tc.restart {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRestartDropsEveryCounterOfTheHostOnce(t *testing.T) {
	r := newRates(t, counter.Config{})
	a := func(s float64, v uint64) kemi.Metric { return kemi.Counter("a", web1, at(s), v) }
	b := func(s float64, v uint32) kemi.Metric { return kemi.Counter32("b", web1, at(s), v) }
	restart := poll(a(120, 700), b(120, 3), uptime(120, 30)) // a has already grown past its old value
	out := feed(t, r,
		poll(a(0, 0), b(0, 1<<32-100), uptime(0, 1000)),
		poll(a(60, 600), b(60, 1<<32-40), uptime(60, 1060)),
		restart, restart,
		poll(a(180, 1300), b(180, 63), uptime(180, 90)))
	want(t, out, "a_rate", 10, 10)
	want(t, out, "b_rate", 1, 1)
	want(t, out, counter.RestartedMetric, 1)
	if s := balanced(t, r); s.Restarts != 1 || s.Restarted != 2 || s.Repeated != 2 {
		t.Errorf("%+v", s)
	}
	if out[len(out)-1].Name != "agent_uptime_seconds" || out[len(out)-1].Time != at(180) {
		t.Errorf("last: %v", out[len(out)-1])
	}
}

func TestRestartIsRememberedForACounterThatWasAway(t *testing.T) {
	r := newRates(t, counter.Config{})
	out := feed(t, r,
		poll(c64(0, 100), uptime(0, 1000)),
		poll(uptime(60, 30)),
		poll(c64(120, 400), uptime(120, 90)),
		poll(c64(180, 460), uptime(180, 150)))
	want(t, out, "c_rate", 1)
	if s := balanced(t, r); s.Restarted != 1 || s.Restarts != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPollWithoutUptimeGoesByTimes(t *testing.T) {
	r := newRates(t, counter.Config{})
	out := feed(t, r, poll(uptime(0, 1000), c64(0, 0)), poll(c64(60, 600)), poll(uptime(120, 1123), c64(120, 1200)))
	want(t, out, "c_rate", 10, 10)
}

func TestAnotherUptimeMayBeNamed(t *testing.T) {
	r := newRates(t, counter.Config{Uptime: "uptime_seconds"})
	up := func(s, v float64) kemi.Metric { return kemi.Gauge("uptime_seconds", web1, at(s), v) }
	out := feed(t, r, poll(up(0, 100), c64(0, 0)), poll(up(60, 5), c64(60, 600)))
	want(t, out, "c_rate")
	want(t, out, counter.RestartedMetric, 1)
}
