package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
)

// topic is what a topic is to the drain: a place where batches wait between two
// flows, whose reader empties it when it is asked to stop.
type topic struct {
	mu    sync.Mutex
	queue [][]item
	more  chan struct{}
}

func newTopic() *topic { return &topic{more: make(chan struct{}, 1)} }

func (q *topic) Write(_ context.Context, batch []item) error {
	q.mu.Lock()
	q.queue = append(q.queue, slices.Clone(batch))
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
	return nil
}

func (q *topic) next() ([]item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		return nil, false
	}
	b := q.queue[0]
	q.queue = q.queue[1:]
	return b, true
}

func (q *topic) Run(ctx context.Context, out kemi.Sink[item]) error {
	for {
		for b, ok := q.next(); ok; b, ok = q.next() {
			if err := out.Write(ctx, b); err != nil {
				return err
			}
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			if b, ok := q.next(); ok { // written since
				if err := out.Write(ctx, b); err != nil {
					return err
				}
				continue
			}
			return nil
		}
	}
}

// TestASoftStopLosesNothing stops three flows in a row at an unlucky moment: the
// store is failing, and topics are full.
func TestASoftStopLosesNothing(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			raw, metrics := newTopic(), newTopic()
			failing := quarters(seeded(t, seed))
			to := &store{fault: func(ctx context.Context, batch []item) error {
				time.Sleep(5 * time.Millisecond) // slower than what comes in
				return failing(ctx, batch)
			}}
			sent := 0
			poll := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
				for ctx.Err() == nil {
					if err := out.Write(ctx, items(sent, 10)); err != nil {
						return err
					}
					sent += 10
					time.Sleep(time.Millisecond)
				}
				return ctx.Err()
			})
			p := &kemi.Pipeline{Flows: []*kemi.Flow{
				kemi.Connect("poll", poll, raw),
				kemi.Pipe("calculate", raw, &seen{}, metrics),
				kemi.Connect("store", metrics, to, kemi.Backoff(time.Millisecond, 50*time.Millisecond)),
			}}
			stop := background(p)
			time.Sleep(2 * time.Second)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			all := closed(t, p)
			distinct, total, _ := to.count()
			if sent < 10_000 || distinct != sent || total != sent {
				t.Errorf("%d were sent, the store holds %d, %d with repetitions", sent, distinct, total)
			}
			for _, s := range all {
				if s.In != uint64(sent) || s.Done != s.In || s.Written != s.In {
					t.Errorf("flow %q: ledger %+v, want %d all through", s.Name, s, sent)
				}
			}
		})
	}
}

// TestFlowsAreStoppedInListedOrder has sources that take their time to end. Each is
// asked only when the one before has ended.
func TestFlowsAreStoppedInListedOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		slow := func(name string) *kemi.Flow {
			return kemi.Connect(name, kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
				<-ctx.Done()
				order = append(order, name+" asked")
				time.Sleep(time.Second)
				if err := out.Write(ctx, items(0, 1)); err != nil {
					t.Errorf("a Write after the soft stop: %v", err)
				}
				order = append(order, name+" over")
				return nil
			}), nowhere[item]())
		}
		p := &kemi.Pipeline{Flows: []*kemi.Flow{slow("a"), slow("b"), slow("c")}}
		stop := background(p)
		time.Sleep(time.Second)
		began := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if want := "[a asked a over b asked b over c asked c over]"; fmt.Sprint(order) != want {
			t.Errorf("order %v, want %s", order, want)
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("the stop took %v, want one after the other: 3s", d)
		}
		closed(t, p)
	})
}

func TestTheFirstFlowToFailStopsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over []string
		good := func(name string) *kemi.Flow {
			return kemi.Connect(name, kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
				<-ctx.Done()
				over = append(over, name)
				return ctx.Err()
			}), nowhere[item]())
		}
		bad := kemi.SourceFunc[item](func(context.Context, kemi.Sink[item]) error {
			time.Sleep(time.Second)
			return errors.New("cannot bind :161")
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{good("a"), kemi.Connect("bad", bad, nowhere[item]()), good("c")}}
		err := p.Run(t.Context())
		if err == nil || err.Error() != `kemi: flow "bad": cannot bind :161` {
			t.Errorf("Run: %v, want the one error, with the flow's name", err)
		}
		if fmt.Sprint(over) != "[a c]" {
			t.Errorf("stopped %v, want a, then c", over)
		}
		closed(t, p)
	})
}

// TestAFailureIsKnownAtOnce has a source that fails while a tick is stuck at the
// sink. The pipeline must not wait for the sink to learn of it.
func TestAFailureIsKnownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := kemi.SourceFunc[item](func(_ context.Context, out kemi.Sink[item]) error {
			kemi.OpenLane(out, "p0")
			time.Sleep(3500 * time.Millisecond)
			return errors.New("revoked")
		})
		p := &kemi.Pipeline{
			Flows: []*kemi.Flow{
				kemi.Pipe("bad", bad, &ticker{forks: true}, always(errDown)),
				kemi.Connect("good", idle[item](), nowhere[item]()),
			},
			DrainTimeout: 10 * time.Second,
		}
		began := time.Now()
		if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(began); d != 13500*time.Millisecond {
			t.Errorf("Run took %v, want the failure and one drain timeout", d)
		}
		closed(t, p)
	})
}

// TestAHardStopEndsAWriteThatIsStuck has a sink that never comes up again. The
// records are still the source's, and the ledger says so.
func TestAHardStopEndsAWriteThatIsStuck(t *testing.T) {
	for name, to := range map[string]kemi.Sink[item]{
		"retry": always(errDown),
		"hangs": kemi.SinkFunc[item](func(ctx context.Context, _ []item) error { <-ctx.Done(); return ctx.Err() }),
		"later": always(kemi.RetryAfter(errDown, time.Hour)),
		"says it is permanent while it is cut off": kemi.SinkFunc[item](func(ctx context.Context, batch []item) error {
			<-ctx.Done()
			return kemi.Permanent(ctx.Err())
		}),
	} {
		for _, stateful := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stateful=%v", name, stateful), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := kemi.Connect("f", once(items(0, 10)), to)
					if stateful {
						f = kemi.Pipe("f", once(items(0, 10)), &seen{}, to)
					}
					dead := &letters{}
					p := &kemi.Pipeline{Flows: []*kemi.Flow{f}, DrainTimeout: 7 * time.Second, DeadLetters: dead}
					stop := background(p)
					time.Sleep(time.Minute)
					if s := p.Stats()[0]; s.InFlight != 10 || s.Pending != 10 || s.Busy != 1 || s.OldestWrite != time.Minute {
						t.Errorf("while it is stuck: %+v", s)
					}
					began := time.Now()
					err := stop()
					if d := time.Since(began); d != 7*time.Second {
						t.Errorf("the stop took %v, want the drain timeout", d)
					}
					if err == nil || !strings.Contains(err.Error(), "stopped before the batch was delivered") {
						t.Errorf("Run: %v", err)
					}
					if s := closed(t, p)[0]; s.Failed != 10 || s.Abandoned != 10 || s.Done != 0 || len(dead.kept) != 0 {
						t.Errorf("ledger %+v, %d dead letters; want 10 failed and abandoned", s, len(dead.kept))
					}
				})
			})
		}
	}
}

// TestNoWriteBeginsAfterTheHardStop has a source that does not take no for an answer.
func TestNoWriteBeginsAfterTheHardStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hard atomic.Bool
		to := kemi.SinkFunc[item](func(ctx context.Context, _ []item) error {
			if hard.Load() {
				t.Error("the sink was called after the hard stop")
			}
			<-ctx.Done()
			hard.Store(true)
			return ctx.Err()
		})
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			for range 5 {
				if out.Write(ctx, items(0, 3)) == nil {
					t.Error("a Write that was cut off returned nil")
				}
			}
			return nil
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, to)}}
		stop := background(p)
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if s := closed(t, p)[0]; s.In != 15 || s.Failed != 15 || s.Out != 3 {
			t.Errorf("ledger %+v", s)
		}
	})
}

// TestATickUnderWayIsDeliveredBeforeTheStop shows that what a timer brought is not
// cut off by a soft stop: the state it was made of dies with the lane.
func TestATickUnderWayIsDeliveredBeforeTheStop(t *testing.T) {
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var up atomic.Bool
				to := &store{fault: func(context.Context, []item) error {
					if !up.Load() {
						return errDown
					}
					return nil
				}}
				src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
					kemi.OpenLane(out, "p0")
					<-ctx.Done()
					return nil
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, &ticker{forks: forks}, to)}}
				stop := background(p)
				time.Sleep(1500 * time.Millisecond)
				time.AfterFunc(10*time.Second, func() { up.Store(true) })
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if s := closed(t, p)[0]; s.Written != 1 || s.Abandoned != 0 || to.total != 1 {
					t.Errorf("ledger %+v, the sink holds %v", s, to.held)
				}
			})
		})
	}
}

// TestWhatStillRunsIsNamed reads the log of a stop that takes long.
func TestWhatStillRunsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		stuck := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			return kemi.OpenLane(out, "partition 3").Write(ctx, items(0, 1))
		})
		p := &kemi.Pipeline{
			Name: "stats",
			Flows: []*kemi.Flow{
				kemi.Connect("poll", idle[item](), nowhere[item]()),
				kemi.Connect("store", stuck, always(errDown)),
				kemi.Connect("lazy", kemi.SourceFunc[item](func(ctx context.Context, _ kemi.Sink[item]) error {
					<-ctx.Done()
					return nil
				}), nowhere[item]()),
			},
			Logger:       zap.New(core),
			DrainTimeout: 12 * time.Second,
		}
		stop := background(p)
		time.Sleep(time.Second)
		began := time.Now()
		_ = stop()
		writes := logs.FilterMessage("stopping: a write is still under way").All()
		if len(writes) != 2 {
			t.Fatalf("%d lines about the write in 12 s, want one every 5 s: %v", len(writes), logs.All())
		}
		for i, l := range writes {
			m := l.ContextMap()
			if m["pipeline"] != "stats" || m["flow"] != "store" || m["lane"] != "partition 3" || m["last_error"] != errDown.Error() ||
				!strings.Contains(m["stage"].(string), "SinkFunc") {
				t.Errorf("line %d: %v", i, m)
			}
			if d := l.Time.Sub(began); d != time.Duration(i+1)*5*time.Second {
				t.Errorf("line %d came after %v", i, d)
			}
			if m["waiting"] != time.Second+time.Duration(i+1)*5*time.Second {
				t.Errorf("line %d: waiting %v", i, m["waiting"])
			}
		}
		runs := logs.FilterMessage("stopping: the source still runs").All()
		if len(runs) != 2 || runs[0].ContextMap()["flow"] != "lazy" {
			t.Errorf("about the flow that waits for its turn: %v", runs)
		}
		if logs.FilterMessage("drain timeout: cutting off what is still under way").Len() != 1 {
			t.Error("the hard stop was not logged")
		}
	})
}

// deaf is a stage that hears nothing until release is closed.
type deaf struct{ release chan struct{} }

func (d deaf) Run(_ context.Context, _ kemi.Sink[item]) error { <-d.release; return nil }
func (d deaf) Write(context.Context, []item) error            { <-d.release; return nil }
func (d deaf) Apply(_ context.Context, dst, _ []item) ([]item, error) {
	<-d.release
	return dst, nil
}

type deafLetters struct{ deaf }

func (d deafLetters) Write(context.Context, []kemi.DeadLetter) error { <-d.release; return nil }

// TestAStageThatIgnoresItsContextIsNamed shows that Run comes back all the same, and
// says whose fault it is.
func TestAStageThatIgnoresItsContextIsNamed(t *testing.T) {
	for stage, flow := range map[string]func(d deaf) *kemi.Flow{
		"its source": func(d deaf) *kemi.Flow { return kemi.Connect("f", kemi.Source[item](d), nowhere[item]()) },
		"kemi_test.deaf": func(d deaf) *kemi.Flow {
			return kemi.Connect("f", once(items(0, 1)), kemi.Sink[item](d))
		},
		"kemi_test.deaf ": func(d deaf) *kemi.Flow {
			return kemi.Pipe("f", once(items(0, 1)), kemi.Transform[item, item](d), nowhere[item]())
		},
		"the dead letters": func(d deaf) *kemi.Flow {
			return kemi.Connect("f", once(items(0, 1)), always(kemi.Permanent(errDown)))
		},
	} {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deaf{make(chan struct{})}
				p := &kemi.Pipeline{
					Flows:        []*kemi.Flow{flow(d), kemi.Connect("good", idle[item](), nowhere[item]())},
					DeadLetters:  deafLetters{d},
					DrainTimeout: 8 * time.Second,
				}
				stop := background(p)
				time.Sleep(time.Second)
				began := time.Now()
				err := stop()
				if want := `kemi: flow "f" did not stop: ` + strings.TrimSpace(stage) + " ignores its context"; err == nil || err.Error() != want {
					t.Errorf("Run: %v, want %s", err, want)
				}
				if d := time.Since(began); d != 10*time.Second {
					t.Errorf("Run came back after %v, want the drain timeout and a quarter", d)
				}
				close(d.release)
			})
		})
	}
}

func TestAllStagesThatIgnoreTheirContextAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deaf{make(chan struct{})}
		via := kemi.TransformFunc[item, item](func(ctx context.Context, dst, src []item) ([]item, error) {
			if src[0].ID == 0 {
				<-d.release
			}
			return append(dst, src...), nil
		})
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() { _ = out.Write(ctx, items(i%2, 1)) })
			}
			wg.Wait()
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, kemi.Sink[item](d))}}
		stop := background(p)
		time.Sleep(time.Second)
		err := stop()
		if err == nil || !strings.HasSuffix(err.Error(), ": kemi.TransformFunc[github.com/kemi-go/kemi_test.item,github.com/kemi-go/kemi_test.item] and kemi_test.deaf ignore their contexts") {
			t.Errorf("Run: %v", err)
		}
		close(d.release)
	})
}

// TestRunLeavesNoGoroutine looks for goroutines of the engine after flows with all
// that starts one: lanes, ticks, deadlines, a hard stop. Those of its own bubble count:
// one of the test before may have been told to end and not have come to it.
func TestRunLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		buf := make([]byte, 1<<20)
		here, _, _ := strings.Cut(string(buf[:runtime.Stack(buf, false)]), "\n")
		at := strings.Index(here, "synctest bubble")
		if at < 0 {
			t.Fatalf("this goroutine is not in a bubble: %s", here)
		}
		bubble := strings.TrimRight(here[at:], ":") // as in "goroutine 7 [running, synctest bubble 3]:"
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			a, b := kemi.OpenLane(out, "a"), kemi.OpenLane(out, "b")
			c, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err := errors.Join(a.Write(c, items(0, 1)), b.Close())
			<-ctx.Done()
			return err
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{
			kemi.Pipe("forks", src, &ticker{forks: true}, always(errDown)),
			kemi.Pipe("shared", src, &ticker{}, always(errDown)),
			kemi.Connect("connect", src, always(errDown)),
		}}
		stop := background(p)
		time.Sleep(5 * time.Second)
		_ = stop()
		synctest.Wait()
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if state, _, _ := strings.Cut(g, "\n"); strings.Contains(state, bubble) && strings.Contains(g, "kemi/internal/engine") {
				t.Errorf("still there:\n%s", g)
			}
		}
		closed(t, p)
	})
}

func TestEndsOfRun(t *testing.T) {
	t.Run("all sources end", func(t *testing.T) {
		run(t, kemi.Connect("a", once(items(0, 1)), nowhere[item]()), kemi.Connect("b", once(items(0, 1)), nowhere[item]()))
	})
	t.Run("stopped before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("a", idle[item](), nowhere[item]())}}
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("the context of Run has a deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				return out.Write(ctx, items(0, 1)) // the deadline is that of the soft stop, not of this
			})
			p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("a", src, nowhere[item]())}}
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("a source that says it was cancelled is no failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// "late" is asked only by the hard stop, as the flow before it is stuck.
			p := &kemi.Pipeline{Flows: []*kemi.Flow{
				kemi.Connect("stuck", once(items(0, 1)), always(errDown)),
				kemi.Connect("late", idle[item](), nowhere[item]()),
			}}
			stop := background(p)
			time.Sleep(time.Second)
			if err := stop(); err == nil || strings.Contains(err.Error(), "late") {
				t.Errorf("Run: %v, want an error of the one flow", err)
			}
		})
	})
	t.Run("a source that leaves its writes behind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			to := &store{fault: func(context.Context, []item) error { time.Sleep(time.Second); return nil }}
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				go func() { _ = out.Write(ctx, items(0, 3)) }()
				go func() {
					time.Sleep(5 * time.Second)
					if err := out.Write(ctx, items(3, 3)); err == nil {
						t.Error("a Write after the end returned nil")
					}
				}()
				time.Sleep(time.Millisecond)
			})
			if s := run(t, kemi.Connect("f", src, to))[0]; s.Written != 3 {
				t.Errorf("ledger %+v, want the write under way waited for", s)
			}
			time.Sleep(time.Minute)
		})
	})
	t.Run("a write after the end of its flow alone", func(t *testing.T) {
		for _, before := range []int{0, 1} {
			synctest.Test(t, func(t *testing.T) {
				src := source(func(ctx context.Context, out kemi.Sink[item]) {
					for range before {
						if err := out.Write(ctx, items(0, 1)); err != nil {
							t.Error(err)
						}
					}
					time.AfterFunc(time.Second, func() {
						if err := out.Write(ctx, items(1, 3)); err == nil || err.Error() != "kemi: Write after the flow has ended" {
							t.Errorf("after %d writes: %v", before, err)
						}
					})
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, nowhere[item]()), kemi.Connect("other", idle[item](), nowhere[item]())}}
				stop := background(p)
				time.Sleep(time.Minute)
				if err := stop(); err != nil {
					t.Error(err)
				}
				if s := closed(t, p)[0]; s.Failed != 3 || int(s.Written) != before {
					t.Errorf("ledger %+v", s)
				}
			})
		}
	})
	t.Run("a sink that ends the goroutine", func(t *testing.T) {
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = out.Write(ctx, items(0, 3))
			}()
			<-done
		})
		to := kemi.SinkFunc[item](func(context.Context, []item) error { runtime.Goexit(); return nil })
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, to)}}
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if s := p.Stats()[0]; s.Failed != 3 || s.InFlight != 0 {
			t.Errorf("ledger %+v", s)
		}
	})
}
