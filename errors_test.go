package kemi_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

func TestFailuresAreOfOneBatch(t *testing.T) {
	batch := items(0, 10)
	err := kemi.Partial(batch, kemi.Failure{Index: 7, Err: io.EOF}, kemi.Failure{Index: 2, Err: errDown})
	for name, c := range map[string]struct {
		err   error
		batch []item
		ok    bool
	}{
		"the batch":                 {err, batch, true},
		"the batch, sliced whole":   {err, batch[:10:10], true},
		"wrapped":                   {fmt.Errorf("index metrics: %w", fmt.Errorf("bulk: %w", err)), batch, true},
		"marked":                    {kemi.RetryAfter(err, time.Second), batch, true},
		"another of the same":       {err, slices.Clone(batch), false},
		"its front":                 {err, batch[:9], false},
		"its back":                  {err, batch[1:], false},
		"empty":                     {err, nil, false},
		"joined with another error": {errors.Join(err, io.EOF), batch, false},
		"joined alone":              {errors.Join(err), batch, false},
		"wrapped with another":      {fmt.Errorf("%w: %w", io.EOF, err), batch, false},
		"nil":                       {nil, batch, false},
		"an ordinary error":         {io.EOF, batch, false},
	} {
		failed, ok := kemi.Failures(c.err, c.batch)
		if ok != c.ok {
			t.Errorf("%s: ok = %v", name, ok)
		}
		if ok && (len(failed) != 2 || failed[0].Index != 2 || !errors.Is(failed[0].Err, errDown) || failed[1].Index != 7 || !errors.Is(failed[1].Err, io.EOF)) {
			t.Errorf("%s: %v, want the failures in order", name, failed)
		}
		if !ok && failed != nil {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

func TestPartialIsCarefulWithIndexes(t *testing.T) {
	batch := items(0, 3)
	if err := kemi.Partial(batch); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	for _, i := range []int{-1, 3, 1 << 40} {
		err := kemi.Partial(batch, kemi.Failure{Index: 1, Err: errDown}, kemi.Failure{Index: i, Err: kemi.Permanent(io.EOF)})
		if _, ok := kemi.Failures(err, batch); err == nil || ok || kemi.IsPermanent(err) {
			t.Errorf("index %d: %v, want an ordinary error about the whole batch", i, err)
		}
		if !strings.Contains(err.Error(), strconv.Itoa(i)) || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("index %d: %v, want the index and the reason", i, err)
		}
	}
	mine := []kemi.Failure{{2, io.EOF}, {0, errDown}, {2, errDown}, {0, io.EOF}}
	failed, _ := kemi.Failures(kemi.Partial(batch, mine...), batch)
	if len(failed) != 2 || failed[0] != (kemi.Failure{Index: 0, Err: errDown}) || failed[1] != (kemi.Failure{Index: 2, Err: io.EOF}) {
		t.Errorf("of entries with one index the first counts: %v", failed)
	}
	if mine[0].Index != 2 {
		t.Error("Partial changed the caller's slice")
	}
	failed, ok := kemi.Failures(kemi.Partial(batch, kemi.Failure{Index: 1}), batch)
	if !ok || failed[0].Err == nil {
		t.Errorf("a failure without a reason: %v", failed)
	}
}

func TestPartialSaysHowManyAndWhy(t *testing.T) {
	batch := items(0, 10)
	for want, err := range map[string]error{
		"1 of 10 records failed: EOF":        kemi.Partial(batch, kemi.Failure{Index: 4, Err: io.EOF}),
		"2 of 10 records failed, first: EOF": kemi.Partial(batch, kemi.Failure{Index: 5, Err: errDown}, kemi.Failure{Index: 4, Err: io.EOF}),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func TestPermanentIsOfTheWholeError(t *testing.T) {
	p := kemi.Permanent(io.EOF)
	batch := items(0, 2)
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"marked":                        {p, true},
		"wrapped":                       {fmt.Errorf("write: %w", p), true},
		"wrapped, to be tried later":    {kemi.RetryAfter(p, time.Second), true},
		"joined of permanent ones":      {errors.Join(p, kemi.Permanent(errDown)), true},
		"joined with one that may pass": {errors.Join(p, errDown), false},
		"wrapped two":                   {fmt.Errorf("%w after %w", p, errDown), false},
		"not marked":                    {io.EOF, false},
		"nil":                           {nil, false},
		"of one record only":            {kemi.Partial(batch, kemi.Failure{Index: 0, Err: p}), false},
	} {
		if got := kemi.IsPermanent(c.err); got != c.want {
			t.Errorf("%s: IsPermanent = %v", name, got)
		}
	}
	if !errors.Is(p, io.EOF) || p.Error() != "EOF" {
		t.Errorf("the mark hides the error: %v", p)
	}
	if kemi.Permanent(nil) != nil || kemi.RetryAfter(nil, time.Second) != nil {
		t.Error("a mark on nil is not nil")
	}
	if r := kemi.RetryAfter(io.EOF, time.Second); !errors.Is(r, io.EOF) || r.Error() != "EOF" || kemi.IsPermanent(r) {
		t.Errorf("%v", r)
	}
}
