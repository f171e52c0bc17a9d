package engine

import (
	"errors"
	"fmt"
	"slices"
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
type partial struct {
	first  unsafe.Pointer
	length int
	failed []Failure
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

// Failures returns the failed records, if err is about this very batch.
func Failures[T any](err error, batch []T) ([]Failure, bool) {
	for err != nil {
		if p, ok := err.(*partial); ok {
			if p.length == len(batch) && p.first == address(batch) {
				return p.failed, true
			}
			return nil, false
		}
		switch u := err.(type) {
		case interface{ Unwrap() error }:
			err = u.Unwrap()
		default: // a joined error says that something else failed too
			return nil, false
		}
	}
	return nil, false
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
