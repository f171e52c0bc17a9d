package engine

import (
	"context"
	"reflect"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/origin"
)

// worker takes batches through a flow, one at a time. It keeps its scratch slice
// for ever, so that a batch costs no allocation for its results.
type worker[In, Out any] struct {
	account
	flow    *flow[In, Out]
	ops     Ops[In, Out]
	id      string
	forked  bool
	inlet   bool // one of those of the inlet, which outlive a Write
	scratch []Out
	gate    *gate // of the last Write: most sources hand on one context for ever
}

// write takes a batch through.
func (w *worker[In, Out]) write(caller, hard context.Context, batch []In) error {
	n := len(batch)
	if hard.Err() != nil {
		return w.flow.turnAway(n, context.Cause(hard))
	}
	if !w.begin(n, w.flow.now(), w.flow.first) {
		return w.flow.turnAway(n, errOver)
	}
	taken, done := 0, false
	defer func() { w.end(n, taken, done) }() // also when a stage ends the goroutine
	ctx, release := w.through(hard, caller)
	if release != nil {
		defer release()
	}
	var err error
	taken, err = w.process(ctx, batch)
	done = err == nil
	return err
}

// through returns the context for the stages, and a function to release it, which is
// nil where there is nothing to release.
func (w *worker[In, Out]) through(hard, caller context.Context) (context.Context, context.CancelFunc) {
	if d, ok := caller.Deadline(); ok {
		w.gate = gateOf(hard, caller)
		return context.WithDeadline(w.gate, d)
	}
	// A pointer can be compared.
	if g := w.gate; g != nil && reflect.TypeOf(caller).Kind() == reflect.Pointer && g.values == caller && g.Context == hard {
		return g, nil
	}
	w.gate = gateOf(hard, caller)
	return w.gate, nil
}

// process also returns how many results the sink took that are not settled yet.
func (w *worker[In, Out]) process(ctx context.Context, batch []In) (taken int, err error) {
	f := w.flow
	if pass := f.Pass; pass != nil {
		w.produce(len(batch), f.To)
		if b := w.gate.from; b != nil {
			b.Begin()
		}
		return f.sink.offer(ctx, &w.account, pass(batch))
	}
	dst, refused, err := w.applyMarked(ctx, batch)
	w.keep(dst)
	if err != nil {
		return 0, err
	}
	w.produce(len(dst)+len(refused), f.To)
	if len(dst) > 0 {
		if taken, err = f.sink.offer(w.gate.made(ctx), &w.account, dst); err != nil {
			w.settle(len(refused), abandoned)
			return 0, err
		}
	}
	if len(refused) > 0 {
		if err := bury(ctx, f, &w.account, f.Via, refused); err != nil {
			return taken, err
		}
		w.rejected(len(refused))
	}
	return taken, nil
}

// applyMarked applies to what came of each place of the bus by itself, so that it can
// be said of each result where it comes from. It is the same to a transform, which
// gives the same results however its input is cut.
func (w *worker[In, Out]) applyMarked(ctx context.Context, batch []In) (dst []Out, refused []refusal[In], err error) {
	from, out := w.gate.from, &w.gate.out
	out.Marks = out.Marks[:0]
	if !from.Covers(len(batch)) {
		return w.applyAll(ctx, w.scratch[:0], batch, 0)
	}
	dst = w.scratch[:0]
	at := 0
	for _, m := range from.Marks {
		var no []refusal[In]
		if at < m.End {
			if dst, no, err = w.applyAll(ctx, dst, batch[at:m.End], 0); err != nil {
				return dst, nil, err
			}
		}
		at = m.End
		refused = append(refused, no...)
		out.Marks = append(out.Marks, origin.Mark{End: len(dst), Seq: m.Seq})
	}
	return dst, refused, nil
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
		w.flow.ticking.RLock()
		defer w.flow.ticking.RUnlock()
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
func (w *worker[In, Out]) applyAll(ctx context.Context, dst []Out, src []In, tries int) ([]Out, []refusal[In], error) {
	out, err := w.apply(ctx, dst, src)
	if err == nil {
		return out, nil, nil
	}
	return w.applyAgain(ctx, dst, out, src, tries, err)
}

const transformFailed = "the transform failed"

// applyAgain goes on after an error: out is dst and what came with the error.
func (w *worker[In, Out]) applyAgain(ctx context.Context, dst, out []Out, src []In, tries int, err error) ([]Out, []refusal[In], error) {
	f := w.flow
	for wait := f.sink.backoff; err != nil; {
		v := judge(err, src)
		if v.some {
			f.note("the transform refused records", err, zap.String("stage", f.Via))
			_, refused, _ := sortOut(src, v.failed, true)
			return out, refused, nil
		}
		f.note(transformFailed, err, zap.String("stage", f.Via), zap.Int("records", len(src)), zap.Int("tries", tries+1))
		if ctx.Err() != nil {
			return dst, nil, given(ctx, len(src), err)
		}
		// A panic may have come halfway through, with the state changed for the records
		// before it: feeding those again would count them twice, so a transform with
		// state loses the batch to the dead letters.
		broken := stackOf(err) != "" && w.stateful()
		if v.permanent && len(src) > 1 && !broken {
			half := len(src) / 2
			a, refusedA, err := w.applyAll(ctx, dst, src[:half], tries)
			if err != nil {
				return dst, nil, err
			}
			b, refusedB, err := w.applyAll(ctx, a, src[half:], tries)
			if err != nil {
				return dst, nil, err
			}
			return b, append(refusedA, refusedB...), nil
		}
		tries++
		if v.permanent || f.sink.spent(tries) {
			return dst, refuseAll(src, err), nil
		}
		if sleep(ctx, wait.next(waitOf(err))) != nil {
			return dst, nil, given(ctx, len(src), err)
		}
		out, err = w.apply(ctx, dst, src)
	}
	f.cleared(transformFailed, "the transform works again", zap.String("stage", f.Via), zap.Int("tries", tries+1))
	return out, nil, nil
}

func (w *worker[In, Out]) stateful() bool {
	d, err := w.horizon()
	return w.forked || d > 0 || err != nil
}

// replayable tells whether the transform has state that a replay builds again.
func (w *worker[In, Out]) replayable() (yes bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught(w.flow.Via, p)
		}
	}()
	return w.ops.Horizon != nil && w.ops.Horizon() > 0 || w.ops.Proof != nil && w.ops.Proof() != Proof{}, nil
}

// horizon asks the transform. A panic is a permanent error.
func (w *worker[In, Out]) horizon() (d time.Duration, err error) {
	if w.ops.Horizon == nil {
		return 0, nil
	}
	defer func() {
		if p := recover(); p != nil {
			d, err = 0, caught(w.flow.Via, p)
		}
	}()
	return w.ops.Horizon(), nil
}

// emit delivers what fn (a tick, a finish) appends, or drops it where it is a replay.
// from is what the source says of where on the bus it comes from; nil: nothing.
func (w *worker[In, Out]) emit(ctx context.Context, muted bool, from *gate, fn func(context.Context, []Out) ([]Out, error)) error {
	if !w.begin(0, w.flow.now(), w.flow.Via) {
		return errOver
	}
	defer w.end(0, 0, true)
	dst, err := w.safely(ctx, fn)
	if err != nil {
		w.flow.note("the transform failed on a tick or at the end", err, zap.String("stage", w.flow.Via))
		return err
	}
	w.keep(dst)
	if len(dst) == 0 || muted {
		return nil
	}
	w.produce(len(dst), w.flow.To)
	if from != nil && from.from != nil && len(from.from.Marks) == 1 {
		from.out.Marks = append(from.out.Marks[:0], origin.Mark{End: len(dst), Seq: from.from.Marks[0].Seq})
		ctx = from.made(ctx)
	}
	return w.flow.sink.deliver(ctx, &w.account, dst, 0)
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
