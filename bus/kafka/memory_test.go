package kafka

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMemoryIsNeverGivenTwice, whoever gives up waiting and when, and all of it is there
// in the end.
func TestMemoryIsNeverGivenTwice(t *testing.T) {
	t.Parallel()
	const all = 1000
	m := memory{free: all}
	var used, refused atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			for i := 0; i < 500 || refused.Load() == 0 && i < 1_000_000; i++ {
				n := 1 + rnd.IntN(all/2)
				if rnd.IntN(50) == 0 {
					n = 3 * all // larger than all there is: it comes when nobody else has any
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(300))*time.Microsecond)
				err := m.take(ctx, n, all)
				cancel()
				if err != nil {
					refused.Add(1)
					continue
				}
				if u := used.Add(int64(n)); u > all && u != int64(n) {
					t.Errorf("%d are used of %d", u, all)
				}
				time.Sleep(time.Duration(rnd.IntN(30)) * time.Microsecond)
				used.Add(-int64(n))
				m.give(n, all)
			}
		})
	}
	wg.Wait()
	if m.free != all || len(m.queue) > 0 {
		t.Errorf("%d are free of %d, %d wait", m.free, all, len(m.queue))
	}
	if refused.Load() == 0 {
		t.Error("nobody gave up")
	}
}

// TestAWriteThatFindsNoMemorySaysSo, writes nothing, and later goes through.
func TestAWriteThatFindsNoMemorySaysSo(t *testing.T) {
	t.Parallel()
	f := fake(t)
	var network stall
	config := quick(t, f)
	config.BufferMemory, config.dial = 100, network.dial
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	thaw := network.freeze()
	first := make(chan error, 1)
	go func() { first <- topic.Write(context.Background(), []sample{{Key: "a", Seq: 0}}) }()
	eventually(t, "it is not sent", func() bool { return network.asked.Load() > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := topic.Write(ctx, []sample{{Key: "a", Seq: 99}}); !errors.Is(err, ErrFull) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	thaw()
	if err := <-first; err != nil {
		t.Error(err)
	}
	put(t, topic, sample{Key: "a", Seq: 1})
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= 2 })
	_ = r.stop(t)
	for i, s := range r.got {
		if s.Seq != i {
			t.Errorf("%d came when %d was next", s.Seq, i)
		}
	}
}
