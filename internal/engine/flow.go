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

	"github.com/kemi-go/kemi/internal/origin"
)

var (
	errOver   = errors.New("kemi: Write after the flow has ended")
	errClosed = errors.New("kemi: the lane is closed")
	errTwice  = errors.New("kemi: a flow runs once, in one pipeline")
)

// flow runs one Spec.
type flow[In, Out any] struct {
	*Spec[In, Out]
	*journal
	env     *env
	first   string // the stage a batch comes to first
	sink    outlet[Out]
	letters *outlet[Letter] // nil: no dead letters
	epoch   time.Time       // time is counted from here
	started atomic.Bool
	fail    func(err error) // told once that the flow cannot go on
	broken  atomic.Bool     // it was told, while the source ran

	spare   atomic.Pointer[worker[In, Out]] // an idle worker of the inlet, without mu
	only    func() *lane[In, Out]           // the lane of a source without lanes, if there are forks
	forking sync.Mutex                      // Fork is not called twice at once
	early   early[In, Out]
	forgets sync.Once // it was said that state is not built again

	// ticking keeps Tick and Apply of a transform without forks apart: Apply of many
	// lanes at once, or one Tick.
	ticking     sync.RWMutex
	sourceTicks atomic.Bool
	lastTick    time.Time // under ticking
	lastProof   Proof     // under ticking: of the state after lastTick
	together    together

	mu      sync.Mutex
	over    bool
	workers map[*worker[In, Out]]struct{}
	idle    []*worker[In, Out] // of workers: more of the inlet not in use
	lanes   map[*lane[In, Out]]struct{}
	closed  Stats // of workers that are gone
}

// New returns a flow that runs s.
func New[In, Out any](s *Spec[In, Out]) Flow {
	s.BackoffMin = cmp.Or(max(s.BackoffMin, 0), 10*time.Millisecond)
	s.BackoffMax = max(cmp.Or(max(s.BackoffMax, 0), 5*time.Second), s.BackoffMin)
	s.TickEvery = cmp.Or(max(s.TickEvery, 0), time.Second)
	f := &flow[In, Out]{
		Spec:    s,
		journal: &journal{log: zap.NewNop(), said: map[string]*line{}},
		first:   cmp.Or(s.Via, s.To),
		epoch:   time.Now(),
		workers: map[*worker[In, Out]]struct{}{},
		lanes:   map[*lane[In, Out]]struct{}{},
	}
	f.only = sync.OnceValue(f.plain)
	f.sink = outlet[Out]{
		stage: s.To, failed: "the sink failed", write: s.Write, column: written,
		attempts: s.Attempts, backoff: backoff{s.BackoffMin, s.BackoffMax}, journal: f.journal,
		refuse: func(ctx context.Context, a *account, refused []refusal[Out]) error {
			return bury(ctx, f, a, s.To, refused)
		},
	}
	return f
}

func (f *flow[In, Out]) Name() string { return f.Spec.Name }

func (f *flow[In, Out]) check() error {
	if f.Check == nil && f.started.Load() {
		return fmt.Errorf("%w: %q was started before", errTwice, f.Spec.Name)
	}
	return f.Check
}

func (f *flow[In, Out]) start(e *env) error {
	if !f.started.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: %q was started before", errTwice, f.Spec.Name)
	}
	f.env = e
	f.log = e.Logger.With(zap.String("flow", f.Spec.Name))
	if e.Bury != nil {
		f.letters = &outlet[Letter]{
			stage: "the dead letters", failed: "the dead letters failed", write: e.Bury, column: dead,
			backoff: f.sink.backoff, journal: f.journal,
			refuse: func(_ context.Context, a *account, refused []refusal[Letter]) error {
				drop(f.journal, a, "the dead letters refused records: they were dropped", refused)
				return nil
			},
		}
	}
	return nil
}

// bury brings refused records to the dead letters, or drops them where there are
// none. A record on its way to the dead letters is as safe as any other: it is given
// up with an error, and still the source's.
func bury[In, Out, T any](ctx context.Context, f *flow[In, Out], a *account, stage string, refused []refusal[T]) error {
	if f.letters == nil {
		drop(f.journal, a, "records refused for good were dropped: the pipeline has no dead letters", refused, zap.String("stage", stage))
		return nil
	}
	letters := make([]Letter, len(refused))
	now := time.Now().UTC()
	for i, r := range refused {
		letters[i] = Letter{Time: now, Flow: f.Spec.Name, Stage: stage, Record: r.record, Err: r.err, Stack: stackOf(r.err)}
	}
	a.at(f.letters.stage)
	// The dead letters are not the flow's output, and are not numbered as such.
	return f.letters.deliver(origin.With(ctx, nil), a, letters, 0)
}

func drop[T any](j *journal, a *account, msg string, refused []refusal[T], fields ...zap.Field) {
	a.settle(len(refused), dropped)
	j.note(msg, refused[0].err, append(fields, zap.Int("records", len(refused)))...)
}

func (f *flow[In, Out]) run(soft context.Context, failed func(error)) {
	f.fail = failed
	tick, stop := context.WithCancel(context.Background())
	defer stop()
	var ticks sync.WaitGroup
	if f.Fork == nil && f.Shared.Tick != nil {
		ticks.Go(func() { f.tickByTimer(tick) })
	}
	if f.Fork != nil && !f.Divided {
		ticks.Go(func() { f.tickEarly(tick) })
	}
	err := f.runSource(soft)
	asked := soft.Err() != nil
	if asked && errors.Is(err, context.Canceled) && !errors.Is(err, errHardStop) {
		err = nil // it was told to stop, and says so
	}
	if err != nil {
		failed(err) // at once: what follows may have to wait for the sink
	}
	stop()
	ended := err == nil && !asked && !f.broken.Load()
	if ended && f.Fork != nil && !f.Divided {
		f.openEarly(LaneOptions{SourceTicks: true}) // there is something to finish, be it of no input
	}
	f.quiesce()
	ticks.Wait()
	if ended {
		if err := f.finish(); err != nil {
			failed(err)
		}
	}
	for _, l := range f.openLanes() {
		l.retire()
	}
}

// quiesce lets no more Write begin and waits for those under way. A source waits for
// its own; this makes sure of it, so that the ledger is final.
func (f *flow[In, Out]) quiesce() {
	f.mu.Lock()
	f.over = true
	var inlets []*worker[In, Out]
	for w := range f.workers {
		if w.inlet {
			inlets = append(inlets, w)
		}
	}
	f.mu.Unlock()
	for _, w := range inlets {
		w.close()
	}
}

func (f *flow[In, Out]) runSource(soft context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = caught(f.From, p)
			f.note("the source panicked", err)
		}
	}()
	return f.Run(soft, &Inlet[In, Out]{f})
}

// panicked ends a flow whose transform panicked where there is no batch to blame.
func (f *flow[In, Out]) panicked(err error) {
	f.note("the transform panicked", err, zap.String("stage", f.Via))
	if f.broken.CompareAndSwap(false, true) {
		f.fail(err)
	}
}

// finish gives what is open at the real end of the input.
func (f *flow[In, Out]) finish() error {
	var errs []error
	for _, l := range f.openLanes() {
		errs = append(errs, l.finish())
	}
	if f.Fork == nil && f.Shared.Finish != nil {
		errs = append(errs, f.hire(f.Shared, "finish").emit(f.env.hard, false, nil, f.Shared.Finish))
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

// tickByTimer ticks a transform that all lanes share, once for the flow.
func (f *flow[In, Out]) tickByTimer(ctx context.Context) {
	w := f.hire(f.Shared, "tick")
	everyTick(ctx, f.TickEvery, func(now time.Time) {
		if !f.sourceTicks.Load() {
			_ = w.emit(f.env.hard, false, nil, func(ctx context.Context, dst []Out) ([]Out, error) {
				f.ticking.Lock()
				defer f.ticking.Unlock()
				return f.Shared.Tick(ctx, dst, now)
			}) // noted there; the next tick comes anyway
		}
	})
}

// everyTick calls fn with the time until ctx is done. The time is in UTC and has no
// monotonic reading, as that of a record.
func everyTick(ctx context.Context, d time.Duration, fn func(now time.Time)) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			if ctx.Err() == nil {
				fn(now.UTC().Round(0))
			}
		}
	}
}

// tickShared ticks a transform that all lanes share, by the time of a source that
// brings each tick through every lane.
func (f *flow[In, Out]) tickShared(ctx context.Context, dst []Out, now time.Time) ([]Out, error) {
	f.ticking.Lock()
	defer f.ticking.Unlock()
	if !now.After(f.lastTick) {
		return dst, nil // another lane brought this tick
	}
	out, err := f.Shared.Tick(ctx, dst, now)
	if err == nil || IsPermanent(err) {
		f.lastTick = now
	}
	if err == nil {
		if f.Shared.Proof != nil {
			f.lastProof = f.Shared.Proof()
		}
	}
	return out, err
}

// hire makes a worker and keeps its account in the ledger.
func (f *flow[In, Out]) hire(ops Ops[In, Out], id string) *worker[In, Out] {
	w := &worker[In, Out]{flow: f, ops: ops, id: id}
	f.mu.Lock()
	f.workers[w] = struct{}{}
	f.mu.Unlock()
	return w
}

// dismiss lets a worker go, and keeps what it counted. The caller holds f.mu.
func (f *flow[In, Out]) dismiss(w *worker[In, Out]) {
	if _, ok := f.workers[w]; ok {
		delete(f.workers, w)
		w.addTo(&f.closed)
	}
}

// turnAway counts n inputs that no worker took, and returns why.
func (f *flow[In, Out]) turnAway(n int, why error) error {
	f.mu.Lock()
	f.closed.In += uint64(n)
	f.closed.Failed += uint64(n)
	f.mu.Unlock()
	return why
}

// Stats sums the accounts.
func (f *flow[In, Out]) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.closed
	s.Name, s.Lanes = f.Spec.Name, len(f.lanes)
	s.LastErr, s.LastErrTime = f.lastError()
	now := f.now()
	for w := range f.workers {
		if since, _ := w.addTo(&s); since != 0 {
			s.Busy++
			s.OldestWrite = max(s.OldestWrite, now-since)
		}
	}
	return s
}

func (f *flow[In, Out]) busy() []waiting {
	f.mu.Lock()
	defer f.mu.Unlock()
	var (
		ws []waiting
		s  Stats
	)
	last, _ := f.lastError()
	now := f.now()
	for w := range f.workers {
		if since, stage := w.addTo(&s); since != 0 {
			ws = append(ws, waiting{w.id, stage, now - since, last})
		}
	}
	return ws
}

// now is a reading of the monotonic clock, never 0.
func (f *flow[In, Out]) now() time.Duration { return time.Since(f.epoch) + 1 }
