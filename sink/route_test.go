package sink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
	"github.com/kemi-go/kemi/sink/sinktest"
)

func first(r string) string { return r[:1] }

func TestRouteTranslatesErrors(t *testing.T) {
	batch := []string{"a1", "b1", "a2", "c1", "b2", "a3"}
	for _, c := range []struct{ a, b, want string }{
		{"+++", "++", "+++x++"}, // nobody takes c
		{"+~x", "++", "++~x+x"},
		{"+++", "(~)", "+~+x~+"},
		{"~++", "+x", "~++xx+"},
		{"(~)", "(~)", "~~~x~~"},
	} {
		s := sink.Route(first, map[string]kemi.Sink[string]{"a": answer(say(c.a)), "b": answer(say(c.b))}, nil)
		if got := verdict(s.Write(t.Context(), batch), batch); got != c.want {
			t.Errorf("%s and %s make %s, want %s", c.a, c.b, got, c.want)
		}
	}
}

func TestRouteHandsOnABatchForOneAsItIs(t *testing.T) {
	batch := []string{"a1", "a2"}
	var same bool
	s := sink.Route(first, map[string]kemi.Sink[string]{"a": answer(func(b []string) error {
		same = &b[0] == &batch[0]
		return kemi.Permanent(errors.New("bad"))
	})}, nil)
	if got := verdict(s.Write(t.Context(), batch), batch); got != "(x)" || !same {
		t.Errorf("got %s, the same slice: %t", got, same)
	}
}

// TestRouteFindsTheGuilty is about two routes that each refuse a batch as a whole.
// The flow could not find the guilty records by halving what it wrote, unless Route
// told it that good records are bad.
func TestRouteFindsTheGuilty(t *testing.T) {
	a, b := &store{coarse: true}, &store{coarse: true}
	s := sink.Route(func(r string) string { return r[len(r)-1:] }, map[string]kemi.Sink[string]{"a": a, "b": b}, nil)
	batch := []string{"1a", "1b", "bad a", "2a", "2b", "bad b", "3a", "3b"}
	if got := verdict(s.Write(t.Context(), batch), batch); got != "++x++x++" {
		t.Errorf("got %s", got)
	}
	if got := fmt.Sprint(a.Records(), b.Records()); got != "[1a 2a 3a] [1b 2b 3b]" {
		t.Errorf("stored %s", got)
	}
}

func TestRouteSaysWhichRouteIsMissing(t *testing.T) {
	batch := []string{"z1"}
	err := sink.Route(first, nil, nil).Write(t.Context(), batch)
	if got := verdict(err, batch); got != "x" || !strings.Contains(err.Error(), `"z"`) {
		t.Errorf("got %s: %v", got, err)
	}
}

func TestRouteCarriesMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec sinktest.Recorder[string]
		tries := 0
		slow := kemi.SinkFunc[string](func(ctx context.Context, batch []string) error {
			if tries++; tries == 1 {
				return kemi.RetryAfter(kemi.Partial(batch, kemi.Failure{Err: errDown}), time.Hour)
			}
			return rec.Write(ctx, batch)
		})
		src := kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
			return out.Write(ctx, []string{"a", "b"})
		})
		began := time.Now()
		s := sink.Route(first, map[string]kemi.Sink[string]{"a": slow}, sink.Discard[string]())
		f := kemi.Connect("f", src, s)
		if err := (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Hour || !slices.Equal(rec.Records(), []string{"a"}) {
			t.Errorf("tried again after %v, stored %v", took, rec.Records())
		}
	})
	batch := []string{"a", "b"}
	s := sink.Route(first, map[string]kemi.Sink[string]{"a": answer(func(b []string) error {
		return kemi.Permanent(kemi.Partial(b, kemi.Failure{Err: errBad}))
	})}, sink.Discard[string]())
	if err := s.Write(t.Context(), batch); verdict(err, batch) != "x+" {
		t.Errorf("got %v", err)
	}
}
