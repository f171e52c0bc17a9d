// Package transformtest has a conformance suite for transforms.
//
// A Transform is one method, but its contract is long: see [kemi.Transform]. [Run]
// holds a transform to it, breach by breach, with a subtest for each. What the
// results should be is not its business: that is a table test of Apply.
//
//	func TestConformance(t *testing.T) {
//		transformtest.Run(t, func(testing.TB) transformtest.Harness[kemi.Metric, kemi.Metric] {
//			return transformtest.Harness[kemi.Metric, kemi.Metric]{
//				New:     func() kemi.Transform[kemi.Metric, kemi.Metric] { return NewRates() },
//				Batches: polls,
//				Time:    func(m kemi.Metric) time.Time { return m.Time },
//			}
//		})
//	}
package transformtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// Harness says how to make the transform under test and what to feed it. Only New
// and Batches are needed; a check whose hook is missing is skipped.
type Harness[In, Out any] struct {
	// New returns a fresh transform, each time the same. The suite forks it if it
	// forks.
	New func() kemi.Transform[In, Out]

	// Batches is the input, in order. It should bring results. Of a transform that
	// ticks, each batch is followed by a tick.
	Batches [][]In

	// TickAt is the time of the tick after batch i, later for a later batch. Nil is
	// one second after another.
	TickAt func(i int) time.Time

	// AppendedAt is when batch i was appended to the log it is read from, not earlier
	// than the batch before. It is for a Prover or a Keeper, which the suite replays as a
	// durable topic does: ticked before a batch of another second, from a tick on that
	// lies a Horizon back. It should span several horizons. Nil is TickAt.
	AppendedAt func(i int) time.Time

	// BatchInvariant says that only the order of records matters and not where one
	// batch ends and the next begins.
	BatchInvariant bool

	// Time is the event time of a record. If it is set, the suite holds Horizon to its
	// word: a fresh fork that is fed the last Horizon of input goes on as one that has
	// seen it all. State of all time, such as the highest value ever seen, depends on all
	// input and has no finite horizon: leave Time out for it, and know that a bus that
	// hands a partition over, or a restart, begins such state anew.
	Time func(In) time.Time

	// Bad returns record i of those that the transform must refuse for good.
	Bad func(i int) In

	// Fault makes Apply of every transform from New fail with a plain error, until
	// mend is called. The suite also tries a cancelled context.
	Fault func() (mend func())
}

// Run tests a transform. open is called for each subtest; what must be closed goes
// to tb.Cleanup. Run it with the race detector, which sees what forks share.
func Run[In, Out any](t *testing.T, open func(tb testing.TB) Harness[In, Out]) {
	for _, c := range checks[In, Out]() {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

type check[In, Out any] struct {
	name string
	fn   func(*run[In, Out])
}

func (c check[In, Out]) run(tb testing.TB, open func(testing.TB) Harness[In, Out]) {
	h := open(tb)
	if h.TickAt == nil {
		h.TickAt = func(i int) time.Time { return time.Unix(1_700_000_000+int64(i), 0).UTC() }
	}
	r := &run[In, Out]{TB: tb, Harness: h, ctx: tb.Context()}
	r.want = r.play(r.fork(r.New()), plain[In, Out]{})
	if len(slices.Concat(r.want...)) == 0 {
		tb.Fatalf("Batches bring no results, so that nothing can be checked")
	}
	c.fn(r)
}

func checks[In, Out any]() []check[In, Out] {
	return []check[In, Out]{
		{"gives the same for the same", isDeterministic[In, Out]},
		{"appends to dst", appends[In, Out]},
		{"keeps no slice", keepsNoSlice[In, Out]},
		{"changes no src", changesNoSrc[In, Out]},
		{"takes an empty batch", takesEmpty[In, Out]},
		{"does not care where batches end", isBatchInvariant[In, Out]},
		{"has independent forks", forks[In, Out]},
		{"can be shared", canBeShared[In, Out]},
		{"ticks without input", ticks[In, Out]},
		{"leaves no trace of a plain error", leavesNoTrace[In, Out]},
		{"names the bad records", namesBadRecords[In, Out]},
		{"needs no more than its horizon", keepsHorizon[In, Out]},
		{"proves a replay", provesReplay[In, Out]},
	}
}

type run[In, Out any] struct {
	testing.TB
	Harness[In, Out]
	ctx  context.Context
	want [][]Out // the results of each step, see play
}

// fork returns the fork of t that a lane would use.
func (r *run[In, Out]) fork(t kemi.Transform[In, Out]) kemi.Transform[In, Out] {
	if f, ok := t.(kemi.Forker[In, Out]); ok {
		if fork := f.Fork(); fork != nil {
			return fork
		}
	}
	return t
}

// way is how play hands batches over: it calls apply, tick and finish in some
// manner and returns what came of them.
type way[In, Out any] interface {
	batch(src []In, apply func(dst []Out, src []In) []Out) []Out
	time(fn func(dst []Out) []Out) []Out // a tick or the finish
}

// plain is the simplest way.
type plain[In, Out any] struct{}

func (plain[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	return apply(nil, slices.Clone(src))
}
func (plain[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

// play feeds all batches and returns the results, three steps for each batch: its
// own, those of its tick, and, for the last, those of the finish.
func (r *run[In, Out]) play(t kemi.Transform[In, Out], w way[In, Out]) [][]Out {
	r.Helper()
	var got [][]Out
	for i := range r.Batches {
		got = append(got, r.step(t, i, w)...)
	}
	return got
}

func (r *run[In, Out]) step(t kemi.Transform[In, Out], i int, w way[In, Out]) [][]Out {
	r.Helper()
	got := [][]Out{w.batch(r.Batches[i], func(dst []Out, src []In) []Out { return r.apply(t, dst, src) }), nil, nil}
	if k, ok := t.(kemi.Ticker[Out]); ok {
		got[1] = w.time(func(dst []Out) []Out { return r.tick(k, dst, r.TickAt(i)) })
	}
	if f, ok := t.(kemi.Finisher[Out]); ok && i == len(r.Batches)-1 {
		got[2] = w.time(func(dst []Out) []Out {
			out, err := f.Finish(r.ctx, dst)
			if err != nil {
				r.Errorf("Finish: %v", err)
			}
			return out
		})
	}
	return got
}

// apply takes a partial error as it comes, if it is about src.
func (r *run[In, Out]) apply(t kemi.Transform[In, Out], dst []Out, src []In) []Out {
	out, err := t.Apply(r.ctx, dst, src)
	if err == nil {
		return out
	}
	if _, ok := kemi.Failures(err, src); !ok {
		r.Errorf("Apply of a batch of %d failed, not with kemi.Partial of its very src: %v", len(src), err)
		return dst
	}
	return out
}

func (r *run[In, Out]) tick(k kemi.Ticker[Out], dst []Out, now time.Time) []Out {
	out, err := k.Tick(r.ctx, dst, now)
	if err != nil {
		r.Errorf("Tick at %v: %v", now, err)
		return dst
	}
	return out
}

// same compares steps with those of the first run.
func (r *run[In, Out]) same(when string, from int, got [][]Out) {
	r.Helper()
	for i, out := range got {
		if diff := conform.Diff(r.want[from+i], out); diff != "" {
			at := from + i
			r.Errorf("%s, the results of %s of batch %d are others: %s", when, [3]string{"Apply", "Tick", "Finish"}[at%3], at/3, diff)
			return
		}
	}
}

func isDeterministic[In, Out any](r *run[In, Out]) {
	for range 3 {
		r.same("with the same input again", 0, r.play(r.fork(r.New()), plain[In, Out]{}))
	}
}

// appending hands over a dst that has something in it, with and without room.
type appending[In, Out any] struct {
	r      *run[In, Out]
	prefix []Out
	room   int
}

func (a appending[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	return a.time(func(dst []Out) []Out { return apply(dst, slices.Clone(src)) })
}

func (a appending[In, Out]) time(fn func([]Out) []Out) []Out {
	dst := append(make([]Out, 0, len(a.prefix)+a.room), a.prefix...)
	out := fn(dst)
	if len(out) < len(a.prefix) {
		a.r.Errorf("%d records come back, fewer than the %d that were in dst: results are appended to dst", len(out), len(a.prefix))
		return nil
	}
	if diff := conform.Diff(a.prefix, out[:len(a.prefix)]); diff != "" {
		a.r.Errorf("what was in dst before has changed: %s", diff)
	}
	if diff := conform.Diff(a.prefix, dst); diff != "" {
		a.r.Errorf("what was in dst before has changed where the caller sees it: %s", diff)
	}
	return out[len(a.prefix):]
}

func appends[In, Out any](r *run[In, Out]) {
	all := slices.Concat(r.want...)
	prefix := slices.Repeat(all[len(all)-1:], 3)
	for _, room := range []int{0, 1, 2 * len(all)} {
		r.same("with a dst that has records in it", 0, r.play(r.fork(r.New()), appending[In, Out]{r, prefix, room}))
		r.same("with an empty dst that has room", 0, r.play(r.fork(r.New()), appending[In, Out]{r, nil, room}))
	}
}

// reusing uses the same two slices for all batches, as a lane does, and writes over
// them in between.
type reusing[In, Out any] struct {
	src []In
	dst []Out
}

func (u *reusing[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	u.src = append(u.src[:0], src...)
	out := u.time(func(dst []Out) []Out { return apply(dst, u.src) })
	clear(u.src)
	return out
}

func (u *reusing[In, Out]) time(fn func([]Out) []Out) []Out {
	u.dst = fn(u.dst[:0])
	out := slices.Clone(u.dst)
	clear(u.dst)
	return out
}

func keepsNoSlice[In, Out any](r *run[In, Out]) {
	r.same("when src and dst are used again after Apply", 0, r.play(r.fork(r.New()), &reusing[In, Out]{}))
}

// watching looks for changes of src, and of the array around it.
type watching[In, Out any] struct{ r *run[In, Out] }

func (w watching[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	array := slices.Concat(src, src, src)
	before := conform.Hashes(array)
	n := len(src)
	out := apply(nil, array[n:2*n])
	for i, h := range conform.Hashes(array) {
		if h == before[i] {
			continue
		}
		if i < n || i >= 2*n {
			w.r.Errorf("Apply changed the array around src: it may not append to it")
		} else {
			w.r.Errorf("Apply changed record %d of src; it is now %+v", i-n, array[i])
		}
		break
	}
	return out
}

func (watching[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

func changesNoSrc[In, Out any](r *run[In, Out]) {
	r.play(r.fork(r.New()), watching[In, Out]{r})
}

// interleaved applies empty batches between the others.
type interleaved[In, Out any] struct{}

func (interleaved[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	out := apply(nil, nil)
	out = apply(out, slices.Clone(src))
	return apply(out, src[:0])
}

func (interleaved[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

func takesEmpty[In, Out any](r *run[In, Out]) {
	r.same("with empty batches in between", 0, r.play(r.fork(r.New()), interleaved[In, Out]{}))
}

// splitting cuts each batch into pieces of the lengths it is given.
type splitting[In, Out any] struct{ next func(left int) int }

func (s splitting[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	var out []Out
	for len(src) > 0 {
		n := min(max(s.next(len(src)), 1), len(src))
		out = apply(out, slices.Clone(src[:n]))
		src = src[n:]
	}
	return out
}

func (splitting[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

func isBatchInvariant[In, Out any](r *run[In, Out]) {
	if !r.BatchInvariant {
		r.Skip("not said to be BatchInvariant")
	}
	split := func(when string, next func(left int) int) {
		r.Helper()
		r.same(when, 0, r.play(r.fork(r.New()), splitting[In, Out]{next}))
	}
	split("with batches cut into single records", func(int) int { return 1 })
	for cut := 1; cut < len(slices.MaxFunc(r.Batches, func(a, b []In) int { return len(a) - len(b) })) && cut < 50; cut++ {
		split("with the first piece of each batch cut off", func(left int) int {
			if left > cut {
				return left - cut
			}
			return left
		})
	}
	for seed := range uint64(5) {
		dice := rand.New(rand.NewPCG(seed, 0))
		split("with batches cut at random", func(left int) int { return 1 + dice.IntN(left) })
	}
}

func forks[In, Out any](r *run[In, Out]) {
	root, ok := r.New().(kemi.Forker[In, Out])
	if !ok {
		r.Skip("not a Forker")
	}
	first := root.Fork()
	if first == nil {
		r.Skip("Fork is nil: shared")
	}
	lanes := []kemi.Transform[In, Out]{first, root.Fork(), root.Fork()}
	got := make([][][]Out, len(lanes))
	for i := range r.Batches { // by turns
		for l, t := range lanes {
			got[l] = append(got[l], r.step(t, i, plain[In, Out]{})...)
		}
	}
	for _, out := range got {
		r.same("with other forks beside it", 0, out)
	}
	r.same("with a fork made when others have been fed", 0, r.play(root.Fork(), plain[In, Out]{}))

	if r.Failed() {
		return // what they share would meet in many goroutines now
	}

	lanes = []kemi.Transform[In, Out]{root.Fork(), root.Fork(), root.Fork()}
	var wg sync.WaitGroup
	for l, t := range lanes {
		wg.Go(func() {
			if p := conform.Try(func() { got[l] = r.play(t, plain[In, Out]{}) }); p != "" {
				r.Errorf("a fork panicked beside others: %s", p)
			}
		})
	}
	wg.Wait()
	for _, out := range got {
		r.same("with other forks in other goroutines", 0, out)
	}
}

func canBeShared[In, Out any](r *run[In, Out]) {
	t := r.New()
	if f, ok := t.(kemi.Forker[In, Out]); ok && f.Fork() != nil {
		r.Skip("a Forker is not shared")
	}
	// Whoever gives the same twice in a row has no state, and gives it at any time.
	var results [][]Out
	stateless := true
	for _, b := range r.Batches {
		out := r.apply(t, nil, b)
		results = append(results, out)
		stateless = stateless && conform.Diff(out, r.apply(t, nil, b)) == ""
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			p := conform.Try(func() {
				var dst []Out
				for range 20 {
					for i, b := range r.Batches {
						dst = r.apply(t, dst[:0], b)
						if diff := conform.Diff(results[i], dst); stateless && diff != "" {
							r.Errorf("with many goroutines, the results of batch %d are others: %s", i, diff)
							return
						}
					}
				}
			})
			if p != "" {
				r.Errorf("Apply panicked among many goroutines: %s", p)
			}
		})
	}
	wg.Wait()
}

func ticks[In, Out any](r *run[In, Out]) {
	if _, ok := r.fork(r.New()).(kemi.Ticker[Out]); !ok {
		r.Skip("not a Ticker")
	}
	play := func() (got [][]Out) {
		t := r.fork(r.New())
		k := t.(kemi.Ticker[Out])
		for i := range 3 {
			got = append(got, r.tick(k, nil, r.TickAt(0).Add(time.Duration(i-10)*time.Second)))
		}
		got = append(got, r.step(t, 0, plain[In, Out]{})...)
		for _, d := range []time.Duration{time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour} {
			got = append(got, r.tick(k, nil, r.TickAt(0).Add(d)))
		}
		return got
	}
	a, b := play(), play()
	for i := range a {
		if diff := conform.Diff(a[i], b[i]); diff != "" {
			r.Errorf("the same ticks gave other results: %s", diff)
		}
	}
}

// leavesNoTrace makes each batch fail first, in the ways there are, and gives it
// again as a flow does.
func leavesNoTrace[In, Out any](r *run[In, Out]) {
	done, cancel := context.WithCancel(r.ctx)
	cancel()
	late, cancelLate := context.WithDeadline(r.ctx, time.Unix(0, 0))
	defer cancelLate()
	try := func(when string, ctx context.Context, fail func() func()) {
		r.Helper()
		t := r.fork(r.New())
		r.same(when, 0, r.play(t, failing[In, Out]{r, t, ctx, fail}))
	}
	try("after failures with a cancelled context", done, nil)
	try("after failures with a deadline in the past", late, nil)
	if r.Fault != nil {
		try("after failures", r.ctx, r.Fault)
	}
}

type failing[In, Out any] struct {
	r    *run[In, Out]
	t    kemi.Transform[In, Out]
	ctx  context.Context
	fail func() (mend func())
}

func (f failing[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	for try := range 2 {
		in := slices.Clone(src)
		mend := func() {}
		if f.fail != nil {
			mend = f.fail()
		}
		out, err := f.t.Apply(f.ctx, nil, in)
		mend()
		_, partial := kemi.Failures(err, in)
		switch {
		case err == nil || partial:
			// It does not depend on what failed, or has refused what it refuses anyway; if
			// it refused more, the results tell.
			if f.fail != nil && err == nil && try == 0 {
				f.r.Errorf("Apply did not fail though Fault was called")
			}
			return out
		case kemi.IsPermanent(err):
			f.r.Errorf("Apply refuses good records for good when something else fails: %v", err)
		}
	}
	return apply(nil, slices.Clone(src))
}

func (failing[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

// namesBadRecords puts bad records among the good ones. The flow can live with two
// answers: which records are refused, or a permanent error and no trace of the
// batch, upon which it halves the batch until it has found them.
func namesBadRecords[In, Out any](r *run[In, Out]) {
	if r.Bad == nil {
		r.Skip("no Bad hook")
	}
	t := r.fork(r.New())
	r.same("with bad records among the good ones", 0, r.play(t, spoiling[In, Out]{r, t}))
}

type spoiling[In, Out any] struct {
	r *run[In, Out]
	t kemi.Transform[In, Out]
}

func (s spoiling[In, Out]) batch(src []In, apply func([]Out, []In) []Out) []Out {
	at := []int{0, len(src)/2 + 1, len(src) + 2}
	spoilt := slices.Clone(src)
	for i, n := range at {
		spoilt = slices.Insert(spoilt, n, s.r.Bad(i))
	}
	out, err := s.t.Apply(s.r.ctx, nil, spoilt)
	failed, partial := kemi.Failures(err, spoilt)
	switch {
	case err == nil:
		s.r.Errorf("Apply of a batch with bad records in it gave no error")
	case !partial && !kemi.IsPermanent(err):
		s.r.Errorf("the error about bad records is neither kemi.Partial of the very src nor kemi.Permanent; "+
			"the flow would try again for ever: %v", err)
	case !partial:
		return apply(nil, slices.Clone(src)) // as the flow does in the end
	default:
		for _, n := range at {
			if !slices.ContainsFunc(failed, func(f kemi.Failure) bool { return f.Index == n }) {
				s.r.Errorf("bad record %d is not named as refused: %v", n, err)
			}
		}
	}
	return out
}

func (spoiling[In, Out]) time(fn func([]Out) []Out) []Out { return fn(nil) }

func keepsHorizon[In, Out any](r *run[In, Out]) {
	if r.Time == nil {
		r.Skip("no Time hook")
	}
	for cut := 1; cut < len(r.Batches); cut++ {
		t := r.fork(r.New())
		var horizon time.Duration
		if w, ok := t.(kemi.Warmer); ok {
			horizon = w.Horizon()
		}
		if horizon < 0 {
			r.Fatalf("Horizon is %v", horizon)
		}
		var last time.Time
		for _, b := range r.Batches[:cut] {
			for _, rec := range b {
				if at := r.Time(rec); at.After(last) {
					last = at
				}
			}
		}
		if horizon > 0 {
			// A bus replays, muted, from the first batch that may matter.
			first := slices.IndexFunc(r.Batches[:cut], func(b []In) bool {
				return slices.ContainsFunc(b, func(rec In) bool { return !r.Time(rec).Before(last.Add(-horizon)) })
			})
			for i := max(first, 0); i < cut; i++ {
				r.step(t, i, plain[In, Out]{})
			}
		}
		var got [][]Out
		for i := cut; i < len(r.Batches); i++ {
			got = append(got, r.step(t, i, plain[In, Out]{})...)
		}
		when := "after a replay of " + horizon.String() + " of input"
		if horizon == 0 {
			when = "without a replay of input (if there is state, implement kemi.Warmer with its horizon)"
		}
		r.same(when, 3*cut, got)
	}
}
