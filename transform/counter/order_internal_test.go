package counter

import (
	"context"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// TestWhatWasForgottenIsNotFoundByItsPlace lets a series be forgotten that came after
// one which is still known, and come back in its old place.
func TestWhatWasForgottenIsNotFoundByItsPlace(t *testing.T) {
	for _, labels := range []kemi.Labels{kemi.LabelsOf("host", "web1"), {}} {
		for _, ticked := range []bool{false, true} {
			l := newLane(t)
			ticks, between := 0, 12 // minutes
			if ticked {
				between = 6 // in the span after that of the first polls
			}
			poll := func(minute int, names ...string) (rates int) {
				at := begin.Add(time.Duration(minute) * time.Minute)
				for ; ticked && ticks <= minute; ticks++ {
					if _, err := l.Tick(context.Background(), nil, begin.Add(time.Duration(ticks)*time.Minute)); err != nil {
						t.Fatal(err)
					}
				}
				var ms []kemi.Metric
				for _, name := range names {
					ms = append(ms, kemi.Counter(name, labels, at, uint64(minute)))
				}
				out, _ := l.Apply(context.Background(), nil, ms)
				return len(out)
			}
			poll(0, "a", "b")
			if got := poll(1, "a", "b"); got != 2 {
				t.Fatalf("%d rates, want 2", got)
			}
			poll(between, "a")
			if got := poll(13, "b"); got != 0 || l.entries() != 2 {
				t.Errorf("%v, ticked %v: %d rates and %d entries, want a beginning and 2", labels, ticked, got, l.entries())
			}
			if got := poll(14, "b"); got != 1 {
				t.Errorf("%v, ticked %v: the series that came back has %d rates, want 1", labels, ticked, got)
			}
		}
	}
}

// TestTheOrderOfAPollMakesNoDifference gives one poll in every order of four series,
// one of which changes its kind.
func TestTheOrderOfAPollMakesNoDifference(t *testing.T) {
	l := newLane(t)
	ordered := newLane(t)
	names := []string{"a", "b", "c", "d"}
	labels := kemi.LabelsOf("host", "web1")
	for round := range 200 {
		at := begin.Add(time.Duration(round) * time.Minute)
		reading := func(name string) kemi.Metric {
			if name == "b" && round/3%2 == 1 {
				return kemi.Counter32(name, labels, at, uint32(round))
			}
			return kemi.Counter(name, labels, at, uint64(round)*uint64(name[0]))
		}
		var in, src []kemi.Metric
		for i := range names {
			in = append(in, reading(names[i]))
		}
		for i, rest := 0, append([]kemi.Metric(nil), in...); len(rest) > 0; i++ {
			k := (round >> i) % len(rest)
			src = append(src, rest[k])
			rest = append(rest[:k], rest[k+1:]...)
		}
		want, _ := ordered.Apply(context.Background(), nil, in)
		got, _ := l.Apply(context.Background(), nil, src)
		if len(got) != len(want) || l.Proof() != ordered.Proof() || l.entries() != len(names) {
			t.Fatalf("poll %d: %v, want %v in another order", round, got, want)
		}
	}
}
