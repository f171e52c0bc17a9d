package derive_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

// Whatever the expression, New gives an error or a formula that gives finite
// results only, the same each time, and leaves its input alone.
func FuzzFormula(f *testing.F) {
	for _, l := range derive.Linux() {
		f.Add(l.Expr)
	}
	for _, s := range []string{"a", "a+b*c", `a{d="1",e!="2"}`, "clamp(sum(a)/b, -1, 1e3)", "min(a)", "above(a,b)", "((((a))))", "-.5e-3*a", `a{d="\u00e9\x00"}`, "a{", "sum(", "1e", "a/0"} {
		f.Add(s)
	}
	batch := []kemi.Metric{
		gauge("a", 1, "d", "1"), gauge("a", 0, "d", "2"), gauge("a", -3, "d", "1", "e", "2"), gauge("b", 5), gauge("b", 1e308, "d", "2"),
		gauge("c", math.Inf(1)), gauge("load1", 3), gauge("cpu_count", 0), gauge("cpu_ticks_rate", 3, "mode", "user"),
	}
	f.Fuzz(func(t *testing.T, expr string) {
		v, err := derive.New(derive.Config{Formulas: []derive.Formula{{Name: "x", Expr: expr}, {Name: "y", Expr: "sum(x) - 1"}}})
		if err != nil {
			return
		}
		in := slices.Clone(batch)
		out, err := v.Apply(context.Background(), nil, in)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(in, batch) || !slices.Equal(out[:len(batch)], batch) {
			t.Fatalf("the input changed: %v", out)
		}
		for _, m := range out[len(batch):] {
			if v := m.Float(); math.IsNaN(v) || math.IsInf(v, 0) || m.Host() == "" && m.Labels.Get("service") == "" {
				t.Fatalf("%v", m)
			}
		}
		again, _ := v.Apply(context.Background(), nil, in)
		if !slices.Equal(again, out) {
			t.Fatalf("first %v, then %v", out, again)
		}
	})
}
