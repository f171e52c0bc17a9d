package transform_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
)

// TestStatelessStaysStateless: what is made of functions is shared by all lanes, and
// a flow does not keep time for it.
func TestStatelessStaysStateless(t *testing.T) {
	c := transform.Chain(transform.Map(double), transform.Filter(odd), transform.FlatMap(twins))
	if f, ok := c.(kemi.Forker[reading, reading]); ok && f.Fork() != nil {
		t.Error("it forks")
	}
	if _, ok := c.(kemi.Ticker[reading]); ok {
		t.Error("it ticks")
	}
	if h := c.(kemi.Warmer).Horizon(); h != 0 {
		t.Errorf("it has a horizon of %v", h)
	}
	if c.(kemi.Aggregator).Aggregates() {
		t.Error("it aggregates")
	}
	if got, err := c.(kemi.Finisher[reading]).Finish(t.Context(), nil); got != nil || err != nil {
		t.Errorf("it finishes with %v, %v", got, err)
	}
}

// everything has all powers, as has each of its forks.
type everything struct {
	name  string
	hours int
	sums  bool
	alone bool // Fork is nil
}

func (e *everything) Apply(_ context.Context, dst, src []string) ([]string, error) {
	for _, r := range src {
		dst = append(dst, r+e.name)
	}
	return dst, nil
}

func (e *everything) Fork() kemi.Transform[string, string] {
	if e.alone {
		return nil
	}
	fork := *e
	fork.name += "'"
	return &fork
}

func (e *everything) Tick(_ context.Context, dst []string, _ time.Time) ([]string, error) {
	return append(dst, "tick-"+e.name), nil
}

func (e *everything) Finish(_ context.Context, dst []string) ([]string, error) {
	return append(dst, "end-"+e.name), nil
}

func (e *everything) Horizon() time.Duration { return time.Duration(e.hours) * time.Hour }
func (e *everything) Aggregates() bool       { return e.sums }
func (e *everything) String() string         { return e.name }

func TestAllPowersAreForwarded(t *testing.T) {
	plain := transform.Map(func(s string) string { return s + "." })
	for _, c := range []struct {
		made  kemi.Transform[string, string]
		hours int
		sums  bool
		want  string // of a record, a tick and the end
	}{
		{transform.Then(&everything{name: "a", hours: 1}, plain), 1, false, "xa'. tick-a'. end-a'."},
		{transform.Then(plain, &everything{name: "a", hours: 1, sums: true}), 1, true, "x.a' tick-a' end-a'"},
		{transform.Then(&everything{name: "a", hours: 1}, &everything{name: "b", hours: 2}), 3, false,
			"xa'b' tick-a'b' tick-b' end-a'b' end-b'"},
		{transform.Chain(&everything{name: "a", hours: 1}, plain, &everything{name: "b", hours: 2, alone: true}, &everything{name: "c", hours: 4}), 7, false,
			"xa'.bc' tick-a'.bc' tick-bc' tick-c' end-a'.bc' end-bc' end-c'"},
		{transform.Then(&everything{name: "a", alone: true}, &everything{name: "b", alone: true, sums: true}), 0, true,
			"xab tick-ab tick-b end-ab end-b"},
	} {
		lane := c.made
		if f := lane.(kemi.Forker[string, string]).Fork(); f != nil {
			lane = f
		}
		for _, x := range []any{c.made, lane} {
			if h := x.(kemi.Warmer).Horizon(); h != time.Duration(c.hours)*time.Hour {
				t.Errorf("%v: horizon %v, want %d hours", x, h, c.hours)
			}
			if x.(kemi.Aggregator).Aggregates() != c.sums {
				t.Errorf("%v: aggregates is not %t", x, c.sums)
			}
		}
		got, err := lane.Apply(t.Context(), nil, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err = lane.(kemi.Ticker[string]).Tick(t.Context(), got, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if got, err = lane.(kemi.Finisher[string]).Finish(t.Context(), got); err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v gives\n%s, want\n%s", c.made, s, c.want)
		}
	}
}

func TestAnAggregatorInAChainIsRefusedWhereItSeesAPart(t *testing.T) {
	src := kemi.SourceFunc[string](func(context.Context, kemi.Sink[string]) error { return nil })
	to := kemi.SinkFunc[string](func(context.Context, []string) error { return nil })
	via := transform.Then(&everything{name: "state"}, &everything{name: "sum", sums: true, alone: true})
	err := (&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "aggregates") {
		t.Errorf("got %v", err)
	}
}

// meter does not fork. Many may call Apply; Tick takes no lock, since it is never
// called beside Apply.
type meter struct {
	mu    sync.Mutex
	seen  int
	ticks int
}

func (m *meter) Apply(_ context.Context, dst, src []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen += len(src)
	return dst, nil
}

func (m *meter) Tick(_ context.Context, dst []string, now time.Time) ([]string, error) {
	m.ticks++
	return append(dst, fmt.Sprintf("%d seen", m.seen)), nil
}

// TestATransformSharedByForksIsTickedOnce puts one that ticks and does not fork
// behind one that forks. Each lane ticks its fork of the chain. The race detector
// sees whether Tick meets Apply.
func TestATransformSharedByForksIsTickedOnce(t *testing.T) {
	m := &meter{}
	chain := transform.Then(&everything{name: "a"}, m).(kemi.Forker[string, string])
	var lanes sync.WaitGroup
	for range 4 {
		lane := chain.Fork()
		lanes.Go(func() {
			for i := range 100 {
				if _, err := lane.Apply(t.Context(), nil, []string{"x"}); err != nil {
					t.Error(err)
				}
				if _, err := lane.(kemi.Ticker[string]).Tick(t.Context(), nil, time.Unix(int64(i), 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	lanes.Wait()
	if m.ticks > 100 || m.ticks == 0 {
		t.Errorf("ticked %d times for 100 seconds", m.ticks)
	}
	if m.seen < 400 {
		t.Errorf("%d of 400 records came", m.seen)
	}
}

// TestChainInAFlow runs a chain in lanes, ticked by the clock, to the end.
func TestChainInAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		src := kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
			lane := kemi.OpenLane(out, "0")
			if h := lane.Horizon(); h != 3*time.Hour {
				t.Errorf("horizon %v", h)
			}
			if err := lane.Write(ctx, []string{"x"}); err != nil {
				return err
			}
			time.Sleep(1500 * time.Millisecond)
			return lane.Write(ctx, []string{"y"})
		})
		via := transform.Chain(&everything{name: "a", hours: 1}, transform.Map(strings.ToUpper), &everything{name: "b", hours: 2})
		to := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, batch...)
			return nil
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(got, " "); s != "XA'b' TICK-A'b' tick-b' YA'b' END-A'b' end-b'" {
			t.Errorf("got %s", s)
		}
		if !strings.Contains(p.String(), "a, map, b") {
			t.Errorf("topology:\n%s", p)
		}
	})
}
