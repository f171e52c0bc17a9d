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
//
// Whatever else the machine does, they are through before the slow one answers: it does
// not until they are. At once is half a second; that is held where nothing else takes the
// machine's time, and so cycles go on until five of them had it.
func TestASlowHostHoldsUpNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	p := newPoller(t, func(c *snmp.Config) {
		c.Patience, c.Profiles = 0, []snmp.Profile{snmp.Linux(), probe}
	})
	slow := newAgent(t)
	slow.set("1.3.6.1.2.1.1.3.0", ticks(1))
	slow.with(func(a *agent) { a.delay = 3 * time.Second })
	jobs := []kemi.Job{jobFor(slow)}
	jobs[0].Resource, jobs[0].Profiles = "slow", []string{probe.Name}
	for i := range 99 {
		a := newAgent(t)
		a.set("1.3.6.1.2.1.1.3.0", ticks(1))
		job := jobFor(a)
		job.Resource = fmt.Sprint("fast", i)
		jobs = append(jobs, job)
	}
	lane := p.Fork()
	inTime, slowUp := 0, 0
	for cycle := 0; inTime < 5 || slowUp == 0 || p.Stats().Joined == 0; cycle++ {
		if cycle == 100 {
			t.Fatalf("in %d cycles the 99 were through at once %d times, and the slow host was measured %d times: %+v", cycle, inTime, slowUp, p.Stats())
		}
		let := slow.hold()
		start := time.Now()
		ms, err := lane.Apply(t.Context(), nil, jobs)
		held := time.Since(start)
		for fast := 0; ; {
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range metrics(ms).named("up") {
				if m.Host() == "slow" {
					slowUp += int(m.Float())
				} else {
					fast += int(m.Float())
				}
			}
			if fast == 99 {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("cycle %d: Apply took %v, and %d of 99 hosts were through before the slow one answered: %+v", cycle, held, fast, p.Stats())
			}
			time.Sleep(time.Millisecond)
			ms, err = lane.(kemi.Ticker[kemi.Metric]).Tick(t.Context(), ms[:0], time.Now())
		}
		through := time.Since(start)
		let()
		if through <= 500*time.Millisecond {
			inTime++
		}
		t.Logf("cycle %d: Apply took %v, the 99 were through after %v", cycle, held, through)
		time.Sleep(time.Until(start.Add(time.Second)))
	}
}

// probe asks for one object.
var probe = snmp.Profile{Name: "probe", Scalars: []snmp.Scalar{{Name: "ticks", OIDs: []string{"1.3.6.1.2.1.1.3.0"}}}}

func TestStragglersComeWithATickOrALaterApply(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) { c.Patience = 20 * time.Millisecond })
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	let := a.hold()
	one, other := p.Fork(), p.Fork()
	ms, err := one.Apply(t.Context(), nil, []kemi.Job{jobFor(a)})
	if err != nil || len(ms) != 0 {
		t.Fatalf("Apply gave %v, %v before the answer", ms, err)
	}
	let()
	for end := time.Now().Add(time.Minute); len(ms) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
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
	let := a.hold()
	gone, now := p.Fork(), p.Fork()
	for _, lane := range []kemi.Transform[kemi.Job, kemi.Metric]{gone, now} {
		if _, err := lane.Apply(t.Context(), nil, []kemi.Job{jobFor(a)}); err != nil {
			t.Fatal(err)
		}
	}
	let()
	var got metrics
	for end := time.Now().Add(time.Minute); len(got) == 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
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
	let := a.hold()
	lane := p.Fork()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if ms, err := lane.Apply(ctx, nil, []kemi.Job{jobFor(a)}); err == nil || len(ms) != 0 {
		t.Fatalf("Apply gave %v, %v after its context was done", ms, err)
	}
	let()
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
	if took := time.Since(start); took > time.Minute { // the poll would take two
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
	p := newPoller(t, func(c *snmp.Config) { c.Patience, c.Profiles = patience, []snmp.Profile{probe} })
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	a.with(func(a *agent) { a.delay = patience + 200*time.Millisecond })
	for round := 0; ; round++ {
		if ms := poll(t, p, jobFor(a)); ms.value(t, "up") != 1 {
			t.Fatalf("%s", ms)
		}
		start := time.Now()
		ms, err := p.Apply(t.Context(), nil, []kemi.Job{jobFor(a)})
		if err != nil {
			t.Fatal(err)
		}
		held := time.Since(start)
		if held <= patience/2 {
			break
		}
		// A wait for the host takes the patience each time. What else the machine does may
		// hold it up as well, but not every time.
		if round == 10 {
			t.Fatalf("Apply waited for %v for a host that is known to be slow", held)
		}
		for len(ms) == 0 {
			time.Sleep(time.Millisecond)
			if ms, err = p.Tick(t.Context(), nil, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
