package memory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// TestRandomSchedule runs members that come, go, are cut off and fail, beside writers
// that are held back, in an order that a seed decides, and then asks whether every
// name has seen everything in order and nothing is left behind.
func TestRandomSchedule(t *testing.T) {
	n := 300
	if testing.Short() {
		n = 30
	}
	for range n {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) { schedule(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// reader checks what one name is given. Its members share it.
type reader struct {
	t    *testing.T
	name string
	src  kemi.Source[kemi.Log]

	peace chan struct{} // closed: no more faults

	mu   sync.Mutex
	next map[string]int
	rnd  *rand.Rand
}

// Write fails now and then, before or after it has taken the batch, and sometimes
// takes until it is cut off.
func (r *reader) Write(ctx context.Context, batch []kemi.Log) error {
	r.mu.Lock()
	fault := r.rnd.IntN(30)
	nap := time.Duration(r.rnd.IntN(20)) * time.Millisecond
	r.mu.Unlock()
	select {
	case <-r.peace:
		fault, nap = -1, 0
	default:
	}
	time.Sleep(nap)
	switch fault {
	case 0:
		return errors.New("refused")
	case 1:
		select {
		case <-ctx.Done(): // of the hand-over or the hard stop
		case <-r.peace:
		}
		return errors.New("cut off")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range batch {
		var n int
		if _, err := fmt.Sscan(l.Message, &n); err != nil {
			r.t.Error(err)
		}
		switch next := r.next[l.Host]; {
		case n == next:
			r.next[l.Host]++
		case n > next:
			r.t.Errorf("%s: record %d of %s came when %d was next", r.name, n, l.Host, next)
		}
	}
	if fault == 2 {
		return errors.New("written, and the answer was lost")
	}
	return nil
}

func schedule(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := memory.Config[kemi.Log]{Partitions: 1 + rnd.IntN(6), Capacity: 1 + rnd.IntN(100)}
	if rnd.IntN(2) == 0 {
		c.Retain = time.Duration(1+rnd.IntN(100)) * time.Millisecond
	}
	topic := lines(t, c)
	peace := make(chan struct{})
	rs := make([]*reader, 1+rnd.IntN(3))
	for i := range rs {
		rs[i] = &reader{t: t, peace: peace, name: fmt.Sprint("group ", i), next: map[string]int{}, rnd: rand.New(rand.NewPCG(seed, uint64(i+1)))}
		rs[i].src = topic.Group(rs[i].name)
	}
	// An All is read by one Run at a time here: two of them share a position but not
	// what they have seen.
	everything := &reader{t: t, peace: peace, name: "all", next: map[string]int{}, rnd: rand.New(rand.NewPCG(seed, 99)), src: topic.All("all")}

	const hosts = 7
	var wrote [hosts]int
	var writers sync.WaitGroup
	biggest := 20
	for w := range 2 {
		rnd := rand.New(rand.NewPCG(seed, uint64(100+w)))
		writers.Go(func() {
			for range 40 {
				batch := make([]kemi.Log, 1+rnd.IntN(biggest))
				for i := range batch {
					h := w + 2*rnd.IntN((hosts+1-w)/2)
					batch[i] = line(fmt.Sprint("web", h), wrote[h])
					wrote[h]++
				}
				for { // with and without a deadline; what is refused is written again
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if rnd.IntN(2) == 0 {
						ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(10))*time.Millisecond)
					}
					err := topic.Write(ctx, batch)
					cancel()
					if err == nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Duration(rnd.IntN(10)) * time.Millisecond)
			}
		})
	}

	type run struct {
		of   *reader
		stop func()
	}
	var runs []run
	start := func(r *reader) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		p := kemi.Pipeline{
			DrainTimeout: time.Duration(1+rnd.IntN(1000)) * time.Millisecond,
			Flows:        []*kemi.Flow{kemi.Connect("f", r.src, kemi.Sink[kemi.Log](r))},
		}
		go func() {
			defer close(ended)
			_ = p.Run(ctx) // says what a hard stop left
			for _, s := range p.Stats() {
				if err := s.Balance(); err != nil {
					t.Error(err)
				}
			}
		}()
		runs = append(runs, run{r, func() { cancel(); <-ended }})
	}
	start(everything)
	for range 30 {
		switch n := len(runs); {
		case n < 2 || n < 8 && rnd.IntN(2) == 0:
			start(rs[rnd.IntN(len(rs))])
		default:
			i := rnd.IntN(n)
			r := runs[i]
			runs = append(runs[:i], runs[i+1:]...)
			r.stop()
			if r.of == everything {
				start(everything)
			}
		}
		s := topic.Stats()
		for _, l := range s.Readers {
			if l.Waiting < 0 || l.Waiting >= c.Capacity+biggest || l.Waiting > s.Held {
				t.Errorf("%d records wait for %s of %d held, the capacity is %d and a batch %d", l.Waiting, l.Name, s.Held, c.Capacity, biggest)
			}
		}
		time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
	}

	close(peace)
	for _, r := range rs {
		start(r)
	}
	writers.Wait()
	for _, r := range runs {
		r.stop()
	}
	// The Run of the All may have been cut off while it still suffered from a fault. One
	// that begins in peace leaves nothing.
	runs = nil
	start(everything)
	runs[0].stop()
	for _, r := range append(rs, everything) {
		for h, n := range wrote {
			if got := r.next[fmt.Sprint("web", h)]; got != n {
				t.Errorf("%s has %d of %d records of web%d", r.name, got, n, h)
			}
		}
	}
	s := topic.Stats()
	if s.Dropped != 0 || s.Blocked != 0 || c.Retain == 0 && s.Held != 0 {
		t.Errorf("in the end: %+v", s)
	}
	for _, l := range s.Readers {
		if l.Waiting != 0 || l.Running != 0 {
			t.Errorf("in the end: %+v", l)
		}
	}
}
