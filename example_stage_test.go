package kemi_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kemi-go/kemi"
)

// silence passes readings on, and reports hosts that have stopped sending. It is a
// stage with state: each lane has a fork of its own, used by one goroutine at a time,
// so the map needs no lock.
type silence struct {
	after time.Duration
	last  map[string]time.Time // by host
}

// Fork makes silence a kemi.Forker.
func (s *silence) Fork() kemi.Transform[kemi.Metric, kemi.Metric] {
	return &silence{after: s.after, last: map[string]time.Time{}}
}

// Apply appends to dst, as strconv.AppendInt does, and keeps neither slice.
func (s *silence) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		s.last[m.Host()] = m.Time
		dst = append(dst, m)
	}
	return dst, nil
}

// Tick makes it a kemi.Ticker. It is called between two Applies, whether records come
// or not, and is told the time: a replay sees the time the first run saw.
// What it gives has an order of its own, not that of a map.
func (s *silence) Tick(_ context.Context, dst []kemi.Metric, now time.Time) ([]kemi.Metric, error) {
	for _, host := range slices.Sorted(maps.Keys(s.last)) {
		if now.Sub(s.last[host]) > s.after {
			dst = append(dst, kemi.Gauge("silent", kemi.LabelsOf("host", host), now, 1))
			delete(s.last, host)
		}
	}
	return dst, nil
}

// Horizon makes it a kemi.Warmer: a bus replays so much input, muted, before it hands
// a partition over.
func (s *silence) Horizon() time.Duration { return 2 * s.after }

// A transform is tested by calling it: no pipeline, no clock, no mock.
func ExampleTransform() {
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	root := &silence{after: time.Minute}
	s := root.Fork().(*silence)

	ctx := context.Background()
	var out []kemi.Metric
	out, _ = s.Apply(ctx, out, []kemi.Metric{kemi.Gauge("load1", kemi.LabelsOf("host", "web1"), noon, 0.25)})
	out, _ = s.Tick(ctx, out, noon.Add(time.Minute))
	out, _ = s.Tick(ctx, out, noon.Add(2*time.Minute))
	for _, m := range out {
		fmt.Println(m)
	}
	// Output:
	// load1{host="web1"} 0.25 @2026-11-20T12:00:00Z
	// silent{host="web1"} 1 @2026-11-20T12:02:00Z
}
