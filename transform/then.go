package transform

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
)

// Then returns the transform that gives the results of ab to bc. It has the powers
// of both. Horizons add up. It forks if one of them does, and the one that does not
// is shared by the forks; if that one is a Ticker it is ticked once for all of them,
// if it is a Finisher it is finished once for each, if it is a Prover it is not asked,
// and if it is a Keeper the first fork keeps for all of them.
//
// What goes wrong in ab passes as it is. A failure of bc comes when ab has done its
// work, and is turned so that the flow feeds no state twice:
//
//   - A plain error passes and the flow tries again. If ab forks, it is not fed the
//     same batch again then: its results were kept. A transform that has state and
//     does not fork should be the last.
//   - A permanent error makes the flow look for the guilty record by halving the
//     batch. If ab has state that would feed it again, and the whole batch is
//     refused for good.
//   - A partial error names records that bc was given; the flow wants to know which
//     of its own they are. Map, Filter and FlatMap, and what is made of them alone,
//     can tell, and so can a batch of one. Else, if neither ab nor bc has state, the
//     flow finds out by halving. Else the last record of the batch is named for all,
//     and the error tells what was refused; it may be an innocent one.
//
// So what may refuse records should come first. Results that ab gives on a tick and
// that bc refuses for good are lost, and the next tick fails to say so.
func Then[A, B, C any](ab kemi.Transform[A, B], bc kemi.Transform[B, C]) kemi.Transform[A, C] {
	return join(&then[A, B, C]{ab: ab, bc: bc, stateA: hasState(ab), stateB: hasState(bc)})
}

// Chain returns the transform that gives the results of each to the next, as [Then]
// does. Without any it passes records on.
func Chain[T any](ts ...kemi.Transform[T, T]) kemi.Transform[T, T] {
	if len(ts) == 0 {
		return Map(func(r T) T { return r })
	}
	chain := ts[0]
	for _, t := range ts[1:] {
		chain = Then(chain, t)
	}
	return chain
}

type then[A, B, C any] struct {
	ab             kemi.Transform[A, B]
	bc             kemi.Transform[B, C]
	stateA, stateB bool

	lentA, lentB bool // of a fork: ab or bc is shared with others
	follows      bool // of a fork: it is not the first one
	orphans      []kemi.Kept

	own  *middle[A, B] // of a fork, which one goroutine at a time uses; nil: see pool
	pool sync.Pool     // of *middle[A, B]

	once     sync.Once // makes what forks share of ab and bc
	sharedAB kemi.Transform[A, B]
	sharedBC kemi.Transform[B, C]

	ticked []B   // what ab gave on a tick and bc has not taken
	report error // what the next tick is to say
}

// middle is one batch between ab and bc.
type middle[A, B any] struct {
	batch   []B
	refused []kemi.Failure // of src, by ab
	owed    []A            // the src that ab has been fed and bc has not; nil: none
}

// ticking is a then that ticks. It is a type of its own since a flow does more for a
// transform that ticks.
type ticking[A, B, C any] struct{ *then[A, B, C] }

func join[A, B, C any](t *then[A, B, C]) kemi.Transform[A, C] {
	if ticks(t.ab) || ticks(t.bc) {
		return ticking[A, B, C]{t}
	}
	return t
}

func (t *then[A, B, C]) Fork() kemi.Transform[A, C] {
	a, forkedA := forkOf(t.ab)
	b, forkedB := forkOf(t.bc)
	if !forkedA && !forkedB {
		return nil
	}
	first := false
	t.once.Do(func() { t.sharedAB, t.sharedBC, first = share(t.ab), share(t.bc), true })
	if !forkedA {
		a = t.sharedAB
	}
	if !forkedB {
		b = t.sharedBC
	}
	return join(&then[A, B, C]{
		ab: a, bc: b, own: &middle[A, B]{}, lentA: !forkedA, lentB: !forkedB, follows: !first,
		stateA: forkedA || hasState(a), stateB: forkedB || hasState(b),
	})
}

func (t *then[A, B, C]) Horizon() time.Duration { return horizon(t.ab) + horizon(t.bc) }
func (t *then[A, B, C]) Aggregates() bool       { return aggregates(t.ab) || aggregates(t.bc) }
func (t *then[A, B, C]) String() string         { return name(t.ab) + ", " + name(t.bc) }
func (t *then[A, B, C]) hasState() bool         { return t.stateA || t.stateB }

func (t *then[A, B, C]) trace(src []A) ([]int, bool) {
	first, ok := traceOf(t.ab, src)
	if !ok {
		return nil, false
	}
	mid, err := t.ab.Apply(context.Background(), nil, src)
	if err != nil {
		return nil, false
	}
	at, ok := traceOf(t.bc, mid)
	for i := range at {
		at[i] = first[at[i]]
	}
	return at, ok
}

func (t *then[A, B, C]) Apply(ctx context.Context, dst []C, src []A) ([]C, error) {
	m := t.own
	if m == nil {
		if m, _ = t.pool.Get().(*middle[A, B]); m == nil {
			m = &middle[A, B]{}
		}
		defer t.pool.Put(m)
	}
	if m.owed == nil || !same(reflect.ValueOf(m.owed), reflect.ValueOf(src), sameDepth) {
		// If something was owed, its source has been told so and has it still.
		m.owed = nil
		var err error
		if m.batch, err = t.ab.Apply(ctx, room(m.batch), src); err != nil {
			var ok bool
			if m.refused, ok = kemi.Failures(err, src); !ok {
				return dst, err
			}
		} else {
			m.refused = nil
		}
	}
	out, err := t.bc.Apply(ctx, dst, m.batch)
	if err != nil {
		return t.failed(m, dst, out, src, err)
	}
	m.owed = nil
	return out, kemi.Partial(src, m.refused...)
}

const roomMax = 1 << 16 // records; an array with room for more is not kept for small batches

// room is an empty slice in the array of the batch before.
func room[T any](before []T) []T {
	if cap(before) > roomMax && len(before) < cap(before)/8 {
		return nil
	}
	return before[:0]
}

// failed turns an error of bc, which came with out, into one about src.
func (t *then[A, B, C]) failed(m *middle[A, B], dst, out []C, src []A, err error) ([]C, error) {
	names, partial := kemi.Failures(err, m.batch)
	if partial {
		m.owed = nil
		at, ok := traceOf(t.ab, src)
		switch {
		case ok && len(at) == len(m.batch):
		case len(src) == 1:
			at = make([]int, len(m.batch))
		case !t.stateA && !t.stateB:
			// Neither minds being fed again, so the flow may look for it.
			return dst, kemi.Permanent(err)
		default:
			return out, kemi.Partial(src, append(m.refused, kemi.Failure{Index: len(src) - 1, Err: t.untraced(m, names)})...)
		}
		refused := m.refused
		for _, f := range names {
			refused = append(refused, kemi.Failure{Index: at[f.Index], Err: f.Err})
		}
		return out, kemi.Partial(src, refused...)
	}
	switch {
	case !t.stateA: // ab may be fed again
	case kemi.IsPermanent(err):
		m.owed = nil
		refused := m.refused
		for i := range src {
			refused = append(refused, kemi.Failure{Index: i, Err: err})
		}
		return dst, kemi.Partial(src, refused...)
	case m == t.own:
		m.owed = append(make([]A, 0, len(src)), src...)
	}
	return dst, err
}

// untraced is the error about records of the middle when nobody knows what they were
// made of.
func (t *then[A, B, C]) untraced(m *middle[A, B], names []kemi.Failure) error {
	const most = 10
	errs := make([]error, 0, most+1)
	for i, f := range names {
		if i == most {
			errs = append(errs, fmt.Errorf("and %d more", len(names)-most))
			break
		}
		errs = append(errs, fmt.Errorf("%+v: %w", m.batch[f.Index], f.Err))
	}
	return fmt.Errorf("%s refused what %s made of this batch, perhaps not of this record: %w", name(t.bc), name(t.ab), errors.Join(errs...))
}

// Tick ticks ab, gives bc what came of it, and ticks bc.
func (t ticking[A, B, C]) Tick(ctx context.Context, dst []C, now time.Time) ([]C, error) {
	if err := t.report; err != nil {
		t.report = nil
		return dst, err
	}
	if len(t.ticked) == 0 { // else ab has been ticked, and bc has not taken it yet
		b, err := tick(ctx, t.ab, room(t.ticked), now)
		if err != nil {
			return dst, err
		}
		t.ticked = b
	}
	out, err := t.handOn(ctx, dst)
	if err != nil {
		return dst, err
	}
	c, err := tick(ctx, t.bc, out, now)
	switch {
	case err == nil:
		return c, nil
	case len(out) == len(dst):
		return dst, err
	}
	// What bc has given must not be lost for what it has not.
	t.report = errors.Join(t.report, err)
	return out, nil
}

// handOn gives bc what ab gave on a tick or at the end. What bc refuses for good is
// put into the report; a failure that may pass leaves all as it was.
func (t *then[A, B, C]) handOn(ctx context.Context, dst []C) ([]C, error) {
	mid := t.ticked
	if len(mid) == 0 {
		return dst, nil
	}
	t.ticked = mid[:0] // also if bc panics: it would at each tick
	out, err := t.bc.Apply(ctx, dst, mid)
	if err == nil {
		return out, nil
	}
	if _, partial := kemi.Failures(err, mid); partial {
		t.report = err
		return out, nil
	}
	if kemi.IsPermanent(err) {
		t.report = err
		return dst, nil
	}
	t.ticked = mid
	return dst, err
}

// Finish finishes ab, gives bc what came of it, and finishes bc.
func (t *then[A, B, C]) Finish(ctx context.Context, dst []C) ([]C, error) {
	mid, err := finish(ctx, t.ab, t.ticked)
	if err != nil {
		return dst, err
	}
	t.ticked = mid
	out, err := t.handOn(ctx, dst)
	if err != nil {
		return dst, err
	}
	if out, err = finish(ctx, t.bc, out); err != nil {
		return dst, err
	}
	if len(out) == len(dst) {
		return dst, t.report
	}
	return out, nil // there is no other time to give them, so the report is left out
}
