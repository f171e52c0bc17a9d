package engine

import (
	"context"
	"slices"
	"sync"
	"time"
)

// patience is how long the ticks of a shared transform wait for a lane that does not
// come, since its partition cannot be read, while no other moves either. A lane that has
// come and is held up in the flow, by a sink that is away, is waited for without end: the
// others could not go on without it and give what a replay gives.
const patience = 10 * time.Second

// together keeps the lanes of a shared transform in step where the source ticks them.
//
// The first lane leads: its ticks are those of the transform, and what they give has
// its origin, so that a replay of the same partitions gives the same. A tick waits
// until every other lane has come to its time, and no lane goes beyond the time of a
// tick before the tick. So a tick finds the same input in a live run, however fast the
// one or the other lane was read, as in a replay.
type together struct {
	mu      sync.Mutex
	lanes   []*pace
	changed chan struct{} // closed when a lane has moved; nil: nobody waits
}

// pace is how far one lane has come.
type pace struct {
	*together
	reached time.Time // it wants to pass this time, or has
	passed  time.Time // and was ticked for this
	absent  bool      // was waited for in vain, and has not moved since
	busy    int       // calls that are in the flow: a sink may be away
}

// enter says that the lane has brought something, and is not idle until leave is
// called, however long the sink takes.
func (p *pace) enter() (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy++
	p.absent = false
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy--
	}
}

func (t *together) join() *pace {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &pace{together: t}
	t.lanes = append(t.lanes, p)
	return p
}

func (p *pace) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lanes = slices.DeleteFunc(p.lanes, func(o *pace) bool { return o == p })
	p.move()
}

// move tells the others.
func (t *together) move() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// pass says that the tick of that time is done.
func (p *pace) pass(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed = now
	p.move()
}

// reach waits until the lane may pass a time. leads says that it has to tick the
// transform then; left, how many lanes it does so without.
func (p *pace) reach(ctx, gone context.Context, now time.Time) (leads bool, left int, err error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.absent = false
	if now.After(p.reached) {
		p.reached = now
		p.move()
	}
	for {
		leads, waits := p.waitsFor(now)
		if len(waits) == 0 {
			return leads, left, stopped(ctx, gone)
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		late.Reset(patience)
		out := false
		select {
		case <-changed:
		case <-ctx.Done():
		case <-gone.Done():
		case <-late.C:
			out = true
		}
		p.mu.Lock()
		if err := stopped(ctx, gone); err != nil {
			return false, 0, err
		}
		if out {
			_, waits = p.waitsFor(now)
			for _, o := range waits {
				if o.busy == 0 {
					o.absent = true
					left++
				}
			}
			p.move()
		}
	}
}

// stopped says why nothing is to be ticked any more: while lanes are closed one after
// the other, those that are left have not got the whole input.
func stopped(ctx, gone context.Context) error {
	if gone.Err() != nil {
		return context.Cause(gone)
	}
	return context.Cause(ctx)
}

func (p *pace) leads() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.lanes, func(o *pace) bool { return !o.absent })
	return i >= 0 && p.lanes[i] == p
}

// waitsFor tells whether the lane leads, and what others it has to wait for.
func (p *pace) waitsFor(now time.Time) (leads bool, waits []*pace) {
	i := slices.IndexFunc(p.lanes, func(o *pace) bool { return !o.absent })
	if i < 0 {
		return false, nil
	}
	if first := p.lanes[i]; first != p {
		if !first.reached.After(now) && first.passed.Before(now) {
			waits = append(waits, first)
		}
		return false, waits
	}
	for _, o := range p.lanes[i+1:] {
		if !o.absent && o.reached.Before(now) {
			waits = append(waits, o)
		}
	}
	return true, waits
}
