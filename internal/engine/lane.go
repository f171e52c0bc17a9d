package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lane is one ordered line of input.
type lane[In, Out any] struct {
	*worker[In, Out]
	turn        chan struct{} // holds one token while the lane is in use; waiting for it can be given up
	gone        context.Context
	leave       context.CancelCauseFunc
	muted       bool // under turn
	ended       bool // under turn
	ticks       sync.WaitGroup
	sourceTicks bool
	pace        *pace // of a lane whose source ticks a transform that all lanes share
}

func (f *flow[In, Out]) open(id string, o LaneOptions) *lane[In, Out] {
	ops, forked := f.Shared, f.Fork != nil
	var wrong error
	if forked {
		ops, wrong = f.fork()
	}
	w := &worker[In, Out]{flow: f, ops: ops, id: id, forked: forked}
	if o.LogTicks && wrong == nil {
		o.SourceTicks, wrong = w.replayable()
	}
	l := &lane[In, Out]{worker: w, turn: make(chan struct{}, 1), sourceTicks: o.SourceTicks}
	l.gone, l.leave = context.WithCancelCause(f.env.hard)
	f.mu.Lock()
	if f.over || wrong != nil {
		l.ended = true
	} else {
		f.lanes[l] = struct{}{}
		f.workers[w] = struct{}{}
	}
	f.mu.Unlock()
	if o.LogTicks && forked && ops.Horizon == nil && ops.Keep == nil {
		f.forgets.Do(func() {
			f.log.Warn("the state of a stage starts anew with every start of this flow: give it a Horizon, and the topic builds it again; "+
				"one of 0 says that this is meant", zap.String("stage", f.Via))
		})
	}
	switch {
	case wrong != nil:
		f.panicked(wrong)
		l.leave(wrong)
	case l.ended:
		l.leave(errOver)
	case forked && ops.Tick != nil && !o.SourceTicks:
		l.ticks.Go(l.tickByTimer)
	case !forked && o.SourceTicks:
		f.sourceTicks.Store(true)
		if ops.Tick != nil {
			l.pace = f.together.join()
		}
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
	if l.pace != nil {
		defer l.pace.enter()()
	}
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
	if l.pace != nil {
		leads, left, err := l.pace.reach(ctx, l.gone, now)
		if left > 0 {
			l.flow.note("a tick went on without lanes that did not come", fmt.Errorf("kemi: %d lanes have not reached %v within %v", left, now, patience))
		}
		if err != nil || !leads {
			return err
		}
		defer l.pace.enter()()
	}
	c, release := l.through(l.gone, ctx)
	if release != nil {
		defer release()
	}
	err := l.tick(c, l.gate, now)
	if l.pace != nil && (err == nil || IsPermanent(err)) { // it will not come again
		l.pace.pass(now)
	}
	return err
}

// tick ticks. The caller has the turn.
func (l *lane[In, Out]) tick(ctx context.Context, from *gate, now time.Time) error {
	return l.emit(ctx, l.muted, from, func(ctx context.Context, dst []Out) ([]Out, error) {
		if !l.forked {
			return l.flow.tickShared(ctx, dst, now)
		}
		return l.ops.Tick(ctx, dst, now)
	})
}

// tickByTimer ticks while the lane is open, between two Writes: Apply must not meet
// Tick.
func (l *lane[In, Out]) tickByTimer() {
	everyTick(l.gone, l.flow.TickEvery, l.tickNow)
}

func (l *lane[In, Out]) tickNow(now time.Time) {
	if !l.between() {
		return
	}
	if !l.ended && !l.muted && l.ops.Tick != nil {
		_ = l.tick(l.gone, nil, now) // noted there; the next tick comes anyway
	}
	l.give()
}

// between takes the lane once the Write under way is over. It does not wait for one
// that takes long: a lane that is blocked by its sink has nowhere to put what a tick
// would bring. Were it not to wait at all, a lane that has always something to do
// would never be ticked.
func (l *lane[In, Out]) between() bool {
	select {
	case l.turn <- struct{}{}:
		return true
	default:
	}
	long := time.NewTimer(l.flow.TickEvery / 4)
	defer long.Stop()
	select {
	case l.turn <- struct{}{}:
		return true
	case <-long.C:
	case <-l.gone.Done():
	}
	return false
}

func (l *lane[In, Out]) finish() error {
	l.turn <- struct{}{}
	defer l.give()
	if l.ended || !l.forked || l.ops.Finish == nil {
		return nil
	}
	return l.emit(l.gone, l.muted, nil, l.ops.Finish)
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

// Ticks tells whether the transform waits for ticks of the source.
func (l *lane[In, Out]) Ticks() bool {
	l.turn <- struct{}{}
	defer l.give()
	return l.ops.Tick != nil && l.sourceTicks
}

// Refuse brings a record that the source could not read to the dead letters.
func (l *lane[In, Out]) Refuse(ctx context.Context, record any, why error) error {
	if err := l.take(ctx); err != nil {
		return l.flow.turnAway(1, err)
	}
	defer l.give()
	if l.muted {
		return nil // it was brought there before
	}
	f := l.flow
	if l.gone.Err() != nil {
		return f.turnAway(1, context.Cause(l.gone))
	}
	if !l.begin(1, f.now(), f.From) {
		return f.turnAway(1, errOver)
	}
	done := false
	defer func() { l.end(1, 0, done) }()
	c, release := l.through(l.gone, ctx)
	if release != nil {
		defer release()
	}
	l.produce(1, f.From)
	if err := bury(c, f, &l.account, f.From, []refusal[any]{{record, why}}); err != nil {
		return err
	}
	l.rejected(1)
	done = true
	return nil
}

// Proof tells of the state after the last Write or Tick. What all lanes share is told
// by the lane that leads, as it was after the last tick: other lanes may have been
// beyond that, and by chance.
func (l *lane[In, Out]) Proof() (p Proof) {
	_ = l.power(func() error {
		switch {
		case l.ops.Proof == nil:
		case l.forked:
			p = l.ops.Proof()
		case l.pace != nil && l.pace.leads():
			l.flow.ticking.Lock()
			defer l.flow.ticking.Unlock()
			p = l.flow.lastProof
		}
		return nil
	})
	return p
}

// power calls fn, which uses a power of the transform, in turn with everything else. One
// that panics ends the flow: there is no batch to blame.
func (l *lane[In, Out]) power(fn func() error) (err error) {
	l.turn <- struct{}{}
	defer func() {
		p := recover()
		l.give()
		if p != nil {
			err = caught(l.flow.Via, p)
			l.flow.panicked(err)
			l.leave(err)
			l.retire()
		}
	}()
	if l.ended {
		return nil
	}
	return fn()
}

// Prove compares the state that a replay has built with what was told of it then.
func (l *lane[In, Out]) Prove(was Proof) error {
	is := l.Proof()
	if was == (Proof{}) || is == (Proof{}) || was.Version != is.Version || was.Hash == is.Hash {
		return nil
	}
	err := fmt.Errorf("kemi: %s: the state of lane %s built again from its input is not what it was (%016x, and was %016x): "+
		"the stage depends on something else than its input, or the input has changed", l.flow.Via, l.id, is.Hash, was.Hash)
	l.flow.note("a replay gave another state", err, zap.String("stage", l.flow.Via), zap.String("lane", l.id))
	l.mismatched()
	return err
}

// Keep appends what has changed of the state that has no bound.
func (l *lane[In, Out]) Keep(dst []Kept) []Kept {
	kept := dst
	err := l.power(func() error {
		if l.ops.Keep == nil || l.pace != nil && !l.pace.leads() {
			return nil
		}
		if !l.forked {
			l.flow.ticking.Lock()
			defer l.flow.ticking.Unlock()
		}
		kept = l.ops.Keep(dst)
		return nil
	})
	if err != nil {
		return dst
	}
	return kept
}

// Restore gives back what was kept.
func (l *lane[In, Out]) Restore(kept []Kept) error {
	return l.power(func() error {
		if l.ops.Restore == nil || len(kept) == 0 {
			return nil
		}
		if !l.forked {
			l.flow.ticking.Lock()
			defer l.flow.ticking.Unlock()
		}
		err := l.ops.Restore(kept)
		if err != nil {
			l.flow.note("kept state was refused", err, zap.String("stage", l.flow.Via), zap.String("lane", l.id))
		}
		return err
	})
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
		if l.pace != nil {
			l.pace.leave()
		}
		f := l.flow
		f.mu.Lock()
		delete(f.lanes, l)
		f.dismiss(l.worker)
		f.mu.Unlock()
	}
}
