package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
)

// wantStack checks that a panic left word of where it came from: this file.
func wantStack(t *testing.T, d kemi.DeadLetter, words string) {
	t.Helper()
	if !strings.Contains(d.Error, words) || !strings.Contains(d.Stack, "panic_test.go") {
		t.Errorf("dead letter of a panic: error %q, stack %q", d.Error, d.Stack)
	}
}

func TestAPanicOfASinkIsADeadLetter(t *testing.T) {
	to, dead := &store{}, &letters{}
	to.fault = func(_ context.Context, batch []item) error {
		for _, x := range batch {
			if x.ID == 5 {
				_ = batch[len(batch):][x.ID] // a bug
			}
		}
		return nil
	}
	s := runPipeline(t, &kemi.Pipeline{
		Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 8)), to)}, DeadLetters: dead,
	})[0]
	if s.Written != 7 || s.Dead != 1 || len(dead.kept) != 1 {
		t.Fatalf("ledger %+v, %d dead letters", s, len(dead.kept))
	}
	wantStack(t, dead.kept[0], "index out of range")
}

// TestAPanicOfATransformWithoutStateCostsOneRecord shows that the others are fed
// again, since there is no state to spoil.
func TestAPanicOfATransformWithoutStateCostsOneRecord(t *testing.T) {
	to, dead := &store{}, &letters{}
	via := kemi.TransformFunc[item, item](func(_ context.Context, dst, src []item) ([]item, error) {
		for _, x := range src {
			if x.ID == 5 {
				panic("a bug")
			}
			dst = append(dst, x)
		}
		return dst, nil
	})
	s := runPipeline(t, &kemi.Pipeline{
		Flows: []*kemi.Flow{kemi.Pipe("f", once(items(0, 8)), via, to)}, DeadLetters: dead,
	})[0]
	if s.Written != 7 || s.Dead != 1 || s.Rejected != 1 || len(dead.kept) != 1 {
		t.Fatalf("ledger %+v, %d dead letters", s, len(dead.kept))
	}
	if to.held[5] != 0 || to.total != 7 {
		t.Errorf("the sink holds %v", to.held)
	}
	wantStack(t, dead.kept[0], "a bug")
}

// fragile has state and panics halfway through a batch. Fed the records before the
// panic again, it would count them twice.
type fragile struct {
	fed   map[int]int
	forks bool
}

func (f *fragile) Apply(_ context.Context, dst, src []item) ([]item, error) {
	for _, x := range src {
		f.fed[x.ID]++
		if x.ID == 5 {
			panic(errors.New("a bug"))
		}
		dst = append(dst, x)
	}
	return dst, nil
}

func (f *fragile) Fork() kemi.Transform[item, item] {
	if f.forks {
		return f
	}
	return nil
}

// Horizon is what tells that there is state, where there are no forks.
func (f *fragile) Horizon() time.Duration { return time.Minute }

func TestAPanicOfATransformWithStateCostsTheBatch(t *testing.T) {
	for name, via := range map[string]*fragile{
		"forks":  {fed: map[int]int{}, forks: true},
		"shared": {fed: map[int]int{}},
	} {
		t.Run(name, func(t *testing.T) {
			to, dead := &store{}, &letters{}
			s := runPipeline(t, &kemi.Pipeline{
				Flows: []*kemi.Flow{kemi.Pipe("f", once(items(0, 8), items(8, 8)), via, to)}, DeadLetters: dead,
			})[0]
			if s.Written != 8 || s.Dead != 8 || s.Rejected != 8 || len(dead.kept) != 8 {
				t.Fatalf("ledger %+v, %d dead letters; want the batch after it written", s, len(dead.kept))
			}
			for id, n := range via.fed {
				if n > 1 {
					t.Errorf("item %d was fed %d times", id, n)
				}
			}
			wantStack(t, dead.kept[0], "a bug")
		})
	}
}

func TestAPanicOfASourceIsAnErrorOfRun(t *testing.T) {
	src := kemi.SourceFunc[item](func(context.Context, kemi.Sink[item]) error { panic("a bug") })
	p := &kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("bad", src, nowhere[item]()),
		kemi.Connect("good", idle[item](), nowhere[item]()),
	}}
	err := p.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), `flow "bad"`) || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("Run: %v", err)
	}
	closed(t, p)
}

// shaky is a transform whose fork for the second lane, or whose Horizon, is not to be
// had.
type shaky struct {
	forks   int
	fork    func() kemi.Transform[item, item] // the second
	horizon func() time.Duration
}

func (f *shaky) Fork() kemi.Transform[item, item] {
	if f.forks++; f.forks == 1 || f.fork == nil {
		return &shaky{horizon: f.horizon}
	}
	return f.fork()
}

func (f *shaky) Horizon() time.Duration {
	if f.horizon == nil {
		return 0
	}
	return f.horizon()
}

func (*shaky) Apply(_ context.Context, dst, src []item) ([]item, error) {
	return append(dst, src...), nil
}

func (*shaky) Finish(_ context.Context, dst []item) ([]item, error) {
	return append(dst, item{-1}), nil
}

// TestAPanicThatNoBatchIsToBlameForEndsTheFlow asks for forks and horizons where a
// bus does: in a goroutine of its own. The process goes on, the lane takes nothing,
// and Run says why.
func TestAPanicThatNoBatchIsToBlameForEndsTheFlow(t *testing.T) {
	for name, c := range map[string]struct {
		via   *shaky
		words string
		good  int // lanes that work
	}{
		"fork":    {&shaky{fork: func() kemi.Transform[item, item] { panic("a bug") }}, "a bug", 1},
		"no fork": {&shaky{fork: func() kemi.Transform[item, item] { return nil }}, "Fork gave a fork before", 1},
		"horizon": {&shaky{horizon: func() time.Duration { panic("a bug") }}, "a bug", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				to := &store{}
				src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
					var wg sync.WaitGroup
					for i := range 2 {
						wg.Go(func() {
							l := kemi.OpenLane(out, strconv.Itoa(i))
							l.Horizon()
							err := l.Write(ctx, items(10*i, 3))
							if err != nil && !strings.Contains(err.Error(), c.words) {
								t.Errorf("Write: %v", err)
							}
							if err := l.Close(); err != nil || l.Horizon() != 0 {
								t.Errorf("Close: %v", err)
							}
						})
					}
					wg.Wait()
					<-ctx.Done() // the flow is asked to stop by itself
					return nil
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, c.via, to)}, Logger: zap.New(core)}
				err := p.Run(t.Context())
				if err == nil || strings.Count(err.Error(), c.words) != 1 || !strings.Contains(err.Error(), `flow "f"`) {
					t.Errorf("Run: %v", err)
				}
				if s := closed(t, p)[0]; s.In != 6 || int(s.Written) != 3*c.good || int(s.Failed) != 6-3*c.good || s.Lanes != 0 {
					t.Errorf("ledger %+v", s)
				}
				told := logs.FilterMessage("the transform panicked").All()
				if len(told) != 1 || !strings.Contains(fmt.Sprint(told[0].ContextMap()["stack"]), ".go:") {
					t.Errorf("logged %v, want one line with a stack", logs.All())
				}
			})
		})
	}
}

// TestAPanicOfForkIsNoEnd has a source whose input ends after a lane could not be
// opened: what is open in the others is not given out as if all had been seen.
func TestAPanicOfForkIsNoEnd(t *testing.T) {
	src := source(func(_ context.Context, out kemi.Sink[item]) {
		kemi.OpenLane(out, "a")
		kemi.OpenLane(out, "b")
	})
	to := &store{}
	via := &shaky{fork: func() kemi.Transform[item, item] { panic("no more") }}
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("Run: %v", err)
	}
	if closed(t, p); to.total != 0 {
		t.Errorf("the sink holds %v", to.held)
	}
}

// TestAHorizonThatPanicsIsStateToo: a batch that a transform panicked on is not fed
// again where it cannot be told whether there is state.
func TestAHorizonThatPanicsIsStateToo(t *testing.T) {
	s := run(t, kemi.Pipe("f", once(items(0, 8)), kemi.Transform[item, item](broken{}), nowhere[item]()))[0]
	if s.Rejected != 8 || s.Dropped != 8 {
		t.Errorf("ledger %+v", s)
	}
}

type broken struct{}

func (broken) Horizon() time.Duration { panic("a bug") }
func (broken) Apply(context.Context, []item, []item) ([]item, error) {
	panic("a bug")
}

func TestAPanicWhileFinishingIsAnErrorOfRun(t *testing.T) {
	via := &ticker{onFinish: func() { panic("a bug") }}
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", once(items(0, 1)), via, nowhere[item]())}}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("Run: %v", err)
	}
	if s := closed(t, p)[0]; s.Written != 1 {
		t.Errorf("ledger %+v", s)
	}
}
