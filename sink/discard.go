package sink

import (
	"context"

	"github.com/kemi-go/kemi"
)

// Discard returns a sink that throws records away on purpose and answers nil. It may
// be used by many goroutines.
func Discard[T any]() kemi.Sink[T] { return discard[T]{} }

type discard[T any] struct{}

func (discard[T]) Write(context.Context, []T) error { return nil }
func (discard[T]) String() string                   { return "discard" }
