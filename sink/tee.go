package sink

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
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
//
// A durable topic among the branches does not mind if the records come from a durable
// topic too: it knows a batch by where it comes from. So that it sees the same batch
// again, and never a part that it could not know, such a batch is offered again as a
// whole, and if a branch refuses it for good, Tee itself finds out which record it means.
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
	known := origin.Of(ctx).Covers(len(batch))
	bad := false
	for i, err := range errs {
		if err == nil {
			continue
		}
		bad = true
		if _, named := failures(err, batch); known && !named && kemi.IsPermanent(err) && len(batch) > 1 {
			// A flow that halves the batch would bring the halves to all branches.
			errs[i] = kemi.Partial(batch, halve(ctx, t[i], batch)...)
		}
	}
	if !bad {
		return nil
	}
	err := merge(batch, errs)
	if failed, named := failures(err, batch); named && known {
		return wholly(ctx, batch, failed)
	}
	return err
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
