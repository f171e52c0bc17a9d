package sink_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
	"github.com/kemi-go/kemi/sink"
)

// topic is a durable topic as its sender sees it: it takes all or nothing, and of a
// source whose origin it knows it takes what lies beyond the furthest it has.
type topic struct {
	mu      sync.Mutex
	marks   map[origin.Source]origin.Seq
	stored  []string
	fail    []error // of the Writes to come
	unknown int     // Writes without an origin
}

func (d *topic) Write(ctx context.Context, batch []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.fail) > 0 {
		err := d.fail[0]
		if d.fail = d.fail[1:]; err != nil {
			return err
		}
	}
	b := origin.Of(ctx)
	if !b.Covers(len(batch)) {
		d.unknown++
		d.stored = append(d.stored, batch...)
		return nil
	}
	if d.marks == nil {
		d.marks = map[origin.Source]origin.Seq{}
	}
	from := 0
	for _, m := range b.Marks {
		if m.Seq > d.marks[b.Source] {
			d.stored = append(d.stored, batch[from:m.End]...)
			d.marks[b.Source] = m.Seq
		}
		from = m.End
	}
	return nil
}

// from is the context of a batch of n that was read from a topic, two records each.
func from(ctx context.Context, n int) context.Context {
	b := &origin.Batch{Source: origin.Source{Reader: "in@r", Partition: 3}}
	for end := 0; end < n; {
		end = min(end+2, n)
		b.Marks = append(b.Marks, origin.Mark{End: end, Seq: origin.OfRecord(int64(end))})
	}
	return origin.With(ctx, b)
}

// offer writes a batch as a flow does, until nothing may pass any more, and returns
// what was refused.
func offer(ctx context.Context, t *testing.T, s kemi.Sink[string], batch []string) (refused []string) {
	t.Helper()
	for range 20 {
		err := s.Write(ctx, batch)
		failed, ok := kemi.Failures(err, batch)
		switch {
		case err == nil:
			return refused
		case !ok && kemi.IsPermanent(err) && len(batch) == 1:
			return append(refused, batch...)
		case !ok && kemi.IsPermanent(err):
			half := len(batch) / 2
			return append(append(refused, offer(ctx, t, s, batch[:half])...), offer(ctx, t, s, batch[half:])...)
		case ok:
			var again []string
			for _, f := range failed {
				if kemi.IsPermanent(f.Err) {
					refused = append(refused, batch[f.Index])
				} else {
					again = append(again, batch[f.Index])
				}
			}
			if batch = again; len(batch) == 0 {
				return refused
			}
		}
	}
	t.Fatal("it never ends")
	return nil
}

var records = []string{"a1", "b1", "b2", "a2", "b3", "a3", "a4"}

func TestTopicsBehindARouteKnowWhatTheyHave(t *testing.T) {
	a, b := &topic{}, &topic{}
	s := sink.Route(first, map[string]kemi.Sink[string]{"a": a, "b": b}, nil)
	for range 2 { // after a crash the same comes again
		if refused := offer(from(t.Context(), len(records)), t, s, records); refused != nil {
			t.Fatalf("refused %v", refused)
		}
	}
	if got := fmt.Sprint(a.stored, b.stored, a.unknown, b.unknown); got != "[a1 a2 a3 a4] [b1 b2 b3] 0 0" {
		t.Errorf("stored %s", got)
	}
}

// TestARouteThatFailsIsOfferedTheSameAgain: a topic that has taken its part may not be
// offered another, and one that failed must see its whole part.
func TestARouteThatFailsIsOfferedTheSameAgain(t *testing.T) {
	for _, fail := range []error{errDown, kemi.RetryAfter(errDown, time.Millisecond), nil} {
		a, b := &topic{}, &topic{fail: []error{fail, errDown}}
		s := sink.Route(first, map[string]kemi.Sink[string]{"a": a, "b": b}, nil)
		offer(from(t.Context(), len(records)), t, s, records)
		offer(from(t.Context(), len(records)), t, s, records)
		if got := fmt.Sprint(a.stored, b.stored, a.unknown, b.unknown); got != "[a1 a2 a3 a4] [b1 b2 b3] 0 0" {
			t.Errorf("after %v stored %s", fail, got)
		}
	}
}

// TestARefusedPartIsHalvedWithoutItsOrigin: halves are other batches.
func TestARefusedPartIsHalvedWithoutItsOrigin(t *testing.T) {
	a, b := &topic{}, &topic{fail: []error{kemi.Permanent(errBad), nil, kemi.Permanent(errBad), nil}}
	s := sink.Route(first, map[string]kemi.Sink[string]{"a": a, "b": b}, nil)
	refused := offer(from(t.Context(), len(records)), t, s, records)
	if got := append(slices.Clone(refused), b.stored...); len(got) != 3 || len(refused) != 0 || b.unknown == 0 {
		t.Errorf("refused %v, stored %v, %d of them without an origin", refused, b.stored, b.unknown)
	}
}

// TestRoutesToOneTopicAreOne: two Writes of one origin would look like one that comes
// twice.
func TestRoutesToOneTopicAreOne(t *testing.T) {
	d := &topic{}
	fn := kemi.SinkFunc[string](d.Write) // functions cannot be compared, and do no harm
	s := sink.Route(first, map[string]kemi.Sink[string]{"a": d, "b": d, "c": fn}, d)
	offer(from(t.Context(), len(records)), t, s, records)
	if got := fmt.Sprint(d.stored); got != fmt.Sprint(records) {
		t.Errorf("stored %s", got)
	}
}

func TestATopicBesideABranchThatFailsTakesABatchOnce(t *testing.T) {
	for what, other := range map[string][]string{
		"down":                        {"(~)", "(~)"},
		"a part may pass":             {"+~+++~+", "~++++++"},
		"a part is refused":           {"x+++x++"},
		"some of both":                {"x++~+++", "x++++++"},
		"refused as a whole":          {"(x)"},
		"refused as a whole, in vain": {"(x)", "(x)", "(~)", "(~)"},
	} {
		var answers []func([]string) error
		for _, o := range other {
			answers = append(answers, say(o))
		}
		calls := 0
		d := &topic{}
		s := sink.Tee(d, answer(func(b []string) error {
			if calls++; calls <= len(answers) {
				return answers[calls-1](b)
			}
			return nil
		}))
		offer(from(t.Context(), len(records)), t, s, records)
		if got := fmt.Sprint(d.stored, d.unknown); got != fmt.Sprint(records, 0) {
			t.Errorf("%s: stored %s", what, got)
		}
	}
}

func TestATeeFindsTheGuiltyOfABatchOfATopic(t *testing.T) {
	batch := []string{"1", "2", "bad 3", "4", "5", "bad 6", "7"}
	d, st := &topic{}, &store{coarse: true}
	refused := offer(from(t.Context(), len(batch)), t, sink.Tee[string](d, st), batch)
	if got := fmt.Sprint(refused, st.Records(), d.stored, d.unknown); got != fmt.Sprint([]string{"bad 3", "bad 6"}, []string{"1", "2", "4", "5", "7"}, batch, 0) {
		t.Errorf("got %s", got)
	}
}

// TestWithoutAnOriginATeeOffersAPartAgain is how it was: others need not see again what
// they have.
func TestWithoutAnOriginAPartIsOfferedAgain(t *testing.T) {
	for _, s := range []kemi.Sink[string]{
		sink.Tee(sink.Discard[string](), answer(say("+~+"))),
		sink.Route(first, map[string]kemi.Sink[string]{"a": answer(say("~"))}, sink.Discard[string]()),
	} {
		batch := []string{"b", "a", "c"}
		if got := verdict(s.Write(t.Context(), batch), batch); got != "+~+" {
			t.Errorf("%v: %s", s, got)
		}
	}
}

func TestCoalesceHandsOnAnOriginOfOneWriterOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &topic{}
		s := sink.Coalesce[string](d, 100, time.Second)
		for range 2 {
			if err := s.Write(from(t.Context(), 3), []string{"1", "2", "3"}); err != nil {
				t.Fatal(err)
			}
		}
		if len(d.stored) != 3 || d.unknown != 0 {
			t.Errorf("one writer: stored %v, %d without an origin", d.stored, d.unknown)
		}
		d.fail = []error{kemi.Permanent(errBad)} // joined; then each by itself
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				if err := s.Write(from(t.Context(), 1), []string{fmt.Sprint("x", i)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(d.stored) != 5 || d.unknown != 2 {
			t.Errorf("two writers: stored %v, %d without an origin", d.stored, d.unknown)
		}
	})
}

// TestCoalesceKeepsNoOriginOfAWriterThatGaveUp: it is the reader's own, who uses it
// again. The race detector sees it.
func TestCoalesceKeepsNoOriginOfAWriterThatGaveUp(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	ended := make(chan *origin.Batch, 1)
	s := sink.Coalesce[string](kemi.SinkFunc[string](func(ctx context.Context, _ []string) error {
		close(entered)
		<-release // it does not look at its context
		b := origin.Of(ctx)
		ended <- &origin.Batch{Source: b.Source, Marks: slices.Clone(b.Marks)}
		return errors.New("too late")
	}), 100, 0)
	ctx, cancel := context.WithCancel(from(t.Context(), 1))
	b := origin.Of(ctx)
	want := b.Marks[0]
	go func() {
		<-entered
		cancel()
	}()
	if err := s.Write(ctx, []string{"x"}); err == nil || !strings.Contains(err.Error(), "gave up") {
		t.Fatalf("got %v", err)
	}
	b.Marks[0] = origin.Mark{End: 7, Seq: 99}
	close(release)
	if got := <-ended; got.Marks[0] != want {
		t.Errorf("the far side saw %v, want %v", got.Marks[0], want)
	}
}
