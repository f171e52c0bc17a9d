package kemi_test

// The stages that the tests of this package are made of.

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

var errDown = errors.New("the far side is down")

// item is a record that can be told from any other.
type item struct{ ID int }

func items(from, n int) []item {
	batch := make([]item, n)
	for i := range batch {
		batch[i].ID = from + i
	}
	return batch
}

// store is a sink that keeps how often it took each item. Its fault, if any, answers
// for a batch first: the store takes what is not in the answer.
type store struct {
	fault func(ctx context.Context, batch []item) error

	mu    sync.Mutex
	held  map[int]int
	total int // with repetitions
	calls int
}

func (s *store) Write(ctx context.Context, batch []item) error {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	var err error
	if s.fault != nil {
		err = s.fault(ctx, batch)
	}
	refused := map[int]bool{}
	if err != nil {
		failed, ok := kemi.Failures(err, batch)
		if !ok {
			return err
		}
		for _, f := range failed {
			refused[f.Index] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[int]int{}
	}
	for i, x := range batch {
		if !refused[i] {
			s.held[x.ID]++
			s.total++
		}
	}
	return err
}

func (s *store) count() (distinct, total, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held), s.total, s.calls
}

// nowhere is a sink that takes everything.
func nowhere[T any]() kemi.Sink[T] {
	return kemi.SinkFunc[T](func(context.Context, []T) error { return nil })
}

// always is a sink that answers every batch with err.
func always(err error) kemi.Sink[item] {
	return kemi.SinkFunc[item](func(context.Context, []item) error { return err })
}

// letters is a sink that keeps dead letters.
type letters struct {
	mu   sync.Mutex
	kept []kemi.DeadLetter
}

func (l *letters) Write(_ context.Context, batch []kemi.DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, batch...)
	return nil
}

// once is a source that writes its batches one after the other, and ends.
func once[T any](batches ...[]T) kemi.Source[T] {
	return kemi.SourceFunc[T](func(ctx context.Context, out kemi.Sink[T]) error {
		for _, b := range batches {
			if err := out.Write(ctx, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// idle is a source that brings nothing until it is asked to stop.
func idle[T any]() kemi.Source[T] {
	return kemi.SourceFunc[T](func(ctx context.Context, _ kemi.Sink[T]) error {
		<-ctx.Done()
		return ctx.Err()
	})
}

// source is a function that is given the inlet, for tests that want it in hand.
func source[T any](run func(ctx context.Context, out kemi.Sink[T])) kemi.Source[T] {
	return kemi.SourceFunc[T](func(ctx context.Context, out kemi.Sink[T]) error {
		run(ctx, out)
		return nil
	})
}

// pass is a stateless transform that changes nothing.
func pass[T any]() kemi.Transform[T, T] {
	return kemi.TransformFunc[T, T](func(_ context.Context, dst, src []T) ([]T, error) {
		return append(dst, src...), nil
	})
}

// run runs a pipeline of flows to the natural end of their sources.
func run(t *testing.T, flows ...*kemi.Flow) []kemi.FlowStats {
	t.Helper()
	return runPipeline(t, &kemi.Pipeline{Flows: flows})
}

func runPipeline(t *testing.T, p *kemi.Pipeline) []kemi.FlowStats {
	t.Helper()
	if err := p.Run(t.Context()); err != nil {
		t.Fatalf("Run: %v", err)
	}
	return closed(t, p)
}

// closed checks that the ledgers of a pipeline that has ended are in balance and
// final, and returns them.
func closed(t *testing.T, p *kemi.Pipeline) []kemi.FlowStats {
	t.Helper()
	all := p.Stats()
	for _, s := range all {
		if err := s.Balance(); err != nil {
			t.Error(err)
		}
		if s.InFlight != 0 || s.Pending != 0 || s.Busy != 0 || s.Lanes != 0 {
			t.Errorf("flow %q has ended with %d in flight, %d pending, %d busy, %d lanes", s.Name, s.InFlight, s.Pending, s.Busy, s.Lanes)
		}
	}
	return all
}

// background runs a pipeline until stop is called, which returns what Run returned.
func background(p *kemi.Pipeline) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// fast makes retries cost no time worth telling.
func fast() kemi.FlowOption { return kemi.Backoff(time.Microsecond, 100*time.Microsecond) }
