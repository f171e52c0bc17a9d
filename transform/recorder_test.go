package transform_test

import (
	"context"
	"slices"
	"sync"
)

// recorder is a sink that keeps what it is given.
type recorder[T any] struct {
	mu  sync.Mutex
	got []T
}

func (r *recorder[T]) Write(_ context.Context, batch []T) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, batch...)
	return nil
}

func (r *recorder[T]) records() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}
