package promql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// rounds is how many seeds are tried. With the race detector all is ten times as slow,
// and it finds little where one goroutine works.
func rounds(n uint64) uint64 {
	if conform.RaceDetector {
		return (n + 3) / 4
	}
	return n
}

const manyRules = `
groups:
- name: records
  interval: 5s
  rules:
  - {record: 'service:cpu:avg', expr: 'avg by (service) (cpu)'}
- name: hosts
  interval: 10s
  limit: 20
  rules:
  - {alert: Hot, expr: 'cpu > 80', for: 20s, annotations: {what: '{{ $labels.host }} at {{ $value | humanize }}'}}
  - {alert: Lost, expr: 'cpu offset 1m unless cpu', keep_firing_for: 10s}
  - {alert: Traffic, expr: 'rate(octets[1m]) > 80'}
- name: services
  interval: 15s
  query_offset: 5s
  rules:
  - {alert: Busy, expr: 'service:cpu:avg > 55', for: 15s, keep_firing_for: 30s}
  - {alert: Spread, expr: 'stddev by (service) (cpu) > 30'}
  - {alert: Storm, expr: 'count(ALERTS{alertname="Hot"}) > 2'}
`

// record is one step of an input: metrics, and then a tick, if there is one.
type step struct {
	metrics []kemi.Metric
	tick    time.Time
}

// anyInput makes up an input: hosts that wander, pause and come late, one whose
// clock is wrong, and ticks that are now and then held up.
func anyInput(dice *rand.Rand) []step { return inputOf(dice, 400) }

// inputOf is anyInput for so many seconds.
func inputOf(dice *rand.Rand, seconds int) []step {
	type host struct {
		labels kemi.Labels
		cpu    float64
		octets uint64
		silent int
		skew   time.Duration
	}
	var hosts []*host
	for i := range 12 {
		hosts = append(hosts, &host{
			labels: kemi.LabelsOf("host", fmt.Sprintf("web%02d", i), "service", fmt.Sprintf("s%d", i%3)),
			cpu:    dice.Float64() * 100,
		})
	}
	hosts[3].skew = 10 * time.Minute
	hosts[4].skew = -30 * time.Second
	hosts[5].skew = 19 * time.Second
	var steps []step
	held := 0
	for sec := range seconds {
		now := epoch.Add(time.Duration(sec) * time.Second)
		var s step
		for i, h := range hosts {
			if (sec+i)%5 != 0 {
				continue
			}
			if h.silent > 0 {
				h.silent--
				continue
			}
			if dice.IntN(40) == 0 {
				h.silent = dice.IntN(20)
			}
			h.cpu = min(100, max(0, h.cpu+dice.NormFloat64()*25))
			h.octets += uint64(dice.IntN(800))
			if dice.IntN(60) == 0 {
				h.octets = 0
			}
			t := now.Add(h.skew - time.Duration(dice.IntN(1500))*time.Millisecond)
			s.metrics = append(s.metrics, kemi.Gauge("cpu", h.labels, t, h.cpu), kemi.Counter("octets", h.labels, t, h.octets),
				kemi.Gauge("unselected", h.labels, t, 1))
		}
		if held > 0 {
			held--
		} else {
			s.tick = now.Add(300 * time.Millisecond)
			if dice.IntN(50) == 0 {
				held = dice.IntN(15)
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// judge runs an input through fresh rules. shuffle, if there is one, brings the
// batches between two ticks into another order and cuts them differently.
func judgeAll(t testing.TB, steps []step, shuffle *rand.Rand) []kemi.Alert {
	t.Helper()
	r, err := New(Config{
		Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(manyRules)}},
		Lookback: 30 * time.Second, MaxAhead: 20 * time.Second, Delay: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	var told []kemi.Alert
	var pending []kemi.Metric
	ctx := context.Background()
	for _, s := range steps {
		pending = append(pending, s.metrics...)
		if s.tick.IsZero() {
			continue
		}
		if shuffle != nil {
			shuffle.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
		}
		for len(pending) > 0 {
			n := len(pending)
			if shuffle != nil {
				n = 1 + shuffle.IntN(n)
			}
			if _, err := r.Apply(ctx, nil, pending[:n]); err != nil {
				t.Fatal(err)
			}
			pending = pending[n:]
		}
		if told, err = r.Tick(ctx, told, s.tick); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range r.Status().Groups {
		for _, x := range g.Rules {
			if x.Failures > 0 {
				t.Fatalf("rule %s: %d failures", x.Name, x.Failures)
			}
		}
	}
	return told
}

func sameAlerts(t *testing.T, what string, got, want []kemi.Alert) {
	t.Helper()
	same := func(a, b kemi.Alert) bool { // Evidence makes alerts incomparable
		return a.Rule == b.Rule && a.Labels == b.Labels && a.Annotations == b.Annotations && a.State == b.State && a.Time.Equal(b.Time) &&
			a.StartsAt.Equal(b.StartsAt) && a.EndsAt.Equal(b.EndsAt) && a.Value == b.Value && a.Fingerprint == b.Fingerprint
	}
	for i := range min(len(got), len(want)) {
		if !same(got[i], want[i]) {
			t.Fatalf("%s: alert %d is\n%+v\nwant\n%+v", what, i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d alerts, want %d", what, len(got), len(want))
	}
}

// TestReplayIsLive holds that the same metrics and ticks give the same alerts, and
// that the order of what comes between two ticks does not matter.
func TestReplayIsLive(t *testing.T) {
	rules := map[string]int{}
	for seed := range rounds(6) {
		steps := anyInput(rand.New(rand.NewPCG(seed, 1)))
		live := judgeAll(t, steps, nil)
		sameAlerts(t, fmt.Sprintf("seed %d, a replay", seed), judgeAll(t, steps, nil), live)
		for s := range uint64(3) {
			sameAlerts(t, fmt.Sprintf("seed %d, shuffled by %d", seed, s), judgeAll(t, steps, rand.New(rand.NewPCG(seed, s))), live)
		}
		for _, a := range live {
			rules[a.Rule]++
		}
	}
	for _, name := range []string{"Hot", "Lost", "Traffic", "Busy", "Spread", "Storm"} {
		if rules[name] < 2 && !conform.RaceDetector {
			t.Errorf("rule %s told %d alerts: the input does not try it", name, rules[name])
		}
	}
}

// TestAlertsTakeTurns holds that an alert fires and is resolved by turns, whatever
// comes in, and that its changes are in order of time.
func TestAlertsTakeTurns(t *testing.T) {
	for seed := range rounds(8) {
		firing := map[kemi.Labels]kemi.Alert{}
		var last time.Time
		for _, a := range judgeAll(t, anyInput(rand.New(rand.NewPCG(seed, 2))), nil) {
			before, on := firing[a.Labels]
			switch {
			case a.Time.Before(last):
				t.Fatalf("seed %d: %v comes after an alert of %v", seed, a, last)
			case a.State == kemi.StateFiring && on, a.State == kemi.StateResolved && !on, a.State == kemi.StatePending:
				t.Fatalf("seed %d: out of turn: %+v", seed, a)
			case a.State == kemi.StateFiring:
				firing[a.Labels] = a
			case !a.StartsAt.Equal(before.StartsAt) || a.EndsAt.Before(a.StartsAt):
				t.Fatalf("seed %d: resolved %+v\nfired %+v", seed, a, before)
			default:
				delete(firing, a.Labels)
			}
			last = a.Time
		}
	}
}

// TestHorizonIsEnough holds that rules which are fed the last Horizon of the input,
// told or not, go on as those which have seen it all, for alerts that began in it.
func TestHorizonIsEnough(t *testing.T) {
	for seed := range rounds(4) {
		steps := anyInput(rand.New(rand.NewPCG(seed, 3)))
		all := judgeAll(t, steps, nil)
		r, _ := New(Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(manyRules)}}, Lookback: 30 * time.Second})
		cut := epoch.Add(120 * time.Second)
		from := cut.Add(r.Horizon())
		part := judgeAll(t, steps[120:], nil) // a step is a second
		after := func(as []kemi.Alert) (kept []kemi.Alert) {
			for _, a := range as {
				if a.Rule != "Storm" && a.Time.After(from) && a.StartsAt.After(from) {
					kept = append(kept, a)
				}
			}
			return kept
		}
		if len(after(all)) == 0 {
			t.Fatalf("seed %d: nothing to compare after %v", seed, from)
		}
		sameAlerts(t, fmt.Sprintf("seed %d, warmed up", seed), after(part), after(all))
	}
}
