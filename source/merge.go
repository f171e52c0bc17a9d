package source

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/kemi-go/kemi"
)

// Merge returns a source that runs all the sources at once, each in a goroutine of
// its own, and ends when all have. When one fails, the others are asked to end, and
// the error joins those of all; one that ends by itself leaves the others running. A
// panic is an error.
//
// It is Shared if one of them is. Records of different sources are in no order.
func Merge[T any](sources ...kemi.Source[T]) kemi.Source[T] { return merge[T](slices.Clone(sources)) }

type merge[T any] []kemi.Source[T]

func (m merge[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(m))
	var all sync.WaitGroup
	for i, s := range m {
		all.Go(func() {
			if errs[i] = run(ctx, s, out); errs[i] != nil {
				stop()
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// run runs one source and says which one failed.
func run[T any](ctx context.Context, s kemi.Source[T], out kemi.Sink[T]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in %s: %v\n%s", name(s), p, debug.Stack())
		}
	}()
	if err := s.Run(ctx, out); err != nil {
		return fmt.Errorf("%s: %w", name(s), err)
	}
	return nil
}

// Shares tells whether one of the sources may bring a part of its input only.
func (m merge[T]) Shares() bool {
	return slices.ContainsFunc(m, func(s kemi.Source[T]) bool {
		sh, ok := s.(kemi.Shared)
		return ok && sh.Shares()
	})
}

func (m merge[T]) String() string {
	names := make([]string, len(m))
	for i, s := range m {
		names[i] = name(s)
	}
	return "merge(" + strings.Join(names, ", ") + ")"
}
