package source

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
)

// Every returns a source that calls fn at once and then every interval, and writes
// what fn returns as one batch. now is the time of the round in UTC, without a
// monotonic reading. Rounds keep the rhythm of the first: one that takes longer than
// the interval, by fn or by a Write that waits, makes the rounds it runs over fall
// out, and there is never more than one at a time.
//
// fn gets a context that is done when the source is asked to stop. It deals with
// failures that the next round may mend; an error that it returns ends the source,
// as does a Write that fails, unless the source was asked to stop and fn only says
// that it obeyed. The slice that fn returns is not used after the next call of fn.
//
// Run fails if interval is not above 0.
func Every[T any](interval time.Duration, fn func(ctx context.Context, now time.Time) ([]T, error)) kemi.Source[T] {
	return every[T]{interval, fn}
}

type every[T any] struct {
	interval time.Duration
	fn       func(ctx context.Context, now time.Time) ([]T, error)
}

func (e every[T]) String() string { return "every " + e.interval.String() }

func (e every[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	if e.interval <= 0 {
		return fmt.Errorf("source.Every: interval %v: want one above 0", e.interval)
	}
	began := time.Now()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		if ctx.Err() != nil {
			return nil // both were ready
		}
		batch, err := e.fn(ctx, time.Now().UTC().Round(0))
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if len(batch) > 0 {
			if err := out.Write(ctx, batch); err != nil {
				return err
			}
		}
		next.Reset(e.interval - time.Since(began)%e.interval)
	}
}
