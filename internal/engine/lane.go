package engine

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// lane is one ordered line of input.
type lane[In, Out any] struct {
	*worker[In, Out]
	turn  chan struct{} // holds one token while the lane is in use; waiting for it can be given up
	gone  context.Context
	leave context.CancelCauseFunc
	muted bool // under turn
	ended bool // under turn
	ticks sync.WaitGroup
}

func (f *flow[In, Out]) open(id string, o LaneOptions) *lane[In, Out] {
	ops, forked := f.Shared, f.Fork != nil
	var wrong error
	if forked {
		if ops, wrong = f.fork(); wrong != nil {
			f.panicked(wrong)
		}
	}
	w := &worker[In, Out]{flow: f, ops: ops, id: id, forked: forked}
	l := &lane[In, Out]{worker: w, turn: make(chan struct{}, 1)}
	l.gone, l.leave = context.WithCancelCause(f.env.hard)
	f.mu.Lock()
	if f.over || wrong != nil {
		l.ended = true
	} else {
		f.lanes[l] = struct{}{}
		f.workers[w] = struct{}{}
	}
	f.mu.Unlock()
	switch {
	case l.ended:
		l.leave(cmp.Or(wrong, errOver))
	case forked && ops.Tick != nil && !o.SourceTicks:
		l.ticks.Go(l.tickByTimer)
	case !forked && o.SourceTicks:
		f.sourceTicks.Store(true)
	}
	return l
}

func (f *flow[In, Out]) fork() (ops Ops[In, Out], err error) {
	f.forking.Lock()
	defer f.forking.Unlock()
	defer func() {
		if p := recover(); p != nil {
			err = caught(f.Via, p)
		}
	}()
	return f.Fork(), nil
}

func (l *lane[In, Out]) Write(ctx context.Context, batch []In) error {
	if len(batch) == 0 {
		return nil
	}
	if err := l.take(ctx); err != nil {
		return l.flow.turnAway(len(batch), err)
	}
	defer l.give()
	if l.muted {
		return l.replay(ctx, batch)
	}
	return l.write(ctx, l.gone, batch)
}

// take waits for the lane, as long as ctx has time for: its deadline counts, its
// cancellation does not (see gate).
func (l *lane[In, Out]) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	default: // a tick, or another writer of a source without lanes
		if err := l.wait(ctx); err != nil {
			return err
		}
	}
	if l.ended {
		l.give()
		return context.Cause(l.gone)
	}
	return nil
}

func (l *lane[In, Out]) give() { <-l.turn }

func (l *lane[In, Out]) wait(ctx context.Context) error {
	var late <-chan time.Time
	if d, ok := ctx.Deadline(); ok {
		t := time.NewTimer(time.Until(d))
		defer t.Stop()
		late = t.C
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-late:
		return fmt.Errorf("kemi: flow %q was busy until the deadline: %w", l.flow.Spec.Name, context.DeadlineExceeded)
	case <-l.gone.Done():
		return context.Cause(l.gone)
	}
}

// replay feeds the state and emits nothing.
func (l *lane[In, Out]) replay(ctx context.Context, batch []In) error {
	if l.gone.Err() != nil {
		return context.Cause(l.gone)
	}
	if l.flow.Pass == nil {
		l.begin(0, l.flow.now(), l.flow.Via)
		defer l.end(0, 0, true)
		c, release := l.through(l.gone, ctx)
		if release != nil {
			defer release()
		}
		dst, _, err := l.applyAll(c, l.scratch[:0], batch, 0)
		l.keep(dst)
		if err != nil {
			return err
		}
	}
	l.replayed(len(batch))
	return nil
}

func (l *lane[In, Out]) Tick(ctx context.Context, now time.Time) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	if l.ops.Tick == nil {
		return nil
	}
	c, release := l.through(l.gone, ctx)
	if release != nil {
		defer release()
	}
	return l.tick(c, now)
}

// tick ticks. The caller has the turn.
func (l *lane[In, Out]) tick(ctx context.Context, now time.Time) error {
	return l.emit(ctx, l.muted, func(ctx context.Context, dst []Out) ([]Out, error) {
		if !l.forked {
			return l.flow.tickShared(ctx, dst, now)
		}
		return l.ops.Tick(ctx, dst, now)
	})
}

// tickByTimer ticks while the lane is open. A lane in use is left alone: Apply must
// not meet Tick, and a lane that is blocked by its sink has nowhere to put what a
// tick would bring.
func (l *lane[In, Out]) tickByTimer() {
	everyTick(l.gone, l.flow.TickEvery, l.tickNow)
}

func (l *lane[In, Out]) tickNow(now time.Time) {
	select {
	case l.turn <- struct{}{}:
		if !l.ended && !l.muted && l.ops.Tick != nil {
			_ = l.tick(l.gone, now) // noted there; the next tick comes anyway
		}
		l.give()
	default:
	}
}

func (l *lane[In, Out]) finish() error {
	l.turn <- struct{}{}
	defer l.give()
	if l.ended || !l.forked || l.ops.Finish == nil {
		return nil
	}
	return l.emit(l.gone, l.muted, l.ops.Finish)
}

// Horizon asks the transform. One that panics has its lane ended.
func (l *lane[In, Out]) Horizon() time.Duration {
	l.turn <- struct{}{}
	d, err := l.horizon()
	l.give()
	if err != nil {
		l.flow.panicked(err)
		l.leave(err)
		l.retire()
	}
	return d
}

func (l *lane[In, Out]) Mute(on bool) {
	l.turn <- struct{}{}
	defer l.give()
	l.muted = on
}

func (l *lane[In, Out]) Close() error {
	l.leave(errClosed) // cuts off what is under way
	l.retire()
	return nil
}

// retire waits for what is under way and closes the lane.
func (l *lane[In, Out]) retire() {
	l.turn <- struct{}{}
	first := !l.ended
	l.ended = true
	l.ops, l.scratch, l.gate = Ops[In, Out]{}, nil, nil // the state may be large
	l.give()
	l.leave(errClosed)
	l.ticks.Wait()
	if first {
		f := l.flow
		f.mu.Lock()
		delete(f.lanes, l)
		f.dismiss(l.worker)
		f.mu.Unlock()
	}
}
