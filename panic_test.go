package kemi_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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

// forkPanics panics when a lane is opened.
type forkPanics struct{ first bool }

func (f *forkPanics) Fork() kemi.Transform[item, item] {
	if f.first {
		f.first = false
		return pass[item]()
	}
	panic("no more")
}

func (*forkPanics) Apply(_ context.Context, dst, src []item) ([]item, error) {
	return append(dst, src...), nil
}

func TestAPanicOfForkIsAnErrorOfRun(t *testing.T) {
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		kemi.OpenLane(out, "a")
		kemi.OpenLane(out, "b")
	})
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, &forkPanics{first: true}, nowhere[item]())}}
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no more") {
		t.Errorf("Run: %v", err)
	}
	closed(t, p)
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
