package sink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
	"github.com/kemi-go/kemi/sink/sinktest"
)

// answer is a sink that always says the same.
func answer(say func(batch []string) error) kemi.Sink[string] {
	return kemi.SinkFunc[string](func(_ context.Context, batch []string) error { return say(batch) })
}

// verdict spells out an error about a batch: for each record + (safe), ~ (may pass)
// or x (refused for good), or the same for the whole batch in parentheses.
func verdict(err error, batch []string) string {
	mark := func(err error) string {
		if kemi.IsPermanent(err) {
			return "x"
		}
		return "~"
	}
	failed, ok := kemi.Failures(err, batch)
	if err != nil && !ok {
		return "(" + mark(err) + ")"
	}
	out := []byte(strings.Repeat("+", len(batch)))
	for _, f := range failed {
		out[f.Index] = mark(f.Err)[0]
	}
	return string(out)
}

// say makes an error of what verdict spells out.
func say(what string) func(batch []string) error {
	soft, hard := errors.New("busy"), kemi.Permanent(errors.New("bad"))
	return func(batch []string) error {
		switch what {
		case "(~)":
			return soft
		case "(x)":
			return hard
		}
		var failed []kemi.Failure
		for i, c := range what {
			switch c {
			case '~':
				failed = append(failed, kemi.Failure{Index: i, Err: soft})
			case 'x':
				failed = append(failed, kemi.Failure{Index: i, Err: hard})
			}
		}
		return kemi.Partial(batch, failed...)
	}
}

func TestTeeMergesErrorsRecordByRecord(t *testing.T) {
	batch := []string{"a", "b", "c", "d"}
	for _, c := range []struct{ a, b, want string }{
		{"++++", "++++", "++++"},
		{"+~+x", "++++", "+~+x"},
		{"+~+x", "~~++", "~~+x"},
		{"+~xx", "++~x", "+~~x"}, // c may still pass in b, so it must be tried again
		{"(~)", "++++", "(~)"},
		{"(x)", "++++", "(x)"},
		{"(x)", "(x)", "(x)"},
		{"(x)", "(~)", "(~)"},
		{"(x)", "+x++", "(x)"}, // halving finds both
		{"(x)", "+~++", "(~)"},
		{"(~)", "+x++", "(~)"},
	} {
		for _, s := range []kemi.Sink[string]{
			sink.Tee(answer(say(c.a)), answer(say(c.b))),
			sink.Tee(answer(say(c.b)), answer(say(c.a))),
			sink.Tee(answer(say(c.a)), answer(say("++++")), answer(say(c.b))),
		} {
			if got := verdict(s.Write(t.Context(), batch), batch); got != c.want {
				t.Errorf("%s and %s make %s, want %s", c.a, c.b, got, c.want)
			}
		}
	}
}

func TestTeeNamesAllReasons(t *testing.T) {
	s := sink.Tee(
		answer(func(b []string) error { return kemi.Partial(b, kemi.Failure{Err: errors.New("red")}) }),
		answer(func(b []string) error { return kemi.Partial(b, kemi.Failure{Err: errors.New("green")}) }),
	)
	batch := []string{"a"}
	failed, _ := kemi.Failures(s.Write(t.Context(), batch), batch)
	if len(failed) != 1 || !strings.Contains(failed[0].Err.Error(), "red") || !strings.Contains(failed[0].Err.Error(), "green") {
		t.Errorf("got %v", failed)
	}
}

func TestTeeWritesAtOnceAndWaitsForTheSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(d time.Duration) kemi.Sink[string] {
			return answer(func([]string) error { time.Sleep(d); return nil })
		}
		began := time.Now()
		err := sink.Tee(slow(3*time.Second), slow(2*time.Second), slow(time.Second)).Write(t.Context(), []string{"a"})
		if took := time.Since(began); err != nil || took != 3*time.Second {
			t.Errorf("got %v after %v", err, took)
		}
	})
}

func TestTeePanicOfABranchIsItsPermanentError(t *testing.T) {
	for _, s := range []kemi.Sink[string]{
		sink.Tee(answer(func([]string) error { panic("oh") }), answer(say("++"))),
		sink.Tee(answer(say("++")), answer(func([]string) error { panic("oh") })),
	} {
		batch := []string{"a", "b"}
		err := s.Write(t.Context(), batch)
		if verdict(err, batch) != "(x)" || !strings.Contains(err.Error(), "panic in") || !strings.Contains(err.Error(), "oh") {
			t.Errorf("got %v", err)
		}
	}
}

// TestTeeLosesNothing runs a flow into two branches that fail in all ways.
func TestTeeLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b sinktest.Recorder[int]
		faults := sinktest.Faults{Refuse: .2, Partial: .3, Lose: .1, Delay: .5}
		const n = 500
		src := kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			for i := 0; i < n; i += 5 {
				if err := out.Write(ctx, []int{i, i + 1, i + 2, i + 3, i + 4}); err != nil {
					return err
				}
			}
			return nil
		})
		f := kemi.Connect("tee", src, sink.Tee(sinktest.Faulty(1, &a, faults), sinktest.Faulty(2, &b, faults)))
		if err := (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Stats().Balance(); err != nil {
			t.Error(err)
		}
		for name, rec := range map[string]*sinktest.Recorder[int]{"a": &a, "b": &b} {
			seen := map[int]bool{}
			for _, r := range rec.Records() {
				seen[r] = true
			}
			if len(seen) != n {
				t.Errorf("branch %s has %d of %d records", name, len(seen), n)
			}
		}
	})
}

func TestNamesInTheTopology(t *testing.T) {
	a := &store{}
	for want, s := range map[string]any{
		"tee(store, discard)": sink.Tee[string](a, sink.Discard[string]()),
		"store":               sink.Coalesce(sink.Timeout[string](a, time.Second), 0, 0),
		"route(x: store, otherwise: discard)": sink.Route(func(string) string { return "" },
			map[string]kemi.Sink[string]{"x": a}, sink.Discard[string]()),
	} {
		if got := fmt.Sprint(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
