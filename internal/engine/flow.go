package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

var (
	errOver    = errors.New("kemi: Write after the flow has ended")
	errClosed  = errors.New("kemi: Write on a closed lane")
	errTwice   = errors.New("kemi: a flow runs once, in one pipeline")
	errNotOpen = errors.New("kemi: Write on a flow that is not running")
)

// flow runs one Spec.
type flow[In, Out any] struct {
	*Spec[In, Out]
	env     *env
	log     *zap.Logger
	epoch   time.Time // worker.since counts from here
	started atomic.Bool

	// shared keeps Tick and Apply of a transform without forks apart: Apply of many
	// lanes at once, or one Tick.
	shared      sync.RWMutex
	sourceTicks atomic.Bool
	lastTick    time.Time // under shared

	mu      sync.Mutex
	workers map[*worker[In, Out]]struct{}
	idle    []*worker[In, Out] // of workers: those of the inlet not in use
	active  int                // of workers: those of the inlet in use
	over    bool
	quiet   *sync.Cond     // active == 0
	single  *lane[In, Out] // the lane of a source without lanes, if there are forks
	lanes   map[*lane[In, Out]]struct{}
	closed  counts // of workers that are gone
	lastErr string
	lastAt  time.Time
	logged  string // the error last logged, and when
	logAt   time.Time
}

// New returns a flow that runs s.
func New[In, Out any](s *Spec[In, Out]) Flow {
	s.BackoffMin = cmp.Or(max(s.BackoffMin, 0), 10*time.Millisecond)
	s.BackoffMax = max(cmp.Or(max(s.BackoffMax, 0), 5*time.Second), s.BackoffMin)
	s.TickEvery = cmp.Or(max(s.TickEvery, 0), time.Second)
	f := &flow[In, Out]{
		Spec:    s,
		log:     zap.NewNop(),
		workers: map[*worker[In, Out]]struct{}{},
		lanes:   map[*lane[In, Out]]struct{}{},
	}
	f.quiet = sync.NewCond(&f.mu)
	return f
}

func (f *flow[In, Out]) Name() string                  { return f.Spec.Name }
func (f *flow[In, Out]) Nodes() (from, via, to string) { return f.From, f.Via, f.To }

func (f *flow[In, Out]) start(e *env) error {
	if f.Check != nil {
		return f.Check
	}
	if !f.started.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: %q was started before", errTwice, f.Spec.Name)
	}
	f.env = e
	f.log = e.Logger.With(zap.String("flow", f.Spec.Name))
	f.epoch = time.Now()
	return nil
}

func (f *flow[In, Out]) run(soft context.Context) error {
	var timers sync.WaitGroup
	stop, ended := context.WithCancel(context.Background())
	defer ended()
	if f.Fork == nil && f.Shared.Tick != nil {
		timers.Go(func() { f.tickShared(stop) })
	}
	err := f.runSource(soft)
	asked := soft.Err() != nil
	if asked && errors.Is(err, context.Canceled) && f.env.hard.Err() == nil {
		err = nil
	}

	// A source waits for its Writes; make sure of it, so that the ledger is closed.
	f.mu.Lock()
	f.over = true
	for f.active > 0 {
		f.quiet.Wait()
	}
	f.mu.Unlock()
	ended()
	timers.Wait()

	if err == nil && !asked {
		err = f.finish()
	}
	for _, l := range f.openLanes() {
		l.Close()
	}
	return err
}

func (f *flow[In, Out]) runSource(soft context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught(f.From, p)
			f.log.Error("the source panicked", zap.Error(err), zap.String("stack", stackOf(err)))
		}
	}()
	return f.Run(soft, &Inlet[In, Out]{f})
}

// finish gives what is open at the real end of the input.
func (f *flow[In, Out]) finish() error {
	var errs []error
	for _, l := range f.openLanes() {
		errs = append(errs, l.finish())
	}
	if f.Fork == nil && f.Shared.Finish != nil {
		w := f.hire(f.Shared, "finish")
		errs = append(errs, w.emit(f.env.hard, f.Shared.Finish))
	}
	return errors.Join(errs...)
}

func (f *flow[In, Out]) openLanes() []*lane[In, Out] {
	f.mu.Lock()
	defer f.mu.Unlock()
	ls := make([]*lane[In, Out], 0, len(f.lanes))
	for l := range f.lanes {
		ls = append(ls, l)
	}
	return ls
}

// tickShared ticks a transform that all lanes share, once for the flow.
func (f *flow[In, Out]) tickShared(stop context.Context) {
	w := f.hire(f.Shared, "tick")
	t := time.NewTicker(f.TickEvery)
	defer t.Stop()
	for {
		select {
		case <-stop.Done():
			return
		case now := <-t.C:
			if !f.sourceTicks.Load() {
				f.tickOnce(f.env.hard, w, now)
			}
		}
	}
}

func (f *flow[In, Out]) tickOnce(ctx context.Context, w *worker[In, Out], now time.Time) error {
	return w.emit(ctx, func(ctx context.Context, dst []Out) ([]Out, error) {
		f.shared.Lock()
		defer f.shared.Unlock()
		if !now.After(f.lastTick) {
			return dst, nil // another lane brought this tick
		}
		f.lastTick = now
		return f.Shared.Tick(ctx, dst, now)
	})
}

// hire makes a worker and keeps its counters in the ledger.
func (f *flow[In, Out]) hire(ops Ops[In, Out], id string) *worker[In, Out] {
	w := &worker[In, Out]{flow: f, ops: ops, id: id}
	f.mu.Lock()
	f.workers[w] = struct{}{}
	f.mu.Unlock()
	return w
}

func (f *flow[In, Out]) dismiss(w *worker[In, Out]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.workers[w]; ok {
		delete(f.workers, w)
		f.closed.add(&w.counts)
	}
}

// Stats sums the workers. A counter is read after those it bounds, so that what is
// under way never comes out negative.
func (f *flow[In, Out]) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c counts
	s := Stats{Name: f.Spec.Name, Lanes: len(f.lanes), LastErr: f.lastErr, LastErrTime: f.lastAt}
	c.add(&f.closed)
	now := f.now()
	for w := range f.workers {
		c.add(&w.counts)
		if since := w.since.Load(); since != 0 {
			s.Busy++
			s.OldestWrite = max(s.OldestWrite, time.Duration(now-since))
		}
	}
	s.Done, s.Failed, s.In, s.Replayed = c.done.Load(), c.failed.Load(), c.in.Load(), c.replayed.Load()
	s.Written, s.Dead, s.Dropped = c.written.Load(), c.dead.Load(), c.dropped.Load()
	s.Abandoned, s.Rejected, s.Out, s.Retries = c.abandoned.Load(), c.rejected.Load(), c.out.Load(), c.retries.Load()
	s.InFlight = s.In - s.Done - s.Failed
	s.Pending = s.Out - s.Written - s.Dead - s.Dropped - s.Abandoned
	return s
}

func (f *flow[In, Out]) busy() []waiting {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ws []waiting
	now := f.now()
	for w := range f.workers {
		if since := w.since.Load(); since != 0 {
			ws = append(ws, waiting{w.id, time.Duration(now - since), f.lastErr})
		}
	}
	return ws
}

// now is a reading of the monotonic clock, never 0.
func (f *flow[In, Out]) now() int64 { return int64(time.Since(f.epoch)) + 1 }

const logAgain = 30 * time.Second

// note keeps the last error, and logs it if it is a new one or the old one is
// still there after a while: one line for an outage, not one for every try.
func (f *flow[In, Out]) note(msg string, err error, fields ...zap.Field) {
	f.mu.Lock()
	now := time.Now()
	f.lastErr, f.lastAt = err.Error(), now
	again := f.logged == f.lastErr && now.Sub(f.logAt) < logAgain
	if !again {
		f.logged, f.logAt = f.lastErr, now
	}
	f.mu.Unlock()
	if again {
		return
	}
	if s := stackOf(err); s != "" {
		fields = append(fields, zap.String("stack", s))
	}
	f.log.Warn(msg, append(fields, zap.Error(err))...)
}

// recovered says once that an outage is over.
func (f *flow[In, Out]) recovered(tries int) {
	f.mu.Lock()
	said := f.logged != ""
	f.logged = ""
	f.mu.Unlock()
	if said {
		f.log.Info("the sink takes records again", zap.String("sink", f.To), zap.Int("tries", tries))
	}
}

// Inlet is the sink a source writes to.
type Inlet[In, Out any] struct{ f *flow[In, Out] }

// Write takes a batch through the flow. Many goroutines may call it: with a
// transform that has state they go one at a time through one lane.
func (in *Inlet[In, Out]) Write(ctx context.Context, batch []In) error {
	if len(batch) == 0 {
		return nil
	}
	f := in.f
	if f.Fork != nil {
		l, err := f.onlyLane()
		if err != nil {
			return err
		}
		return l.Write(ctx, batch)
	}
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		return errOver
	}
	f.active++
	var w *worker[In, Out]
	if n := len(f.idle); n > 0 {
		w = f.idle[n-1]
		f.idle = f.idle[:n-1]
	} else {
		w = &worker[In, Out]{flow: f, ops: f.Shared, id: "inlet"}
		f.workers[w] = struct{}{}
	}
	f.mu.Unlock()

	w.in.Add(uint64(len(batch)))
	err := w.write(ctx, f.env.hard, batch)

	f.mu.Lock()
	f.idle = append(f.idle, w)
	f.active--
	if f.over && f.active == 0 {
		f.quiet.Broadcast()
	}
	f.mu.Unlock()
	return err
}

func (f *flow[In, Out]) onlyLane() (*lane[In, Out], error) {
	f.mu.Lock()
	l, over := f.single, f.over
	f.mu.Unlock()
	switch {
	case over:
		return nil, errOver
	case l != nil:
		return l, nil
	}
	fresh := f.open("", LaneOptions{})
	f.mu.Lock()
	if f.single == nil {
		f.single = fresh
		f.mu.Unlock()
		return fresh, nil
	}
	l = f.single
	f.mu.Unlock()
	fresh.Close() // another goroutine was first
	return l, nil
}

// OpenLane opens a lane.
func (in *Inlet[In, Out]) OpenLane(id string, o LaneOptions) Lane[In] { return in.f.open(id, o) }

// lane is one ordered line of input.
type lane[In, Out any] struct {
	*worker[In, Out]
	turn  chan struct{} // holds one token while the lane is in use; waiting for it can be given up
	gone  context.Context
	leave context.CancelFunc
	muted bool          // under turn
	shut  bool          // under turn
	timer chan struct{} // closed when the ticking goroutine has ended
}

func (f *flow[In, Out]) open(id string, o LaneOptions) *lane[In, Out] {
	ops := f.Shared
	if f.Fork != nil {
		f.mu.Lock()
		ops = f.Fork()
		f.mu.Unlock()
	}
	l := &lane[In, Out]{worker: f.hire(ops, id), turn: make(chan struct{}, 1), timer: make(chan struct{})}
	l.forked = f.Fork != nil
	l.gone, l.leave = context.WithCancel(f.env.hard)
	f.mu.Lock()
	f.lanes[l] = struct{}{}
	f.mu.Unlock()
	if !l.forked && o.SourceTicks {
		f.sourceTicks.Store(true)
	}
	if l.forked && ops.Tick != nil && !o.SourceTicks {
		go l.tickByTimer()
	} else {
		close(l.timer)
	}
	return l
}

func (l *lane[In, Out]) Write(ctx context.Context, batch []In) error {
	if len(batch) == 0 {
		return nil
	}
	n := uint64(len(batch))
	select {
	case l.turn <- struct{}{}:
	default: // a tick, or another writer of a source without lanes
		if err := l.waitTurn(ctx); err != nil {
			l.in.Add(n)
			l.failed.Add(n)
			return err
		}
	}
	defer func() { <-l.turn }()
	if l.shut {
		return errClosed
	}
	if l.muted {
		return l.replay(ctx, batch)
	}
	l.in.Add(n)
	return l.write(ctx, l.gone, batch)
}

// waitTurn waits for the lane, as long as ctx has time for: its deadline counts,
// its cancellation does not (see gate).
func (l *lane[In, Out]) waitTurn(ctx context.Context) error {
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
		return errHardStop
	}
}

// replay feeds the state and emits nothing.
func (l *lane[In, Out]) replay(ctx context.Context, batch []In) error {
	l.replayed.Add(uint64(len(batch)))
	if l.flow.Pass != nil {
		return nil
	}
	c, release := through(l.gone, ctx)
	if release != nil {
		defer release()
	}
	dst, _, err := l.applyAll(c, l.scratch[:0], batch)
	l.keep(dst)
	return err
}

func (l *lane[In, Out]) Tick(ctx context.Context, now time.Time) error {
	if l.ops.Tick == nil {
		return nil
	}
	if err := l.waitTurn(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	return l.tick(now)
}

func (l *lane[In, Out]) tick(now time.Time) error {
	switch {
	case l.shut:
		return errClosed
	case l.muted:
		dst, err := l.safely(l.gone, func(ctx context.Context, dst []Out) ([]Out, error) { return l.ops.Tick(ctx, dst, now) })
		l.keep(dst)
		return err
	case !l.forked:
		return l.flow.tickOnce(l.gone, l.worker, now)
	}
	return l.emit(l.gone, func(ctx context.Context, dst []Out) ([]Out, error) { return l.ops.Tick(ctx, dst, now) })
}

// tickByTimer ticks while the lane is open. A lane in use is left alone: Apply must
// not meet Tick, and a lane that is blocked by its sink has nowhere to put what a
// tick would bring.
func (l *lane[In, Out]) tickByTimer() {
	defer close(l.timer)
	t := time.NewTicker(l.flow.TickEvery)
	defer t.Stop()
	for {
		select {
		case <-l.gone.Done():
			return
		case now := <-t.C:
			select {
			case l.turn <- struct{}{}:
				if !l.shut && !l.muted {
					_ = l.tick(now) // noted and counted there; the next tick comes anyway
				}
				<-l.turn
			default:
			}
		}
	}
}

func (l *lane[In, Out]) finish() error {
	if l.ops.Finish == nil {
		return nil
	}
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.shut || !l.forked {
		return nil
	}
	return l.emit(l.gone, l.ops.Finish)
}

func (l *lane[In, Out]) Horizon() time.Duration {
	if l.ops.Horizon == nil {
		return 0
	}
	return l.ops.Horizon()
}

func (l *lane[In, Out]) Mute(on bool) {
	l.turn <- struct{}{}
	l.muted = on
	<-l.turn
}

func (l *lane[In, Out]) Close() error {
	l.leave()
	<-l.timer
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.shut {
		return nil
	}
	l.shut = true
	f := l.flow
	f.mu.Lock()
	delete(f.lanes, l)
	f.mu.Unlock()
	f.dismiss(l.worker)
	l.ops, l.scratch = Ops[In, Out]{}, nil // the state may be large
	return nil
}
