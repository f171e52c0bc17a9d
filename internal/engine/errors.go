package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
)

// Failure is one record of a batch that failed.
type Failure struct {
	Index int
	Err   error
}

// partial is an error about some records of one batch. The batch is known by where
// its first element lies and how long it is. The pointer is only compared, never
// followed: it keeps the memory from being used for another batch meanwhile.
//
// But the owner of a batch may fill the same slice again, with other records. An
// engine therefore takes a partial at its word once: a sink that answers the next
// batch with the last error again has said nothing about that one.
type partial struct {
	first  unsafe.Pointer
	length int
	failed []Failure
	used   atomic.Bool // an engine has read it
}

var errNoReason = errors.New("a stage gave no reason")

// NewPartial returns an error about the listed records of batch.
func NewPartial[T any](batch []T, failed []Failure) error {
	for i, f := range failed {
		if f.Err == nil {
			failed[i].Err = errNoReason
		}
		if f.Index < 0 || f.Index >= len(batch) {
			// A wrong index would either lose a record or retry a written one. The whole
			// batch is not known to be safe then. The reason is not wrapped: what it says
			// about one record must not be taken for all.
			return fmt.Errorf("kemi: Partial: index %d is outside a batch of %d: %s", f.Index, len(batch), failed[i].Err.Error())
		}
	}
	// One entry for a record, in order, whatever a sink lists.
	slices.SortStableFunc(failed, func(a, b Failure) int { return a.Index - b.Index })
	failed = slices.CompactFunc(failed, func(a, b Failure) bool { return a.Index == b.Index })
	return &partial{first: address(batch), length: len(batch), failed: failed}
}

func address[T any](batch []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(batch)) }

func (p *partial) Error() string {
	if len(p.failed) == 1 {
		return fmt.Sprintf("1 of %d records failed: %v", p.length, p.failed[0].Err)
	}
	return fmt.Sprintf("%d of %d records failed, first: %v", len(p.failed), p.length, p.failed[0].Err)
}

func about[T any](p *partial, batch []T) bool {
	return p != nil && p.length == len(batch) && p.first == address(batch)
}

// partialOf returns the partial that err wraps. A joined error has none: it says that
// something else failed too.
func partialOf(err error) *partial {
	for err != nil {
		if p, ok := err.(*partial); ok {
			return p
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return nil
		}
		err = u.Unwrap()
	}
	return nil
}

// Failures returns the failed records, if err is about this very batch.
func Failures[T any](err error, batch []T) ([]Failure, bool) {
	if p := partialOf(err); about(p, batch) {
		return p.failed, true
	}
	return nil, false
}

// verdict is what an error says about a batch.
type verdict struct {
	failed    []Failure // of a partial
	some      bool      // only those failed
	permanent bool      // trying again cannot help
}

// judge reads what err says about batch, and uses it up. A partial that was used
// before is as good as any other error that may pass, whatever marks are around it:
// those are about the records of then.
func judge[T any](err error, batch []T) verdict {
	p := partialOf(err)
	switch {
	case p == nil || !about(p, batch) && !p.used.Load():
		return verdict{permanent: IsPermanent(err)}
	case !p.used.CompareAndSwap(false, true):
		return verdict{}
	}
	return verdict{p.failed, true, IsPermanent(err)}
}

// Translate returns err, the answer to a batch from, as the answer to the batch to it
// was made of, record by record.
func Translate[T, U any](err error, from []T, to []U) error {
	v := judge(err, from)
	if !v.some {
		return err
	}
	again := NewPartial(to, slices.Clone(v.failed))
	if v.permanent {
		again = Permanent(again)
	}
	if d := waitOf(err); d > 0 {
		again = RetryAfter(again, d)
	}
	return again
}

type permanent struct {
	err   error
	stack string // of a panic
}

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

// Permanent marks err as one that trying again cannot help.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err: err}
}

// IsPermanent tells whether err is marked so. Of joined errors each must be: while
// one may still go away, trying again may help.
func IsPermanent(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case *permanent:
		return true
	case interface{ Unwrap() []error }:
		errs := e.Unwrap()
		for _, err := range errs {
			if !IsPermanent(err) {
				return false
			}
		}
		return len(errs) > 0
	case interface{ Unwrap() error }:
		return IsPermanent(e.Unwrap())
	}
	return false
}

type retryAfter struct {
	err   error
	after time.Duration
}

func (r *retryAfter) Error() string { return r.err.Error() }
func (r *retryAfter) Unwrap() error { return r.err }

// RetryAfter marks err as one to be tried again, but not before d has passed.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfter{err, d}
}

func waitOf(err error) time.Duration {
	if r, ok := errors.AsType[*retryAfter](err); ok {
		return r.after
	}
	return 0
}

func stackOf(err error) string {
	if p, ok := errors.AsType[*permanent](err); ok {
		return p.stack
	}
	return ""
}
