package sourcetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// queue is a far side with an answer: a record that is not taken is sent again.
type queue struct{ jobs chan job }

type job struct {
	n    int
	done chan error
}

func newQueue() *queue { return &queue{jobs: make(chan job)} }

// feed sends one record until it is taken.
func (q *queue) feed(n int) func(ctx context.Context) {
	return func(ctx context.Context) {
		n++
		for {
			j := job{n, make(chan error, 1)}
			select {
			case q.jobs <- j:
			case <-ctx.Done():
				return
			}
			select {
			case err := <-j.done:
				if err == nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// good is a source that keeps the contract.
func (q *queue) good(ctx context.Context, out kemi.Sink[int]) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-q.jobs:
			j.done <- out.Write(ctx, []int{j.n})
		}
	}
}

func TestAGoodSourcePasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[int] {
		q := newQueue()
		return Harness[int]{Source: kemi.SourceFunc[int](q.good), Feed: q.feed(0)}
	})
}

func TestASourceWithLanesPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[int] {
		q := newQueue()
		return Harness[int]{Feed: q.feed(0), Source: kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			lane := kemi.OpenLane(out, "0")
			defer lane.Close()
			return q.good(ctx, lane)
		})}
	})
}

func TestASourceThatEndsPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[int] {
		return Harness[int]{Source: kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			return out.Write(ctx, []int{1, 2, 3})
		})}
	})
}

// TestBreaches breaks the contract in each way, and wants the check that is about
// it to fail.
func TestBreaches(t *testing.T) {
	type run = func(ctx context.Context, out kemi.Sink[int]) error
	for _, breach := range []struct {
		name  string
		check string // that must fail
		says  string
		run   func(t *testing.T, q *queue) run
	}{
		{"does not stop", "brings records and stops", "did not return", func(t *testing.T, q *queue) run {
			return func(_ context.Context, out kemi.Sink[int]) error { return q.good(t.Context(), out) }
		}},
		{"takes a stop for an error", "brings records and stops", "returned an error", func(_ *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				_ = q.good(ctx, out)
				return ctx.Err()
			}
		}},
		{"writes after its end", "brings records and stops", "after Run had returned", func(t *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				err := q.good(ctx, out)
				go func() {
					time.Sleep(5 * time.Millisecond)
					_ = out.Write(t.Context(), []int{0})
				}()
				return err
			}
		}},
		{"brings nothing", "brings records and stops", "did not come about", func(*testing.T, *queue) run {
			return func(ctx context.Context, _ kemi.Sink[int]) error {
				<-ctx.Done()
				return nil
			}
		}},
		{"gives up", "brings records and stops", "Run ended before", func(*testing.T, *queue) run {
			return func(context.Context, kemi.Sink[int]) error { return errors.New("no such host") }
		}},
		{"panics", "brings records and stops", "panicked", func(*testing.T, *queue) run {
			return func(context.Context, kemi.Sink[int]) error { panic("oh") }
		}},
		{"waits for input before it looks at its context", "stops before it has begun", "did not return", func(t *testing.T, _ *queue) run {
			return func(context.Context, kemi.Sink[int]) error {
				<-t.Context().Done()
				return nil
			}
		}},
		{"does not wait for its writes", "waits for its writes", "while a Write was under way", func(_ *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				for {
					select {
					case <-ctx.Done():
						return nil
					case j := <-q.jobs:
						go func() { j.done <- out.Write(ctx, []int{j.n}) }()
					}
				}
			}
		}},
		{"drops what was refused", "loses nothing that was not taken", "not offered again", func(_ *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				for {
					select {
					case <-ctx.Done():
						return nil
					case j := <-q.jobs:
						_ = out.Write(ctx, []int{j.n})
						j.done <- nil
					}
				}
			}
		}},
		{"ends in silence when refused", "loses nothing that was not taken", "without an error", func(_ *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				j := <-q.jobs
				_ = out.Write(ctx, []int{j.n})
				return nil
			}
		}},
		{"leaves a goroutine behind", "leaves no goroutine behind", "still run", func(t *testing.T, q *queue) run {
			return func(ctx context.Context, out kemi.Sink[int]) error {
				go func() { <-t.Context().Done() }()
				return q.good(ctx, out)
			}
		}},
	} {
		t.Run(breach.name, func(t *testing.T) {
			failed := failures(t, breach.check, breach.says, func(patience time.Duration) Harness[int] {
				q := newQueue()
				return Harness[int]{Source: kemi.SourceFunc[int](breach.run(t, q)), Feed: q.feed(0), Patience: patience}
			})
			if !strings.Contains(failed, breach.says) {
				t.Errorf("%q says %q, want something with %q", breach.check, failed, breach.says)
			}
		})
	}
}

// failures runs one check and returns what it reports. That the suite waits for a while is
// no more than a chance for a breach to show: on a machine that is busy with other things
// it may not, so that the check is run again, with more patience, until it says so.
func failures[T any](t *testing.T, name, says string, open func(patience time.Duration) Harness[T]) (failed string) {
	for _, c := range checks[T]() {
		if c.name != name {
			continue
		}
		for patience := 300 * time.Millisecond; patience < time.Minute; patience *= 2 {
			failed = strings.Join(conform.Failures(t, func(tb testing.TB) {
				c.run(tb, func(testing.TB) Harness[T] { return open(patience) })
			}), "\n")
			if strings.Contains(failed, says) {
				break
			}
		}
		return failed
	}
	t.Fatalf("there is no check %q", name)
	return ""
}

func TestABatchChangedWhileItIsWritten(t *testing.T) {
	if conform.RaceDetector {
		t.Skip("the race detector ends it sooner")
	}
	failed := failures(t, "leaves a batch alone while it is written", "changed while", func(patience time.Duration) Harness[int] {
		return Harness[int]{Patience: patience, Source: kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			batch := []int{1, 2, 3}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = out.Write(ctx, batch)
			}()
			for i := 0; ctx.Err() == nil; i++ {
				batch[1] = i
				time.Sleep(time.Millisecond)
			}
			<-done
			return nil
		})}
	})
	if !strings.Contains(failed, "changed while") {
		t.Errorf("got %q", failed)
	}
}

func TestABufferUsedAgain(t *testing.T) {
	failed := failures(t, "brings records that stay as they are", "used again", func(patience time.Duration) Harness[string] {
		return Harness[string]{Patience: patience, Source: kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
			buf := []byte("line 0")
			for ; ctx.Err() == nil; buf[5]++ {
				if err := out.Write(ctx, []string{unsafe.String(&buf[0], len(buf))}); err != nil {
					return err
				}
			}
			return nil
		})}
	})
	if !strings.Contains(failed, "used again") {
		t.Errorf("got %q", failed)
	}
}

// TestASourceThatGivesUpUnderWay is about a source that cuts its own Writes off when
// it is asked to stop, so that the flow's ledger has failures.
func TestASourceThatGivesUpUnderWay(t *testing.T) {
	failed := failures(t, "runs in a flow", "did not lack time", func(patience time.Duration) Harness[int] {
		return Harness[int]{Patience: patience, Source: kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			for i := 0; ctx.Err() == nil; i++ {
				short, cancel := context.WithDeadline(ctx, time.Now()) // enough for a sink that does not fail
				_ = out.Write(short, slices.Repeat([]int{i}, 3))
				cancel()
			}
			return nil
		})}
	})
	if !strings.Contains(failed, "did not lack time") {
		t.Errorf("got %q", failed)
	}
}
