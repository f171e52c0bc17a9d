package engine

import (
	"context"
	"sync"
	"time"
)

// early is a lane that a source has not asked for: before its first record, a
// transform with state has a time to be told and an end to be given. The first Write
// of a source without lanes goes on with it. A source that opens lanes of its own
// after all has no use for it.
type early[In, Out any] struct {
	mu    sync.Mutex
	lane  *lane[In, Out]
	known bool // the source has written, or opened a lane
}

// claim returns the lane, nil if there is none. From then on there is no other.
func (e *early[In, Out]) claim() *lane[In, Out] {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lane
	e.lane, e.known = nil, true
	return l
}

// openEarly opens the lane where the source has done nothing so far. It returns nil
// if it has.
func (f *flow[In, Out]) openEarly(o LaneOptions) *lane[In, Out] {
	f.early.mu.Lock()
	defer f.early.mu.Unlock()
	if f.early.known || f.early.lane != nil {
		return nil
	}
	f.early.lane = f.open("", o)
	return f.early.lane
}

// tickEarly waits for the time of the first tick and opens the lane then: most
// sources with lanes have opened one by that time.
func (f *flow[In, Out]) tickEarly(ctx context.Context) {
	t := time.NewTimer(f.TickEvery)
	defer t.Stop()
	select {
	case now := <-t.C:
		if l := f.openEarly(LaneOptions{}); l != nil {
			l.tickNow(now.UTC().Round(0))
		}
	case <-ctx.Done():
	}
}

// plain opens the lane of a source without lanes, or takes the early one.
func (f *flow[In, Out]) plain() *lane[In, Out] {
	if l := f.early.claim(); l != nil {
		return l
	}
	return f.open("", LaneOptions{})
}

// openLane opens a lane for a source that has lanes.
func (f *flow[In, Out]) openLane(id string, o LaneOptions) *lane[In, Out] {
	if l := f.early.claim(); l != nil {
		_ = l.Close() // what it has under way came of a state without its input
	}
	return f.open(id, o)
}
