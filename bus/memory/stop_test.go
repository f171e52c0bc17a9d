package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// A partition that moves waits for the Write under way, and cuts it off when it takes
// too long; the record goes to the new owner.
func TestStuckWriteIsCutWhenItsPartitionMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 2})
		var cut, got atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		run := func(out kemi.SinkFunc[kemi.Log]) {
			p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", topic.Group("g"), out)}}
			go func() { ended <- p.Run(ctx) }()
		}
		run(func(ctx context.Context, batch []kemi.Log) error {
			<-ctx.Done()
			cut.Add(1)
			return ctx.Err()
		})
		for i := range 20 { // both partitions
			write(t, topic, line(fmt.Sprint("web", i), i))
		}
		synctest.Wait()
		run(func(_ context.Context, batch []kemi.Log) error { got.Add(int64(len(batch))); return nil })
		time.Sleep(10 * time.Second)
		if cut.Load() != 1 {
			t.Errorf("%d Writes were cut off, want that of the partition that moved", cut.Load())
		}
		if n := got.Load(); n == 0 || n == 20 {
			t.Errorf("the new member has %d of 20 records, want those of one partition of two", n)
		}
		cancel()
		<-ended
		<-ended
	})
}

// A Write that is merely slow is left to finish, and its records do not come twice.
func TestSlowWriteEndsBeforeItsPartitionMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 2})
		var got atomic.Int64
		slow := func(_ context.Context, batch []kemi.Log) error {
			time.Sleep(500 * time.Millisecond)
			got.Add(int64(len(batch)))
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		run := func() {
			p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", topic.Group("g"), kemi.SinkFunc[kemi.Log](slow))}}
			go func() { ended <- p.Run(ctx) }()
		}
		topic.Group("g")
		for i := range 20 {
			write(t, topic, line(fmt.Sprint("web", i), i))
		}
		run()
		synctest.Wait()
		run()
		time.Sleep(10 * time.Second)
		if got.Load() != 20 {
			t.Errorf("20 records came as %d", got.Load())
		}
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// A reader that is asked to stop reads what was there when it was asked, and not for
// ever what others go on writing.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{})
		g := topic.Group("g")
		for i := range 100 {
			write(t, topic, line("web1", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n := 0
		err := g.Run(ctx, kemi.SinkFunc[kemi.Log](func(ctx context.Context, batch []kemi.Log) error {
			n += len(batch)
			write(t, topic, line("web1", 100+n)) // there is always one more
			return nil
		}))
		if err != nil || n < 100 || n > 120 {
			t.Errorf("%d records were read of 100 that were there: %v", n, err)
		}
	})
}

// What could not be handed over before the stop is said.
func TestRunSaysWhatItLeft(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{Partitions: 1})
	g := topic.Group("g")
	write(t, topic, line("web1", 0), line("web1", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	down := errors.New("store is down")
	err := g.Run(ctx, kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error { return down }))
	if !errors.Is(err, down) || err.Error() != `memory: topic [lines]: "g" stopped with 2 records unread: store is down` {
		t.Errorf("Run returned %v", err)
	}
	if got := drain(t, g); len(got) != 2 {
		t.Errorf("the next Run has %v, want both records", got)
	}
}

// A batch that was refused just before the stop is written once more: what was wrong
// may have passed, and there is no later. After that the partition is left.
func TestStopTriesARefusedBatchOnceMore(t *testing.T) {
	for _, passes := range []bool{true, false} {
		t.Run(fmt.Sprintf("passes=%v", passes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				topic := lines(t, memory.Config[kemi.Log]{Partitions: 1})
				g := topic.Group("g")
				write(t, topic, line("web1", 0), line("web1", 1))
				down := errors.New("store is down")
				calls := 0
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() {
					ended <- g.Run(ctx, kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error {
						if calls++; calls == 1 || !passes {
							return down
						}
						return nil
					}))
				}()
				synctest.Wait() // the lane waits to write again
				cancel()
				err := <-ended
				waiting := topic.Stats().Readers[0].Waiting
				if passes && (err != nil || waiting != 0) || !passes && (!errors.Is(err, down) || waiting != 2) || calls != 2 {
					t.Errorf("%d Writes, %d records wait, Run returned %v", calls, waiting, err)
				}
			})
		})
	}
}

// A Write that is cut off because its partition moves is no failure of the member: the
// next owner has the batch, and the member stops in peace.
func TestAMoveIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 2})
		g := topic.Group("g")
		for i := range 20 { // both partitions
			write(t, topic, line(fmt.Sprint("web", i), i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		free := make(chan struct{})
		var cut, got atomic.Int64
		go func() {
			ended <- g.Run(ctx, kemi.SinkFunc[kemi.Log](func(ctx context.Context, batch []kemi.Log) error {
				select {
				case <-ctx.Done():
					cut.Add(1)
					return ctx.Err()
				case <-free:
					got.Add(int64(len(batch)))
					return nil
				}
			}))
		}()
		synctest.Wait()
		go func() {
			ended <- g.Run(ctx, kemi.SinkFunc[kemi.Log](func(_ context.Context, batch []kemi.Log) error {
				got.Add(int64(len(batch)))
				return nil
			}))
		}()
		time.Sleep(10 * time.Second)
		close(free)
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v", err)
			}
		}
		if cut.Load() != 1 || got.Load() != 20 {
			t.Errorf("%d Writes were cut off, 20 records came as %d", cut.Load(), got.Load())
		}
	})
}

// A hard stop reaches a Write that waits for room.
func TestHardStopEndsAWaitingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := lines(t, memory.Config[kemi.Log]{Capacity: 1})
		full.Group("nobody runs this")
		in := lines(t, memory.Config[kemi.Log]{})
		p := kemi.Pipeline{
			DrainTimeout: time.Minute,
			Flows:        []*kemi.Flow{kemi.Connect("f", in.Group("g"), kemi.Sink[kemi.Log](full))},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		for i := range 10 {
			write(t, in, line("web1", i))
			synctest.Wait()
		}
		cancel()
		began := time.Now()
		if err := <-ended; err == nil {
			t.Error("records were left, and Run says nothing")
		}
		if d := time.Since(began); d < time.Minute || d > 2*time.Minute {
			t.Errorf("the pipeline stopped after %v, want the drain timeout of a minute", d)
		}
		if s, w := in.Stats(), full.Stats(); s.Readers[0].Waiting+int(w.Written) != 10 {
			t.Errorf("of 10 records %d wait and %d have moved on", s.Readers[0].Waiting, w.Written)
		}
	})
}

// A member that leaves others behind does not drain: they go on.
func TestLeavingMemberHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 2})
		g := topic.Group("g")
		for i := range 10_000 {
			write(t, topic, line(fmt.Sprint("web", i%20), i))
		}
		var got atomic.Int64
		run := func(nap time.Duration) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				ended <- g.Run(ctx, kemi.SinkFunc[kemi.Log](func(_ context.Context, batch []kemi.Log) error {
					time.Sleep(nap)
					got.Add(int64(len(batch)))
					return nil
				}))
			}()
			return func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		stopFirst := run(500 * time.Millisecond)
		synctest.Wait()
		stopSecond := run(time.Millisecond)
		time.Sleep(time.Second)
		began := time.Now()
		stopFirst()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the member left after %v: it read on although there was another", d)
		}
		stopSecond()
		if got.Load() != 10_000 {
			t.Errorf("10000 records came as %d", got.Load())
		}
	})
}

// Partitions are shared anew when a member comes, be the topic as quiet as it may.
func TestIdlePartitionsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 4})
		var flows [2]*kemi.Flow
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		for i := range flows {
			flows[i] = kemi.Connect("f", topic.Group("g"), kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error { return nil }))
			p := kemi.Pipeline{Flows: flows[i : i+1]}
			go func() { ended <- p.Run(ctx) }()
			synctest.Wait()
		}
		if a, b := flows[0].Stats().Lanes, flows[1].Stats().Lanes; a != 2 || b != 2 {
			t.Errorf("two members have %d and %d lanes of 4", a, b)
		}
		cancel()
		for range flows {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// Of two Runs of one All the slower one counts.
func TestSlowestRunOfAnAllHoldsTheWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Capacity: 10})
		all := topic.All("a")
		for i := range 8 {
			write(t, topic, line("web1", i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		free := make(chan struct{})
		for _, wait := range []chan struct{}{nil, free} {
			go func() {
				ended <- all.Run(ctx, kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error {
					if wait != nil {
						<-wait
					}
					return nil
				}))
			}()
		}
		synctest.Wait()
		n := 8
		for ; n < 100; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := topic.Write(ctx, []kemi.Log{line("web1", n)})
			cancel()
			if err != nil {
				break
			}
			synctest.Wait()
		}
		if n != 10 {
			t.Errorf("%d records were taken, and one Run that has read none may be 10 behind", n)
		}
		close(free)
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}
