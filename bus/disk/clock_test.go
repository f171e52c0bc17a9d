package disk

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// ticked counts ticks.
type ticked struct {
	*differences
	n *atomic.Int64
}

func (d ticked) Fork() kemi.Transform[reading, reading] { return ticked{newDifferences(), d.n} }

func (d ticked) Tick(ctx context.Context, dst []reading, now time.Time) ([]reading, error) {
	d.n.Add(1)
	return d.differences.Tick(ctx, dst, now)
}

// The clock was a year ahead for a moment and has been set right. Time passes all the
// same: silent partitions are ticked, and what is old is removed.
func TestTimePassesAfterTheClockWasAhead(t *testing.T) {
	now := at(newYear.AddDate(1, 0, 0))
	db, _ := opened(t, now, Config{Tick: 10 * time.Millisecond})
	in, err := NewTopic(db, "in", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly, Retain: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	write(t, in, 1)
	now.Store(newYear.UnixNano())
	n := new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f := kemi.Pipe("f", in.Group("g"), kemi.Transform[reading, reading](ticked{newDifferences(), n}), kemi.Sink[reading](nowhere))
	go func() { done <- (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(ctx) }()
	until(t, "all read", func() bool { r := in.Stats().Readers; return len(r) > 0 && r[0].Running > 0 && r[0].Lag == 0 })
	for range 5 {
		before := n.Load()
		now.Add(int64(time.Minute))
		until(t, "a tick", func() bool { return n.Load() > before })
	}
	now.Add(int64(2 * time.Hour))
	write(t, in, 1)
	db.retention()
	if s := in.Stats().Partitions[0]; s.First == 0 {
		t.Errorf("nothing was removed: %+v", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
