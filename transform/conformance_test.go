package transform_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
	"github.com/kemi-go/kemi/transform/transformtest"
)

// reading is a number at a second.
type reading struct{ at, n int }

var errBad = errors.New("negative")

// delta has state: it gives the difference to the reading before, if that is at most
// ten seconds old, and refuses negative numbers. A tick gives how many it has seen
// since the last one, as a reading at -1; the end, one at -2.
type delta struct {
	last  reading
	seen  bool
	count int
}

func (d *delta) Fork() kemi.Transform[reading, reading] { return &delta{} }
func (d *delta) Horizon() time.Duration                 { return 10 * time.Second }
func (d *delta) String() string                         { return "delta" }

func (d *delta) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	var failed []kemi.Failure
	for i, r := range src {
		if r.n < 0 {
			failed = append(failed, kemi.Failure{Index: i, Err: fmt.Errorf("%w: %d", errBad, r.n)})
			continue
		}
		if d.seen && r.at-d.last.at <= 10 {
			dst = append(dst, reading{r.at, r.n - d.last.n})
		}
		d.last, d.seen = r, true
		d.count++
	}
	return dst, kemi.Partial(src, failed...)
}

func (d *delta) Tick(_ context.Context, dst []reading, _ time.Time) ([]reading, error) {
	dst = append(dst, reading{-1, d.count})
	d.count = 0
	return dst, nil
}

func (d *delta) Finish(_ context.Context, dst []reading) ([]reading, error) {
	return append(dst, reading{-2, 0}), nil
}

// pair has state and no other power than to fork: it adds each number to the one
// before, so that what was before any horizon shows.
type pair struct{ before int }

func (p *pair) Fork() kemi.Transform[reading, reading] { return &pair{} }

func (p *pair) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	for _, r := range src {
		dst = append(dst, reading{r.at, r.n + 1000*p.before})
		p.before = r.n
	}
	return dst, nil
}

// flaky has no state. It passes records on, unless it is told to fail.
type flaky struct{ err *error }

func (f flaky) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	if *f.err != nil {
		return dst, *f.err
	}
	return append(dst, src...), nil
}

// picky has no state and refuses negative numbers, by name or the whole batch.
func picky(coarse bool) kemi.Transform[reading, reading] {
	return kemi.TransformFunc[reading, reading](func(_ context.Context, dst, src []reading) ([]reading, error) {
		negative := func(r reading) bool { return r.n < 0 }
		if coarse && slices.ContainsFunc(src, negative) {
			return dst, kemi.Permanent(errBad)
		}
		var failed []kemi.Failure
		for i, r := range src {
			if negative(r) {
				failed = append(failed, kemi.Failure{Index: i, Err: errBad})
			} else {
				dst = append(dst, r)
			}
		}
		return dst, kemi.Partial(src, failed...)
	})
}

func double(r reading) reading { return reading{r.at, 2 * r.n} }
func odd(r reading) bool       { return r.n%2 != 0 }

// twins gives a reading once or twice.
func twins(dst []reading, r reading) []reading {
	dst = append(dst, r)
	if r.n%3 == 0 {
		dst = append(dst, reading{r.at, r.n + 1})
	}
	return dst
}

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

// trait is what the suite should know of a transform.
type trait int

const (
	bad     trait = 1 << iota // refuses negative numbers
	fault                     // fails when flaky does
	forever                   // has a pair in it
)

func TestConformance(t *testing.T) {
	type tf = kemi.Transform[reading, reading]
	var down error // what flaky fails with
	flaky := flaky{&down}
	for _, c := range []struct {
		name string
		is   trait
		made func() tf
	}{
		{"Map", 0, func() tf { return transform.Map(double) }},
		{"Filter", 0, func() tf { return transform.Filter(odd) }},
		{"FlatMap", 0, func() tf { return transform.FlatMap(twins) }},
		{"Chain of nothing", 0, func() tf { return transform.Chain[reading]() }},
		{"Chain of one", bad, func() tf { return transform.Chain[reading](&delta{}) }},
		{"functions", 0, func() tf {
			return transform.Chain(transform.Map(double), transform.FlatMap(twins), transform.Filter(odd))
		}},
		{"state first", bad, func() tf { return transform.Then(&delta{}, transform.FlatMap(twins)) }},
		{"state last", bad, func() tf { return transform.Then(transform.FlatMap(twins), &delta{}) }},
		{"state twice", bad | forever, func() tf { return transform.Then(&delta{}, &pair{}) }},
		{"state thrice", forever, func() tf {
			return transform.Chain(&pair{}, transform.Map(double), &delta{}, transform.FlatMap(twins), &pair{})
		}},
		{"nested to the right", bad | forever, func() tf {
			return transform.Then(transform.Map(double), transform.Then(&delta{}, transform.Then(transform.Filter(odd), &pair{})))
		}},
		{"failing last", bad | fault, func() tf { return transform.Then(&delta{}, flaky) }},
		{"failing first", fault, func() tf { return transform.Then(flaky, &delta{}) }},
		{"failing in the middle", bad | fault | forever, func() tf { return transform.Chain(&delta{}, flaky, &pair{}) }},
		{"failing at the right", bad | fault | forever, func() tf { return transform.Then(&delta{}, transform.Then(&pair{}, flaky)) }},
		{"refusing first", bad | forever, func() tf { return transform.Then(picky(false), &pair{}) }},
		{"refusing after a function", bad, func() tf { return transform.Chain(transform.FlatMap(twins), transform.Map(double), picky(false)) }},
		{"refusing a batch", bad, func() tf { return transform.Then(transform.Map(double), picky(true)) }},
		{"refusing where nobody can tell", bad | fault, func() tf { return transform.Then(flaky, picky(false)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			transformtest.Run(t, func(testing.TB) transformtest.Harness[reading, reading] {
				h := transformtest.Harness[reading, reading]{
					New:            c.made,
					Batches:        input(),
					BatchInvariant: true,
				}
				if c.is&forever == 0 {
					h.Time = func(r reading) time.Time { return time.Unix(int64(r.at), 0) }
				}
				if c.is&bad != 0 {
					h.Bad = func(i int) reading { return reading{i, -2 - 2*i} }
				}
				if c.is&fault != 0 {
					h.Fault = func() func() {
						down = errors.New("not now")
						return func() { down = nil }
					}
				}
				return h
			})
		})
	}
}
