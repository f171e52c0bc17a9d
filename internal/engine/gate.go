package engine

import (
	"context"
	"time"

	"github.com/kemi-go/kemi/internal/origin"
)

// gate is the context given to a stage: the values of the caller, the cancellation
// of the hard stop. The caller's own cancellation does not pass, since a source is
// asked to stop by cancelling the very context it hands on, and a batch under way
// must be finished then.
type gate struct {
	context.Context // the hard stop
	values          context.Context

	from *origin.Batch   // of what the caller writes; nil: not known
	out  origin.Batch    // of what the transform made of it
	sink context.Context // says out
}

// gateOf is the gate of a caller.
func gateOf(hard, caller context.Context) *gate {
	return &gate{Context: hard, values: caller, from: origin.Of(caller)}
}

// made returns the context for the sink of what a transform made, given what ctx is
// for the transform. The marks are in g.out.
func (g *gate) made(ctx context.Context) context.Context {
	if g.from == nil {
		return ctx
	}
	g.out.Source = g.from.Source
	g.out.Begin()
	if ctx != g { // it has a deadline besides
		return origin.With(ctx, &g.out)
	}
	if g.sink == nil {
		g.sink = origin.With(g, &g.out)
	}
	return g.sink
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
