package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

func TestFaultyNeverLies(t *testing.T) {
	var rec Recorder[int]
	s := Faulty(1, &rec, Faults{Panic: .1, Refuse: .2, Partial: .3, Lose: .1})
	var panics, refused, partial, fine int
	for i := range 2000 {
		batch := []int{4 * i, 4*i + 1, 4*i + 2, 4*i + 3}
		before := rec.Len()
		var err error
		if conform.Try(func() { err = s.Write(t.Context(), batch) }) != "" {
			panics++
			if rec.Len() != before {
				t.Fatal("a Write that panicked stored something")
			}
			continue
		}
		got := rec.Records()[before:]
		failed, ok := kemi.Failures(err, batch)
		switch {
		case err == nil:
			fine++
			if !slices.Equal(got, batch) {
				t.Fatalf("nil, and %v of %v is stored", got, batch)
			}
		case ok:
			partial++
			if want := others(batch, failed); !slices.Equal(got, want) {
				t.Fatalf("%v is stored, and the error says %v", got, want)
			}
		case errors.Is(err, ErrInjected) && !kemi.IsPermanent(err):
			refused++
		default:
			t.Fatal(err)
		}
	}
	for what, x := range map[string]struct{ got, want int }{
		"panics": {panics, 200}, "refused or lost": {refused, 600}, "partial": {partial, 600}, "fine": {fine, 600},
	} {
		if x.got < x.want*3/4 || x.got > x.want*5/4 {
			t.Errorf("%s: %d of 2000, want about %d", what, x.got, x.want)
		}
	}
}

func TestFaultyIsTheSameForASeed(t *testing.T) {
	trace := func(seed uint64) string {
		var rec Recorder[int]
		s := Faulty(seed, &rec, Faults{Refuse: .3, Partial: .3})
		out := ""
		for i := range 50 {
			out += fmt.Sprintln(s.Write(t.Context(), []int{i, i + 1, i + 2}), rec.Len())
		}
		return out
	}
	if first, second := trace(7), trace(7); first != second {
		t.Error("the same seed gave other faults")
	}
	if trace(7) == trace(8) {
		t.Error("another seed gave the same faults")
	}
}

func TestFaultyDelayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec Recorder[int]
		s := Faulty(1, &rec, Faults{Delay: 1, For: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := s.Write(ctx, []int{1}); !errors.Is(err, context.DeadlineExceeded) || rec.Len() != 0 {
			t.Errorf("got %v and %d records", err, rec.Len())
		}
		if err := s.Write(t.Context(), []int{1}); err != nil || rec.Len() != 1 {
			t.Errorf("got %v and %d records", err, rec.Len())
		}
	})
}

// TestConservation puts a failing sink behind a flow: nothing is lost, and the
// ledger balances.
func TestConservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec Recorder[int]
		var dead Recorder[kemi.DeadLetter]
		const n = 1000
		src := kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
			for i := 0; i < n; i += 10 {
				batch := make([]int, 10)
				for j := range batch {
					batch[j] = i + j
				}
				if err := out.Write(ctx, batch); err != nil {
					return err
				}
			}
			return nil
		})
		f := kemi.Connect("faulty", src, Faulty(3, &rec, Faults{Panic: .02, Refuse: .2, Partial: .3, Lose: .1, Delay: .5}))
		p := kemi.Pipeline{Flows: []*kemi.Flow{f}, DeadLetters: &dead}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		st := f.Stats()
		if err := st.Balance(); err != nil {
			t.Error(err)
		}
		seen := map[string]bool{}
		for _, r := range rec.Records() {
			seen[fmt.Sprint(r)] = true
		}
		for _, d := range dead.Records() {
			seen[string(d.Payload)] = true
		}
		if len(seen) != n || st.Retries == 0 {
			t.Errorf("%d of %d records came through, with %d retries", len(seen), n, st.Retries)
		}
	})
}

func TestRecorderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec Recorder[int]
		go func() {
			for i := range 3 {
				time.Sleep(time.Second)
				_ = rec.Write(t.Context(), []int{i})
			}
		}()
		if err := rec.Wait(t.Context(), 3); err != nil || !slices.Equal(rec.Records(), []int{0, 1, 2}) {
			t.Errorf("got %v and %v", err, rec.Records())
		}
		if got := rec.Batches(); len(got) != 3 || !slices.Equal(got[1], []int{1}) {
			t.Errorf("batches %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := rec.Wait(ctx, 4); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
