// Package sink has sinks made of sinks. They change how records are delivered, and
// never the records: that is what transforms are for.
//
// Each keeps the promise of a sink: it answers nil when the whole batch is safe, and
// its partial errors name the records of the very batch it was given, whatever it
// made of that batch for the sinks behind it.
package sink

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/kemi-go/kemi"
)

// write calls a sink in a goroutine that is not the caller's, or for many callers,
// where a panic may not go up: it becomes the permanent error that a flow would have
// made of it.
func write[T any](ctx context.Context, to kemi.Sink[T], batch []T) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = kemi.Permanent(fmt.Errorf("panic in %s: %v\n%s", name(to), p, debug.Stack()))
		}
	}()
	return to.Write(ctx, batch)
}

// failures is [kemi.Failures], with what is said around a partial error (that it is
// permanent, or how long to wait) said of each failure, so that it can be put into a
// partial error about another batch.
func failures[T any](err error, batch []T) ([]kemi.Failure, bool) {
	failed, ok := kemi.Failures(err, batch)
	if errors.Unwrap(err) == nil {
		return failed, ok
	}
	for i := range failed {
		if kemi.IsPermanent(err) {
			failed[i].Err = kemi.Permanent(failed[i].Err)
		}
		failed[i].Err = marked{failed[i].Err, err}
	}
	return failed, ok
}

// marked is the error of one record, with the marks of another error.
type marked struct {
	error
	marks error
}

func (m marked) Unwrap() error      { return m.error }
func (m marked) As(target any) bool { return errors.As(m.marks, target) }

// name is how a sink is called in the topology: see kemi.Pipeline.
func name(stage any) string {
	if s, ok := stage.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", stage), "*")
}

// errEnded is the answer of a sink that gave none, since it ended its goroutine, as
// t.FailNow does.
var errEnded = errors.New("the sink ended its goroutine")

// each runs fn for each of n at once, the last in the caller's goroutine, and
// returns when all have ended. fn does not panic.
func each(n int, fn func(i int)) {
	if n == 0 {
		return
	}
	var others sync.WaitGroup
	defer others.Wait() // also if the last ends the goroutine
	for i := range n - 1 {
		others.Go(func() { fn(i) })
	}
	fn(n - 1)
}
