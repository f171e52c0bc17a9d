package sink_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
	"github.com/kemi-go/kemi/sink/sinktest"
)

// slow is a sink that takes a second.
func slow(to kemi.Sink[string]) kemi.Sink[string] {
	return kemi.SinkFunc[string](func(ctx context.Context, batch []string) error {
		time.Sleep(time.Second)
		return to.Write(ctx, batch)
	})
}

func TestManyWritersMakeAHandfulOfCalls(t *testing.T) {
	for _, linger := range []time.Duration{0, 10 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var rec sinktest.Recorder[string]
			s := sink.Coalesce(slow(&rec), 1000, linger)
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					r := fmt.Sprint("record ", i)
					if err := s.Write(t.Context(), []string{r}); err != nil {
						t.Error(err)
					}
					if !slices.Contains(rec.Records(), r) {
						t.Errorf("%s was acknowledged before it was written", r)
					}
				})
			}
			wg.Wait()
			if calls := len(rec.Batches()); calls > 2 || rec.Len() != 200 {
				t.Errorf("linger %v: %d calls with %d records", linger, calls, rec.Len())
			}
		})
	}
}

func TestALoneWriterWaitsForLingerAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		for linger, want := range map[time.Duration]time.Duration{0: 0, time.Minute: time.Minute} {
			began := time.Now()
			if err := sink.Coalesce[string](&rec, 10, linger).Write(t.Context(), []string{"a"}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("linger %v took %v", linger, took)
			}
		}
	})
}

func TestAFullBatchDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		s := sink.Coalesce[string](&rec, 4, time.Hour)
		began := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.Write(t.Context(), []string{"a", "b"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := s.Write(t.Context(), []string{"1", "2", "3", "4", "5"}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		for i, b := range rec.Batches() {
			if len(b) > 4 && i < 2 {
				t.Errorf("a batch of %d records, more than max", len(b))
			}
		}
		// 3 records are not full, and 3 more do not fit: the first need not wait for more.
		wg.Go(func() { _ = s.Write(t.Context(), []string{"a", "b", "c"}) })
		synctest.Wait()
		before := len(rec.Batches())
		wg.Go(func() { _ = s.Write(t.Context(), []string{"d", "e", "f"}) })
		synctest.Wait()
		if got := rec.Batches()[before:]; len(got) != 1 || len(got[0]) != 3 || got[0][0] != "a" {
			t.Errorf("batches %v", got)
		}
		wg.Wait()
	})
}

// together writes batches that meet in one flush, in order, and returns the errors.
func together(t *testing.T, s kemi.Sink[string], batches ...[]string) []error {
	errs := make([]error, len(batches))
	var wg sync.WaitGroup
	for i, b := range batches {
		wg.Go(func() { errs[i] = s.Write(t.Context(), b) })
		synctest.Wait()
	}
	wg.Wait()
	return errs
}

func TestEachWriterGetsItsPartOfThePartialError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &store{}
		batches := [][]string{{"1", "2"}, {"bad 3", "4"}, {"5"}, {"6", "7", "bad 8"}}
		errs := together(t, sink.Coalesce[string](a, 100, time.Second), batches...)
		for i, want := range []string{"++", "x+", "+", "++x"} {
			if got := verdict(errs[i], batches[i]); got != want {
				t.Errorf("writer %d got %s, want %s", i, got, want)
			}
		}
		if !strings.Contains(errs[3].Error(), "bad 8") || a.calls != 1 {
			t.Errorf("%v in %d calls", errs[3], a.calls)
		}
	})
}

// TestNobodySuffersForAnothersRecord: a permanent error about the batch of many must
// not bury the records of those who did no wrong.
func TestNobodySuffersForAnothersRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, refuse := range map[string]func(){
			"refuses": func() {},
			"panics":  func() { panic("oh") },
		} {
			a := &store{coarse: true}
			s := sink.Coalesce[string](kemi.SinkFunc[string](func(ctx context.Context, batch []string) error {
				err := a.Write(ctx, batch)
				if err != nil {
					refuse()
				}
				return err
			}), 100, time.Second)
			batches := [][]string{{"1", "2"}, {"bad 3", "4"}, {"5"}}
			errs := together(t, s, batches...)
			for i, want := range []string{"++", "(x)", "+"} {
				if got := verdict(errs[i], batches[i]); got != want {
					t.Errorf("a sink that %s: writer %d got %s, want %s", name, i, got, want)
				}
			}
		}
	})
}

func TestATransientErrorIsForAllWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &store{down: true}
		for _, err := range together(t, sink.Coalesce[string](a, 100, time.Second), []string{"1"}, []string{"2"}) {
			if !errors.Is(err, errDown) || kemi.IsPermanent(err) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestAWriterThatGivesUpLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		s := sink.Coalesce(slow(&rec), 100, time.Second)
		short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		began := time.Now()
		wg.Go(func() { // the first, whose context the others do not depend on
			err := s.Write(short, []string{"short"})
			if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 1500*time.Millisecond {
				t.Errorf("gave up with %v after %v", err, took)
			}
		})
		wg.Go(func() {
			if err := s.Write(t.Context(), []string{"long"}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if !slices.Contains(rec.Records(), "long") {
			t.Errorf("stored %v", rec.Records())
		}
	})
}

func TestAFlushNobodyWaitsForIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cancelled := false
		s := sink.Coalesce[string](kemi.SinkFunc[string](func(ctx context.Context, _ []string) error {
			<-ctx.Done()
			cancelled = true
			return ctx.Err()
		}), 100, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Write(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if !cancelled {
			t.Error("the sink still hangs") // and the test would not end
		}
	})
}

func TestWritersThatGaveUpBeforeTheFlushAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		s := sink.Coalesce[string](&rec, 100, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Write(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := s.Write(t.Context(), []string{"b"}); err != nil {
			t.Error(err)
		}
		if got := rec.Records(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("stored %v", got)
		}
	})
}

// TestNoGoroutineWhenIdle: synctest fails a test whose bubble ends with goroutines.
func TestNoGoroutineWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink.Coalesce(sink.Discard[string](), 100, time.Second)
		together(t, s, []string{"a"}, []string{"b"})
	})
}

func TestASinkThatEndsItsGoroutineIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		skip := answer(func([]string) error { runtime.Goexit(); return nil })
		for _, s := range []kemi.Sink[string]{sink.Coalesce(skip, 10, 0), sink.Tee(skip, sink.Discard[string]())} {
			if err := s.Write(t.Context(), []string{"a"}); err == nil || kemi.IsPermanent(err) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestCoalesceLosesNothing has many writers that try again, each with a deadline at
// times, on a sink that fails in all ways.
func TestCoalesceLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		s := sink.Coalesce(sinktest.Faulty(5, &rec, sinktest.Faults{
			Panic: .02, Refuse: .1, Partial: .3, Lose: .1, Delay: .5, For: 50 * time.Millisecond,
		}), 50, 10*time.Millisecond)
		var wg sync.WaitGroup
		for w := range 30 {
			wg.Go(func() {
				for i := range 20 {
					todo := []string{fmt.Sprintf("%d/%d/a", w, i), fmt.Sprintf("%d/%d/b", w, i), fmt.Sprintf("%d/%d/c", w, i)}
					for len(todo) > 0 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+10*w)*time.Millisecond)
						err := s.Write(ctx, todo)
						cancel()
						failed, ok := kemi.Failures(err, todo)
						switch {
						case err == nil:
							todo = nil
						case ok:
							var again []string
							for _, f := range failed {
								again = append(again, todo[f.Index])
							}
							todo = again
						}
					}
					for _, x := range "abc" {
						if r := fmt.Sprintf("%d/%d/%c", w, i, x); !slices.Contains(rec.Records(), r) {
							t.Errorf("%s was acknowledged and is not there", r)
						}
					}
				}
			})
		}
		wg.Wait()
	})
}
