package source_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source"
)

type run = kemi.SourceFunc[int]

// idle waits to be asked to stop, and then for a while.
func idle(ended *time.Time) kemi.Source[int] {
	return run(func(ctx context.Context, _ kemi.Sink[int]) error {
		<-ctx.Done()
		time.Sleep(time.Second)
		*ended = time.Now()
		return nil
	})
}

func TestMergeBringsAll(t *testing.T) {
	var rec recorder[int]
	s := source.Merge(source.FromSlice([]int{1, 2}), source.FromSlice[int](nil), source.FromSlice([]int{3}))
	if err := s.Run(t.Context(), &rec); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(rec.records())); !slices.Equal(got, []int{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
	if err := source.Merge[int]().Run(t.Context(), &rec); err != nil {
		t.Errorf("Merge of nothing: %v", err)
	}
}

func TestMergeStopsTheOthersWhenOneFails(t *testing.T) {
	for name, fail := range map[string]run{
		"fails":  func(context.Context, kemi.Sink[int]) error { time.Sleep(time.Minute); return errors.New("no route") },
		"panics": func(context.Context, kemi.Sink[int]) error { time.Sleep(time.Minute); panic("no route") },
	} {
		synctest.Test(t, func(t *testing.T) {
			var a, b time.Time
			began := time.Now()
			err := source.Merge(idle(&a), fail, source.FromSlice([]int{1}), idle(&b)).Run(t.Context(), &recorder[int]{})
			if err == nil || !strings.Contains(err.Error(), "no route") {
				t.Errorf("a source that %s: %v", name, err)
			}
			if a.Sub(began) != 61*time.Second || b.Sub(began) != 61*time.Second {
				t.Errorf("a source that %s: the others ended after %v and %v", name, a.Sub(began), b.Sub(began))
			}
		})
	}
}

func TestMergeWaitsForAllWhenStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b time.Time
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := source.Merge(idle(&a), idle(&b)).Run(ctx, &recorder[int]{}); err != nil {
			t.Error(err)
		}
		if a.IsZero() || b.IsZero() {
			t.Error("Run returned before its sources")
		}
	})
}

type group struct{ kemi.Source[int] }

func (group) Shares() bool { return true }

func TestMergeIsSharedIfOneIs(t *testing.T) {
	if source.Merge(source.FromSlice([]int{1}), source.FromSlice([]int{2})).(kemi.Shared).Shares() {
		t.Error("nobody shares")
	}
	if !source.Merge(source.FromSlice([]int{1}), source.Merge[int](group{})).(kemi.Shared).Shares() {
		t.Error("one shares")
	}
}

// TestMergeOpensLanes: sources with partitions keep their lanes behind Merge.
func TestMergeOpensLanes(t *testing.T) {
	var rec recorder[int]
	lanes := 0
	var f *kemi.Flow
	partition := func(n int, id string) kemi.Source[int] {
		return run(func(ctx context.Context, out kemi.Sink[int]) error {
			l := kemi.OpenLane(out, id)
			defer l.Close()
			lanes = max(lanes, f.Stats().Lanes)
			return l.Write(ctx, []int{n})
		})
	}
	f = kemi.Connect("f", source.Merge(partition(1, "a")), &rec)
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lanes != 1 || len(rec.records()) != 1 {
		t.Errorf("%d lanes, %d records", lanes, len(rec.records()))
	}
}
