// Package source has sources made of functions, of slices and of other sources.
package source

import (
	"context"
	"fmt"
	"strings"

	"github.com/kemi-go/kemi"
)

// FromSlice returns a source that writes the records in batches of a thousand and
// ends, for tests and examples. Run may be called again, and starts anew. It keeps
// the slice and does not change it. A failed Write ends it with its error.
func FromSlice[T any](records []T) kemi.Source[T] { return slice[T](records) }

type slice[T any] []T

func (s slice[T]) String() string { return "slice" }

func (s slice[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	const most = 1000
	for rest := []T(s); len(rest) > 0 && ctx.Err() == nil; {
		n := min(most, len(rest))
		if err := out.Write(ctx, rest[:n:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// name is how a source is called in the topology: see kemi.Pipeline.
func name(stage any) string {
	if s, ok := stage.(fmt.Stringer); ok {
		return s.String()
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", stage), "*")
}
