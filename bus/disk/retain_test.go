package disk

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kemi-go/kemi"
)

// A damaged record is removed with what comes after it, wherever it lies.
func TestADamagedRecordDoesNotStopRetention(t *testing.T) {
	for bad := range int64(10) {
		now := at(newYear)
		db, _ := opened(t, now, Config{})
		in := one(t, db, "in")
		for range 10 {
			write(t, in, 1)
			now.Add(int64(time.Second))
		}
		p := in.parts[0]
		if err := db.engine.Set(offsetKey(kindRecord, in.id, 0, bad), []byte("rubbish"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		was := int64(0)
		for age := range int64(12) {
			if err := in.removeBefore(newYear.Add(time.Duration(age)*time.Second), 0); err != nil {
				t.Fatal(err)
			}
			first := in.Stats().Partitions[0].First
			if first < was || first > min(age, 10) || first < min(age, 10)-1 || first < age && age != bad+1 && age <= 9 {
				t.Errorf("record %d is damaged, all from before second %d is removed: the first is %d", bad, age, first)
			}
			was = first
		}
		if was != 10 || p.base != p.size {
			t.Errorf("record %d is damaged: %d of 10 are removed, %d of %d bytes", bad, was, p.base, p.size)
		}
	}
}

// gated is held up at its first batch.
type gated struct {
	*differences
	first      *sync.Once
	came, goOn chan struct{}
}

func (d gated) Fork() kemi.Transform[reading, reading] {
	d.differences = newDifferences()
	return d
}

func (d gated) Apply(ctx context.Context, dst, src []reading) ([]reading, error) {
	d.first.Do(func() {
		close(d.came)
		<-d.goOn
	})
	return d.differences.Apply(ctx, dst, src)
}

// What retention removes while it is replayed was read before: it is not lost, and the
// state without it is another for a good reason.
func TestWhatIsRemovedDuringAReplayIsNotLost(t *testing.T) {
	now := at(newYear)
	db, logs := opened(t, now, Config{Tick: time.Hour})
	in, out := one(t, db, "in"), one(t, db, "out")
	batch := make([]reading, 8000)
	for n := range batch {
		batch[n] = reading{Host: "h", N: n}
	}
	for range 12 { // more than is read at once
		now.Add(int64(time.Second))
		if err := in.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	run := func(tr kemi.Transform[reading, reading]) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		f := kemi.Pipe("f", in.Group("g"), tr, kemi.Sink[reading](out))
		go func() { done <- (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run(newDifferences())
	until(t, "all read", func() bool { r := in.Stats().Readers; return len(r) > 0 && r[0].Lag == 0 })
	stop()
	g := gated{newDifferences(), new(sync.Once), make(chan struct{}), make(chan struct{})}
	stop = run(g)
	<-g.came
	if err := in.removeBefore(newYear.Add(11*time.Second), 0); err != nil {
		t.Fatal(err)
	}
	close(g.goOn)
	until(t, "the end of the replay", func() bool { return in.Stats().Readers[0].Shortened > 0 })
	write(t, in, 1)
	until(t, "all read", func() bool { return in.Stats().Readers[0].Lag == 0 })
	stop()
	if s := in.Stats().Readers[0]; s.Lost > 0 || s.Mismatched > 0 || s.Shortened != 1 {
		t.Errorf("%+v", s)
	}
	if n := logs.FilterMessageSnippet("has lost records").Len(); n > 0 {
		t.Errorf("told of a loss %d times", n)
	}
}
