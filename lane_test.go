package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
)

// counting is a transform with state that numbers what it is fed, and says how many
// forks it made.
type counting struct {
	horizon time.Duration
	forks   *atomic.Int32
	n       int
	inside  atomic.Int32
}

func (c *counting) Horizon() time.Duration { return c.horizon }
func (c *counting) Fork() kemi.Transform[item, item] {
	c.forks.Add(1)
	return &counting{horizon: c.horizon, forks: c.forks}
}

func (c *counting) Apply(_ context.Context, dst, src []item) ([]item, error) {
	if c.inside.Add(1) != 1 {
		return dst, kemi.Permanent(errors.New("two in one fork"))
	}
	defer c.inside.Add(-1)
	for range src {
		c.n++
		dst = append(dst, item{c.n})
	}
	return dst, nil
}

func TestEveryLaneHasAForkOfItsOwn(t *testing.T) {
	forks := &atomic.Int32{}
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				l := kemi.OpenLane(out, strconv.Itoa(i))
				for range 20 {
					if err := l.Write(ctx, items(0, 5)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	to := &store{}
	run(t, kemi.Pipe("f", src, &counting{forks: forks}, to))
	if forks.Load() != 10 {
		t.Errorf("%d forks for 10 lanes", forks.Load())
	}
	for id := 1; id <= 100; id++ {
		if to.held[id] != 10 {
			t.Fatalf("number %d came %d times, want once of each of 10 lanes", id, to.held[id])
		}
	}
}

// TestASourceWithoutLanesHasOne writes from many goroutines through a transform with
// state: they take turns.
func TestASourceWithoutLanesHasOne(t *testing.T) {
	forks := &atomic.Int32{}
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if err := out.Write(ctx, items(0, 3)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
	to := &store{}
	s := run(t, kemi.Pipe("f", src, &counting{forks: forks}, to))[0]
	if forks.Load() != 1 || len(to.held) != 8*50*3 || s.Dropped != 0 {
		t.Errorf("%d forks, %d numbers, ledger %+v", forks.Load(), len(to.held), s)
	}
}

func TestWaitingForALaneEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := out.Write(ctx, items(0, 1)); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Second)
			c, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			began := time.Now()
			if err := out.Write(c, items(1, 4)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
				t.Errorf("Write: %v after %v", err, time.Since(began))
			}
			// The caller's cancellation alone does not end the wait.
			c, cancel = context.WithCancel(ctx)
			cancel()
			if err := out.Write(c, items(5, 2)); err != nil {
				t.Errorf("Write of a cancelled caller: %v", err)
			}
			wg.Wait()
		})
		to := &store{fault: func(context.Context, []item) error { time.Sleep(time.Minute); return nil }}
		s := run(t, kemi.Pipe("f", src, &counting{forks: &atomic.Int32{}}, to))[0]
		if s.In != 7 || s.Failed != 4 || s.Written != 3 {
			t.Errorf("ledger %+v", s)
		}
	})
}

// TestAMutedLaneFeedsStateAndEmitsNothing replays, as a bus does for a partition it
// was just given.
func TestAMutedLaneFeedsStateAndEmitsNothing(t *testing.T) {
	to := &store{}
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		l := kemi.OpenLane(out, "p0")
		if h := l.Horizon(); h != time.Hour {
			t.Errorf("horizon %v", h)
		}
		l.Mute(true)
		for range 3 {
			if err := l.Write(ctx, items(0, 10)); err != nil {
				t.Error(err)
			}
		}
		l.Mute(false)
		if err := l.Write(ctx, items(0, 2)); err != nil {
			t.Error(err)
		}
	})
	s := run(t, kemi.Pipe("f", src, &counting{horizon: time.Hour, forks: &atomic.Int32{}}, to))[0]
	if len(to.held) != 2 || to.held[31] != 1 || to.held[32] != 1 {
		t.Errorf("the sink holds %v, want what comes after 30 replayed records", to.held)
	}
	if s.Replayed != 30 || s.In != 2 || s.Out != 2 {
		t.Errorf("ledger %+v", s)
	}
}

// TestAReplayRefusesAndRetriesAsTheFirstRunDid shows that what the transform refused
// then is not buried a second time, and that a passing trouble is waited out.
func TestAReplayRefusesAndRetriesAsTheFirstRunDid(t *testing.T) {
	calls := 0
	via := kemi.TransformFunc[item, item](func(_ context.Context, dst, src []item) ([]item, error) {
		if calls++; calls == 1 {
			return dst, errDown
		}
		return dst, kemi.Partial(src, kemi.Failure{Index: 0, Err: errDown})
	})
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		l := kemi.OpenLane(out, "p0")
		l.Mute(true)
		if err := l.Write(ctx, items(0, 10)); err != nil {
			t.Error(err)
		}
	})
	dead := &letters{}
	s := runPipeline(t, &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, nowhere[item](), fast())}, DeadLetters: dead})[0]
	if calls != 2 || len(dead.kept) != 0 || s.Replayed != 10 || s.Out != 0 {
		t.Errorf("%d calls, %d dead letters, ledger %+v", calls, len(dead.kept), s)
	}
}

// TestCloseCancelsAWriteUnderWay closes one of two lanes that both wait for the sink:
// the partition is gone, and its new owner delivers what it had under way.
func TestCloseCancelsAWriteUnderWay(t *testing.T) {
	for _, stateful := range []bool{false, true} {
		t.Run(fmt.Sprintf("stateful=%v", stateful), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var up atomic.Bool
				to := kemi.SinkFunc[item](func(context.Context, []item) error {
					if up.Load() {
						return nil
					}
					return errDown
				})
				src := source(func(ctx context.Context, out kemi.Sink[item]) {
					gone, kept := kemi.OpenLane(out, "gone"), kemi.OpenLane(out, "kept")
					var wg sync.WaitGroup
					var first, second error
					wg.Go(func() { first = gone.Write(ctx, items(0, 10)) })
					wg.Go(func() { second = kept.Write(ctx, items(10, 10)) })
					time.Sleep(time.Minute)
					if err := errors.Join(gone.Close(), gone.Close()); err != nil { // twice does no harm
						t.Error(err)
					}
					synctest.Wait()
					if first == nil {
						t.Error("Close came back before the Write it cancelled")
					}
					if err := gone.Write(ctx, items(0, 10)); err == nil || err.Error() != "kemi: the lane is closed" {
						t.Errorf("Write on a closed lane: %v", err)
					}
					up.Store(true)
					wg.Wait()
					if second != nil {
						t.Errorf("the other lane: %v", second)
					}
				})
				f := kemi.Connect("f", src, to)
				if stateful {
					f = kemi.Pipe("f", src, &counting{forks: &atomic.Int32{}}, to)
				}
				s := run(t, f)[0]
				if s.Failed != 20 || s.Abandoned != 10 || s.Written != 10 || s.Done != 10 {
					t.Errorf("ledger %+v", s)
				}
			})
		})
	}
}

// TestAHardStopEndsAReplay and everything else that goes through lanes: a Write that
// waits for its turn, and a tick.
func TestAHardStopEndsAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forks := &atomic.Int32{}
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			l := kemi.OpenLane(out, "replaying")
			l.Mute(true)
			var wg sync.WaitGroup
			wg.Go(func() { // a bus that has a lot to replay, and forgets to ask for its context
				for l.Write(ctx, items(0, 10)) == nil {
					time.Sleep(time.Second)
				}
			})
			for range 2 { // the second waits for the first
				wg.Go(func() {
					if out.Write(ctx, items(0, 5)) == nil {
						t.Error("a Write that was cut off returned nil")
					}
				})
			}
			wg.Wait()
			if err := l.Tick(ctx, time.Now()); err != nil { // this one has no Tick
				t.Error(err)
			}
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, &counting{forks: forks}, always(errDown))}}
		stop := background(p)
		time.Sleep(time.Minute)
		began := time.Now()
		_ = stop()
		if d := time.Since(began); d > 31*time.Second {
			t.Errorf("the stop took %v", d)
		}
		if s := closed(t, p)[0]; s.In != 10 || s.Failed != 10 || s.Replayed < 600 {
			t.Errorf("ledger %+v", s)
		}
	})
}

func TestALaneOpenedAfterTheEndIsClosed(t *testing.T) {
	var inlet kemi.Sink[item]
	src := source(func(_ context.Context, out kemi.Sink[item]) { inlet = out })
	f := kemi.Pipe("f", src, &ticker{forks: true}, nowhere[item]())
	run(t, f)
	l := kemi.OpenLane(inlet, "late")
	if err := l.Write(t.Context(), items(0, 1)); err == nil {
		t.Error("a Write after the end returned nil")
	}
	if err := l.Tick(t.Context(), time.Now()); err == nil {
		t.Error("a Tick after the end returned nil")
	}
	if err := inlet.Write(t.Context(), items(0, 1)); err == nil {
		t.Error("a Write after the end returned nil")
	}
	if err := l.Close(); err != nil || l.Horizon() != 0 {
		t.Errorf("Close: %v", err)
	}
	if s := f.Stats(); s.Balance() != nil || s.Lanes != 0 || s.Failed != 2 {
		t.Errorf("ledger %+v", s)
	}
}

// TestAPlainSinkHasLanesToo tests what a source can do without a pipeline.
func TestAPlainSinkHasLanesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &store{}
		l := kemi.OpenLane[item](to, "p0", kemi.SourceTicks())
		l.Mute(true)
		if err := l.Write(t.Context(), items(0, 5)); err != nil || to.total != 0 {
			t.Errorf("muted: %v, %d records", err, to.total)
		}
		l.Mute(false)
		if err := errors.Join(l.Write(t.Context(), items(0, 5)), l.Tick(t.Context(), time.Now())); err != nil || to.total != 5 || l.Horizon() != 0 {
			t.Errorf("%v, %d records", err, to.total)
		}
		to.fault = func(ctx context.Context, _ []item) error {
			<-ctx.Done()
			return ctx.Err()
		}
		done := make(chan error, 1)
		go func() { done <- l.Write(t.Context(), items(5, 5)) }()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Write: %v", err)
		}
		if err := l.Write(t.Context(), items(0, 1)); err == nil {
			t.Error("a Write on a closed lane returned nil")
		}
	})
}
