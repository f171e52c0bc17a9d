package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/origin"
)

// refusal is a record that was refused for good.
type refusal[T any] struct {
	record T
	err    error
}

// outlet is where records leave the flow: the sink, or the dead letters. It tries
// again what may pass, finds the guilty of a batch that is refused, and hands those
// to refuse.
type outlet[T any] struct {
	stage  string // for people
	failed string // what the journal says when write fails
	write  func(ctx context.Context, batch []T) error
	column column // where the records it takes are counted
	refuse func(ctx context.Context, a *account, refused []refusal[T]) error

	attempts int
	backoff  backoff // at the first try
	*journal
}

// deliver brings every record of batch to its end, or gives up with an error when
// ctx ends. Each record is settled once.
func (o *outlet[T]) deliver(ctx context.Context, a *account, batch []T, tries int) error {
	err := o.call(ctx, batch)
	if err == nil {
		a.settle(len(batch), o.column)
		return nil
	}
	return o.deliverAgain(ctx, a, batch, tries, err)
}

// offer delivers a batch, but leaves one that is taken at once to the caller to
// settle: most are, and the account is opened once less.
func (o *outlet[T]) offer(ctx context.Context, a *account, batch []T) (taken int, err error) {
	if err = o.call(ctx, batch); err == nil {
		return len(batch), nil
	}
	return 0, o.deliverAgain(ctx, a, batch, 0, err)
}

// call calls the stage. A panic is a permanent error.
func (o *outlet[T]) call(ctx context.Context, batch []T) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught(o.stage, p)
		}
	}()
	return o.write(ctx, batch)
}

// deliverAgain goes on with a batch that has just failed with err, and some tries
// before.
func (o *outlet[T]) deliverAgain(ctx context.Context, a *account, batch []T, tries int, err error) error {
	for wait := o.backoff; ; {
		o.note(o.failed, err, zap.String("stage", o.stage), zap.Int("records", len(batch)), zap.Int("tries", tries+1))
		v, floor := judge(err, batch), waitOf(err)
		switch {
		case ctx.Err() != nil:
			// What a stage calls permanent while it is being cut off may be no more than that.
			n := len(batch)
			if v.some {
				n = len(v.failed)
				a.settle(len(batch)-n, o.column)
			}
			a.settle(n, abandoned)
			return given(ctx, n, err)
		case v.some:
			a.settle(len(batch)-len(v.failed), o.column)
			tries++
			again, refused, longest := sortOut(batch, v.failed, v.permanent || o.spent(tries))
			if len(refused) > 0 {
				if e := o.refuse(ctx, a, refused); e != nil {
					a.settle(len(again), abandoned)
					return e
				}
				a.at(o.stage)
			}
			if len(again) == 0 {
				return nil
			}
			batch, floor = again, max(floor, longest)
		case v.permanent && len(batch) > 1:
			// Halving is a search and not another try of the same.
			half := len(batch) / 2
			if e := o.deliver(ctx, a, batch[:half], tries); e != nil {
				a.settle(len(batch)-half, abandoned)
				return e
			}
			a.at(o.stage)
			return o.deliver(ctx, a, batch[half:], tries)
		default:
			tries++
			if v.permanent || o.spent(tries) {
				return o.refuse(ctx, a, refuseAll(batch, err))
			}
		}
		if sleep(ctx, wait.next(floor)) != nil {
			a.settle(len(batch), abandoned)
			return given(ctx, len(batch), err)
		}
		a.retried()
		if b := origin.Of(ctx); b != nil {
			b.Begin()
		}
		if err = o.call(ctx, batch); err == nil {
			a.settle(len(batch), o.column)
			o.cleared(o.failed, "records are taken again", zap.String("stage", o.stage), zap.Int("tries", tries+1))
			return nil
		}
	}
}

func (o *outlet[T]) spent(tries int) bool { return o.attempts > 0 && tries >= o.attempts }

// sortOut parts the failed records into those to try again and those refused for
// good. Both are new slices: batch belongs to someone else.
func sortOut[T any](batch []T, failed []Failure, forGood bool) (again []T, refused []refusal[T], floor time.Duration) {
	for _, x := range failed {
		if forGood || IsPermanent(x.Err) {
			refused = append(refused, refusal[T]{batch[x.Index], x.Err})
			continue
		}
		again = append(again, batch[x.Index])
		floor = max(floor, waitOf(x.Err))
	}
	return again, refused, floor
}

func refuseAll[T any](batch []T, err error) []refusal[T] {
	refused := make([]refusal[T], len(batch))
	for i, r := range batch {
		refused[i] = refusal[T]{r, err}
	}
	return refused
}

// given is the error of a batch that was given up.
func given(ctx context.Context, n int, last error) error {
	why := context.Cause(ctx)
	if why == nil { // the wait would have outlasted the deadline
		why = context.DeadlineExceeded
	}
	return fmt.Errorf("kemi: %d records not delivered: %w; last error: %w", n, why, last)
}

// backoff is exponential with full jitter: a wait at random below a bound that
// doubles. (See "Exponential Backoff And Jitter", M. Brooker, 2015.)
type backoff struct{ bound, max time.Duration }

func (b *backoff) next(atLeast time.Duration) time.Duration {
	d := rand.N(b.bound)
	b.bound += min(b.bound, b.max-b.bound)
	return max(d, atLeast)
}
