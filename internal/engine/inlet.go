package engine

import "context"

// idleMax bounds the workers an inlet keeps for the next burst of concurrent Writes,
// each with its scratch.
const idleMax = 64

// Inlet is the sink a source writes to.
type Inlet[In, Out any] struct{ f *flow[In, Out] }

// Write takes a batch through the flow. Many goroutines may call it: with a
// transform that has state they go one at a time through one lane.
func (in *Inlet[In, Out]) Write(ctx context.Context, batch []In) error {
	if len(batch) == 0 {
		return nil
	}
	f := in.f
	if f.Fork != nil {
		return f.only().Write(ctx, batch)
	}
	w := f.spare.Swap(nil)
	if w == nil {
		if w = f.enlist(); w == nil {
			return f.turnAway(len(batch), errOver)
		}
	}
	defer f.release(w)
	return w.write(ctx, f.env.hard, batch)
}

// OpenLane opens a lane.
func (in *Inlet[In, Out]) OpenLane(id string, o LaneOptions) Lane[In] { return in.f.openLane(id, o) }

// enlist returns a worker that is not in use, nil when the flow is over.
func (f *flow[In, Out]) enlist() *worker[In, Out] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return nil
	}
	if n := len(f.idle); n > 0 {
		w := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return w
	}
	w := &worker[In, Out]{flow: f, ops: f.Shared, inlet: true}
	f.workers[w] = struct{}{}
	return w
}

func (f *flow[In, Out]) release(w *worker[In, Out]) {
	if f.spare.CompareAndSwap(nil, w) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.idle) < idleMax {
		f.idle = append(f.idle, w)
	} else {
		f.dismiss(w)
	}
}
