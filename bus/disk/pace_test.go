package disk

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// writes is somebody who writes, for the simulation below.
type writes struct {
	gap    func() time.Duration // from one Write to the next
	answer bool                 // gap begins with the answer
	next   time.Time
	asleep bool
}

func every(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func about(rnd *rand.Rand, d time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(rnd.ExpFloat64() * float64(d)) }
}

// simulate has Writes synced for 20 seconds that do not pass: how many of each writer,
// with how many syncs, and how long one waited at most.
func simulate(paced bool, of []writes) (done []int, syncs int, worst time.Duration) {
	const sync = 300 * time.Microsecond
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	done = make([]int, len(of))
	for i := range of {
		of[i].next = begin.Add(of[i].gap())
	}
	var p pace
	type pending struct {
		of int
		at time.Time
	}
	var queue []pending
	for now := begin; now.Sub(begin) < 20*time.Second; {
		come := func() {
			for i := range of {
				for w := &of[i]; !w.asleep && !w.next.After(now); {
					queue = append(queue, pending{i, w.next})
					if w.asleep = w.answer; !w.answer {
						w.next = w.next.Add(w.gap())
					}
				}
			}
		}
		if come(); len(queue) == 0 {
			first := now.Add(time.Hour)
			for _, w := range of {
				if !w.asleep && w.next.Before(first) {
					first = w.next
				}
			}
			now = first
			come()
		}
		if due := p.due(); paced && due.After(now) {
			now = due
			come()
		}
		p.synced(now, len(queue))
		now = now.Add(sync)
		syncs++
		for _, q := range queue {
			done[q.of]++
			worst = max(worst, now.Sub(q.at))
			if w := &of[q.of]; w.answer {
				w.asleep, w.next = false, now.Add(w.gap())
			}
		}
		queue = queue[:0]
	}
	return done, syncs, worst
}

// Polls do not wait for each other's answers: they are not fewer when they share a sync.
func TestSmallWritesShareASync(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for name, gap := range map[string]func() time.Duration{
		"regular": every(1190 * time.Microsecond), "random": about(rnd, 1190*time.Microsecond),
	} {
		_, before, _ := simulate(false, []writes{{gap: gap}})
		done, syncs, worst := simulate(true, []writes{{gap: gap}})
		t.Logf("%s: %d Writes, %d syncs, and %d with nobody waiting; %v at most", name, done[0], syncs, before, worst)
		if syncs > before/2 || worst > paceApart+time.Millisecond {
			t.Errorf("%s: %d syncs of %d, and %v for a Write", name, syncs, before, worst)
		}
	}
}

func TestARareWriteWaitsForNobody(t *testing.T) {
	for _, gap := range []time.Duration{2 * paceApart, time.Second} {
		_, before, least := simulate(false, []writes{{gap: every(gap)}})
		_, syncs, worst := simulate(true, []writes{{gap: every(gap)}})
		if syncs != before || worst != least {
			t.Errorf("every %v: %d syncs of %d, %v for a Write", gap, syncs, before, worst)
		}
	}
}

// Who writes again when he is answered is not to be slowed down by waiting for others
// who are not there.
func TestWritersThatComeAgainAreNotSlowedDown(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	loops := func(n int, gap func() time.Duration) (of []writes) {
		for range n {
			of = append(of, writes{gap: gap, answer: true})
		}
		return of
	}
	for name, of := range map[string]func() []writes{
		"one":           func() []writes { return loops(1, every(20*time.Microsecond)) },
		"eight":         func() []writes { return loops(8, about(rnd, 50*time.Microsecond)) },
		"64 that think": func() []writes { return loops(64, about(rnd, time.Millisecond)) },
		"one, and others beside": func() []writes {
			return append(loops(1, every(20*time.Microsecond)), writes{gap: about(rnd, 5*time.Millisecond)})
		},
	} {
		sum := func(done []int) (n int) {
			for _, d := range done {
				n += d
			}
			return n
		}
		before, _, _ := simulate(false, of())
		done, _, _ := simulate(true, of())
		t.Logf("%s: %d Writes, and %d with nobody waiting", name, sum(done), sum(before))
		if sum(done) < sum(before)*9/10 {
			t.Errorf("%s: %d Writes, and %d with nobody waiting", name, sum(done), sum(before))
		}
	}
}

// What is large, and what is no Write, has the sync begin.
func TestOnlySmallWritesWait(t *testing.T) {
	small := func() *request { return &request{patient: true, entries: []entry{{body: make([]byte, 100)}}} }
	for name, last := range map[string]*request{
		"large":    {patient: true, entries: []entry{{body: make([]byte, paceBytes)}}},
		"tick":     {entries: []entry{{body: tickBody}}},
		"topic":    {write: func(*pebble.Batch) {}},
		"position": {keep: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &DB{done: make(chan struct{}), queue: queue{wake: make(chan struct{}, 1)}}
			submit := func(r *request) {
				if err := d.submit(r); err != nil {
					t.Error(err)
				}
			}
			submit(small())
			<-d.queue.wake
			submit(small()) // its token is not to end the wait
			begin, over := time.Now(), make(chan time.Duration)
			go func() {
				d.await(begin.Add(time.Hour))
				over <- time.Since(begin)
			}()
			time.Sleep(time.Minute)
			submit(small())
			time.Sleep(time.Minute)
			submit(last)
			if took := <-over; took != 2*time.Minute {
				t.Errorf("%s: waited for %v", name, took)
			}
			if group := d.queue.take(nil); len(group) != 4 || d.queue.bytes != 0 || d.queue.urgent != 0 {
				t.Errorf("%s: %d taken, %d bytes and %d that hurry left", name, len(group), d.queue.bytes, d.queue.urgent)
			}
			begin = time.Now()
			submit(small())
			d.await(begin.Add(time.Second))
			if took := time.Since(begin); took != time.Second {
				t.Errorf("%s: one that is alone has waited for %v", name, took)
			}
		})
	}
}
