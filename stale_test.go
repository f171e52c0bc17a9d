package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kemi-go/kemi"
)

// breaker answers its second call with the error of the first, as a sink does whose
// breaker is open: that time it stores nothing. From then on it takes everything.
type breaker struct {
	store
	first func(batch []item) error
	calls int
	last  error
}

func (s *breaker) Write(ctx context.Context, batch []item) error {
	s.fault = nil
	switch s.calls++; s.calls {
	case 1:
		s.last = s.first(batch)
		s.fault = func(context.Context, []item) error { return s.last }
	case 2:
		return s.last
	}
	return s.store.Write(ctx, batch)
}

// TestAStalePartialIsNotBelieved shows that an error about an earlier batch costs a
// repetition and never a record, also where the next batch lies in the same memory
// and is as long.
func TestAStalePartialIsNotBelieved(t *testing.T) {
	bad := errors.New("malformed")
	for name, first := range map[string]func([]item) error{
		"of one record": func(b []item) error { return kemi.Partial(b, kemi.Failure{Index: 0, Err: kemi.Permanent(bad)}) },
		"wrapped": func(b []item) error {
			return fmt.Errorf("bulk: %w", kemi.Partial(b, kemi.Failure{Index: 0, Err: kemi.Permanent(bad)}))
		},
		"with a mark around": func(b []item) error { return kemi.Permanent(kemi.Partial(b, kemi.Failure{Index: 0, Err: bad})) },
	} {
		for hop, flow := range map[string]func(kemi.Source[item], kemi.Sink[item]) *kemi.Flow{
			"pipe": func(s kemi.Source[item], to kemi.Sink[item]) *kemi.Flow {
				return kemi.Pipe("f", s, pass[item](), to, fast())
			},
			"connect": func(s kemi.Source[item], to kemi.Sink[item]) *kemi.Flow { return kemi.Connect("f", s, to, fast()) },
		} {
			t.Run(name+"/"+hop, func(t *testing.T) {
				to, dead := &breaker{first: first}, &letters{}
				s := runPipeline(t, &kemi.Pipeline{
					Flows:       []*kemi.Flow{flow(once(items(0, 3), items(3, 3), items(6, 3)), to)},
					DeadLetters: dead,
				})[0]
				if distinct, total, _ := to.count(); int(s.Written) != total || distinct != 8 {
					t.Errorf("the ledger says %d written, the sink holds %v", s.Written, to.held)
				}
				if len(dead.kept) != 1 || string(dead.kept[0].Payload) != `{"ID":0}` {
					t.Errorf("dead letters %+v, want that of item 0 only", dead.kept)
				}
			})
		}
	}
}

// TestAStalePartialOfATransformIsNotBelieved has a transform that gives its last
// error again, about a source's slice that is used again.
func TestAStalePartialOfATransformIsNotBelieved(t *testing.T) {
	var last error
	calls := 0
	via := kemi.TransformFunc[item, item](func(_ context.Context, dst, src []item) ([]item, error) {
		switch calls++; calls {
		case 1:
			last = kemi.Permanent(kemi.Partial(src, kemi.Failure{Index: 0, Err: errors.New("malformed")}))
			return append(dst, src[1:]...), last
		case 2:
			return dst, last
		}
		return append(dst, src...), nil
	})
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		batch := make([]item, 3)
		for i := range 3 {
			copy(batch, items(3*i, 3))
			if err := out.Write(ctx, batch); err != nil {
				t.Error(err)
			}
		}
	})
	to := &store{}
	s := run(t, kemi.Pipe("f", src, via, to, fast()))[0]
	if distinct, _, _ := to.count(); distinct != 8 || s.Rejected != 1 {
		t.Errorf("the sink holds %v, ledger %+v; want all but item 0", to.held, s)
	}
}

// TestAStalePartialOfTheDeadLettersIsNotBelieved has dead letters that give their
// last verdict again: it is not about the letter that comes then.
func TestAStalePartialOfTheDeadLettersIsNotBelieved(t *testing.T) {
	var last error
	kept, calls := 0, 0
	dead := kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
		switch calls++; calls {
		case 1:
			last = kemi.Permanent(kemi.Partial(batch, kemi.Failure{Index: 0, Err: errDown}))
			return last
		case 2:
			return last
		}
		kept += len(batch)
		return nil
	})
	s := runPipeline(t, &kemi.Pipeline{
		Flows:       []*kemi.Flow{kemi.Connect("f", once(items(0, 1), items(1, 1)), always(kemi.Permanent(errDown)), fast())},
		DeadLetters: dead,
	})[0]
	if kept != 1 || s.Dead != 1 || s.Dropped != 1 {
		t.Errorf("%d letters were kept, ledger %+v; want the first dropped and the second kept", kept, s)
	}
}
