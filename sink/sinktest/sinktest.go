// Package sinktest has a conformance suite for sinks, a sink that remembers, and a
// wrapper that makes any sink fail.
//
// A Sink is one method, but its contract is long: see [kemi.Sink]. [Run] holds a
// sink to it, breach by breach, with a subtest for each:
//
//	func TestConformance(t *testing.T) {
//		sinktest.Run(t, func(tb testing.TB) sinktest.Harness[kemi.Metric] {
//			far := startServer(tb)
//			return sinktest.Harness[kemi.Metric]{
//				Sink:   NewSink(far.URL),
//				New:    func(i int) kemi.Metric { return kemi.Gauge("x", kemi.Labels{}, time.Unix(int64(i), 0), 1) },
//				Stored: far.Metrics,
//				Down:   far.Down,
//			}
//		})
//	}
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// Harness is one sink under test and the far side it writes to. Only Sink and New
// are needed; a check whose hook is missing is skipped.
type Harness[T any] struct {
	// Sink is the sink under test.
	Sink kemi.Sink[T]

	// New returns record i: one that the sink takes, the same each time it is asked
	// for, and another one for every other i.
	New func(i int) T

	// Key tells records apart. It is for records that come back changed, with a
	// rounded time or an id. Nil compares all that a record holds.
	Key func(T) string

	// Stored returns what the far side really has, in any order, duplicates allowed.
	Stored func() []T

	// Crash makes the far side lose what it had not made safe, as a power failure
	// does, and brings it back. Stored tells what was left.
	Crash func()

	// Bad returns record i of those that the sink must refuse for good.
	Bad func(i int) T

	// Down makes the far side fail, refusing or unreachable, until up is called.
	Down func() (up func())

	// Block makes the far side hang, answering nothing, until release is called.
	Block func() (release func())

	// Seen returns the context that the sinks behind the one under test were given
	// last. It is for sinks that wrap others: the values of a context, such as where a
	// batch comes from, have to reach them.
	Seen func() context.Context

	// Patience is how long Write may take to return after its context is done, and
	// how long a Write that should work may take. 0 is a minute: it only ends a test
	// that has failed already.
	Patience time.Duration
}

// Run tests a sink. open is called for each subtest and returns a fresh harness;
// what must be closed goes to tb.Cleanup. Run it with the race detector, which sees
// a batch that is read after Write has returned.
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
		h.Patience = time.Minute
	}
	if h.Key == nil {
		h.Key = func(r T) string { return fmt.Sprintf("%016x", conform.Hash(&r)) }
	}
	c.fn(&run[T]{TB: tb, Harness: h, ctx: tb.Context()})
}

func checks[T any]() []check[T] {
	return []check[T]{
		{"stores what it answers nil to", stores[T]},
		{"keeps no batch", keepsNoBatch[T]},
		{"changes no batch", changesNoBatch[T]},
		{"takes an empty batch", takesEmpty[T]},
		{"takes many writers", takesManyWriters[T]},
		{"ends when its context is done", endsWithContext[T]},
		{"ends when its context is done under way", endsUnderWay[T]},
		{"survives a crash", survivesCrash[T]},
		{"names the bad records", namesBadRecords[T]},
		{"refuses a bad record for good", refusesBadRecord[T]},
		{"recovers after an outage", recovers[T]},
		{"hands on the values of its context", handsOnValues[T]},
	}
}

// run is one check on one sink.
type run[T any] struct {
	testing.TB
	Harness[T]
	ctx context.Context
}

func (r *run[T]) batch(from, n int) []T {
	b := make([]T, n)
	for i := range b {
		b[i] = r.New(from + i)
	}
	return b
}

// write calls Write, and sees to panics and calls that never end.
func (r *run[T]) write(ctx context.Context, batch []T) error {
	var err error
	var panicked string
	done := make(chan struct{})
	go func() {
		defer close(done)
		panicked = conform.Try(func() { err = r.Sink.Write(ctx, batch) })
	}()
	if !conform.Done(done, r.Patience) {
		r.Fatalf("Write of %d records did not return within %v", len(batch), r.Patience)
	}
	if panicked != "" {
		r.Fatalf("Write panicked: %s", panicked)
	}
	return err
}

func (r *run[T]) mustWrite(batch []T) {
	r.Helper()
	if err := r.write(r.ctx, batch); err != nil {
		r.Fatalf("Write of %d good records: %v", len(batch), err)
	}
}

func (r *run[T]) stored() map[string]bool {
	keys := map[string]bool{}
	for _, rec := range r.Stored() {
		keys[r.Key(rec)] = true
	}
	return keys
}

// wantStored reports which of the records are not there.
func (r *run[T]) wantStored(when string, want []T) {
	r.Helper()
	if r.Stored == nil {
		return
	}
	keys := r.stored()
	var missing []T
	for _, rec := range want {
		if !keys[r.Key(rec)] {
			missing = append(missing, rec)
		}
	}
	if len(missing) > 0 {
		r.Errorf("%d of %d records are not stored %s; the first is %+v", len(missing), len(want), when, missing[0])
	}
}

func (r *run[T]) wantNotStored(when string, not []T) {
	r.Helper()
	if r.Stored == nil {
		return
	}
	keys := r.stored()
	for _, rec := range not {
		if keys[r.Key(rec)] {
			r.Errorf("a record is stored %s: %+v", when, rec)
			return
		}
	}
}

func stores[T any](r *run[T]) {
	if r.Stored == nil {
		r.Skip("no Stored hook")
	}
	// The largest is more than a page, a bulk or a parameter list commonly holds.
	for i, n := range []int{1, 2, 100, 2500} {
		batch := r.batch(1000*i, n)
		r.mustWrite(batch)
		r.wantStored("after a nil answer", batch)
	}
}

// keepsNoBatch uses one slice for many batches, as sources do, and writes over it
// as soon as Write has returned.
func keepsNoBatch[T any](r *run[T]) {
	const rounds, n = 5, 20
	buf := make([]T, n)
	var want, scribble []T
	for i := range rounds {
		batch := buf[:n-i] // another length each time
		for j := range batch {
			batch[j] = r.New(i*n + j)
		}
		want = append(want, batch...)
		r.mustWrite(batch)
		for j := range buf {
			buf[j] = r.New(1_000_000 + i*n + j)
		}
		scribble = append(scribble, buf...)
	}
	r.wantStored("after the slice was used again: the sink kept the batch", want)
	r.wantNotStored("that came into the slice after Write had returned: the sink kept the batch", scribble)
}

func changesNoBatch[T any](r *run[T]) {
	unchanged := func(what string, write func(batch []T)) {
		r.Helper()
		buf := r.batch(0, 40)
		before := conform.Hashes(buf)
		batch := buf[10:30] // with room behind it that is not the sink's either
		write(batch)
		for i, h := range conform.Hashes(buf) {
			if h == before[i] {
				continue
			}
			if i < 10 || i >= 30 {
				r.Errorf("Write changed the array around a %s batch: it may not append to it", what)
			} else {
				r.Errorf("Write changed record %d of a %s batch; it is now %+v", i-10, what, batch[i-10])
			}
			return
		}
	}
	unchanged("good", func(batch []T) { r.mustWrite(batch) })
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	unchanged("cancelled", func(batch []T) { _ = r.write(ctx, batch) })
	if r.Bad != nil {
		buf := r.batch(100, 3)
		buf[1] = r.Bad(0)
		before := conform.Hashes(buf)
		_ = r.write(r.ctx, buf)
		if !slices.Equal(before, conform.Hashes(buf)) {
			r.Errorf("Write changed a batch with a bad record in it; it is now %+v", buf)
		}
	}
}

func takesEmpty[T any](r *run[T]) {
	for _, batch := range [][]T{nil, {}, r.batch(0, 3)[1:1]} {
		if err := r.write(r.ctx, batch); err != nil {
			r.Errorf("Write of an empty batch: %v", err)
		}
	}
	r.wantNotStored("though it was only behind the end of an empty batch", r.batch(0, 3))
}

func takesManyWriters[T any](r *run[T]) {
	const writers, rounds, n = 8, 5, 7
	var (
		mu   sync.Mutex
		safe []T
		wg   sync.WaitGroup
	)
	for w := range writers {
		wg.Go(func() {
			buf := make([]T, n)
			for i := range rounds {
				for j := range buf {
					buf[j] = r.New((w*rounds+i)*n + j)
				}
				var err error
				if p := conform.Try(func() { err = r.Sink.Write(r.ctx, buf) }); p != "" {
					r.Errorf("Write panicked: %s", p)
					return
				}
				failed, partial := kemi.Failures(err, buf)
				mu.Lock()
				switch {
				case err == nil, partial:
					bad := map[int]bool{}
					for _, f := range failed {
						bad[f.Index] = true
					}
					for j, rec := range buf {
						if !bad[j] {
							safe = append(safe, rec)
						}
					}
				}
				mu.Unlock()
				if err != nil {
					r.Errorf("one of %d writers: %v", writers, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	if !conform.Done(done, r.Patience) {
		r.Fatalf("%d writers at once did not all return within %v", writers, r.Patience)
	}
	r.wantStored("though each was answered nil, among many writers", safe)
}

// endsWithContext gives a context that is done before Write starts. Nil is a good
// answer if it is true.
func endsWithContext[T any](r *run[T]) {
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	batch := r.batch(0, 10)
	r.judge("with a cancelled context", batch, r.write(ctx, batch))

	ctx, cancel = context.WithDeadline(r.ctx, time.Now().Add(-time.Second))
	defer cancel()
	batch = r.batch(100, 10)
	r.judge("with a deadline in the past", batch, r.write(ctx, batch))

	batch = r.batch(200, 10)
	r.mustWrite(batch)
	r.wantStored("after Writes with contexts that were done", batch)
}

// judge checks the answer to a Write that was cut off: whatever is not listed as
// failed is stored, and nothing is refused for good.
func (r *run[T]) judge(when string, batch []T, err error) {
	r.Helper()
	failed, partial := kemi.Failures(err, batch)
	for _, f := range failed {
		if kemi.IsPermanent(f.Err) {
			r.Errorf("%s a good record is refused for good: %v", when, f.Err)
		}
	}
	switch {
	case err == nil:
		r.wantStored(when+" and a nil answer", batch)
	case partial:
		r.wantStored(when+" and not named in the partial error", others(batch, failed))
	case kemi.IsPermanent(err):
		r.Errorf("%s good records are refused for good, which sends them to the dead letters: %v", when, err)
	}
}

func others[T any](batch []T, failed []kemi.Failure) []T {
	bad := map[int]bool{}
	for _, f := range failed {
		bad[f.Index] = true
	}
	var rest []T
	for i, rec := range batch {
		if !bad[i] {
			rest = append(rest, rec)
		}
	}
	return rest
}

func endsUnderWay[T any](r *run[T]) {
	if r.Block == nil {
		r.Skip("no Block hook")
	}
	for _, how := range []string{"cancelled", "past its deadline"} {
		release := r.Block()
		ctx, cancel := context.WithCancel(r.ctx)
		if how != "cancelled" {
			cancel()
			ctx, cancel = context.WithTimeout(r.ctx, 50*time.Millisecond)
		}
		batch := r.batch(0, 10)
		answer := make(chan error, 1)
		go func() {
			var err error
			if p := conform.Try(func() { err = r.Sink.Write(ctx, batch) }); p != "" {
				r.Errorf("Write panicked: %s", p)
			}
			answer <- err
		}()
		if how == "cancelled" {
			time.Sleep(20 * time.Millisecond) // most sinks hang by now; it is right either way
			cancel()
		}
		late := time.NewTimer(r.Patience)
		var err error
		select {
		case err = <-answer:
		case <-late.C:
			r.Errorf("Write to a far side that hangs did not return within %v of its context being %s", r.Patience, how)
			release()
			cancel()
			return
		}
		late.Stop()
		release()
		cancel()
		r.judge("with a context "+how+" under way", batch, err)
	}
	batch := r.batch(100, 10)
	r.mustWrite(batch)
	r.wantStored("after the far side had hung", batch)
}

func survivesCrash[T any](r *run[T]) {
	if r.Crash == nil || r.Stored == nil {
		r.Skip("no Crash and Stored hooks")
	}
	var safe []T
	for i := range 3 {
		batch := r.batch(100*i, 10)
		r.mustWrite(batch)
		safe = append(safe, batch...)
		r.Crash()
		r.wantStored("after a crash, though it was answered nil before", safe)
	}
}

// namesBadRecords writes good and bad records together. The flow can live with two
// answers: which records failed, or that something in the batch is bad for good,
// upon which it halves the batch until it has found it.
func namesBadRecords[T any](r *run[T]) {
	if r.Bad == nil {
		r.Skip("no Bad hook")
	}
	array := r.batch(0, 30)
	batch := array[5:20]
	bad := []int{0, 7, 14}
	for i, at := range bad {
		batch[at] = r.Bad(i)
	}
	err := r.write(r.ctx, batch)
	failed, partial := kemi.Failures(err, batch)
	switch {
	case err == nil:
		r.Errorf("Write of a batch with bad records in it answered nil")
		return
	case !partial && !kemi.IsPermanent(err):
		r.Errorf("the error about bad records is neither kemi.Partial of this very batch nor kemi.Permanent; "+
			"the flow would try again for ever: %v", err)
		return
	case !partial:
		return // the flow finds them by halving
	}
	var named []int
	for _, f := range failed {
		named = append(named, f.Index)
		if slices.Contains(bad, f.Index) {
			if !kemi.IsPermanent(f.Err) {
				r.Errorf("bad record %d is not refused for good; the flow would try again for ever: %v", f.Index, f.Err)
			}
		} else if kemi.IsPermanent(f.Err) {
			r.Errorf("good record %d is refused for good, with the bad ones %v: %v", f.Index, bad, f.Err)
		}
	}
	for _, at := range bad {
		if !slices.Contains(named, at) {
			r.Errorf("bad record %d is not among those named as failed: %v", at, named)
		}
	}
	r.wantStored("though it is not named in the partial error", others(batch, failed))
}

func refusesBadRecord[T any](r *run[T]) {
	if r.Bad == nil {
		r.Skip("no Bad hook")
	}
	batch := []T{r.Bad(0)}
	err := r.write(r.ctx, batch)
	if failed, ok := kemi.Failures(err, batch); ok && len(failed) == 1 {
		err = failed[0].Err
	}
	switch {
	case err == nil:
		r.Errorf("Write of a bad record answered nil")
	case !kemi.IsPermanent(err):
		r.Errorf("a bad record alone is not refused with kemi.Permanent; the flow would try again for ever: %v", err)
	case strings.TrimSpace(err.Error()) == "":
		r.Errorf("the reason for refusing a record is empty")
	}
}

func recovers[T any](r *run[T]) {
	if r.Down == nil {
		r.Skip("no Down hook")
	}
	before := r.batch(0, 10)
	r.mustWrite(before)
	up := r.Down()
	ctx, cancel := context.WithTimeout(r.ctx, min(r.Patience/2, 5*time.Second)) // any answer will do
	defer cancel()
	during := r.batch(100, 10)
	for range 2 {
		err := r.write(ctx, during)
		if err == nil && r.Stored == nil {
			r.Errorf("Write answered nil while the far side was down")
		}
		r.judge("while the far side was down", during, err)
	}
	up()
	// The flow would offer it again, with waits between.
	end := time.Now().Add(r.Patience)
	for {
		err := r.write(r.ctx, during)
		if err == nil {
			break
		}
		if errors.Is(err, context.Canceled) || time.Now().After(end) {
			r.Fatalf("the far side is up again, and Write still fails: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.wantStored("after an outage", append(before, during...))
}

// handsOnValues writes batches of different lengths, since a wrapper may know several
// ways on.
func handsOnValues[T any](r *run[T]) {
	if r.Seen == nil {
		r.Skip("no Seen hook")
	}
	type key struct{}
	for i, n := range []int{1, 10, 2500} {
		batch := r.batch(10_000*i, n)
		if err := r.write(context.WithValue(r.ctx, key{}, i), batch); err != nil {
			r.Fatalf("Write of %d good records: %v", n, err)
		}
		ctx := r.Seen()
		if ctx == nil {
			r.Fatalf("the sinks behind were not given a batch of %d", n)
		}
		if got := ctx.Value(key{}); got != i {
			r.Errorf("the context that the sinks behind were given with a batch of %d has not the values of the caller's", n)
		}
	}
}
