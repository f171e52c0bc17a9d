package transformtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// reading is a number at a second; a negative one is bad.
type reading struct{ at, n int }

// delta is a good stateful transform: the difference to the reading before, if that
// is at most ten seconds old. A tick says how many readings there have been since
// the last tick.
type delta struct {
	last  reading
	seen  bool
	count int
	fault *bool
}

func (d *delta) Fork() kemi.Transform[reading, int] { return &delta{fault: d.fault} }
func (d *delta) Horizon() time.Duration             { return 10 * time.Second }

func (d *delta) Apply(ctx context.Context, dst []int, src []reading) ([]int, error) {
	if ctx.Err() != nil || *d.fault {
		return dst, errors.New("not now")
	}
	var failed []kemi.Failure
	for i, r := range src {
		if r.n < 0 {
			failed = append(failed, kemi.Failure{Index: i, Err: errors.New("negative")})
			continue
		}
		if d.seen && r.at-d.last.at <= 10 {
			dst = append(dst, r.n-d.last.n)
		}
		d.last, d.seen = r, true
		d.count++
	}
	return dst, kemi.Partial(src, failed...)
}

func (d *delta) Tick(_ context.Context, dst []int, _ time.Time) ([]int, error) {
	dst = append(dst, d.count)
	d.count = 0
	return dst, nil
}

func (d *delta) Finish(_ context.Context, dst []int) ([]int, error) { return append(dst, -1), nil }

func input() [][]reading {
	var batches [][]reading
	at := 0
	for i := range 12 {
		var b []reading
		for j := range 1 + i%4 {
			at += 1 + (i+j)%5
			b = append(b, reading{at, at * at})
		}
		batches = append(batches, b)
	}
	return batches
}

// harness is about a transform made from a good one; fault makes the good one fail.
func harness(made func(d *delta) kemi.Transform[reading, int]) Harness[reading, int] {
	fault := new(bool)
	return Harness[reading, int]{
		New:            func() kemi.Transform[reading, int] { return made(&delta{fault: fault}) },
		Batches:        input(),
		BatchInvariant: true,
		Time:           func(r reading) time.Time { return time.Unix(int64(r.at), 0) },
		Bad:            func(i int) reading { return reading{i, -1 - i} },
		Fault: func() func() {
			*fault = true
			return func() { *fault = false }
		},
	}
}

func TestAGoodTransformPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[reading, int] {
		return harness(func(d *delta) kemi.Transform[reading, int] { return d })
	})
}

func TestAStatelessTransformPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[reading, int] {
		double := func(_ context.Context, dst []int, src []reading) ([]int, error) {
			if slices.ContainsFunc(src, func(r reading) bool { return r.n < 0 }) {
				return dst, kemi.Permanent(errors.New("negative"))
			}
			for _, r := range src {
				dst = append(dst, 2*r.n)
			}
			return dst, nil
		}
		h := harness(func(*delta) kemi.Transform[reading, int] { return kemi.TransformFunc[reading, int](double) })
		h.Fault = nil
		return h
	})
}

// wrap is delta with one method put in front of another.
type wrap struct {
	*delta
	apply func(w *wrap, dst []int, src []reading) ([]int, error)
	tick  func(w *wrap, dst []int, now time.Time) ([]int, error)
	fork  func(w *wrap) kemi.Transform[reading, int]
	hours float64

	src []reading
	dst []int
}

func (w *wrap) Apply(ctx context.Context, dst []int, src []reading) ([]int, error) {
	if w.apply == nil || ctx.Err() != nil {
		return w.delta.Apply(ctx, dst, src)
	}
	return w.apply(w, dst, src)
}

func (w *wrap) Tick(ctx context.Context, dst []int, now time.Time) ([]int, error) {
	if w.tick == nil {
		return w.delta.Tick(ctx, dst, now)
	}
	return w.tick(w, dst, now)
}

func (w *wrap) Fork() kemi.Transform[reading, int] {
	if w.fork != nil {
		return w.fork(w)
	}
	return &wrap{delta: w.delta.Fork().(*delta), apply: w.apply, tick: w.tick, hours: w.hours}
}

func (w *wrap) Horizon() time.Duration {
	return w.delta.Horizon() + time.Duration(w.hours*float64(time.Hour))
}

// shared is a transform without forks.
type shared func(ctx context.Context, dst []int, src []reading) ([]int, error)

func (s shared) Apply(ctx context.Context, dst []int, src []reading) ([]int, error) {
	return s(ctx, dst, src)
}

func TestBreaches(t *testing.T) {
	ctx := context.Background()
	type made = func(d *delta) kemi.Transform[reading, int]
	apply := func(fn func(w *wrap, dst []int, src []reading) ([]int, error)) made {
		return func(d *delta) kemi.Transform[reading, int] { return &wrap{delta: d, apply: fn} }
	}
	runs := 0
	for _, breach := range []struct {
		name  string
		check string // that must fail
		says  string
		made  made
	}{
		{"counts its runs", "gives the same for the same", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			runs++
			return append(dst, runs), nil
		})},
		{"starts dst anew", "appends to dst", "fewer", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			return w.delta.Apply(ctx, dst[:0], src)
		})},
		{"turns round what it appends to", "appends to dst", "has changed", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			slices.Reverse(dst)
			return dst, err
		})},
		{"starts dst anew on a tick", "appends to dst", "fewer", func(d *delta) kemi.Transform[reading, int] {
			return &wrap{delta: d, tick: func(_ *wrap, dst []int, _ time.Time) ([]int, error) { return dst[:0], nil }}
		}},
		{"gives one more when there is no room", "appends to dst", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			if len(dst) == cap(dst) {
				dst = append(dst, 0)
			}
			return w.delta.Apply(ctx, dst, src)
		})},
		{"keeps src", "keeps no slice", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, w.src) // one batch late
			w.src = src
			return dst, err
		})},
		{"keeps dst", "keeps no slice", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, append(dst, w.dst...), src)
			w.dst = dst[max(0, len(dst)-1):]
			return dst, err
		})},
		{"marks its src", "changes no src", "changed record", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			src[0].at = 0
			return dst, err
		})},
		{"appends to its src", "changes no src", "around", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			return w.delta.Apply(ctx, dst, append(src, reading{at: 1e6, n: 0})[:len(src)])
		})},
		{"gives something for nothing", "takes an empty batch", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			return append(dst, len(src)), err
		})},
		{"gives one for each batch", "does not care where batches end", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			return append(dst, len(src)), err
		})},
		{"forks into itself", "has independent forks", "are others", func(d *delta) kemi.Transform[reading, int] {
			return &wrap{delta: d, fork: func(w *wrap) kemi.Transform[reading, int] { return w.delta }}
		}},
		{"forks with its state", "has independent forks", "are others", func(d *delta) kemi.Transform[reading, int] {
			return &wrap{delta: d, fork: func(w *wrap) kemi.Transform[reading, int] {
				old := *w.delta
				w.delta.count++
				return &old
			}}
		}},
		{"cannot be shared", "can be shared", "are others", func(*delta) kemi.Transform[reading, int] {
			// Beside others it gives nothing.
			var busy sync.Mutex
			return shared(func(_ context.Context, dst []int, src []reading) ([]int, error) {
				if !busy.TryLock() {
					return dst, nil
				}
				defer busy.Unlock()
				time.Sleep(time.Millisecond)
				return append(dst, len(src)), nil
			})
		}},
		{"panics on a tick without input", "ticks without input", "panic", func(d *delta) kemi.Transform[reading, int] {
			return &wrap{delta: d, tick: func(w *wrap, dst []int, _ time.Time) ([]int, error) {
				if !w.seen {
					panic("no input")
				}
				return dst, nil
			}}
		}},
		{"fails halfway", "leaves no trace of a plain error", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			if *w.fault {
				w.count++
			}
			return w.delta.Apply(ctx, dst, src)
		})},
		{"refuses for good what it has no time for", "leaves no trace of a plain error", "for good", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			return dst, kemi.Permanent(err)
		})},
		{"drops what it has no time for", "leaves no trace of a plain error", "are others", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			if err != nil {
				err = kemi.Partial(src, kemi.Failure{Err: err})
			}
			return dst, err
		})},
		{"hides its failure", "leaves no trace of a plain error", "did not fail", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, _ = w.delta.Apply(ctx, dst, src)
			return dst, nil
		})},
		{"drops bad records", "names the bad records", "gave no error", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, _ = w.delta.Apply(ctx, dst, src)
			return dst, nil
		})},
		{"names them in another slice", "names the bad records", "very src", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			return w.delta.Apply(ctx, dst, slices.Clone(src))
		})},
		{"names one of them", "names the bad records", "not named", apply(func(w *wrap, dst []int, src []reading) ([]int, error) {
			dst, err := w.delta.Apply(ctx, dst, src)
			failed, _ := kemi.Failures(err, src)
			return dst, kemi.Partial(src, failed[:min(len(failed), 1)]...)
		})},
		{"needs more than its horizon", "needs no more than its horizon", "are others", func(d *delta) kemi.Transform[reading, int] {
			sum := 0
			var w *wrap
			w = &wrap{delta: d, apply: func(_ *wrap, dst []int, src []reading) ([]int, error) {
				sum += len(src)
				return append(dst, sum), nil
			}, fork: func(*wrap) kemi.Transform[reading, int] { return w }}
			return w
		}},
		{"has state and no horizon", "needs no more than its horizon", "implement kemi.Warmer", func(d *delta) kemi.Transform[reading, int] {
			return struct{ kemi.Transform[reading, int] }{d}
		}},
		{"has a horizon in the future", "needs no more than its horizon", "Horizon is", func(d *delta) kemi.Transform[reading, int] {
			return &wrap{delta: d, hours: -1}
		}},
		{"fails", "gives the same for the same", "kemi.Partial", apply(func(*wrap, []int, []reading) ([]int, error) {
			return nil, errors.New("oh")
		})},
		{"gives nothing", "gives the same for the same", "nothing can be checked", func(*delta) kemi.Transform[reading, int] {
			return shared(func(_ context.Context, dst []int, _ []reading) ([]int, error) { return dst, nil })
		}},
	} {
		t.Run(breach.name, func(t *testing.T) {
			var found bool
			for _, c := range checks[reading, int]() {
				if c.name != breach.check {
					continue
				}
				found = true
				var failed []string
				synctest.Test(t, func(t *testing.T) { // so that what takes a moment meets what comes in it
					failed = conform.Failures(t, func(tb testing.TB) {
						c.run(tb, func(testing.TB) Harness[reading, int] { return harness(breach.made) })
					})
				})
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

// recent is a good Prover and Keeper: the sum of the readings of the last ten seconds
// of the log, told with each reading, and the highest there ever was, which it keeps.
type recent struct {
	breach string
	now    int64
	heard  []recentReading
	sum    uint64
	most   int
	all    uint64
	news   bool
}

type recentReading struct {
	at int64
	n  int
}

func (s *recent) Fork() kemi.Transform[reading, int] { return &recent{breach: s.breach} }

func (s *recent) Horizon() time.Duration {
	if s.breach == "has a horizon that is too short" {
		return 8 * time.Second
	}
	return 10 * time.Second
}

func (s *recent) Apply(_ context.Context, dst []int, src []reading) ([]int, error) {
	for _, r := range src {
		s.heard = append(s.heard, recentReading{s.now, r.n})
		s.sum += s.digest(s.heard[len(s.heard)-1])
		s.all += uint64(r.n)
		if r.n > s.most {
			s.most, s.news = r.n, true
		}
		total := s.most
		for _, h := range s.heard {
			total += h.n
		}
		dst = append(dst, total)
	}
	return dst, nil
}

func (s *recent) digest(r recentReading) uint64 { return uint64(r.n)*7919 + uint64(r.at) }

func (s *recent) Tick(_ context.Context, dst []int, now time.Time) ([]int, error) {
	s.now = now.Unix()
	for len(s.heard) > 0 && s.heard[0].at < s.now-10 {
		s.sum -= s.digest(s.heard[0])
		s.heard = s.heard[1:]
	}
	return dst, nil
}

func (s *recent) Proof() kemi.Proof {
	switch s.breach {
	case "sums up what is forgotten":
		return kemi.Proof{Version: 1, Hash: s.all}
	case "has one hash":
		return kemi.Proof{Version: 1, Hash: 1}
	case "hashes where it lies":
		return kemi.Proof{Version: 1, Hash: s.sum + uint64(time.Now().UnixNano())}
	}
	return kemi.Proof{Version: 1, Hash: s.sum}
}

func (s *recent) Keep(dst []kemi.Kept) []kemi.Kept {
	if !s.news || s.breach == "keeps nothing" {
		return dst
	}
	s.news = false
	return append(dst, kemi.Kept{Key: "most", Value: []byte{byte(s.most), byte(s.most >> 8)}})
}

func (s *recent) Restore(kept []kemi.Kept) error {
	if s.breach == "refuses what it has kept" {
		return errors.New("no")
	}
	s.most = int(kept[0].Value[0]) | int(kept[0].Value[1])<<8
	return nil
}

func (s *recent) harness() Harness[reading, int] {
	var batches [][]reading
	for i := range 80 {
		batches = append(batches, []reading{{i, (i*37)%100 + 500/(1+i)}, {i, i % 7}})
	}
	return Harness[reading, int]{
		New: func() kemi.Transform[reading, int] { return s.Fork() }, Batches: batches, BatchInvariant: true,
		AppendedAt: func(i int) time.Time { return time.Unix(1000, 0).Add(time.Duration(i) * 700 * time.Millisecond) },
	}
}

func TestAGoodProverPasses(t *testing.T) {
	Run(t, func(testing.TB) Harness[reading, int] { return (&recent{}).harness() })
}

func TestBreachesOfProvers(t *testing.T) {
	for breach, says := range map[string]string{
		"sums up what is forgotten":       "depends on something else",
		"has one hash":                    "tells nothing apart",
		"hashes where it lies":            "depends on something else",
		"has a horizon that is too short": "depends on something else",
		"keeps nothing":                   "something else",
		"refuses what it has kept":        "Restore of what was kept",
	} {
		failed := conform.Failures(t, func(tb testing.TB) {
			check[reading, int]{"proves a replay", provesReplay[reading, int]}.run(tb, func(testing.TB) Harness[reading, int] {
				return (&recent{breach: breach}).harness()
			})
		})
		if !strings.Contains(strings.Join(failed, "\n"), says) {
			t.Errorf("of one that %s it says %q, want something with %q", breach, failed, says)
		}
	}
}
