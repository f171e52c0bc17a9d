package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
)

// Timeout returns a sink that gives each Write to to the time d, or less if the
// caller has less, and then cancels its context. It returns when to does: a sink
// that ignores its context cannot be left behind with the batch. Not in time is an
// error that may pass, whatever to makes of it. d of 0 or less is no limit.
func Timeout[T any](to kemi.Sink[T], d time.Duration) kemi.Sink[T] {
	if d <= 0 {
		return to
	}
	return timeout[T]{to, d}
}

type timeout[T any] struct {
	to kemi.Sink[T]
	d  time.Duration
}

func (t timeout[T]) String() string { return name(t.to) }

func (t timeout[T]) Write(ctx context.Context, batch []T) error {
	limited, cancel := context.WithTimeout(ctx, t.d)
	defer cancel()
	err := t.to.Write(limited, batch)
	if err == nil || limited.Err() == nil || ctx.Err() != nil {
		return err
	}
	// What a sink calls permanent while it is being cut off may be no more than that.
	if failed, ok := failures(err, batch); ok {
		for i := range failed {
			failed[i].Err = t.late(failed[i].Err)
		}
		return kemi.Partial(batch, failed...)
	}
	return t.late(err)
}

func (t timeout[T]) late(err error) error {
	if kemi.IsPermanent(err) {
		err = passing{err}
	}
	return fmt.Errorf("%s was not done within %v: %w", name(t.to), t.d, err)
}

// passing is an error that is not permanent, though the one in it is. It has no
// Unwrap, by which the mark would be found.
type passing struct{ err error }

func (p passing) Error() string        { return p.err.Error() }
func (p passing) Is(target error) bool { return errors.Is(p.err, target) }
