package transform_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
)

type tf = kemi.Transform[reading, reading]

// lane returns the fork that a lane would use.
func lane(t tf) tf {
	if f, ok := t.(kemi.Forker[reading, reading]); ok {
		if fork := f.Fork(); fork != nil {
			return fork
		}
	}
	return t
}

func numbers(rs []reading) []int {
	ns := make([]int, len(rs))
	for i, r := range rs {
		ns[i] = r.n
	}
	return ns
}

func readings(ns ...int) []reading {
	rs := make([]reading, len(ns))
	for i, n := range ns {
		rs[i] = reading{i, n}
	}
	return rs
}

// verdict says which records of src an error is about, or that it is about them all.
func verdict(err error, src []reading) string {
	failed, ok := kemi.Failures(err, src)
	switch {
	case err == nil:
		return "fine"
	case !ok && kemi.IsPermanent(err):
		return "permanent"
	case !ok:
		return "again"
	}
	var at []int
	for _, f := range failed {
		at = append(at, f.Index)
	}
	return fmt.Sprint(at)
}

// TestPartialErrorsNameTheInput: what a later part refuses is named as a record of
// the batch that the chain was given, where that is known.
func TestPartialErrorsNameTheInput(t *testing.T) {
	none := error(nil)
	opaque := flaky{&none} // it has no state, and nobody can tell what it makes of what
	minus := transform.Map(func(r reading) reading { return reading{r.at, -r.n} })
	for _, c := range []struct {
		name string
		tf   tf
		src  []reading
		want string
		out  []int
	}{
		{"first", transform.Then(picky(false), &pair{}), readings(1, -2, 3), "[1]", []int{1, 1003}},
		{"after Map", transform.Then(minus, picky(false)), readings(-1, 2, -3, 4), "[1 3]", []int{1, 3}},
		{"after Filter", transform.Then(transform.Filter(odd), picky(false)), readings(2, -1, 4, 3, -5), "[1 4]", []int{3}},
		{"after FlatMap", transform.Then(transform.FlatMap(func(dst []reading, r reading) []reading {
			return append(dst, r, reading{r.at, r.n - 10})
		}), picky(false)), readings(12, 3, 14), "[1]", []int{12, 2, 3, 14, 4}},
		{"after three", transform.Chain(transform.Filter(odd), transform.FlatMap(twins), minus, picky(false)),
			readings(2, -1, 4, 3, -5), "[3]", []int{1, 5}},
		{"by state after Map", transform.Then(transform.Map(double), &delta{}), readings(1, -2, 3), "[1]", []int{4}},
		{"both", transform.Then(picky(false), transform.Then(minus, picky(false))), readings(-1), "[0]", nil},
		{"by state, batch of one", transform.Then(opaque, &delta{}), readings(-1), "[0]", nil},
		{"without state, unknown", transform.Then(opaque, picky(false)), readings(1, -2, 3), "permanent", nil},
		{"without state, a batch", transform.Then(opaque, picky(true)), readings(1, -2, 3), "permanent", nil},
		{"without state, batch of one", transform.Then(opaque, picky(false)), readings(-1), "[0]", nil},
		{"by state, unknown", transform.Then(opaque, &delta{}), readings(1, -2, 4, 7), "[3]", []int{3, 3}},
		{"after state", transform.Then(&delta{}, picky(false)), readings(1, 3, 2, 7, 6, 9), "[5]", []int{2, 5, 3}},
		{"after state, a batch", transform.Then(&delta{}, picky(true)), readings(1, 3, 2), "[0 1 2]", nil},
		{"after state and before it", transform.Then(&delta{}, picky(false)), readings(1, -1, 0), "[1 2]", nil},
	} {
		src := slices.Clone(c.src)
		out, err := lane(c.tf).Apply(t.Context(), nil, src)
		if got := verdict(err, src); got != c.want || !slices.Equal(numbers(out), c.out) && len(c.out) > 0 {
			t.Errorf("%s: refused %s, want %s; gave %v, want %v", c.name, got, c.want, numbers(out), c.out)
		}
	}
}

// TestWhatCannotBeTracedIsTold: the record named may be innocent, and the error tells
// which one was refused.
func TestWhatCannotBeTracedIsTold(t *testing.T) {
	src := readings(50)
	for n := range 20 {
		src = append(src, reading{n, 40 - n})
	}
	_, err := lane(transform.Then(&delta{}, picky(false))).Apply(t.Context(), nil, src)
	failed, _ := kemi.Failures(err, src)
	if len(failed) != 1 || failed[0].Index != 20 {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"perhaps not of this record", "{at:0 n:-10}", "and 10 more", errBad.Error()} {
		if !strings.Contains(failed[0].Err.Error(), want) {
			t.Errorf("%q is not in %v", want, failed[0].Err)
		}
	}
}

// TestStateIsNotFedTwice: a later part fails, in the ways there are, and what comes
// in the end is as if it had not.
func TestStateIsNotFedTwice(t *testing.T) {
	var down error
	lane := lane(transform.Chain[reading](&delta{}, flaky{&down}, &pair{}))
	apply := func(src ...reading) ([]int, string) {
		out, err := lane.Apply(t.Context(), nil, src)
		return numbers(out), verdict(err, src)
	}
	step := func(what string, want string, wantOut []int, src ...reading) {
		t.Helper()
		if out, got := apply(src...); got != want || !slices.Equal(out, wantOut) {
			t.Errorf("%s: %s with %v, want %s with %v", what, got, out, want, wantOut)
		}
	}
	step("at first", "fine", []int{1}, reading{1, 1}, reading{2, 2})
	down = errors.New("not now")
	step("down", "again", nil, reading{3, 4}, reading{4, 7})
	step("still down", "again", nil, reading{3, 4}, reading{4, 7})
	down = nil
	step("up", "fine", []int{1002, 2003}, reading{3, 4}, reading{4, 7})
	step("the same once more is another batch", "fine", []int{3000 - 3, 1000*-3 + 3}, reading{5, 4}, reading{6, 7})
	down = errors.New("not now")
	step("down", "again", nil, reading{7, 8})
	down = nil
	step("its source has given up and brings another", "fine", []int{3002}, reading{8, 10})
	down = kemi.Permanent(errBad)
	step("refused", "[0 1]", nil, reading{9, 20}, reading{10, 30})
	down = nil
	step("after that", "fine", []int{2001}, reading{11, 31})
}

// TestAFailingTickLosesNothing: what an earlier part gave on a tick is kept until a
// later part takes it.
func TestAFailingTickLosesNothing(t *testing.T) {
	var down error
	c := lane(transform.Then[reading, reading, reading](&delta{}, flaky{&down}))
	tick := func(second int64) ([]int, error) {
		out, err := c.(kemi.Ticker[reading]).Tick(t.Context(), nil, time.Unix(second, 0))
		return numbers(out), err
	}
	if _, err := c.Apply(t.Context(), nil, readings(1, 2)); err != nil {
		t.Fatal(err)
	}
	down = errors.New("not now")
	for i := range int64(3) {
		if out, err := tick(i); !errors.Is(err, down) || len(out) > 0 {
			t.Errorf("down: %v, %v", out, err)
		}
	}
	down = nil
	if out, err := tick(3); err != nil || !slices.Equal(out, []int{2}) {
		t.Errorf("up again: %v, %v", out, err)
	}
	if out, err := tick(4); err != nil || !slices.Equal(out, []int{0}) {
		t.Errorf("the next: %v, %v", out, err)
	}
	down = kemi.Permanent(errBad)
	if out, err := tick(5); err != nil || len(out) > 0 {
		t.Errorf("refused: %v, %v", out, err)
	}
	down = nil
	if out, err := tick(6); !errors.Is(err, errBad) || len(out) > 0 {
		t.Errorf("the tick that says so: %v, %v", out, err)
	}
	if out, err := tick(7); err != nil || !slices.Equal(out, []int{0}) {
		t.Errorf("after that: %v, %v", out, err)
	}
}

// tock ticks and fails to, and passes records on.
type tock struct{ err *error }

func (k tock) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	return append(dst, src...), nil
}

func (k tock) Tick(_ context.Context, dst []reading, _ time.Time) ([]reading, error) {
	return dst, *k.err
}

func TestATickThatFailsHalfwayGivesTheFirstHalf(t *testing.T) {
	down := errors.New("not now")
	c := lane(transform.Then[reading, reading, reading](&delta{}, tock{&down})).(kemi.Ticker[reading])
	out, err := c.Tick(t.Context(), nil, time.Unix(1, 0))
	if err != nil || len(out) != 1 {
		t.Errorf("the first half: %v, %v", out, err)
	}
	if out, err := c.Tick(t.Context(), nil, time.Unix(2, 0)); !errors.Is(err, down) || len(out) > 0 {
		t.Errorf("the tick that says so: %v, %v", out, err)
	}
}

func TestFinishHandsOnWhatATickHasLeft(t *testing.T) {
	down := errors.New("not now")
	c := lane(transform.Then[reading, reading, reading](&delta{}, flaky{&down}))
	if _, err := c.(kemi.Ticker[reading]).Tick(t.Context(), nil, time.Unix(1, 0)); err == nil {
		t.Error("the tick did not fail")
	}
	if _, err := c.(kemi.Finisher[reading]).Finish(t.Context(), nil); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
	down = nil
	c = lane(transform.Then[reading, reading, reading](&delta{}, flaky{&down}))
	down = errors.New("not now")
	if _, err := c.(kemi.Ticker[reading]).Tick(t.Context(), nil, time.Unix(1, 0)); err == nil {
		t.Error("the tick did not fail")
	}
	down = nil
	out, err := c.(kemi.Finisher[reading]).Finish(t.Context(), nil)
	if err != nil || len(out) != 2 || out[0].at != -1 || out[1].at != -2 {
		t.Errorf("got %v, %v", out, err)
	}
}

// TestFailuresInAFlow runs a chain with a poisonous record and a second part that is
// down at first: the record is buried, and the others come as if nothing had been.
func TestFailuresInAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got recorder[reading]
		var dead recorder[kemi.DeadLetter]
		tries := map[reading]int{}
		later := kemi.TransformFunc[reading, reading](func(_ context.Context, dst, src []reading) ([]reading, error) {
			if tries[src[0]]++; src[0].at > 0 && tries[src[0]] < 3 {
				return dst, errors.New("not now")
			}
			return append(dst, src...), nil
		})
		src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
			for i := range 10 {
				batch := []reading{{3 * i, 10 * i}, {3*i + 1, -1}, {3*i + 2, 10*i + 1}}
				if err := out.Write(ctx, batch); err != nil {
					return err
				}
			}
			return nil
		})
		f := kemi.Pipe("f", src, transform.Then[reading, reading, reading](&delta{}, later), &got)
		p := &kemi.Pipeline{Flows: []*kemi.Flow{f}, DeadLetters: &dead}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Stats().Balance(); err != nil {
			t.Error(err)
		}
		want := []int{1}
		for range 9 {
			want = append(want, 9, 1)
		}
		ns := numbers(slices.DeleteFunc(got.records(), func(r reading) bool { return r.at < 0 }))
		if !slices.Equal(ns, want) || len(dead.records()) != 10 {
			t.Errorf("%d dead letters and %v, want 10 and %v", len(dead.records()), ns, want)
		}
	})
}
