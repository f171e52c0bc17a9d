package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
)

// failing is a sink that fails its first n calls with err, and notes when it was
// called with what.
type failing struct {
	n     int
	err   func(batch []item) error
	calls []time.Time
	sizes []int
	last  []item
}

func (f *failing) Write(_ context.Context, batch []item) error {
	f.calls, f.sizes = append(f.calls, time.Now()), append(f.sizes, len(batch))
	if len(f.calls) <= f.n {
		return f.err(batch)
	}
	f.last = slices.Clone(batch)
	return nil
}

// waits are the times between calls.
func (f *failing) waits() []time.Duration {
	var w []time.Duration
	for i := 1; i < len(f.calls); i++ {
		w = append(w, f.calls[i].Sub(f.calls[i-1]))
	}
	return w
}

func TestBackoffDoublesWithFullJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lo, hi = 100 * time.Millisecond, 2 * time.Second
		bounds := []time.Duration{lo, 2 * lo, 4 * lo, 8 * lo, 16 * lo, hi, hi, hi}
		var sum, most [8]time.Duration
		const runs = 400
		for range runs {
			to := &failing{n: len(bounds), err: func([]item) error { return errDown }}
			run(t, kemi.Connect("f", once(items(0, 1)), to, kemi.Backoff(lo, hi)))
			waits := to.waits()
			if len(waits) != len(bounds) {
				t.Fatalf("%d waits", len(waits))
			}
			for i, w := range waits {
				if w < 0 || w > bounds[i] {
					t.Fatalf("wait %d is %v, beyond its bound %v", i, w, bounds[i])
				}
				sum[i] += w
				most[i] = max(most[i], w)
			}
		}
		for i, b := range bounds {
			// Uniform in [0, b]: the mean of 400 is within b/2 ± 0.12 b but once in 10^16.
			if mean := sum[i] / runs; mean < b*38/100 || mean > b*62/100 || most[i] < b*9/10 {
				t.Errorf("wait %d: mean %v, greatest %v of a bound of %v", i, mean, most[i], b)
			}
		}
	})
}

func TestBackoffHasSoundDefaults(t *testing.T) {
	for name, o := range map[string]kemi.FlowOption{
		"zero":       kemi.Backoff(0, 0),
		"negative":   kemi.Backoff(-1, -1),
		"max too":    kemi.Backoff(time.Hour, time.Second),
		"very large": kemi.Backoff(1<<62, 1<<63-1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &failing{n: 4, err: func([]item) error { return errDown }}
				run(t, kemi.Connect("f", once(items(0, 1)), to, o, kemi.Attempts(-1), kemi.TickEvery(-1)))
				if len(to.calls) != 5 {
					t.Errorf("%d calls", len(to.calls))
				}
			})
		})
	}
}

func TestRetryAfterIsAFloor(t *testing.T) {
	const floor = 30 * time.Second
	for name, err := range map[string]func([]item) error{
		"of the batch": func([]item) error { return fmt.Errorf("429: %w", kemi.RetryAfter(errDown, floor)) },
		"of a record": func(b []item) error {
			return kemi.Partial(b, kemi.Failure{Index: 0, Err: errDown}, kemi.Failure{Index: 1, Err: kemi.RetryAfter(errDown, floor)})
		},
		"around a partial": func(b []item) error {
			return kemi.RetryAfter(kemi.Partial(b, kemi.Failure{Index: 0, Err: errDown}), floor)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &failing{n: 1, err: err}
				run(t, kemi.Connect("f", once(items(0, 5)), to))
				if w := to.waits(); len(w) != 1 || w[0] != floor {
					t.Errorf("waits %v, want %v", w, floor)
				}
			})
		})
	}
	t.Run("but not a ceiling", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			to := &failing{n: 50, err: func([]item) error { return kemi.RetryAfter(errDown, time.Millisecond) }}
			run(t, kemi.Connect("f", once(items(0, 5)), to, kemi.Backoff(time.Second, time.Second)))
			if slices.Max(to.waits()) < 500*time.Millisecond {
				t.Errorf("waits %v, want the backoff where it is longer", to.waits())
			}
		})
	})
}

// TestOnlyTheFailedRecordsAreTriedAgain also for those of a partial error whose
// records have different fates.
func TestOnlyTheFailedRecordsAreTriedAgain(t *testing.T) {
	to, dead := &failing{n: 1, err: func(b []item) error {
		return kemi.Partial(b,
			kemi.Failure{Index: 8, Err: errDown},
			kemi.Failure{Index: 3, Err: kemi.Permanent(errDown)},
			kemi.Failure{Index: 5, Err: errDown})
	}}, &letters{}
	s := runPipeline(t, &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 10)), to, fast())}, DeadLetters: dead})[0]
	if fmt.Sprint(to.sizes, to.last) != "[10 2] [{5} {8}]" || len(dead.kept) != 1 || string(dead.kept[0].Payload) != `{"ID":3}` {
		t.Errorf("calls %v, last %v, dead %v", to.sizes, to.last, dead.kept)
	}
	if s.Written != 9 || s.Dead != 1 || s.Retries != 1 {
		t.Errorf("ledger %+v", s)
	}
}

// TestAPartialOfAnotherBatchIsAboutTheWhole shows that a sink that forgets to
// translate the error of what it calls costs a repetition and never a record.
func TestAPartialOfAnotherBatchIsAboutTheWhole(t *testing.T) {
	for name, other := range map[string]func(b []item) []item{
		"copied":   slices.Clone[[]item],
		"filtered": func(b []item) []item { return b[2:] },
	} {
		to := &failing{n: 1, err: func(b []item) error {
			return kemi.Partial(other(b), kemi.Failure{Index: 0, Err: kemi.Permanent(errDown)})
		}}
		s := run(t, kemi.Connect("f", once(items(0, 10)), to, fast()))[0]
		if fmt.Sprint(to.sizes) != "[10 10]" || s.Written != 10 {
			t.Errorf("%s: calls %v, ledger %+v", name, to.sizes, s)
		}
	}
}

// TestAttemptsSendToTheDeadLetters bounds the tries of a sink and of a transform.
func TestAttemptsSendToTheDeadLetters(t *testing.T) {
	down := &failing{n: 100, err: func([]item) error { return errDown }}
	part := &failing{n: 100, err: func(b []item) error { return kemi.Partial(b, kemi.Failure{Index: 1, Err: errDown}) }}
	for name, c := range map[string]struct {
		flow *kemi.Flow
		dead uint64
		got  func() []int
		want string
	}{
		"whole": {kemi.Connect("f", once(items(0, 4)), down, fast(), kemi.Attempts(3)), 4,
			func() []int { return down.sizes }, "[4 4 4]"},
		// A sink that always fails the second record: it takes one more each time.
		"partial": {kemi.Connect("f", once(items(0, 4)), part, fast(), kemi.Attempts(1)), 1,
			func() []int { return part.sizes }, "[4]"},
	} {
		t.Run(name, func(t *testing.T) {
			dead := &letters{}
			s := runPipeline(t, &kemi.Pipeline{Flows: []*kemi.Flow{c.flow}, DeadLetters: dead})[0]
			if s.Dead != c.dead || s.Written != 4-c.dead || len(dead.kept) != int(c.dead) || s.Done != 4 {
				t.Errorf("ledger %+v, %d dead letters", s, len(dead.kept))
			}
			if fmt.Sprint(c.got()) != c.want {
				t.Errorf("calls %v, want %s", c.got(), c.want)
			}
		})
	}
	t.Run("transform", func(t *testing.T) {
		calls := 0
		via := kemi.TransformFunc[item, item](func(_ context.Context, dst, _ []item) ([]item, error) { calls++; return dst, errDown })
		s := run(t, kemi.Pipe("f", once(items(0, 4)), via, nowhere[item](), fast(), kemi.Attempts(3)))[0]
		if calls != 3 || s.Dropped != 4 || s.Rejected != 4 || s.Done != 4 {
			t.Errorf("%d calls, ledger %+v", calls, s)
		}
	})
	t.Run("a record on its own count", func(t *testing.T) {
		// Two tries for reasons that may pass, then a verdict on the whole batch: halving
		// goes on from there and does not grant the halves three more tries each.
		to := &store{}
		calls := 0
		to.fault = func(_ context.Context, batch []item) error {
			if calls++; calls <= 2 {
				return errDown
			}
			if len(batch) > 1 {
				return kemi.Permanent(errDown)
			}
			return errDown
		}
		s := run(t, kemi.Connect("f", once(items(0, 2)), to, fast(), kemi.Attempts(3)))[0]
		if calls != 5 || s.Dropped != 2 {
			t.Errorf("%d calls, ledger %+v; want 2 tries, the verdict, and one try of each half", calls, s)
		}
	})
}

// TestRetryNeverFeedsATransformTwice is what sink-side retry is for.
func TestRetryNeverFeedsATransformTwice(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		to := &store{fault: quarters(seeded(t, seed))}
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			l := kemi.OpenLane(out, "p0")
			for b := range 200 {
				if err := l.Write(ctx, items(b*10, 10)); err != nil {
					t.Error(err)
				}
			}
		})
		s := run(t, kemi.Pipe("f", src, &seen{}, to, fast()))[0] // seen panics if it is
		if s.Rejected != 0 || s.Written != 2000 || s.Retries == 0 {
			t.Errorf("ledger %+v", s)
		}
	}
}

// TestADeadlineEndsTheRetry gives the caller its error in time to answer 503, and
// says what the last error was.
func TestADeadlineEndsTheRetry(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		most time.Duration
	}{
		"transient":                       {errDown, 10 * time.Second},
		"asks for more time than is left": {kemi.RetryAfter(errDown, time.Minute), 0},
	} {
		for _, stage := range []string{"sink", "transform", "dead letters"} {
			t.Run(name+"/"+stage, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := source(func(ctx context.Context, out kemi.Sink[item]) {
						c10, cancel := context.WithTimeout(ctx, 10*time.Second)
						defer cancel()
						began := time.Now()
						err := out.Write(c10, items(0, 5))
						if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) {
							t.Errorf("Write: %v", err)
						}
						if d := time.Since(began); d > c.most {
							t.Errorf("Write took %v", d)
						}
					})
					p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, always(c.err))}}
					abandoned := uint64(5)
					switch stage {
					case "transform":
						via := kemi.TransformFunc[item, item](func(_ context.Context, dst, _ []item) ([]item, error) { return dst, c.err })
						p.Flows[0] = kemi.Pipe("f", src, via, nowhere[item]())
						abandoned = 0 // nothing came of them
					case "dead letters":
						p.Flows[0] = kemi.Connect("f", src, always(kemi.Permanent(errors.New("malformed"))))
						p.DeadLetters = kemi.SinkFunc[kemi.DeadLetter](func(context.Context, []kemi.DeadLetter) error { return c.err })
					}
					s := runPipeline(t, p)[0]
					if s.In != 5 || s.Failed != 5 || s.Abandoned != abandoned || s.Dead != 0 || s.Dropped != 0 {
						t.Errorf("ledger %+v", s)
					}
				})
			})
		}
	}
}

// TestCancellationOfTheCallerAloneEndsNothing is the gate: a source may hand on the
// context it is stopped with.
func TestCancellationOfTheCallerAloneEndsNothing(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var value any
		to := &failing{n: 5, err: func([]item) error { return errDown }}
		sink := kemi.SinkFunc[item](func(ctx context.Context, batch []item) error {
			value = ctx.Value(key{})
			if ctx.Err() != nil {
				t.Error("the sink's context is cancelled")
			}
			// A child of it works as any other: with a timeout of its own.
			child, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			select {
			case <-child.Done():
				t.Error("a child of the sink's context is cancelled")
			case <-time.After(100 * time.Millisecond):
			}
			return to.Write(ctx, batch)
		})
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			c, cancel := context.WithCancel(context.WithValue(ctx, key{}, "trace"))
			cancel()
			if err := out.Write(c, items(0, 5)); err != nil {
				t.Errorf("Write: %v", err)
			}
		})
		s := run(t, kemi.Connect("f", src, sink))[0]
		if s.Written != 5 || s.Retries != 5 || value != "trace" {
			t.Errorf("ledger %+v, value %v", s, value)
		}
	})
}

// TestValuesOfEveryCallerPass shows that the context of one Write is not that of the
// one before.
func TestValuesOfEveryCallerPass(t *testing.T) {
	type key struct{}
	var got []any
	to := kemi.SinkFunc[item](func(ctx context.Context, _ []item) error {
		got = append(got, ctx.Value(key{}))
		return nil
	})
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		for _, v := range []any{1, 1, 2, nil, 1} {
			c := ctx
			if v != nil {
				c = context.WithValue(ctx, key{}, v)
			}
			if err := out.Write(c, items(0, 1)); err != nil {
				t.Error(err)
			}
		}
		type byValue struct { // a context that cannot be compared
			context.Context
			_ []int
		}
		for range 2 {
			if err := out.Write(byValue{Context: context.WithValue(ctx, key{}, 3)}, items(0, 1)); err != nil {
				t.Error(err)
			}
		}
	})
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, to)}}
	if err := p.Run(context.WithValue(t.Context(), key{}, 0)); err != nil {
		t.Fatal(err)
	}
	if want := "[1 1 2 0 1 3 3]"; fmt.Sprint(got) != want {
		t.Errorf("values %v, want %v", got, want)
	}
}

// TestAnOutageIsTwoLines and not one for every try, also where the text changes with
// every batch.
func TestAnOutageIsTwoLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		n := 0
		to := &failing{n: 20, err: func(b []item) error {
			n++
			return fmt.Errorf("try %d: %w", n, errDown)
		}}
		p := &kemi.Pipeline{
			Flows:  []*kemi.Flow{kemi.Connect("f", once(items(0, 5)), to, kemi.Backoff(time.Millisecond, 10*time.Millisecond))},
			Logger: zap.New(core),
		}
		runPipeline(t, p)
		all := logs.All()
		if len(all) != 2 || all[0].Message != "the sink failed" || all[1].Message != "records are taken again" {
			t.Fatalf("logged %v", all)
		}
		if m := all[0].ContextMap(); m["flow"] != "f" || m["error"] != "try 1: "+errDown.Error() || m["records"] != int64(5) {
			t.Errorf("%v", m)
		}
		if m := all[1].ContextMap(); m["tries"] != int64(21) {
			t.Errorf("%v", m)
		}
		if s := p.Stats()[0]; !strings.HasPrefix(s.LastErr, "try 20") || s.LastErrTime.IsZero() {
			t.Errorf("last error %q", s.LastErr)
		}
	})
}

// TestALongOutageIsToldAgain every half minute.
func TestALongOutageIsToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 5)), always(errDown))}, Logger: zap.New(core)}
		stop := background(p)
		time.Sleep(5*time.Minute - time.Second)
		if n := logs.FilterMessage("the sink failed").Len(); n < 8 || n > 10 {
			t.Errorf("%d lines in five minutes, want one about every 30 s", n)
		}
		_ = stop()
	})
}

// TestALongOutageIsToldOnce although what is said of it changes with every batch, and
// has more than one cause.
func TestALongOutageIsToldOnce(t *testing.T) {
	n := 0
	for name, c := range map[string]struct {
		err  func(b []item) error
		most int // lines in five minutes
	}{
		"of the records, by number": {func(b []item) error {
			fs := make([]kemi.Failure, len(b))
			for i := range fs {
				fs[i] = kemi.Failure{Index: i, Err: errDown}
			}
			return fmt.Errorf("bulk: %w", kemi.Partial(b, fs...))
		}, 12},
		"of the batch, by its size": {func(b []item) error { return fmt.Errorf("write %d records: %w", len(b), errDown) }, 12},
		"joined": {func(b []item) error {
			return errors.Join(fmt.Errorf("east, %d records: %w", len(b), errDown), fmt.Errorf("west, %d records: %w", len(b), io.EOF))
		}, 12},
		"by turns": {func([]item) error {
			n++
			return []error{errDown, io.EOF}[n%2]
		}, 24},
		"a new one every time": {func([]item) error {
			n++
			return fmt.Errorf("request %d failed", n)
		}, 8 * 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				src := source(func(ctx context.Context, out kemi.Sink[item]) {
					for size := 1; ctx.Err() == nil; size = size%12 + 1 { // a push that gives up after a second
						c, cancel := context.WithTimeout(ctx, time.Second)
						_ = out.Write(c, items(0, size))
						cancel()
					}
				})
				to := kemi.SinkFunc[item](func(_ context.Context, b []item) error { return c.err(b) })
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("f", src, to)}, Logger: zap.New(core)}
				stop := background(p)
				time.Sleep(5*time.Minute - time.Second)
				if n := logs.FilterMessage("the sink failed").Len(); n < 8 || n > c.most {
					t.Errorf("%d lines in five minutes, want at most %d", n, c.most)
				}
				_ = stop()
			})
		})
	}
}
