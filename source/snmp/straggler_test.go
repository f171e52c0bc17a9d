package snmp_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// One host of a hundred answers after three seconds. The others are through at once,
// cycle after cycle, and the slow one is measured all the same.
func TestASlowHostHoldsUpNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := newPoller(t, func(c *snmp.Config) { c.Patience, c.Deadline = 0, 5*time.Second })
	slow := newAgent(t)
	slow.set("1.3.6.1.2.1.1.3.0", ticks(1))
	slow.with(func(a *agent) { a.delay = 3 * time.Second })
	jobs := []kemi.Job{{Target: slow.addr(), Resource: "slow", Interval: time.Minute}}
	for i := range 99 {
		a := newAgent(t)
		a.set("1.3.6.1.2.1.1.3.0", ticks(1))
		jobs = append(jobs, kemi.Job{Target: a.addr(), Resource: fmt.Sprint("fast", i), Interval: time.Minute})
	}
	lane := p.Fork()
	slowUp, late := 0, 0
	for cycle := range 7 {
		start := time.Now()
		ms, err := lane.Apply(t.Context(), nil, jobs)
		if err != nil {
			t.Fatal(err)
		}
		held, through, fast := time.Since(start), time.Duration(0), 0
		for through == 0 && time.Since(start) < 3*time.Second {
			for _, m := range metrics(ms).named("up") {
				if m.Host() == "slow" {
					slowUp += int(m.Float())
				} else {
					fast += int(m.Float())
				}
			}
			if fast == 99 {
				through = time.Since(start)
				break
			}
			time.Sleep(time.Millisecond)
			if ms, err = lane.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), ms[:0], time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		// Half a second is the promise; a machine that is busy with other things is
		// forgiven twice, and never more than half of the slow host's answer.
		if through > 500*time.Millisecond {
			late++
		}
		if through == 0 || through > 1500*time.Millisecond || held > 1500*time.Millisecond || late > 2 {
			t.Errorf("cycle %d: the lane was held up for %v; %d of 99 hosts were through, after %v", cycle, held, fast, through)
		}
		t.Logf("cycle %d: Apply took %v, the 99 were through after %v", cycle, held, through)
		time.Sleep(time.Until(start.Add(time.Second)))
	}
	if slowUp == 0 {
		t.Errorf("the slow host was never measured: %+v", p.Stats())
	}
	if s := p.Stats(); s.Joined == 0 {
		t.Errorf("no job joined the poll that was running: %+v", s)
	}
}

func TestStragglersComeWithATickOrALaterApply(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) { c.Patience = 20 * time.Millisecond })
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	a.with(func(a *agent) { a.delay = 200 * time.Millisecond })
	one, other := p.Fork(), p.Fork()
	ms, err := one.Apply(t.Context(), nil, []kemi.Job{jobFor(a)})
	if err != nil || len(ms) != 0 {
		t.Fatalf("Apply gave %v, %v before the answer", ms, err)
	}
	for end := time.Now().Add(5 * time.Second); len(ms) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got, _ := other.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), nil, time.Now()); len(got) != 0 {
			t.Fatalf("the result came out of another lane")
		}
		if ms, err = one.Apply(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if metrics(ms).value(t, "up") != 1 {
		t.Errorf("the straggler did not come: %s", metrics(ms))
	}
}

// A job for a host that is being polled joins the poll; the lane that asked last gets
// the result, so that it does not go to one whose partition has moved away.
func TestAJobForAHostThatIsBeingPolled(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) { c.Patience = time.Millisecond })
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	a.with(func(a *agent) { a.delay = 150 * time.Millisecond })
	gone, now := p.Fork(), p.Fork()
	for _, lane := range []kemi.Transform[kemi.Job, kemi.Metric]{gone, now} {
		if _, err := lane.Apply(t.Context(), nil, []kemi.Job{jobFor(a)}); err != nil {
			t.Fatal(err)
		}
	}
	var got metrics
	for end := time.Now().Add(5 * time.Second); len(got) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ms, _ := gone.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), nil, time.Now()); len(ms) != 0 {
			t.Fatal("the result went to the lane that asked first")
		}
		got, _ = now.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), nil, time.Now())
	}
	if got.value(t, "up") != 1 || a.requests.Load() != 4 {
		t.Errorf("%d requests, %s", a.requests.Load(), got)
	}
}

func TestAHardStopLeavesNoTrace(t *testing.T) {
	p := newPoller(t)
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	a.with(func(a *agent) { a.delay = 100 * time.Millisecond })
	lane := p.Fork()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if ms, err := lane.Apply(ctx, nil, []kemi.Job{jobFor(a)}); err == nil || len(ms) != 0 {
		t.Fatalf("Apply gave %v, %v after its context was done", ms, err)
	}
	for p.Stats().Running > 0 {
		time.Sleep(time.Millisecond)
	}
	if ms, err := lane.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), nil, time.Now()); len(ms) != 0 || err != nil {
		t.Errorf("the job will come again, and its result came already: %s, %v", metrics(ms), err)
	}
	if ms := poll(t, lane, jobFor(a)); ms.value(t, "up") != 1 {
		t.Errorf("the job that came again: %s", ms)
	}
}

func TestCloseEndsPolls(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) { c.Patience = time.Millisecond })
	a := newAgent(t)
	a.with(func(a *agent) { a.silent = true })
	if _, err := p.Apply(t.Context(), nil, []kemi.Job{jobFor(a)}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	if ms, _ := p.Tick(t.Context(), nil, time.Now()); len(ms) != 0 {
		t.Errorf("a host that was not waited for is said to be down: %s", metrics(ms))
	}
	if _, err := p.Apply(t.Context(), nil, []kemi.Job{jobFor(a)}); err == nil {
		t.Error("Apply after Close gave no error")
	}
}

// A host whose last poll took longer than the patience is polled, and not waited for.
func TestASlowHostIsNotWaitedForAgain(t *testing.T) {
	const patience = time.Second
	p := newPoller(t, func(c *snmp.Config) {
		c.Patience, c.Retries = patience, -1
		c.Profiles = []snmp.Profile{{Name: "probe", Scalars: []snmp.Scalar{{Name: "ticks", OIDs: []string{"1.3.6.1.2.1.1.3.0"}}}}}
	})
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	a.with(func(a *agent) { a.delay = patience + 200*time.Millisecond })
	if ms := poll(t, p, jobFor(a)); ms.value(t, "up") != 1 {
		t.Fatalf("%s", ms)
	}
	start := time.Now()
	if _, err := p.Apply(t.Context(), nil, []kemi.Job{jobFor(a)}); err != nil {
		t.Fatal(err)
	}
	if held := time.Since(start); held > patience/2 {
		t.Errorf("Apply waited for %v for a host that is known to be slow", held)
	}
}
