package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// Route returns a sink that writes each record to the one of the routes that pick
// names, at all of them at once. A record with a name that is not among the routes
// goes to otherwise; if that is nil, it is refused for good. The map is copied. pick
// must be a pure function; the sink may be used by many goroutines if the routes may.
//
// Records of one route keep their order. What fails on one route is named in a
// partial error, and the others are not tried again. Not so for records that come from
// a durable topic: a topic they go to knows what it has by the whole of a batch, so
// that is offered again as a whole. Routes to one and the same sink are one route.
func Route[T any](pick func(T) string, routes map[string]kemi.Sink[T], otherwise kemi.Sink[T]) kemi.Sink[T] {
	r := &route[T]{pick: pick, index: map[string]int{}}
	for _, k := range slices.Sorted(maps.Keys(routes)) {
		r.index[k] = len(r.sinks)
		r.names = append(r.names, k)
		r.sinks = append(r.sinks, routes[k])
	}
	r.sinks = append(r.sinks, otherwise)
	for i, s := range r.sinks {
		r.slot = append(r.slot, slices.IndexFunc(r.sinks[:i+1], func(o kemi.Sink[T]) bool { return sameSink(o, s) }))
		if r.slot[i] < 0 { // nil, or not to be compared
			r.slot[i] = i
		}
	}
	return r
}

func sameSink[T any](a, b kemi.Sink[T]) bool {
	return a != nil && b != nil && reflect.TypeOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

type route[T any] struct {
	pick  func(T) string
	index map[string]int // of a name in sinks
	names []string
	sinks []kemi.Sink[T] // the last is for all other names, and may be nil
	slot  []int          // of a sink: the first that is the same
}

// called is the name of a route, which is another than that of no route.
func (r *route[T]) called(i int) string {
	if i == len(r.names) {
		return ""
	}
	return "=" + r.names[i]
}

func (r *route[T]) String() string {
	parts := make([]string, 0, len(r.sinks))
	for i, n := range r.names {
		parts = append(parts, n+": "+name(r.sinks[i]))
	}
	if last := r.sinks[len(r.sinks)-1]; last != nil {
		parts = append(parts, "otherwise: "+name(last))
	}
	return "route(" + strings.Join(parts, ", ") + ")"
}

// part is what goes to one sink.
type part[T any] struct {
	sink   kemi.Sink[T]
	name   string
	batch  []T
	at     []int // batch[i] is record at[i] of the whole
	failed []kemi.Failure
	done   bool
}

func (r *route[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	to, size := make([]int, len(batch)), make([]int, len(r.sinks))
	mixed := false
	for i, rec := range batch {
		n, ok := r.index[r.pick(rec)]
		if !ok {
			n = len(r.sinks) - 1
		}
		n = r.slot[n]
		to[i] = n
		size[n]++
		mixed = mixed || n != to[0]
	}
	if only := r.sinks[to[0]]; !mixed && only != nil {
		// The batch and its errors pass as they are.
		return only.Write(origin.PickAll(ctx, len(batch), r.called(to[0])), batch)
	}

	parts := make([]part[T], len(r.sinks))
	var failed []kemi.Failure
	for i, rec := range batch {
		p := &parts[to[i]]
		if p.sink = r.sinks[to[i]]; p.sink == nil {
			err := fmt.Errorf("sink.Route: no route is called %q: add it, or give a sink for all others", r.pick(rec))
			failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(err)})
			continue
		}
		if p.batch == nil {
			p.name = r.called(to[i])
			p.batch, p.at = make([]T, 0, size[to[i]]), make([]int, 0, size[to[i]])
		}
		p.batch, p.at = append(p.batch, rec), append(p.at, i)
	}
	parts = slices.DeleteFunc(parts, func(p part[T]) bool { return len(p.batch) == 0 })
	each(len(parts), func(i int) {
		p := &parts[i]
		p.failed, p.done = settle(origin.Pick(ctx, len(batch), p.at, p.name), p.sink, p.batch), true
	})
	for _, p := range parts {
		if !p.done {
			p.failed = all(p.batch, errEnded)
		}
		for _, f := range p.failed {
			failed = append(failed, kemi.Failure{Index: p.at[f.Index], Err: f.Err})
		}
	}
	return wholly(ctx, batch, failed)
}

// wholly is the partial error, or an error about the whole batch if something in it may
// pass and a durable topic may be among those who have taken the rest: a part of a batch
// has no origin that it could be known by.
func wholly[T any](ctx context.Context, batch []T, failed []kemi.Failure) error {
	if origin.Of(ctx).Covers(len(batch)) {
		const most = 10
		var errs []error
		for _, f := range failed {
			if len(errs) < most && !kemi.IsPermanent(f.Err) {
				errs = append(errs, f.Err)
			}
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
	return kemi.Partial(batch, failed...)
}

// settle writes a batch and says of each record whether it failed. A batch that is
// refused for good and as a whole is halved until it is known which record is meant:
// the flow, which would do that, cannot halve a part of what it wrote.
func settle[T any](ctx context.Context, to kemi.Sink[T], batch []T) []kemi.Failure {
	err := write(ctx, to, batch)
	if err == nil {
		return nil
	}
	if failed, ok := failures(err, batch); ok {
		return failed
	}
	if kemi.IsPermanent(err) && len(batch) > 1 && ctx.Err() == nil {
		return halve(ctx, to, batch)
	}
	return all(batch, err)
}

// halve settles the halves of a batch that was refused for good.
func halve[T any](ctx context.Context, to kemi.Sink[T], batch []T) []kemi.Failure {
	ctx = origin.With(ctx, nil) // in each half they would be counted from the start
	half := len(batch) / 2
	failed := settle(ctx, to, batch[:half])
	for _, f := range settle(ctx, to, batch[half:]) {
		failed = append(failed, kemi.Failure{Index: half + f.Index, Err: f.Err})
	}
	return failed
}

// all says that every record failed with err.
func all[T any](batch []T, err error) []kemi.Failure {
	failed := make([]kemi.Failure, len(batch))
	for i := range batch {
		failed[i] = kemi.Failure{Index: i, Err: err}
	}
	return failed
}
