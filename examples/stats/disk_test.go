package main

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/agent"
)

// A restart in the middle: nothing is lost, the rates go on as if there had been none,
// and an alert that fires keeps firing without being told again.
func TestDiskRestart(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := "-bus=disk:" + t.TempDir()
	p := o.start(dir)
	o.until(p, "firing", func() bool { return len(o.people()) > 0 && len(o.loads()) > 3 })
	o.settled(p)
	if last := o.end(p); !strings.Contains(last, "for the next start") {
		t.Errorf("it ended with %q", last)
	}
	o.broken()
	before := len(o.loads())
	p = o.start(dir)
	o.until(p, "going on", func() bool { return len(o.loads()) > before+3 })
	o.recovers(p)
	o.until(p, "replays", func() bool {
		return p.says(`calculator .* the same [1-9]`)() && p.says(`alert .* the same [1-9]`)()
	})
	o.end(p)
	if p.says("MISMATCHES")() {
		t.Errorf("a wrong replay:\n%s", p.said())
	}
}

// recovers makes the alert end, and the host silent, and checks what there is.
func (o *outside) recovers(p *program) {
	o.Helper()
	o.values.Set(map[string]agent.Value{users: agent.Gauge32(1)})
	o.until(p, "resolved", func() bool { return strings.HasPrefix(o.people()[len(o.people())-1], "resolved") })
	o.silence()
	o.settled(p)
	o.rightly(p)
	o.toldOnce()
}

// kill -9 at any moment: the poll under way is lost, and nothing else. What the alert
// was about ends while nothing runs, and people hear of that too.
func TestDiskKill(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := t.TempDir()
	for range 2 {
		before := len(o.loads())
		p := o.startProcess("-bus=disk:" + dir)
		o.until(p, "going on", func() bool { return len(o.loads()) > before+2 && len(o.people()) > 0 })
		o.settled(p)
		time.Sleep(rand.N(time.Second)) // anywhere between two polls
		p.kill()
		<-p.ended
		o.broken()
	}
	o.values.Set(map[string]agent.Value{users: agent.Gauge32(1)})
	p := o.startProcess("-bus=disk:" + dir)
	o.until(p, "resolved", func() bool { return strings.HasPrefix(o.people()[len(o.people())-1], "resolved") })
	o.silence()
	o.settled(p)
	o.rightly(p)
	o.toldOnce()
	o.end(p)
	if p.says("MISMATCHES")() {
		t.Errorf("a wrong replay:\n%s", p.said())
	}
	if n := countOn(t, dir, func(on *topics) bus.Topic[kemi.Alert] { return on.alerts }); n != 2 {
		t.Errorf("%d alerts are on the topic, want one that fires and one that is resolved", n)
	}
}

// countOn is how many records there are on a topic in a directory.
func countOn[T any](t *testing.T, dir string, topic func(on *topics) bus.Topic[T]) int {
	t.Helper()
	on, err := openDisk(dir, 0, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer on.close()
	var n atomic.Int64 // lanes write side by side
	count := kemi.SinkFunc[T](func(_ context.Context, batch []T) error {
		n.Add(int64(len(batch)))
		return nil
	})
	probe := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("probe", topic(on).Group("probe"), kemi.Sink[T](count))}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- probe.Run(ctx) }()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if r, reads := on.readers()["probe"]; reads && r.lag == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the topic was not read: %+v", on.readers())
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return int(n.Load())
}

// Some roles today and the others later: what the first have done waits on the disk.
// Jobs do not: they are too old by then, and are dropped and counted.
func TestDiskSomeRolesLater(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := "-bus=disk:" + t.TempDir()
	p := o.start(dir, "-role=producer,poller")
	o.until(p, "five polls", func() bool { return p.count("poller") >= 5 })
	o.silence()
	// What was answered has come through when polls that began later have. The next status
	// but one is made from now on.
	said := p.statuses()
	o.until(p, "a status", func() bool { return p.statuses() >= said+2 })
	answered := p.count("poller")
	o.until(p, "polls without an answer", func() bool { return p.count("poller") >= answered+3 })
	o.end(p)
	p = o.start(dir, "-role=producer")
	o.until(p, "three jobs", func() bool { return p.count("producer") >= 3 })
	o.end(p)
	time.Sleep(time.Second) // the newest job has its deadline a second after its turn at the latest
	p = o.start(dir, "-role=poller,handler,forwarder,calculator,alert")
	o.until(p, "the rest", func() bool { return len(o.missing()) == 0 && len(o.people()) > 0 })
	o.until(p, "old jobs dropped", p.says(`too old and dropped ([3-9]|\d\d)`))
	o.end(p)
	o.rightly(p)
	if told := o.people(); len(told) != 1 || !strings.HasPrefix(told[0], "firing") {
		t.Errorf("people were told %q", told)
	}
}

// A directory is for one process at a time, and the second one says so.
func TestDiskIsForOneProcess(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := "-bus=disk:" + t.TempDir()
	p := o.startProcess(dir)
	o.until(p, "a start", p.says("over disk"))
	for _, how := range []string{"-status=1s", "-check", "-repair"} {
		second := o.start(dir, how)
		if code := <-second.ended; code != 1 || !second.says("in use by another process")() {
			t.Errorf("%s: exit %d, %s", how, code, second.said())
		}
	}
	o.end(p)
}
