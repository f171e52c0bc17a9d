package promql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

const aliveAndWell = `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
  - {alert: Gone, expr: absent(cpu)}
  - {alert: LongGone, expr: absent(cpu), for: 10m}
`

// skewed is as run, with ticks that are off by what a clock of theirs is wrong.
func (b *bench) skewed(d, off time.Duration, source func(t time.Time) []kemi.Metric) {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(time.Second)
		if source != nil {
			b.feed(source(b.now)...)
		}
		out, err := b.rules.Tick(context.Background(), nil, b.now.Add(off))
		if err != nil {
			b.t.Fatal(err)
		}
		b.told = append(b.told, out...)
	}
}

// polls gives cpu of web1 every step, three seconds after the full one.
func polls(step time.Duration, value func(string, time.Duration) float64) func(time.Time) []kemi.Metric {
	late := 3 * time.Second
	return func(t time.Time) []kemi.Metric {
		if t.Sub(epoch)%step != late {
			return nil
		}
		return []kemi.Metric{gauge("cpu", value("", t.Sub(epoch)), "host", "web1")}
	}
}

func TestASleepIsNotSilence(t *testing.T) {
	for _, step := range []time.Duration{10 * time.Second, time.Minute} {
		for _, first := range []bool{false, true} { // a poll comes before the first tick
			b := newBench(t, aliveAndWell, func(c *Config) { c.Delay = 0 })
			source := polls(step, between(0, 0))
			b.run(2*time.Minute, source)
			b.now = b.now.Add(time.Hour)
			if first {
				b.feed(gauge("cpu", 1, "host", "web1"))
			}
			b.run(20*time.Minute, source)
			b.want()
			if s := b.rules.Status(); s.Gaps != 1 || s.Skipped < 100 {
				t.Fatalf("%d gaps, %d skipped", s.Gaps, s.Skipped)
			}
		}
	}
}

func TestSilenceAfterASleepIsNoticed(t *testing.T) {
	b := newBench(t, aliveAndWell)
	b.run(2*time.Minute, polls(10*time.Second, between(0, 0)))
	b.now = b.now.Add(time.Hour)
	awake := b.now
	b.run(20*time.Minute, nil)
	if len(b.told) != 2 || b.told[0].Time.Before(awake) || b.told[1].Time.Before(awake.Add(10*time.Minute)) {
		t.Fatalf("told %+v", b.told)
	}
	if late := b.told[1].Time; late.After(awake.Add(16 * time.Minute)) {
		t.Fatalf("told as of %v", late)
	}
}

func TestABacklogOfASleepIsEvaluated(t *testing.T) {
	b := newBench(t, aliveAndWell)
	source := polls(10*time.Second, between(30*time.Minute, 40*time.Minute))
	b.run(10*time.Minute, source)
	// Other machines went on, and what they said is read afterwards, a few minutes of it
	// between two ticks.
	behind := b.now
	b.now = b.now.Add(time.Hour)
	b.tick()
	for behind.Before(b.now) {
		for range 300 {
			behind = behind.Add(time.Second)
			ms := source(behind)
			for i := range ms {
				ms[i].Time = behind
			}
			b.feed(ms...)
		}
		b.now = b.now.Add(time.Second)
		b.tick()
	}
	b.want("1805 Hot firing web1", "2405 Hot resolved web1")
}

// TestHalfABacklogOfASleep has the backlog stop for a minute in the middle of the gap.
func TestHalfABacklogOfASleep(t *testing.T) {
	b := newBench(t, aliveAndWell)
	source := polls(10*time.Second, between(70*time.Minute+30*time.Second, 72*time.Minute))
	b.run(9*time.Minute, source)
	behind := b.now
	b.now = epoch.Add(69 * time.Minute)
	b.tick()
	for range 1200 {
		behind = behind.Add(time.Second)
		ms := source(behind)
		for i := range ms {
			ms[i].Time = behind
		}
		b.feed(ms...)
	}
	b.run(time.Minute, nil)
	b.want()
	b.run(10*time.Minute, source)
	b.want("4235 Hot firing web1", "4325 Hot resolved web1")
}

func TestSlowTicksAreNotAGap(t *testing.T) {
	b := newBench(t, aliveAndWell, func(c *Config) { c.Lookback = time.Minute })
	for i := range 40 {
		b.now = b.now.Add(30 * time.Second)
		if i < 10 {
			b.feed(gauge("cpu", 1, "host", "web1"))
		}
		b.tick()
	}
	b.want("360 Gone firing", "960 LongGone firing")
}

func TestAClockThatJumpsAndComesBack(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		for _, polled := range []bool{false, true} { // the metrics have the same clock
			b := newBench(t, aliveAndWell)
			b.run(98*time.Second, polls(10*time.Second, between(0, 0)))
			source := polls(10*time.Second, between(0, 0))
			if polled {
				right := source
				source = func(t time.Time) []kemi.Metric {
					ms := right(t)
					for i := range ms {
						ms[i].Time = t.Add(time.Hour)
					}
					return ms
				}
			}
			b.skewed(jump, time.Hour, source)
			wrong := b.now
			b.run(2*time.Hour, polls(10*time.Second, between(wrong.Sub(epoch)+5*time.Minute, wrong.Sub(epoch)+10*time.Minute)))
			if len(b.told) != 2 {
				t.Fatalf("jump of %v, metrics too %v: told %+v", jump, polled, b.told)
			}
			for i, after := range []time.Duration{5 * time.Minute, 10 * time.Minute} {
				if d := b.told[i].Time.Sub(wrong.Add(after)); d < 0 || d > 15*time.Second {
					t.Errorf("jump of %v, metrics too %v: told %v after it was so", jump, polled, d)
				}
			}
			if s := b.rules.Status().Store; s.Late > 0 {
				t.Errorf("jump of %v, metrics too %v: %d late", jump, polled, s.Late)
			}
		}
	}
}

func TestWhatCameAtAWrongTimeIsForgotten(t *testing.T) {
	b := newBench(t, aliveAndWell)
	b.run(98*time.Second, polls(10*time.Second, between(0, 0)))
	wrong := time.Hour + 2*time.Second
	b.skewed(time.Minute, wrong, func(t time.Time) []kemi.Metric {
		m := gauge("cpu", 100, "host", "web1")
		m.Time = t.Add(wrong)
		return []kemi.Metric{m}
	})
	b.run(2*time.Hour, polls(10*time.Second, between(0, 0)))
	if len(b.told) != 2 || b.told[1].State != kemi.StateResolved || b.told[1].Time.After(epoch.Add(3*time.Minute)) {
		t.Fatalf("told %+v", b.told)
	}
}

// TestAnAlertOfAWrongClockEnds holds that what fired at a time that never came is
// resolved, and neither before it began nor in an hour.
func TestAnAlertOfAWrongClockEnds(t *testing.T) {
	b := newBench(t, aliveAndWell)
	source := polls(10*time.Second, between(0, 0))
	b.run(98*time.Second, source)
	b.skewed(10*time.Minute, time.Hour, nil)
	b.run(10*time.Minute, source)
	if len(b.told) != 2 {
		t.Fatalf("told %+v", b.told)
	}
	a, z := b.told[0], b.told[1]
	if z.State != kemi.StateResolved || !z.StartsAt.Equal(a.StartsAt) || z.EndsAt.Before(z.StartsAt) || z.Time.After(b.now) {
		t.Fatalf("fired %+v\nresolved %+v", a, z)
	}
}

func TestAClockSetBackALittleDoesNotTurnTimeBack(t *testing.T) {
	b := newBench(t, aliveAndWell, func(c *Config) { c.MaxAhead = 10 * time.Second })
	mad := func(v float64) {
		m := gauge("cpu", v, "host", "mad")
		m.Time = b.now.Add(time.Hour)
		b.feed(m)
	}
	b.run(57*time.Second, polls(10*time.Second, between(0, 0)))
	b.now = b.now.Add(time.Second)
	mad(100)
	b.tick()
	b.now = b.now.Add(time.Second)
	mad(0) // the newer value, at a tick that is before the last one
	b.now = b.now.Add(-4 * time.Second)
	b.tick()
	b.run(20*time.Second, polls(10*time.Second, between(0, 0)))
	b.want()
	if s := b.rules.Status(); s.Gaps != 0 {
		t.Fatalf("%d gaps", s.Gaps)
	}
}

func TestAHostThatIsAheadDoesNotMoveTime(t *testing.T) {
	b := newBench(t, aliveAndWell)
	web1 := polls(10*time.Second, between(0, 0))
	b.run(time.Minute, func(t time.Time) []kemi.Metric {
		ahead := gauge("cpu", 0, "host", "web2")
		ahead.Time = t.Add(50 * time.Second) // within MaxAhead
		return append(web1(t), ahead)
	})
	if s := b.rules.Status(); s.Store.Ahead != 0 || s.Evaluated.After(b.now) {
		t.Fatalf("evaluated up to %v at %v, %d ahead", s.Evaluated, b.now, s.Store.Ahead)
	}
}

func TestFinishDoesNotBelieveTheFuture(t *testing.T) {
	for _, ticked := range []bool{true, false} {
		b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Gone, expr: 'absent(cpu{host="web1"})'}
  - {alert: Hot, expr: cpu > 90}
`)
		source := every(5*time.Second, "cpu", between(40*time.Second, time.Hour), "web1")
		if ticked {
			b.run(30*time.Second, source)
		}
		for b.now.Before(epoch.Add(time.Minute)) {
			b.now = b.now.Add(5 * time.Second)
			b.feed(source(b.now)...)
		}
		m := gauge("cpu", 1, "host", "mad")
		m.Time = b.now.AddDate(50, 0, 0)
		b.feed(m)
		out, err := b.rules.Finish(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		b.told = append(b.told, out...)
		b.want("40 Hot firing web1")
		if s := b.rules.Status(); s.Evaluated.After(b.now) || s.Store.Ahead != 1 {
			t.Fatalf("ticked %v: evaluated up to %v, %d ahead", ticked, s.Evaluated, s.Store.Ahead)
		}
	}
}

// TestReplayIsLiveWithAnyClock is TestReplayIsLive with ticks that fail to come and
// clocks that jump.
func TestReplayIsLiveWithAnyClock(t *testing.T) {
	for seed := range rounds(6) {
		dice := rand.New(rand.NewPCG(seed, 4))
		steps := anyInput(dice)
		for range 4 {
			from := dice.IntN(len(steps) - 60)
			off := time.Duration(dice.IntN(3600)-1200) * time.Second
			how := dice.IntN(3)
			for i := from; i < from+10+dice.IntN(50); i++ {
				s := &steps[i]
				switch {
				case how == 0:
					s.metrics, s.tick = nil, time.Time{} // it sleeps
				case how == 1:
					s.tick = time.Time{}
				case !s.tick.IsZero():
					s.tick = s.tick.Add(off)
				}
			}
		}
		live := judgeAll(t, steps, nil)
		for s := range uint64(3) {
			sameAlerts(t, fmt.Sprintf("seed %d, shuffled by %d", seed, s), judgeAll(t, steps, rand.New(rand.NewPCG(seed, s))), live)
		}
	}
}

// TestWhatCameAfterTheLastTickTellsNothingOfASleep: between a tick and the next metrics
// come; when the next fails to come they are still of the time before the sleep. What
// comes after it, before the next tick, must not make all between look silent.
func TestWhatCameAfterTheLastTickTellsNothingOfASleep(t *testing.T) {
	for _, sleep := range []time.Duration{20 * time.Second, 10 * time.Minute, time.Hour} {
		for _, restart := range []bool{false, true} {
			b := newBench(t, aliveAndWell, func(c *Config) { c.Lookback = 15 * time.Second })
			kept := map[string][]byte{}
			awake := func(d time.Duration) {
				for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(time.Second) {
					b.tick()
					m := gauge("cpu", 95, "host", "web1")
					m.Time = b.now.Add(400 * time.Millisecond)
					b.feed(m)
				}
			}
			awake(2 * time.Minute)
			b.keep(kept)
			b.want("5 Hot firing web1")
			if restart {
				b.now = b.now.Add(-time.Second) // the last tick
				b.restart(kept, time.Minute, every(time.Second, "cpu", between(0, time.Hour), "web1"), "")
				m := gauge("cpu", 95, "host", "web1")
				m.Time = b.now.Add(400 * time.Millisecond)
				b.feed(m)
				b.now = b.now.Add(time.Second)
			}
			b.now = b.now.Add(sleep)
			awake(2 * time.Minute)
			b.want()
		}
	}
}
