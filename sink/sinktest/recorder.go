package sinktest

import (
	"context"
	"slices"
	"sync"
)

// Recorder is a sink that keeps what it is given, for tests of what lies before it.
// The zero value is ready. It may be used by many goroutines.
type Recorder[T any] struct {
	mu      sync.Mutex
	batches [][]T
	records int
	changed chan struct{} // closed at the next Write; nil: nobody waits
}

// Write keeps a copy of the batch.
func (r *Recorder[T]) Write(_ context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, slices.Clone(batch))
	r.records += len(batch)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
	return nil
}

// Records returns all records so far, in order of arrival. The slice is the
// caller's.
func (r *Recorder[T]) Records() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.batches...)
}

// Batches returns the batches so far, in order of arrival. They are read-only.
func (r *Recorder[T]) Batches() [][]T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

// Len returns the number of records so far.
func (r *Recorder[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records
}

// Wait waits until there are n records or more, or ctx is done.
func (r *Recorder[T]) Wait(ctx context.Context, n int) error {
	for {
		r.mu.Lock()
		if r.records >= n {
			r.mu.Unlock()
			return nil
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
