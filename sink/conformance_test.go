package sink_test

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
	"github.com/kemi-go/kemi/sink"
	"github.com/kemi-go/kemi/sink/sinktest"
)

var (
	errDown = errors.New("store: not ready")
	errBad  = errors.New("store: bad record")
)

// store is a far side that can be down, hang, and refuse records that begin with
// bad: by name, or the whole batch, as coarse says.
type store struct {
	sinktest.Recorder[string]
	coarse bool

	mu    sync.Mutex
	calls int
	down  bool
	hung  chan struct{}
	saw   func(context.Context)
}

func (s *store) Write(ctx context.Context, batch []string) error {
	s.mu.Lock()
	s.calls++
	if s.saw != nil {
		s.saw(ctx)
	}
	hung, down := s.hung, s.down
	s.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if down {
		return errDown
	}
	var fine []string
	var failed []kemi.Failure
	for i, r := range batch {
		if strings.HasPrefix(r, "bad") {
			failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(fmt.Errorf("%w: %s", errBad, r))})
		} else {
			fine = append(fine, r)
		}
	}
	if s.coarse && len(failed) > 0 {
		return kemi.Permanent(errBad)
	}
	if err := s.Recorder.Write(ctx, fine); err != nil {
		return err
	}
	return kemi.Partial(batch, failed...)
}

func (s *store) String() string { return "store" }

func (s *store) set(down bool, hung chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.hung = down, hung
}

// harness is about a sink over stores; a record is stored when each has it that all
// says, or any of them.
func harness(s kemi.Sink[string], all bool, stores ...*store) sinktest.Harness[string] {
	each := func(down bool, hung chan struct{}) {
		for _, s := range stores {
			s.set(down, hung)
		}
	}
	var mu sync.Mutex
	var seen context.Context // by any of them, last
	for _, s := range stores {
		s.saw = func(ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			seen = ctx
		}
	}
	return sinktest.Harness[string]{
		Sink: s,
		New:  func(i int) string { return fmt.Sprint("record ", i) },
		Bad:  func(i int) string { return fmt.Sprint("bad ", i) },
		Stored: func() []string {
			var got []string
			for i, s := range stores {
				switch {
				case i == 0 || !all:
					got = append(got, s.Records()...)
				default:
					got = slices.DeleteFunc(got, func(r string) bool { return !slices.Contains(s.Records(), r) })
				}
			}
			return got
		},
		Seen: func() context.Context {
			mu.Lock()
			defer mu.Unlock()
			return seen
		},
		Down: func() func() {
			each(true, nil)
			return func() { each(false, nil) }
		},
		Block: func() func() {
			hung := make(chan struct{})
			each(false, hung)
			return func() {
				close(hung)
				each(false, nil)
			}
		},
	}
}

func TestConformance(t *testing.T) {
	odd := func(r string) string {
		if strings.HasSuffix(r, "1") || strings.HasSuffix(r, "3") {
			return "odd"
		}
		return "even"
	}
	for name, made := range map[string]func(a, b *store) (s kemi.Sink[string], all bool){
		"Tee": func(a, b *store) (kemi.Sink[string], bool) { return sink.Tee[string](a, b), true },
		"Tee of unlike branches": func(a, b *store) (kemi.Sink[string], bool) {
			b.coarse = true
			return sink.Tee[string](a, b), true
		},
		"Coalesce": func(a, _ *store) (kemi.Sink[string], bool) {
			return sink.Coalesce[string](a, 50, time.Millisecond), false
		},
		"Coalesce without lingering": func(a, _ *store) (kemi.Sink[string], bool) {
			a.coarse = true
			return sink.Coalesce[string](a, 50, 0), false
		},
		"Route": func(a, b *store) (kemi.Sink[string], bool) {
			return sink.Route(odd, map[string]kemi.Sink[string]{"odd": a}, b), false
		},
		"Route to coarse sinks": func(a, b *store) (kemi.Sink[string], bool) {
			a.coarse, b.coarse = true, true
			return sink.Route(odd, map[string]kemi.Sink[string]{"odd": a, "even": b}, nil), false
		},
		"Timeout": func(a, _ *store) (kemi.Sink[string], bool) { return sink.Timeout(a, time.Hour), false },
		"all of them": func(a, b *store) (kemi.Sink[string], bool) {
			return sink.Coalesce(sink.Tee(
				sink.Timeout(sink.Route(odd, map[string]kemi.Sink[string]{"odd": a}, a), time.Hour),
				sink.Coalesce[string](b, 10, 0),
			), 20, time.Millisecond), true
		},
	} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(testing.TB) sinktest.Harness[string] {
				a, b := &store{}, &store{}
				s, all := made(a, b)
				if strings.HasPrefix(name, "Coalesce") || name == "Timeout" {
					return harness(s, all, a)
				}
				return harness(s, all, a, b)
			})
		})
	}
}

func TestDiscardConforms(t *testing.T) {
	sinktest.Run(t, func(testing.TB) sinktest.Harness[int] {
		return sinktest.Harness[int]{Sink: sink.Discard[int](), New: func(i int) int { return i }}
	})
}
