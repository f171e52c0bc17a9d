package engine

import (
	"context"
	"time"
)

// gate is the context given to a stage: the values of the caller, the cancellation
// of the hard stop. The caller's own cancellation does not pass, since a source is
// asked to stop by cancelling the very context it hands on, and a batch under way
// must be finished then.
type gate struct {
	context.Context // the hard stop
	values          context.Context
}

// Value asks the hard stop first: the context package looks for its own cancelable
// contexts this way, and finding that one lets a child be attached to it without a
// goroutine.
func (g *gate) Value(key any) any {
	if v := g.Context.Value(key); v != nil {
		return v
	}
	return g.values.Value(key)
}

// sleep waits for d, or less if ctx ends or could not last that long.
func sleep(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return context.DeadlineExceeded
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
