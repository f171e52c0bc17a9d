package transform_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
)

// ring points to itself.
type ring struct{ next *ring }

func ringOf() *ring {
	r := &ring{}
	r.next = &ring{r}
	return r
}

// sum has state: it gives how many records it has been fed.
type sum[T any] struct{ fed int }

func (s *sum[T]) Fork() kemi.Transform[T, int] { return &sum[T]{} }

func (s *sum[T]) Apply(_ context.Context, dst []int, src []T) ([]int, error) {
	s.fed += len(src)
	return append(dst, s.fed), nil
}

// fed offers first to a chain whose second part is down, then second when it is up
// again, and returns how many records the state was fed.
func fed[T any](t *testing.T, first, second T) int {
	t.Helper()
	down := true
	chain := transform.Then(&sum[T]{}, kemi.TransformFunc[int, int](func(_ context.Context, dst, src []int) ([]int, error) {
		if down {
			return dst, errors.New("not now")
		}
		return append(dst, src...), nil
	})).(kemi.Forker[T, int]).Fork()
	if _, err := chain.Apply(t.Context(), nil, []T{first}); err == nil {
		t.Fatal("it was not down")
	}
	down = false
	out, err := chain.Apply(t.Context(), nil, []T{second})
	if err != nil || len(out) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	return out[0]
}

// TestTheSameBatchIsFedOnce holds that a batch that comes again is known again,
// whatever its records hold, also when it was decoded anew; and that another is not
// taken for it.
func TestTheSameBatchIsFedOnce(t *testing.T) {
	nan := math.NaN()
	other := math.Float64frombits(math.Float64bits(nan) ^ 1)
	f, ch, one, loop := func() {}, make(chan int), 1, ringOf()
	m := map[any]any{nan: 1}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type pair struct{ a, b any }
	for name, c := range map[string]struct {
		first, second any
		same          bool
	}{
		"NaN":                    {nan, nan, true},
		"another NaN":            {nan, other, false},
		"a small NaN":            {float32(nan), float32(nan), true},
		"a complex NaN":          {complex(1, nan), complex(1, nan), true},
		"complex numbers":        {complex(1, 2), complex(1, 3), false},
		"NaN in a metric":        {kemi.Gauge("x", kemi.LabelsOf("a", "b"), at, nan), kemi.Gauge("x", kemi.LabelsOf("a", "b"), at, nan), true},
		"another label":          {kemi.Gauge("x", kemi.LabelsOf("a", "b"), at, 1), kemi.Gauge("x", kemi.LabelsOf("a", "c"), at, 1), false},
		"NaN in an alert":        {kemi.Alert{Value: nan, Evidence: []kemi.Evidence{{Text: "x"}}}, kemi.Alert{Value: nan, Evidence: []kemi.Evidence{{Text: "x"}}}, true},
		"a function":             {f, f, true},
		"a function in a struct": {pair{f, 1}, pair{f, 1}, true},
		"another function":       {f, func() { t.Log() }, false},
		"a channel":              {ch, ch, true},
		"another channel":        {ch, make(chan int), false},
		"a pointer":              {&one, &one, true},
		"a pointer to the same":  {&pair{nan, 1}, &pair{nan, 1}, true},
		"pointers":               {&pair{1, 2}, &pair{1, 3}, false},
		"no pointer":             {(*int)(nil), (*int)(nil), true},
		"no pointer and one":     {(*int)(nil), &one, false},
		"nothing":                {nil, nil, true},
		"nothing and something":  {nil, 1, false},
		"types":                  {1, "1", false},
		"a map":                  {map[string]any{"a": nan}, map[string]any{"a": nan}, true},
		"maps":                   {map[string]any{"a": 1}, map[string]any{"a": 2}, false},
		"maps with other keys":   {map[string]any{"a": nil}, map[string]any{"b": nil}, false},
		"maps of other lengths":  {map[string]any{"a": 1}, map[string]any{"a": 1, "b": 1}, false},
		"a map with a NaN key":   {m, m, true},
		"lists":                  {[]any{1, nan}, []any{1, nan}, true},
		"longer lists":           {[]any{1}, []any{1, 2}, false},
		"arrays":                 {[2]bool{true, false}, [2]bool{true, true}, false},
		"a ring":                 {loop, loop, true},
		"another ring":           {ringOf(), ringOf(), false}, // perhaps not, but it must end
	} {
		want := 2
		if c.same {
			want = 1
		}
		if got := fed(t, c.first, c.second); got != want {
			t.Errorf("%s: state was fed %d records, want %d", name, got, want)
		}
	}
	if fed(t, 0.5, 0.5) != 1 || fed(t, nan, nan) != 1 {
		t.Error("numbers were fed twice")
	}
}

// TestATickThatGivesNothingSaysItsError at once, since nothing would be lost by it.
func TestATickThatGivesNothingSaysItsError(t *testing.T) {
	down := errors.New("not now")
	c := lane(transform.Then[reading, reading, reading](transform.Map(double), tock{&down})).(kemi.Ticker[reading])
	if out, err := c.Tick(t.Context(), nil, time.Unix(1, 0)); !errors.Is(err, down) || len(out) > 0 {
		t.Errorf("down: %v, %v", out, err)
	}
	down = nil
	if out, err := c.Tick(t.Context(), nil, time.Unix(2, 0)); err != nil || len(out) > 0 {
		t.Errorf("up again: %v, %v", out, err)
	}
}
