// Package transform has transforms made of functions and of other transforms.
//
// What is made of others has all the powers that its parts have, of those the root
// package names: it forks if one of them forks, ticks if one of them ticks, and so
// on. None of it reads a clock or keeps a record.
package transform

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
)

// Map returns the transform that makes one record of each. f must be a pure function:
// it is called by many goroutines, and may be called for a record again.
func Map[In, Out any](f func(In) Out) kemi.Transform[In, Out] { return mapper[In, Out](f) }

type mapper[In, Out any] func(In) Out

func (f mapper[In, Out]) Apply(_ context.Context, dst []Out, src []In) ([]Out, error) {
	for _, r := range src {
		dst = append(dst, f(r))
	}
	return dst, nil
}

func (f mapper[In, Out]) trace(src []In) ([]int, bool) {
	at := make([]int, len(src))
	for i := range at {
		at[i] = i
	}
	return at, true
}

func (f mapper[In, Out]) String() string { return "map" }

// Filter returns the transform that lets the records through for which keep is true.
// keep must be a pure function: it is called by many goroutines, and may be called
// for a record again.
func Filter[T any](keep func(T) bool) kemi.Transform[T, T] { return filter[T](keep) }

type filter[T any] func(T) bool

func (keep filter[T]) Apply(_ context.Context, dst, src []T) ([]T, error) {
	for _, r := range src {
		if keep(r) {
			dst = append(dst, r)
		}
	}
	return dst, nil
}

func (keep filter[T]) trace(src []T) ([]int, bool) {
	var at []int
	for i, r := range src {
		if keep(r) {
			at = append(at, i)
		}
	}
	return at, true
}

func (keep filter[T]) String() string { return "filter" }

// FlatMap returns the transform that makes any number of records of each: f appends
// them to dst, as [strconv.AppendInt] does, and returns the longer slice. f must be a
// pure function of the record: it is called by many goroutines, and may be called
// for a record again.
func FlatMap[In, Out any](f func(dst []Out, r In) []Out) kemi.Transform[In, Out] {
	return flatMapper[In, Out](f)
}

type flatMapper[In, Out any] func([]Out, In) []Out

func (f flatMapper[In, Out]) Apply(_ context.Context, dst []Out, src []In) ([]Out, error) {
	for _, r := range src {
		dst = f(dst, r)
	}
	return dst, nil
}

func (f flatMapper[In, Out]) trace(src []In) ([]int, bool) {
	var at []int
	for i, r := range src {
		for range f(nil, r) {
			at = append(at, i)
		}
	}
	return at, true
}

func (f flatMapper[In, Out]) String() string { return "flat map" }

// tracer is a transform without state or failures that knows which record of src
// each of its results was made of.
type tracer[In any] interface {
	trace(src []In) (at []int, ok bool)
}

func traceOf[In, Out any](t kemi.Transform[In, Out], src []In) ([]int, bool) {
	if tr, ok := t.(tracer[In]); ok {
		return tr.trace(src)
	}
	return nil, false
}

// What follows asks for a power and gives the harmless answer where it is missing.

func forkOf[In, Out any](t kemi.Transform[In, Out]) (_ kemi.Transform[In, Out], forked bool) {
	if f, ok := t.(kemi.Forker[In, Out]); ok {
		if fork := f.Fork(); fork != nil {
			return fork, true
		}
	}
	return t, false
}

func ticks[In, Out any](t kemi.Transform[In, Out]) bool {
	_, ok := t.(kemi.Ticker[Out])
	return ok
}

func tick[In, Out any](ctx context.Context, t kemi.Transform[In, Out], dst []Out, now time.Time) ([]Out, error) {
	if k, ok := t.(kemi.Ticker[Out]); ok {
		return k.Tick(ctx, dst, now)
	}
	return dst, nil
}

func finish[In, Out any](ctx context.Context, t kemi.Transform[In, Out], dst []Out) ([]Out, error) {
	if f, ok := t.(kemi.Finisher[Out]); ok {
		return f.Finish(ctx, dst)
	}
	return dst, nil
}

func horizon(t any) time.Duration {
	if w, ok := t.(kemi.Warmer); ok {
		return w.Horizon()
	}
	return 0
}

func aggregates(t any) bool {
	a, ok := t.(kemi.Aggregator)
	return ok && a.Aggregates()
}

// hasState tells whether feeding a transform the same records again would count them
// twice.
func hasState[In, Out any](t kemi.Transform[In, Out]) bool {
	if s, ok := t.(interface{ hasState() bool }); ok {
		return s.hasState()
	}
	_, forks := t.(kemi.Forker[In, Out])
	return forks || ticks(t) || horizon(t) > 0 || aggregates(t)
}

// name is how a transform is called in the topology: see kemi.Pipeline.
func name(stage any) string {
	if s, ok := stage.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", stage), "*")
}
