package sink

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/kemi-go/kemi"
)

// Tee returns a sink that writes each batch to all branches at once and answers nil
// when all of them have. It waits for the slowest. It may be used by many
// goroutines if the branches may. Without branches it is [Discard].
//
// A record has failed if it failed in any branch, and is refused for good only if no
// branch that failed it could still take it. Trying again reaches the branches that
// had taken the record too, so they should not mind a record that comes twice; where
// they do, or where one branch must not wait for another, read the topic as two
// groups instead.
func Tee[T any](branches ...kemi.Sink[T]) kemi.Sink[T] {
	switch len(branches) {
	case 0:
		return Discard[T]()
	case 1:
		return branches[0]
	}
	return tee[T](slices.Clone(branches))
}

type tee[T any] []kemi.Sink[T]

func (t tee[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	errs := make([]error, len(t))
	each(len(t), func(i int) {
		errs[i] = errEnded
		errs[i] = write(ctx, t[i], batch)
	})
	for _, err := range errs {
		if err != nil {
			return merge(batch, errs)
		}
	}
	return nil
}

func (t tee[T]) String() string {
	names := make([]string, len(t))
	for i, s := range t {
		names[i] = name(s)
	}
	return "tee(" + strings.Join(names, ", ") + ")"
}

// merge makes one error about batch of those of the branches.
func merge[T any](batch []T, errs []error) error {
	failed := make([][]error, len(batch)) // of each record
	var whole []error                     // those that name no records
	final := true                         // no failure could pass
	for _, err := range errs {
		if err == nil {
			continue
		}
		fs, ok := failures(err, batch)
		if !ok {
			whole = append(whole, err)
			final = final && kemi.IsPermanent(err)
		}
		for _, f := range fs {
			failed[f.Index] = append(failed[f.Index], f.Err)
			final = final && kemi.IsPermanent(f.Err)
		}
	}
	switch {
	case len(whole) == 0:
		var all []kemi.Failure
		for i, es := range failed {
			if len(es) > 0 {
				all = append(all, kemi.Failure{Index: i, Err: errors.Join(es...)})
			}
		}
		return kemi.Partial(batch, all...)
	case final:
		// Some branch refuses the batch and does not say which record it means. The flow
		// finds out by halving, and the records that others name are found on the way.
		return kemi.Permanent(errors.Join(errs...))
	}
	// Joined errors are permanent if each of them is, which is not so here.
	return errors.Join(errs...)
}
