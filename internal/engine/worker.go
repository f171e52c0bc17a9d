package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// counts is a worker's part of the ledger.
type counts struct {
	in, done, failed, replayed                       atomic.Uint64
	out, written, dead, dropped, abandoned, rejected atomic.Uint64
	retries                                          atomic.Uint64
}

// add adds what o counts to c. The parts of a sum are read before the sum.
func (c *counts) add(o *counts) {
	c.done.Add(o.done.Load())
	c.failed.Add(o.failed.Load())
	c.in.Add(o.in.Load())
	c.replayed.Add(o.replayed.Load())
	c.rejected.Add(o.rejected.Load())
	c.written.Add(o.written.Load())
	c.dead.Add(o.dead.Load())
	c.dropped.Add(o.dropped.Load())
	c.abandoned.Add(o.abandoned.Load())
	c.out.Add(o.out.Load())
	c.retries.Add(o.retries.Load())
}

// worker takes batches through a flow, one at a time. It keeps its scratch slice
// for ever, so that a batch costs no allocation for its results.
type worker[In, Out any] struct {
	counts
	flow    *flow[In, Out]
	ops     Ops[In, Out]
	id      string
	forked  bool
	scratch []Out
	since   atomic.Int64 // the write under way began at; 0: none
}

// refusal is an input that the transform refused for good.
type refusal[T any] struct {
	record T
	err    error
}

// write takes a batch through. The caller has counted it as in.
func (w *worker[In, Out]) write(caller, hard context.Context, batch []In) error {
	n := uint64(len(batch))
	if hard.Err() != nil {
		w.failed.Add(n)
		return errHardStop
	}
	w.since.Store(w.flow.now())
	ctx, release := through(hard, caller)
	err := w.process(ctx, batch)
	if release != nil {
		release()
	}
	w.since.Store(0)
	if err != nil {
		w.failed.Add(n)
		return err
	}
	w.done.Add(n)
	return nil
}

func (w *worker[In, Out]) process(ctx context.Context, batch []In) error {
	if pass := w.flow.Pass; pass != nil {
		w.out.Add(uint64(len(batch)))
		return w.deliver(ctx, pass(batch))
	}
	dst, err := w.apply(ctx, w.scratch[:0], batch)
	var refused []refusal[In]
	if err != nil {
		dst, refused, err = w.applyAgain(ctx, w.scratch[:0], dst, batch, err)
	}
	w.keep(dst)
	if err != nil {
		return err
	}
	w.out.Add(uint64(len(dst) + len(refused)))
	if len(dst) > 0 {
		if err := w.deliver(ctx, dst); err != nil {
			w.abandoned.Add(uint64(len(refused)))
			return err
		}
	}
	if len(refused) > 0 {
		w.rejected.Add(uint64(len(refused)))
		return buryAll(ctx, w, w.flow.Via, refused)
	}
	return nil
}

const scratchMax = 1 << 16 // records; a larger scratch is not kept for small batches

// keep makes dst the scratch. Old records in it are not cleared (5 ns a record):
// they are values that someone else holds anyway, for as long as a batch takes.
func (w *worker[In, Out]) keep(dst []Out) {
	if cap(dst) > scratchMax && len(dst) < cap(dst)/8 {
		dst = nil
	}
	w.scratch = dst[:0]
}

// apply calls the transform. A panic is a permanent error.
func (w *worker[In, Out]) apply(ctx context.Context, dst []Out, src []In) (out []Out, err error) {
	if !w.forked && w.ops.Tick != nil {
		w.flow.shared.RLock()
		defer w.flow.shared.RUnlock()
	}
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, caught(w.flow.Via, p)
		}
	}()
	return w.ops.Apply(ctx, dst, src)
}

// applyAll applies until it is done or given up. What it returns is dst and the
// results, and the inputs refused for good.
func (w *worker[In, Out]) applyAll(ctx context.Context, dst []Out, src []In) ([]Out, []refusal[In], error) {
	out, err := w.apply(ctx, dst, src)
	if err == nil {
		return out, nil, nil
	}
	return w.applyAgain(ctx, dst, out, src, err)
}

// applyAgain goes on after an error: out is dst and what came with the error.
func (w *worker[In, Out]) applyAgain(ctx context.Context, dst, out []Out, src []In, err error) ([]Out, []refusal[In], error) {
	f := w.flow
	wait := f.backoff()
	for tries := 1; err != nil; tries++ {
		if failed, ok := Failures(err, src); ok {
			f.note("the transform refused records", err, zap.String("transform", f.Via))
			refused := make([]refusal[In], len(failed))
			for i, x := range failed {
				refused[i] = refusal[In]{src[x.Index], x.Err}
			}
			return out, refused, nil
		}
		f.note("the transform failed", err, zap.String("transform", f.Via), zap.Int("tries", tries))
		if ctx.Err() != nil {
			return dst, nil, given(ctx, len(src), err)
		}
		spent := f.Attempts > 0 && tries >= f.Attempts
		if IsPermanent(err) || spent {
			// A panic may have come halfway through, with the state changed for the records
			// before it: feeding those again would count them twice, so a stateful
			// transform loses the batch to the dead letters.
			broken := w.forked && stackOf(err) != ""
			if len(src) == 1 || spent || broken {
				refused := make([]refusal[In], len(src))
				for i, r := range src {
					refused[i] = refusal[In]{r, err}
				}
				return dst, refused, nil
			}
			half := len(src) / 2
			a, refusedA, err := w.applyAll(ctx, dst, src[:half])
			if err != nil {
				return dst, nil, err
			}
			b, refusedB, err := w.applyAll(ctx, a, src[half:])
			if err != nil {
				return dst, nil, err
			}
			return b, append(refusedA, refusedB...), nil
		}
		if e := sleep(ctx, wait.next(waitOf(err))); e != nil {
			return dst, nil, given(ctx, len(src), err)
		}
		out, err = w.apply(ctx, dst, src)
	}
	return out, nil, nil
}

// safely calls fn, which appends to the scratch. A panic is a permanent error.
func (w *worker[In, Out]) safely(ctx context.Context, fn func(context.Context, []Out) ([]Out, error)) (out []Out, err error) {
	dst := w.scratch[:0]
	defer func() {
		if p := recover(); p != nil {
			out, err = dst, caught(w.flow.Via, p)
		}
	}()
	return fn(ctx, dst)
}

// emit delivers what fn (a tick, a finish) appends.
func (w *worker[In, Out]) emit(ctx context.Context, fn func(context.Context, []Out) ([]Out, error)) error {
	dst, err := w.safely(ctx, fn)
	if err != nil {
		w.flow.note("the transform failed on a tick", err, zap.String("transform", w.flow.Via))
		return err
	}
	w.keep(dst)
	if len(dst) == 0 {
		return nil
	}
	w.since.Store(w.flow.now())
	defer w.since.Store(0)
	w.out.Add(uint64(len(dst)))
	return w.deliver(ctx, dst)
}

// call calls the sink. A panic is a permanent error.
func (w *worker[In, Out]) call(ctx context.Context, batch []Out) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught(w.flow.To, p)
		}
	}()
	return w.flow.Write(ctx, batch)
}

// deliver brings every record of batch to the sink or the dead letters, or gives up
// with an error when ctx ends. Each record is counted once, as one of written,
// dead, dropped or abandoned.
func (w *worker[In, Out]) deliver(ctx context.Context, batch []Out) error {
	err := w.call(ctx, batch)
	if err == nil {
		w.written.Add(uint64(len(batch)))
		return nil
	}
	return w.deliverAgain(ctx, batch, err)
}

func (w *worker[In, Out]) deliverAgain(ctx context.Context, batch []Out, err error) error {
	f := w.flow
	wait := f.backoff()
	for tries := 1; ; tries++ {
		f.note("the sink failed", err, zap.String("sink", f.To), zap.Int("records", len(batch)), zap.Int("tries", tries))
		spent := f.Attempts > 0 && tries >= f.Attempts
		after := waitOf(err)
		if failed, ok := Failures(err, batch); ok {
			w.written.Add(uint64(len(batch) - len(failed)))
			again, dead, longest := sortOut(batch, failed, spent)
			if ctx.Err() != nil {
				// What a stage calls permanent while it is being cut off may be no more than that.
				w.abandoned.Add(uint64(len(failed)))
				return given(ctx, len(failed), err)
			}
			if len(dead) > 0 {
				if e := buryAll(ctx, w, f.To, dead); e != nil {
					w.abandoned.Add(uint64(len(again)))
					return e
				}
			}
			if len(again) == 0 {
				return nil
			}
			batch, after = again, longest
		} else {
			switch {
			case ctx.Err() != nil:
				w.abandoned.Add(uint64(len(batch)))
				return given(ctx, len(batch), err)
			case IsPermanent(err) && len(batch) > 1 && !spent:
				half := len(batch) / 2
				if e := w.deliver(ctx, batch[:half]); e != nil {
					w.abandoned.Add(uint64(len(batch) - half))
					return e
				}
				return w.deliver(ctx, batch[half:])
			case IsPermanent(err) || spent:
				dead := make([]refusal[Out], len(batch))
				for i, r := range batch {
					dead[i] = refusal[Out]{r, err}
				}
				return buryAll(ctx, w, f.To, dead)
			}
		}
		if e := sleep(ctx, wait.next(after)); e != nil {
			w.abandoned.Add(uint64(len(batch)))
			return given(ctx, len(batch), err)
		}
		w.retries.Add(1)
		if err = w.call(ctx, batch); err == nil {
			w.written.Add(uint64(len(batch)))
			f.recovered(tries + 1)
			return nil
		}
	}
}

// sortOut parts the failed records into those to try again and those to bury. Both
// are new slices: batch belongs to someone else.
func sortOut[T any](batch []T, failed []Failure, spent bool) (again []T, dead []refusal[T], after time.Duration) {
	for _, x := range failed {
		if spent || IsPermanent(x.Err) {
			dead = append(dead, refusal[T]{batch[x.Index], x.Err})
			continue
		}
		again = append(again, batch[x.Index])
		after = max(after, waitOf(x.Err))
	}
	return again, dead, after
}

// buryAll brings records to the dead letters. They are counted as dead, as dropped
// where there are no dead letters, or as abandoned with an error: a record on its
// way to the dead letters is as safe as any other.
func buryAll[In, Out, T any](ctx context.Context, w *worker[In, Out], stage string, dead []refusal[T]) error {
	f := w.flow
	n := uint64(len(dead))
	if f.env.Bury == nil {
		w.dropped.Add(n)
		f.note("records refused for good were dropped: the pipeline has no dead letters", dead[0].err,
			zap.String("stage", stage), zap.Uint64("records", n))
		return nil
	}
	letters := make([]Letter, len(dead))
	now := time.Now().UTC()
	for i, d := range dead {
		letters[i] = Letter{Time: now, Flow: f.Spec.Name, Stage: stage, Record: d.record, Err: d.err, Stack: stackOf(d.err)}
	}
	wait := f.backoff()
	for {
		err := bury(ctx, f.env, letters)
		switch {
		case err == nil:
			w.dead.Add(n)
			return nil
		case ctx.Err() != nil:
			w.abandoned.Add(n)
			return given(ctx, len(dead), err)
		case IsPermanent(err):
			w.dropped.Add(n)
			f.note("the dead letters refused records: they were dropped", err, zap.Uint64("records", n))
			return nil
		}
		f.note("the dead letters failed", err, zap.Uint64("records", n))
		if sleep(ctx, wait.next(waitOf(err))) != nil {
			w.abandoned.Add(n)
			return given(ctx, len(dead), err)
		}
	}
}

func bury(ctx context.Context, e *env, letters []Letter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught("the dead letters", p)
		}
	}()
	return e.Bury(ctx, letters)
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

func (f *flow[In, Out]) backoff() backoff { return backoff{f.BackoffMin, f.BackoffMax} }

func (b *backoff) next(atLeast time.Duration) time.Duration {
	d := rand.N(b.bound + 1)
	b.bound = min(2*b.bound, b.max)
	return max(d, atLeast)
}
