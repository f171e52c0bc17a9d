package kemi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
)

// refuses is a sink's fault that refuses any batch with a poisoned item in it, and
// does not say which one it is.
func refuses(poison ...int) func(context.Context, []item) error {
	return func(_ context.Context, batch []item) error {
		for _, x := range batch {
			if slices.Contains(poison, x.ID) {
				return kemi.Permanent(errors.New("malformed"))
			}
		}
		return nil
	}
}

// TestOnePoisonRecordCostsOneDeadLetter has one record in a thousand that the stage
// chokes on. Halving finds it in 1 + 2·log2(1000) ≈ 21 calls, wherever it is.
func TestOnePoisonRecordCostsOneDeadLetter(t *testing.T) {
	for _, at := range []int{0, 1, 499, 500, 777, 999} {
		for attempts := range 3 {
			t.Run(fmt.Sprintf("sink/%d/attempts=%d", at, attempts), func(t *testing.T) {
				to, dead := &store{fault: refuses(at)}, &letters{}
				s := runPipeline(t, &kemi.Pipeline{
					Flows:       []*kemi.Flow{kemi.Connect("f", once(items(0, 1000)), to, kemi.Attempts(attempts))},
					DeadLetters: dead,
				})[0]
				distinct, total, calls := to.count()
				if calls > 21 {
					t.Errorf("%d calls of the sink, want at most 21", calls)
				}
				if distinct != 999 || total != 999 || to.held[at] != 0 {
					t.Errorf("the sink holds %d records, %d with repetitions, want 999 once each", distinct, total)
				}
				if len(dead.kept) != 1 || string(dead.kept[0].Payload) != fmt.Sprintf(`{"ID":%d}`, at) {
					t.Errorf("dead letters: %+v, want the one record", dead.kept)
				}
				if s.Written != 999 || s.Dead != 1 || s.Rejected != 0 || s.Done != 1000 {
					t.Errorf("ledger %+v", s)
				}
			})
		}
		t.Run(fmt.Sprintf("transform/%d", at), func(t *testing.T) {
			calls := 0
			fault := refuses(at)
			via := kemi.TransformFunc[item, item](func(ctx context.Context, dst, src []item) ([]item, error) {
				calls++
				return append(dst, src...), fault(ctx, src)
			})
			to, dead := &store{}, &letters{}
			s := runPipeline(t, &kemi.Pipeline{
				Flows:       []*kemi.Flow{kemi.Pipe("f", once(items(0, 1000)), via, to)},
				DeadLetters: dead,
			})[0]
			if _, total, sunk := to.count(); total != 999 || sunk != 1 {
				t.Errorf("the sink got %d records in %d calls, want 999 in 1", total, sunk)
			}
			if calls > 21 || len(dead.kept) != 1 || s.Dead != 1 || s.Rejected != 1 {
				t.Errorf("%d calls, %d dead letters, ledger %+v", calls, len(dead.kept), s)
			}
		})
	}
}

// TestOrderIsKeptAroundPoison shows that what is left of a batch arrives in order.
func TestOrderIsKeptAroundPoison(t *testing.T) {
	var got []int
	fault := refuses(3, 4, 90)
	to := kemi.SinkFunc[item](func(ctx context.Context, batch []item) error {
		if err := fault(ctx, batch); err != nil {
			return err
		}
		for _, x := range batch {
			got = append(got, x.ID)
		}
		return nil
	})
	s := run(t, kemi.Connect("f", once(items(0, 100), items(100, 5)), to))[0]
	if len(got) != 102 || !slices.IsSorted(got) || s.Dropped != 3 {
		t.Errorf("got %v, dropped %d", got, s.Dropped)
	}
}

func TestADeadLetterSaysWhatAPersonNeeds(t *testing.T) {
	labels := kemi.LabelsOf("host", "web1")
	bad := metrics(1)[0]
	bad.Labels = labels
	dead := &letters{}
	runPipeline(t, &kemi.Pipeline{
		Flows: []*kemi.Flow{kemi.Connect("store", once([]kemi.Metric{bad}),
			kemi.SinkFunc[kemi.Metric](func(context.Context, []kemi.Metric) error {
				return kemi.Permanent(errors.New("no such table"))
			}))},
		DeadLetters: dead,
	})
	if len(dead.kept) != 1 {
		t.Fatalf("%d dead letters", len(dead.kept))
	}
	d := dead.kept[0]
	var back kemi.Metric
	if err := json.Unmarshal(d.Payload, &back); err != nil || back != bad {
		t.Errorf("the payload gives %v, %v; want %v", back, err, bad)
	}
	if d.Flow != "store" || d.Error != "no such table" || d.Type != "kemi.Metric" || d.Format != "json" ||
		!strings.Contains(d.Stage, "SinkFunc") || d.Time.IsZero() || d.Stack != "" {
		t.Errorf("%+v", d)
	}
}

func TestARecordWithoutJSONIsBuriedAsText(t *testing.T) {
	type odd struct{ F func() }
	dead := &letters{}
	runPipeline(t, &kemi.Pipeline{
		Flows: []*kemi.Flow{kemi.Connect("f", once([]odd{{}}), kemi.SinkFunc[odd](func(context.Context, []odd) error {
			return kemi.Permanent(errDown)
		}))},
		DeadLetters: dead,
	})
	if d := dead.kept; len(d) != 1 || d[0].Format != "text" || string(d[0].Payload) != "{F:<nil>}" {
		t.Errorf("%+v", d)
	}
}

// TestDeadLettersThatFailForAWhileLoseNothing refuses ten records and has dead
// letters that come up at the third try, whole or in part.
func TestDeadLettersThatFailForAWhileLoseNothing(t *testing.T) {
	for name, fail := range map[string]func([]kemi.DeadLetter) error{
		"whole":   func([]kemi.DeadLetter) error { return errDown },
		"partial": func(b []kemi.DeadLetter) error { return kemi.Partial(b, kemi.Failure{Index: len(b) - 1, Err: errDown}) },
	} {
		t.Run(name, func(t *testing.T) {
			kept, calls := map[string]int{}, 0
			s := runPipeline(t, &kemi.Pipeline{
				Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 10)), always(kemi.Permanent(errDown)), fast())},
				DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
					var err error
					if calls++; calls < 3 {
						err = fail(batch)
					}
					failed, ok := kemi.Failures(err, batch)
					for i, l := range batch {
						if err == nil || ok && !slices.ContainsFunc(failed, func(f kemi.Failure) bool { return f.Index == i }) {
							kept[string(l.Payload)]++
						}
					}
					return err
				}),
			})[0]
			if len(kept) != 10 || s.Dead != 10 || s.Done != 10 || s.Retries == 0 {
				t.Errorf("%d kept, ledger %+v", len(kept), s)
			}
			for p, n := range kept {
				if n != 1 {
					t.Errorf("%s is there %d times", p, n)
				}
			}
		})
	}
}

// TestALetterThatIsRefusedForGoodIsDropped shows that the last resort does not become
// a plug: the one letter that is too much for the dead letters is dropped, counted
// and logged, the others are kept, and the flow goes on.
func TestALetterThatIsRefusedForGoodIsDropped(t *testing.T) {
	guilty := func(l kemi.DeadLetter) bool { return string(l.Payload) == `{"ID":7}` }
	for name, answer := range map[string]func([]kemi.DeadLetter) error{
		"named": func(batch []kemi.DeadLetter) error {
			return kemi.Partial(batch, kemi.Failure{Index: slices.IndexFunc(batch, guilty), Err: kemi.Permanent(errDown)})
		},
		"mark around": func(batch []kemi.DeadLetter) error {
			return kemi.Permanent(kemi.Partial(batch, kemi.Failure{Index: slices.IndexFunc(batch, guilty), Err: errDown}))
		},
		"not named": func([]kemi.DeadLetter) error { return kemi.Permanent(errDown) },
		"panic":     func([]kemi.DeadLetter) error { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			all := kemi.SinkFunc[item](func(_ context.Context, batch []item) error {
				failed := make([]kemi.Failure, len(batch))
				for i := range batch {
					failed[i] = kemi.Failure{Index: i, Err: kemi.Permanent(errors.New("malformed"))}
				}
				return kemi.Partial(batch, failed...)
			})
			kept := 0
			s := runPipeline(t, &kemi.Pipeline{
				Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 10), items(10, 10)), all)},
				DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
					if !slices.ContainsFunc(batch, guilty) {
						kept += len(batch)
						return nil
					}
					err := answer(batch)
					if failed, ok := kemi.Failures(err, batch); ok {
						kept += len(batch) - len(failed)
					}
					return err
				}),
			})[0]
			if kept != 19 || s.Dead != 19 || s.Dropped != 1 || s.Done != 20 {
				t.Errorf("%d kept, ledger %+v", kept, s)
			}
			if s.LastErr == "" {
				t.Error("no error was kept")
			}
		})
	}
}

// TestAMarkAroundTheLettersThatFailedIsKept shows that dead letters speak to a flow as
// any sink does: a mark around a Partial is about all that it lists.
func TestAMarkAroundTheLettersThatFailedIsKept(t *testing.T) {
	const later = 30 * time.Second
	for name, c := range map[string]struct {
		mark          func(error) error
		dead, dropped uint64
		after         time.Duration // the letters that failed come again
	}{
		"permanent":   {kemi.Permanent, 3, 2, 0},
		"retry after": {func(err error) error { return kemi.RetryAfter(err, later) }, 5, 0, later},
		"both, wrapped": {func(err error) error {
			return fmt.Errorf("archive: %w", kemi.RetryAfter(fmt.Errorf("disk: %w", kemi.Permanent(err)), later))
		}, 3, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sizes []int
				began := time.Now()
				s := runPipeline(t, &kemi.Pipeline{
					Flows: []*kemi.Flow{kemi.Connect("f", once(items(0, 5)), kemi.SinkFunc[item](func(_ context.Context, b []item) error {
						fs := make([]kemi.Failure, len(b))
						for i := range fs {
							fs[i] = kemi.Failure{Index: i, Err: kemi.Permanent(errors.New("malformed"))}
						}
						return kemi.Partial(b, fs...)
					}), fast())},
					DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, b []kemi.DeadLetter) error {
						if sizes = append(sizes, len(b)); len(sizes) > 1 {
							return nil
						}
						return c.mark(kemi.Partial(b, kemi.Failure{Index: 1, Err: errDown}, kemi.Failure{Index: 4, Err: errDown}))
					}),
				})[0]
				if s.Dead != c.dead || s.Dropped != c.dropped || s.Done != 5 {
					t.Errorf("the letters came as %v, ledger %+v", sizes, s)
				}
				if d := time.Since(began); d != c.after {
					t.Errorf("it took %v, want %v", d, c.after)
				}
			})
		})
	}
}

// TestTheLedgerBalancesWhenARefusalCannotBeBuried has a sink that stored some of a
// batch, refused another for good and may take the rest later, and dead letters that
// are down until the deadline: all that is not stored is given up, and counted.
func TestTheLedgerBalancesWhenARefusalCannotBeBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := kemi.SinkFunc[item](func(_ context.Context, b []item) error {
			return kemi.Partial(b, kemi.Failure{Index: 1, Err: kemi.Permanent(errDown)},
				kemi.Failure{Index: 2, Err: errDown}, kemi.Failure{Index: 3, Err: errDown}, kemi.Failure{Index: 4, Err: errDown})
		})
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			c, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if err := out.Write(c, items(0, 10)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Write: %v", err)
			}
		})
		s := runPipeline(t, &kemi.Pipeline{
			Flows:       []*kemi.Flow{kemi.Connect("f", src, to)},
			DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(context.Context, []kemi.DeadLetter) error { return errDown }),
		})[0]
		if s.Written != 6 || s.Abandoned != 4 || s.Dead != 0 || s.Failed != 10 {
			t.Errorf("ledger %+v, want 6 written and 4 abandoned", s)
		}
	})
}
