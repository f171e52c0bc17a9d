package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// disk is a small far side: what is in pages is lost in a crash.
type disk struct {
	mu    sync.Mutex
	pages []string
	safe  []string
	down  bool
	hung  chan struct{} // not nil while it hangs
	seen  context.Context
}

func (d *disk) put(ctx context.Context, batch []string, sync bool) error {
	d.mu.Lock()
	d.seen = ctx
	hung, down := d.hung, d.down
	d.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if down {
		return errors.New("disk: not ready")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages = append(d.pages, batch...)
	if sync {
		d.safe = append(d.safe, d.pages...)
		d.pages = nil
	}
	return nil
}

func (d *disk) stored() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Concat(d.safe, d.pages)
}

func (d *disk) harness(write func(ctx context.Context, batch []string) error) Harness[string] {
	return Harness[string]{
		Sink:   kemi.SinkFunc[string](write),
		New:    func(i int) string { return fmt.Sprint("record ", i) },
		Bad:    func(i int) string { return fmt.Sprint("bad ", i) },
		Stored: d.stored,
		Crash: func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.pages = nil
		},
		Down: func() func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.down = true
			return func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.down = false
			}
		},
		Block: func() func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			hung := make(chan struct{})
			d.hung = hung
			return func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				close(hung)
				d.hung = nil
			}
		},
		Seen: func() context.Context {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.seen
		},
	}
}

var errBad = kemi.Permanent(errors.New("bad record"))

// good is a sink that keeps the contract.
func (d *disk) good(ctx context.Context, batch []string) error {
	var fine []string
	var failed []kemi.Failure
	for i, r := range batch {
		if strings.HasPrefix(r, "bad") {
			failed = append(failed, kemi.Failure{Index: i, Err: errBad})
		} else {
			fine = append(fine, r)
		}
	}
	if err := d.put(ctx, fine, true); err != nil {
		return err
	}
	return kemi.Partial(batch, failed...)
}

func TestAGoodSinkPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[string] {
		d := &disk{}
		return d.harness(d.good)
	})
}

func TestASinkThatLetsTheFlowFindTheBadRecordPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[string] {
		d := &disk{}
		return d.harness(func(ctx context.Context, batch []string) error {
			if slices.ContainsFunc(batch, func(r string) bool { return strings.HasPrefix(r, "bad") }) {
				return errBad
			}
			return d.good(ctx, batch)
		})
	})
}

func TestRecorderPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[string] {
		var rec Recorder[string]
		return Harness[string]{Sink: &rec, Stored: rec.Records, New: func(i int) string { return fmt.Sprint(i) }}
	})
}

// TestBreaches breaks the contract in each way, and wants the check that is about
// it to fail.
func TestBreaches(t *testing.T) {
	type write = func(ctx context.Context, batch []string) error
	for _, breach := range []struct {
		name  string
		check string // that must fail
		says  string
		sink  func(d *disk) write
	}{
		{"forgets a record of a large batch", "stores what it answers nil to", "not stored", func(d *disk) write {
			return func(ctx context.Context, batch []string) error { return d.good(ctx, batch[:min(len(batch), 99)]) }
		}},
		{"stores a page of a batch", "stores what it answers nil to", "not stored", func(d *disk) write {
			return func(ctx context.Context, batch []string) error { return d.good(ctx, batch[:min(len(batch), 2048)]) }
		}},
		{"panics", "stores what it answers nil to", "panicked", func(*disk) write {
			return func(context.Context, []string) error { panic("oh") }
		}},
		{"keeps the batch", "keeps no batch", "kept the batch", func(d *disk) write {
			var late []string
			return func(ctx context.Context, batch []string) error {
				err := d.good(ctx, late)
				late = batch
				return err
			}
		}},
		{"sorts in place", "changes no batch", "changed record", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				slices.Reverse(batch)
				return d.good(ctx, batch)
			}
		}},
		{"appends a trailer to the batch", "changes no batch", "around", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				return d.good(ctx, append(batch, "trailer"))
			}
		}},
		{"changes the batch when it refuses", "changes no batch", "bad record", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				err := d.good(ctx, batch)
				if failed, ok := kemi.Failures(err, batch); ok {
					batch[failed[0].Index] = ""
				}
				return err
			}
		}},
		{"fails on an empty batch", "takes an empty batch", "empty batch", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				if len(batch) == 0 {
					return errors.New("nothing to write")
				}
				return d.good(ctx, batch)
			}
		}},
		{"looks at the first record", "takes an empty batch", "panicked", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				_ = batch[0]
				return d.good(ctx, batch)
			}
		}},
		{"answers the second writer before the first is done", "takes many writers", "among many writers", func(d *disk) write {
			var busy sync.Mutex
			return func(ctx context.Context, batch []string) error {
				if !busy.TryLock() {
					return nil
				}
				defer busy.Unlock()
				time.Sleep(time.Millisecond)
				return d.good(ctx, batch)
			}
		}},
		{"locks and never unlocks", "takes many writers", "not all return", func(d *disk) write {
			var busy sync.Mutex
			return func(ctx context.Context, batch []string) error {
				busy.Lock()
				return d.good(ctx, batch)
			}
		}},
		{"answers nil when cancelled", "ends when its context is done", "not stored", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				if ctx.Err() != nil {
					return nil
				}
				return d.good(ctx, batch)
			}
		}},
		{"buries what was cancelled", "ends when its context is done", "dead letters", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				if err := ctx.Err(); err != nil {
					return kemi.Permanent(err)
				}
				return d.good(ctx, batch)
			}
		}},
		{"ignores its context", "ends when its context is done under way", "did not return", func(d *disk) write {
			return func(_ context.Context, batch []string) error { return d.good(context.Background(), batch) }
		}},
		{"answers before it is safe", "survives a crash", "after a crash", func(d *disk) write {
			return func(ctx context.Context, batch []string) error { return d.put(ctx, batch, false) }
		}},
		{"swallows bad records", "names the bad records", "answered nil", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				_ = d.good(ctx, batch)
				return nil
			}
		}},
		{"names them in another slice", "names the bad records", "very batch", func(d *disk) write {
			return func(ctx context.Context, batch []string) error { return d.good(ctx, slices.Clone(batch)) }
		}},
		{"counts from one", "names the bad records", "not among those named", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				failed, ok := kemi.Failures(d.good(ctx, batch), batch)
				if !ok {
					return nil
				}
				for i := range failed {
					failed[i].Index = (failed[i].Index + 1) % len(batch)
				}
				return kemi.Partial(batch, failed...)
			}
		}},
		{"writes nothing when one record is bad", "names the bad records", "not stored", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				var failed []kemi.Failure
				for i, r := range batch {
					if strings.HasPrefix(r, "bad") {
						failed = append(failed, kemi.Failure{Index: i, Err: errBad})
					}
				}
				if len(failed) > 0 {
					return kemi.Partial(batch, failed...)
				}
				return d.good(ctx, batch)
			}
		}},
		{"takes a bad record for an outage", "refuses a bad record for good", "for ever", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				if err := d.good(ctx, batch); err != nil {
					return errors.New("400 bad request")
				}
				return nil
			}
		}},
		{"takes an outage for bad records", "recovers after an outage", "dead letters", func(d *disk) write {
			return func(ctx context.Context, batch []string) error { return kemi.Permanent(d.good(ctx, batch)) }
		}},
		{"stays broken after an outage", "recovers after an outage", "still fails", func(d *disk) write {
			var broken error
			return func(ctx context.Context, batch []string) error {
				if broken == nil {
					broken = d.good(ctx, batch)
				}
				return broken
			}
		}},
		{"starts a context anew", "hands on the values of its context", "values", func(d *disk) write {
			return func(_ context.Context, batch []string) error { return d.good(context.Background(), batch) }
		}},
		{"starts a context anew for a large batch", "hands on the values of its context", "values", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				if len(batch) > 1000 {
					ctx = context.Background()
				}
				return d.good(ctx, batch)
			}
		}},
		{"says nil in an outage", "recovers after an outage", "not stored", func(d *disk) write {
			return func(ctx context.Context, batch []string) error {
				_ = d.good(ctx, batch)
				return nil
			}
		}},
	} {
		t.Run(breach.name, func(t *testing.T) {
			var found bool
			for _, c := range checks[string]() {
				if c.name != breach.check {
					continue
				}
				found = true
				var failed []string
				breaks := func(t *testing.T) {
					failed = conform.Failures(t, func(tb testing.TB) {
						c.run(tb, func(testing.TB) Harness[string] {
							d := &disk{}
							h := d.harness(breach.sink(d))
							h.Patience = time.Second
							return h
						})
					})
				}
				// In a bubble nothing is late but what hangs. Who waits for a lock that is never
				// given back cannot be left behind in one.
				if breach.name == "locks and never unlocks" {
					breaks(t)
				} else {
					synctest.Test(t, breaks)
				}
				if !strings.Contains(strings.Join(failed, "\n"), breach.says) {
					t.Errorf("%q says %q, want something with %q", c.name, failed, breach.says)
				}
			}
			if !found {
				t.Fatalf("there is no check %q", breach.check)
			}
		})
	}
}
