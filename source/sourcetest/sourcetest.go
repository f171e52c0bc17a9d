// Package sourcetest has a conformance suite for sources.
//
// A Source is one method, but its contract is long: see [kemi.Source]. [Run] holds a
// source to it, breach by breach, with a subtest for each:
//
//	func TestConformance(t *testing.T) {
//		sourcetest.Run(t, func(tb testing.TB) sourcetest.Harness[kemi.Log] {
//			s := Listen(...)
//			tb.Cleanup(func() { s.Close() })
//			client := dial(tb, s.Addr())
//			return sourcetest.Harness[kemi.Log]{Source: s, Feed: client.SendUntilTaken}
//		})
//	}
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// Harness is one source under test and the far side it reads from. Only Source is
// needed.
type Harness[T any] struct {
	// Source is the source under test. It is run once.
	Source kemi.Source[T]

	// Feed makes the far side bring some records, as a client that sends and, when it
	// is refused, sends again. It is called in a goroutine of its own, again and again
	// while the source runs, and returns early when ctx is done. Nil: the source
	// brings records without help.
	Feed func(ctx context.Context)

	// Key tells records apart. It is for a source that brings a record with another
	// time or id when it brings it again. Nil compares all that a record holds.
	Key func(T) string

	// Lossy says that a record whose Write failed is gone, as with a datagram that
	// nobody sends twice.
	Lossy bool

	// Patience is how long Run may take to bring the first records, to return after
	// its context is done, and to bring again what was not taken. 0 is ten seconds.
	Patience time.Duration
}

// Run tests a source. open is called for each subtest and returns a fresh harness;
// what must be closed goes to tb.Cleanup. Goroutines that open starts may run on;
// those that Run starts may not. Run it with the race detector, which sees a batch
// that is changed while a Write is under way, and not beside parallel tests, whose
// goroutines would be counted.
func Run[T any](t *testing.T, open func(tb testing.TB) Harness[T]) {
	for _, c := range checks[T]() {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

type check[T any] struct {
	name string
	fn   func(*run[T])
}

func (c check[T]) run(tb testing.TB, open func(testing.TB) Harness[T]) {
	h := open(tb)
	if h.Patience <= 0 {
		h.Patience = conform.Patience
	}
	if h.Key == nil {
		h.Key = func(r T) string { return fmt.Sprintf("%016x", conform.Hash(&r)) }
	}
	c.fn(&run[T]{TB: tb, Harness: h})
}

func checks[T any]() []check[T] {
	return []check[T]{
		{"brings records and stops", stops[T]},
		{"stops before it has begun", stopsAtOnce[T]},
		{"waits for its writes", waits[T]},
		{"leaves a batch alone while it is written", leavesBatchesAlone[T]},
		{"brings records that stay as they are", bringsImmutable[T]},
		{"loses nothing that was not taken", losesNothing[T]},
		{"leaves no goroutine behind", leavesNothingBehind[T]},
		{"runs in a flow", runsInFlow[T]},
		{"runs in a flow with state", runsInStatefulFlow[T]},
	}
}

// run is one check on one source.
type run[T any] struct {
	testing.TB
	Harness[T]
}

// running is a source under way.
type running struct {
	stop context.CancelFunc // asks the source to end
	over chan struct{}      // closed when Run has returned
	err  error              // of Run, after over
	fed  chan struct{}      // closed when no Feed is under way any more
}

// start runs the source into out, and feeds it until it has ended.
func (r *run[T]) start(out func(ctx context.Context, batch []T) error) *running {
	return r.startIn(func(ctx context.Context) error { return r.Source.Run(ctx, kemi.SinkFunc[T](out)) })
}

func (r *run[T]) startIn(fn func(ctx context.Context) error) *running {
	ctx, stop := context.WithCancel(r.Context())
	s := &running{stop: stop, over: make(chan struct{}), fed: make(chan struct{})}
	go func() {
		defer close(s.over)
		if p := conform.Try(func() { s.err = fn(ctx) }); p != "" {
			r.Errorf("Run panicked: %s", p)
		}
	}()
	feeding, enough := context.WithCancel(r.Context())
	go func() {
		<-s.over
		enough()
	}()
	go func() {
		defer close(s.fed)
		for r.Feed != nil && feeding.Err() == nil {
			r.Feed(feeding)
			pause(feeding, time.Millisecond)
		}
	}()
	r.Cleanup(func() {
		stop()
		conform.Done(s.over, r.Patience)
		conform.Done(s.fed, r.Patience)
	})
	return s
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// end asks the source to end and wants it to.
func (r *run[T]) end(s *running) {
	r.Helper()
	s.stop()
	if !conform.Done(s.over, r.Patience) {
		r.Fatalf("Run did not return within %v of its context being done", r.Patience)
	}
	if s.err != nil {
		r.Errorf("Run was asked to stop and returned an error: %v", s.err)
	}
}

// await waits for something that the source should bring about.
func (r *run[T]) await(s *running, what string, c <-chan struct{}) {
	r.Helper()
	t := time.NewTimer(r.Patience)
	defer t.Stop()
	select {
	case <-c:
	case <-s.over:
		select {
		case <-c:
		default:
			r.Fatalf("Run ended before %s: %v", what, s.err)
		}
	case <-t.C:
		r.Fatalf("%s did not come about within %v", what, r.Patience)
	}
}

// signal is a channel to be closed once.
type signal struct {
	once sync.Once
	c    chan struct{}
}

func newSignal() *signal   { return &signal{c: make(chan struct{})} }
func (s *signal) set()     { s.once.Do(func() { close(s.c) }) }
func (s *signal) on() bool { return chosen(s.c) }

func chosen(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func stops[T any](r *run[T]) {
	before := conform.Goroutines()
	came := newSignal()
	var after bool
	var mu sync.Mutex
	over := false
	s := r.start(func(_ context.Context, batch []T) error {
		mu.Lock()
		after = after || over
		mu.Unlock()
		if len(batch) > 0 {
			came.set()
		}
		return nil
	})
	r.await(s, "the first batch", came.c)
	r.end(s)
	mu.Lock()
	over = true
	mu.Unlock()
	conform.Done(s.fed, r.Patience)
	// A Write that comes late is one of a timer or of a goroutine that is left.
	time.Sleep(10 * time.Millisecond)
	conform.Leaked(before, r.Patience)
	mu.Lock()
	defer mu.Unlock()
	if after {
		r.Errorf("Write was called after Run had returned")
	}
}

func stopsAtOnce[T any](r *run[T]) {
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	s := r.startIn(func(context.Context) error {
		return r.Source.Run(ctx, kemi.SinkFunc[T](func(context.Context, []T) error { return nil }))
	})
	r.end(s)
}

func waits[T any](r *run[T]) {
	came, release := newSignal(), newSignal()
	defer release.set()
	var mu sync.Mutex
	busy := 0
	s := r.start(func(context.Context, []T) error {
		mu.Lock()
		busy++
		mu.Unlock()
		came.set()
		<-release.c
		mu.Lock()
		busy--
		mu.Unlock()
		return nil
	})
	r.await(s, "the first batch", came.c)
	s.stop()
	if conform.Done(s.over, 50*time.Millisecond) {
		r.Errorf("Run returned while a Write was under way")
	}
	release.set()
	r.end(s)
	mu.Lock()
	defer mu.Unlock()
	if busy > 0 {
		r.Errorf("Run returned while %d Writes were under way", busy)
	}
}

// leavesBatchesAlone looks at each batch for a while, and at the array behind it.
func leavesBatchesAlone[T any](r *run[T]) {
	enough := newSignal()
	var mu sync.Mutex
	n := 0
	s := r.start(func(_ context.Context, batch []T) error {
		before := conform.Hashes(batch)
		for range 5 {
			time.Sleep(time.Millisecond)
			if !slices.Equal(before, conform.Hashes(batch)) {
				r.Errorf("a batch changed while it was being written")
				enough.set()
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if n++; n >= 5 {
			enough.set()
		}
		return nil
	})
	r.awaitOrEnd(s, enough)
	r.end(s)
}

// awaitOrEnd waits for a signal that a source with little input does not bring
// about before it ends, and then leaves it at that.
func (r *run[T]) awaitOrEnd(s *running, sig *signal) {
	t := time.NewTimer(r.Patience / 2)
	defer t.Stop()
	select {
	case <-sig.c:
	case <-s.over:
	case <-t.C:
	}
}

// bringsImmutable keeps the records, as a sink may, and looks at them later: a
// source that parses from a buffer must copy what it puts into records.
func bringsImmutable[T any](r *run[T]) {
	enough := newSignal()
	var mu sync.Mutex
	var kept []T
	var hashes []uint64
	batches := 0
	s := r.start(func(_ context.Context, batch []T) error {
		mu.Lock()
		defer mu.Unlock()
		if len(kept) < 10_000 {
			kept = append(kept, batch...)
			hashes = append(hashes, conform.Hashes(batch)...)
		}
		if batches++; batches >= 10 {
			enough.set()
		}
		return nil
	})
	r.awaitOrEnd(s, enough)
	r.end(s)
	mu.Lock()
	defer mu.Unlock()
	if len(kept) == 0 {
		r.Fatalf("no records came")
	}
	for i, h := range conform.Hashes(kept) {
		if h != hashes[i] {
			r.Errorf("record %d changed after it was written; it is now %+v: was it made from a buffer that is used again?", i, kept[i])
			return
		}
	}
}

var errRefused = errors.New("sourcetest: refused for now")

// losesNothing refuses each of the first batches. A source may offer them again,
// make its client send again, or give up with an error, which stops the pipeline.
func losesNothing[T any](r *run[T]) {
	if r.Lossy {
		r.Skip("said to be Lossy")
	}
	const refusals = 3
	var mu sync.Mutex
	owed := map[string]T{}
	refused := 0
	all := newSignal()
	s := r.start(func(_ context.Context, batch []T) error {
		mu.Lock()
		defer mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		if refused < refusals {
			refused++
			for _, rec := range batch {
				owed[r.Key(rec)] = rec
			}
			return errRefused
		}
		for _, rec := range batch {
			delete(owed, r.Key(rec))
		}
		if len(owed) == 0 {
			all.set()
		}
		return nil
	})
	t := time.NewTimer(r.Patience)
	defer t.Stop()
	select {
	case <-all.c:
		r.end(s)
	case <-s.over:
		if s.err == nil && !all.on() {
			mu.Lock()
			defer mu.Unlock()
			r.Errorf("Run ended without an error, and %d records whose Write failed were never offered again", len(owed))
		}
	case <-t.C:
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range owed {
			r.Fatalf("%d records whose Write failed were not offered again within %v, such as %+v", len(owed), r.Patience, rec)
		}
		r.Fatalf("no records came within %v of a Write that failed", r.Patience)
	}
}

func leavesNothingBehind[T any](r *run[T]) {
	before := conform.Goroutines()
	came := newSignal()
	s := r.start(func(context.Context, []T) error { came.set(); return nil })
	r.await(s, "the first batch", came.c)
	r.end(s)
	conform.Done(s.fed, r.Patience)
	if stacks := conform.Leaked(before, r.Patience); stacks != "" {
		r.Errorf("goroutines still run after Run has returned:\n%s", stacks)
	}
}

func runsInFlow[T any](r *run[T]) {
	r.flow(func(to kemi.Sink[T]) *kemi.Flow { return kemi.Connect("sourcetest", r.Source, to) })
}

func runsInStatefulFlow[T any](r *run[T]) {
	r.flow(func(to kemi.Sink[T]) *kemi.Flow { return kemi.Pipe("sourcetest", r.Source, &counting[T]{}, to) })
}

// flow runs the source in a pipeline whose sink fails now and then, and stops it.
func (r *run[T]) flow(made func(to kemi.Sink[T]) *kemi.Flow) {
	enough := newSignal()
	var mu sync.Mutex
	calls, records := 0, 0
	f := made(kemi.SinkFunc[T](func(_ context.Context, batch []T) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if calls%3 == 1 {
			return errRefused
		}
		records += len(batch)
		enough.set()
		return nil
	}))
	p := &kemi.Pipeline{Flows: []*kemi.Flow{f}, DrainTimeout: r.Patience}
	s := r.startIn(p.Run)
	r.await(s, "the first batch to be stored", enough.c)
	s.stop()
	if !conform.Done(s.over, 2*r.Patience) {
		r.Fatalf("the pipeline did not stop")
	}
	if s.err != nil {
		r.Errorf("the pipeline was asked to stop and returned an error: %v", s.err)
	}
	st := f.Stats()
	if err := st.Balance(); err != nil {
		r.Errorf("%v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if st.InFlight != 0 || st.Pending != 0 || int(st.Written) != records || st.Failed != 0 {
		r.Errorf("the flow was drained and did not lack time, and its ledger is %+v with %d records stored", st, records)
	}
}

// counting is a transform with state, so that the flow has lanes.
type counting[T any] struct{ n int }

func (c *counting[T]) Fork() kemi.Transform[T, T] { return &counting[T]{} }

func (c *counting[T]) Apply(_ context.Context, dst, src []T) ([]T, error) {
	c.n += len(src)
	return append(dst, src...), nil
}
