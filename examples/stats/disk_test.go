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
	"github.com/kemi-go/kemi/internal/agent"
)

// A restart in the middle: nothing is lost, the rates go on as if there had been none,
// and an alert that fires keeps firing without being told again.
func TestDiskRestart(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := "-bus=disk:" + t.TempDir()
	p := o.start(dir)
	o.until(p, 20*time.Second, "firing", func() bool { return len(o.people()) > 0 && len(o.loads()) > 3 })
	o.settled(p, 0)
	if last := o.end(p); !strings.Contains(last, "for the next start") {
		t.Errorf("it ended with %q", last)
	}
	before := len(o.loads())
	p = o.start(dir)
	o.until(p, 20*time.Second, "going on", func() bool { return len(o.loads()) > before+3 })
	o.recovers(p)
	o.end(p)
	if !p.says(`calculator .* the same [1-9]`)() || !p.says(`alert .* the same [1-9]`)() || p.says("MISMATCHES")() {
		t.Errorf("no replay, or a wrong one:\n%s", p.said())
	}
}

// recovers makes the alert end, and the host silent, and checks what there is.
func (o *outside) recovers(p *program) {
	o.Helper()
	o.values.Set(map[string]agent.Value{users: agent.Gauge32(1)})
	o.until(p, 20*time.Second, "resolved", func() bool { return strings.HasPrefix(o.people()[len(o.people())-1], "resolved") })
	o.silence()
	o.settled(p, 0)
	o.rightly(p, 0)
	o.toldOnce()
}

// kill -9 at any moment: the poll under way is lost, and nothing else. What the alert
// was about ends while nothing runs, and people hear of that too.
func TestDiskKill(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	dir := t.TempDir()
	const kills = 2
	for range kills {
		before := len(o.loads())
		p := o.startProcess("-bus=disk:" + dir)
		o.until(p, 20*time.Second, "going on", func() bool { return len(o.loads()) > before+2 && len(o.people()) > 0 })
		time.Sleep(rand.N(time.Second)) // anywhere between two polls
		p.kill()
		<-p.ended
	}
	o.values.Set(map[string]agent.Value{users: agent.Gauge32(1)})
	p := o.startProcess("-bus=disk:" + dir)
	o.until(p, 20*time.Second, "resolved", func() bool { return strings.HasPrefix(o.people()[len(o.people())-1], "resolved") })
	o.silence()
	o.settled(p, kills)
	o.rightly(p, kills)
	o.toldOnce()
	o.end(p)
	if p.says("MISMATCHES")() {
		t.Errorf("a wrong replay:\n%s", p.said())
	}
	if n := alertsOn(t, dir); n != 2 {
		t.Errorf("%d alerts are on the topic, want one that fires and one that is resolved", n)
	}
}

// alertsOn is how many alerts there are on the topic in a directory.
func alertsOn(t *testing.T, dir string) int {
	t.Helper()
	on, err := openDisk(dir, 0, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer on.close()
	var n atomic.Int64 // lanes write side by side
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	count := kemi.SinkFunc[kemi.Alert](func(_ context.Context, batch []kemi.Alert) error {
		n.Add(int64(len(batch)))
		return nil
	})
	probe := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("probe", on.alerts.Group("probe"), kemi.Sink[kemi.Alert](count))}}
	if err := probe.Run(ctx); err != nil {
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
	o.until(p, 20*time.Second, "five polls", p.says(`poller +[5-9] records`))
	o.silence()
	o.end(p)
	p = o.start(dir, "-role=producer")
	o.until(p, 20*time.Second, "three jobs", p.says(`producer +[3-9] records`))
	o.end(p)
	time.Sleep(time.Second) // until the newest job is too old
	p = o.start(dir, "-role=poller,handler,forwarder,calculator,alert")
	o.until(p, 20*time.Second, "the rest", func() bool { return len(o.loads())+o.late() >= o.polls() && len(o.people()) > 0 })
	o.until(p, 5*time.Second, "old jobs dropped", p.says(`too old and dropped [3-9]`))
	o.end(p)
	o.rightly(p, 0)
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
	o.until(p, 20*time.Second, "a start", p.says("over disk"))
	second := o.start(dir)
	if code := <-second.ended; code != 1 || !second.says("in use by another process")() {
		t.Errorf("exit %d, %s", code, second.said())
	}
	o.end(p)
}
