package transform

import (
	"context"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
)

// shared is a transform that ticks or keeps and does not fork, in a chain that forks.
// The forks of the chain share it, and each is ticked by its own lane; it keeps Tick,
// Keep and Restore apart from the Apply of other lanes and lets a tick happen once, as a
// flow would.
type shared[In, Out any] struct {
	kemi.Transform[In, Out]
	mu   sync.RWMutex
	last time.Time
}

func share[In, Out any](t kemi.Transform[In, Out]) kemi.Transform[In, Out] {
	if ticks(t) || keeps(t) {
		return &shared[In, Out]{Transform: t}
	}
	return t
}

func (s *shared[In, Out]) Apply(ctx context.Context, dst []Out, src []In) ([]Out, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.Transform.Apply(ctx, dst, src)
}

func (s *shared[In, Out]) Tick(ctx context.Context, dst []Out, now time.Time) ([]Out, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !now.After(s.last) {
		return dst, nil // another lane brought this tick
	}
	dst, err := tick(ctx, s.Transform, dst, now)
	if err == nil {
		s.last = now
	}
	return dst, err
}

func (s *shared[In, Out]) Finish(ctx context.Context, dst []Out) ([]Out, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return finish(ctx, s.Transform, dst)
}

func (s *shared[In, Out]) Keep(dst []kemi.Kept) []kemi.Kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return keep(dst, s.Transform, "")
}

func (s *shared[In, Out]) Restore(kept []kemi.Kept) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return restore(s.Transform, kept)
}

func (s *shared[In, Out]) keeps() bool            { return keeps(s.Transform) }
func (s *shared[In, Out]) Horizon() time.Duration { return horizon(s.Transform) }
func (s *shared[In, Out]) Aggregates() bool       { return aggregates(s.Transform) }
func (s *shared[In, Out]) String() string         { return name(s.Transform) }
