package bustest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
)

func recovers(b Bus) string {
	if b.Recovers {
		return ""
	}
	return "this bus does not keep the state of its readers"
}

// onceBetweenTopics moves records from one topic to another through flows whose sink
// loses answers and whose process ends without a word: each arrives once. A group and an
// All go by one name, and have nothing to do with each other.
func onceBetweenTopics(h *harness) {
	p := h.producer(nil, keys("k", 20)...)
	var lost int
	var mu sync.Mutex
	for range 6 {
		from, to := h.open(Topic{}), h.openNamed("bustest-once", Topic{})
		p.topic = from
		var n int
		losing := kemi.SinkFunc[Record](func(ctx context.Context, batch []Record) error {
			if err := to.Write(ctx, batch); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if n++; n%3 == 0 {
				lost++
				return errors.New("bustest: written, and then the answer was lost")
			}
			return nil
		})
		soon := kemi.Backoff(time.Millisecond, time.Millisecond)
		pipe := kemi.Pipeline{
			DrainTimeout: time.Millisecond, // hardly any time: most of what is under way is cut off
			Flows: []*kemi.Flow{
				kemi.Pipe[Record, Record]("move", from.Group("move"), half{}, losing, soon),
				kemi.Pipe[Record, Record]("move all", from.All("move"), half{"all "}, losing, soon),
			},
		}
		r := h.goRun(pipe.Run)
		for range 20 {
			p.send(1 + p.rnd.IntN(30))
		}
		h.eventually(func() string { return "nothing is moved" }, func() bool {
			p.send(5)
			mu.Lock()
			defer mu.Unlock()
			return n > 10
		})
		_ = r.stop() // may name what was left
		h.bus.Restart(h)
	}
	if lost == 0 {
		h.Error("no answer was lost: the check did not check")
	}
	from, to := h.open(Topic{}), h.openNamed("bustest-once", Topic{})
	var got tally
	last := &kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Pipe[Record, Record]("move", from.Group("move"), half{}, kemi.Sink[Record](to)),
		kemi.Pipe[Record, Record]("move all", from.All("move"), half{"all "}, kemi.Sink[Record](to)),
		kemi.Connect("look", to.All("look"), kemi.SinkFunc[Record](func(_ context.Context, batch []Record) error {
			if err := got.take(batch); err != nil {
				h.Error(err)
			}
			return nil
		})),
	}}
	h.goRun(last.Run)
	want := map[string]int{}
	for k, w := range p.wrote {
		if w/2 > 0 {
			want[k], want["all "+k] = w/2, w/2
		}
	}
	h.waitFor(&got, "the topic behind the flow", want)
	if _, again := got.counts(); again != 0 {
		h.Errorf("%d records are there twice", again)
	}
}

// half keeps every second record of a key, so that batches change on their way.
type half struct{ prefix string } // of the keys it gives

func (h half) Apply(_ context.Context, dst, src []Record) ([]Record, error) {
	for _, r := range src {
		if r.Seq%2 == 1 {
			dst = append(dst, Record{Key: h.prefix + r.Key, Seq: r.Seq / 2})
		}
	}
	return dst, nil
}

// stateComesBack starts flows with state again and again: what the state was is built
// again and proved, and what no horizon bounds is given back.
func stateComesBack(h *harness) {
	p := h.producer(nil, keys("k", 20)...)
	type life struct {
		via  *counting
		seen map[string]int
	}
	lives := map[string]*life{}
	for round := range 4 {
		topic := h.open(Topic{Retain: time.Hour})
		p.topic = topic
		for who, src := range readers(topic) {
			l := lives[who]
			if l == nil {
				l = &life{seen: map[string]int{}}
				lives[who] = l
			}
			dirt := uint64(0)
			if round == 3 {
				dirt = 1 // a stage that is not what it was
			}
			before := maps.Clone(l.seen)
			l.via = &counting{all: &shelf{}, dirt: dirt}
			var mu sync.Mutex
			pipe := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe[Record, Record]("count", src, l.via, kemi.SinkFunc[Record](func(_ context.Context, batch []Record) error {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range batch {
					if r.Seq != l.seen[r.Key]+1 {
						h.Errorf("%s: the state counts %d for key %q, and %d was the last number before", who, r.Seq, r.Key, l.seen[r.Key])
					}
					l.seen[r.Key] = r.Seq
				}
				return nil
			}))}}
			r := h.goRun(pipe.Run)
			for range 5 {
				p.send(30)
			}
			h.eventually(func() string {
				mu.Lock()
				defer mu.Unlock()
				return fmt.Sprintf("%s: the state has counted %v of %v", who, l.seen, p.wrote)
			}, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return maps.Equal(l.seen, p.wrote)
			})
			r.stopCleanly()
			s := pipe.Stats()[0]
			replayed := 0
			for _, n := range before {
				replayed += n
			}
			switch {
			case int(s.Replayed) != replayed:
				h.Errorf("%s, life %d: %d records were replayed of %d", who, round, s.Replayed, replayed)
			case round == 3 && s.Mismatches == 0:
				h.Errorf("%s: the state is not what it was, and nobody says so: %+v", who, s)
			case round < 3 && s.Mismatches != 0:
				h.Errorf("%s, life %d: %d replays gave another state: %s", who, round, s.Mismatches, s.LastErr)
			}
			if got, want := l.via.all.restored(), len(before); got != want {
				h.Errorf("%s, life %d: %d entries were given back of %d that were kept", who, round, got, want)
			}
		}
		h.bus.Restart(h)
	}
}

// counting numbers the records of each key, and keeps the first batch of each.
type counting struct {
	all  *shelf
	dirt uint64

	n     map[string]int
	first map[string]int
	fresh []kemi.Kept
}

// shelf is what the forks were given back.
type shelf struct {
	mu   sync.Mutex
	keys []string
}

func (s *shelf) restored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.keys)
	return len(slices.Compact(s.keys))
}

func (c *counting) Fork() kemi.Transform[Record, Record] {
	return &counting{all: c.all, dirt: c.dirt, n: map[string]int{}, first: map[string]int{}}
}

func (c *counting) Horizon() time.Duration { return time.Hour }

func (c *counting) Proof() kemi.Proof {
	h := c.dirt
	for k, n := range c.n {
		x := uint64(n)
		for i := range len(k) {
			x = (x ^ uint64(k[i])) * 0x100000001b3
		}
		h += x
	}
	return kemi.Proof{Version: 1, Hash: h}
}

func (c *counting) Apply(_ context.Context, dst, src []Record) ([]Record, error) {
	for _, r := range src {
		c.n[r.Key]++
		if _, ok := c.first[r.Key]; !ok {
			c.first[r.Key] = r.Batch
			c.fresh = append(c.fresh, kemi.Kept{Key: r.Key, Value: strconv.AppendInt(nil, int64(r.Batch), 10)})
		}
		dst = append(dst, Record{Key: r.Key, Seq: c.n[r.Key]})
	}
	return dst, nil
}

func (c *counting) Keep(dst []kemi.Kept) []kemi.Kept {
	dst = append(dst, c.fresh...)
	c.fresh = nil
	return dst
}

func (c *counting) Restore(kept []kemi.Kept) error {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	for _, e := range kept {
		n, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return err
		}
		if was, ok := c.first[e.Key]; ok && was != n {
			return fmt.Errorf("key %q was kept with batch %d, and the replay says %d", e.Key, n, was)
		}
		c.first[e.Key] = n
		c.all.keys = append(c.all.keys, e.Key)
	}
	return nil
}
