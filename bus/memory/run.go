package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/kemi-go/kemi"
)

const (
	// handOver is how long a Write may go on when its partition moves, before it is
	// cut off and the next owner writes the batch again.
	handOver = time.Second
	// A refused batch comes again after a time at random below a bound that doubles.
	// (A flow tries again by itself and hands an error back only when it is over.)
	againMin, againMax = 10 * time.Millisecond, time.Second
)

type source[T any] struct {
	topic *Topic[T]
	name  name
}

// group and all differ in that only a group is kemi.Shared.
type (
	group[T any] struct{ source[T] }
	all[T any]   struct{ source[T] }
)

func newGroup[T any](t *Topic[T], reader string) group[T] {
	return group[T]{register(t, name{reader, false})}
}

func newAll[T any](t *Topic[T], reader string) all[T] {
	return all[T]{register(t, name{reader, true})}
}

func register[T any](t *Topic[T], n name) source[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.position(n)
	return source[T]{t, n}
}

// Shares says that members of a group share the topic.
func (group[T]) Shares() bool { return true }

// String is that of the topic.
func (s source[T]) String() string { return s.topic.String() }

// Run reads until ctx is done, and then what was on the topic at that moment: other
// members of the group take it over, or else it is read to its end. Then it returns
// nil. If out refuses a record after ctx is done, the partition is left there, the
// record waits for the next Run of the name, and Run returns the error.
func (s source[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	m := s.topic.join(s.name)
	defer m.leave()
	asked := ctx.Done()
	for {
		if asked != nil && ctx.Err() != nil {
			asked = nil
			m.stop()
		}
		if !m.tend(ctx, out) {
			return m.result()
		}
		select {
		case <-m.call:
		case <-asked:
		}
	}
}

// member is one Run. The first three fields do not change, the others are under the
// topic's lock.
type member[T any] struct {
	topic *Topic[T]
	pos   *position[T]
	call  chan struct{} // holds a token: look at what is your own

	until   []int64 // by partition: the end of the topic when the member was asked to stop; nil: it was not
	refused []bool  // by partition: given up after that
	err     error   // why
}

// lane is one partition read by one member. Its state is under the topic's lock.
type lane[T any] struct {
	*member[T]
	p      int
	gone   context.Context // done: the partition is another's
	evict  context.CancelFunc
	asleep bool
	wake   chan struct{} // holds a token when asleep has become false
}

func (t *Topic[T]) join(n name) *member[T] {
	t.mu.Lock()
	defer t.mu.Unlock()
	pos := t.position(n)
	if n.all {
		own := t.place(n)
		copy(own.next, pos.next)
		own.waiting, own.kept = pos.waiting, pos
		pos = own
	}
	m := &member[T]{topic: t, pos: pos, call: make(chan struct{}, 1), refused: make([]bool, len(t.parts))}
	pos.members = append(pos.members, m)
	pos.deal()
	return m
}

func (m *member[T]) leave() {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	m.pos.members = slices.DeleteFunc(m.pos.members, func(x *member[T]) bool { return x == m })
	m.pos.deal()
	if m.pos.kept != nil {
		m.topic.abandon(m.pos)
	}
}

// stop makes of a member that reads on one that reads to the end. That end is fixed:
// a topic that others still write to must not keep its reader for ever.
func (m *member[T]) stop() {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	m.until = make([]int64, len(m.topic.parts))
	for p := range m.until {
		m.until[p] = m.topic.parts[p].end()
		if l := m.pos.lanes[p]; l != nil && l.member == m {
			l.rouse()
		}
	}
	m.pos.deal()
}

// done tells whether the member has nothing more to read of a partition.
func (m *member[T]) done(p int) bool {
	return m.until != nil && (m.refused[p] || m.pos.next[p] >= m.until[p])
}

// tend opens lanes for the partitions that have become the member's and tells those
// to end that no longer are. It returns false when there is nothing left to do.
func (m *member[T]) tend(ctx context.Context, out kemi.Sink[T]) bool {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	busy := m.until == nil
	for p, owner := range m.pos.owner {
		l := m.pos.lanes[p]
		switch {
		case l != nil && l.member == m:
			busy = true
			if owner != m {
				l.evict()
				l.rouse()
			}
		case owner != m || m.done(p):
		case l != nil: // its last owner is on the way out, and will call
			busy = true
		default:
			busy = true
			l = &lane[T]{member: m, p: p, wake: make(chan struct{}, 1)}
			l.gone, l.evict = context.WithCancel(context.Background())
			m.pos.lanes[p] = l
			go l.run(ctx, out)
		}
	}
	return busy
}

func (m *member[T]) result() error {
	m.topic.mu.Lock()
	defer m.topic.mu.Unlock()
	if m.err == nil {
		return nil
	}
	return fmt.Errorf("memory: topic %v: %q stopped with %d records unread: %w", m.topic, m.pos.name.name, m.pos.waiting, m.err)
}

// run reads the partition until it is another's, or read to the end after a stop.
func (l *lane[T]) run(ctx context.Context, out kemi.Sink[T]) {
	to := kemi.OpenLane(out, l.topic.name+"/"+strconv.Itoa(l.p))
	write, cut := context.WithCancel(ctx)
	ended := make(chan struct{})
	release := context.AfterFunc(l.gone, func() {
		t := time.NewTimer(handOver)
		defer t.Stop()
		select {
		case <-t.C:
			cut()
			_ = to.Close() // cancels a Write under way; it never fails
		case <-ended:
		}
	})

	err := l.read(ctx, write, to)
	release()
	close(ended)
	cut()
	_ = to.Close()

	l.topic.mu.Lock()
	defer l.topic.mu.Unlock()
	if err != nil && l.gone.Err() == nil {
		l.refused[l.p], l.err = true, err
	}
	l.evict()
	l.pos.lanes[l.p] = nil
	l.pos.callMembers()
}

// read returns an error if a batch was given up: after a stop, or when the partition
// has become another's.
func (l *lane[T]) read(ctx, write context.Context, to kemi.Lane[T]) error {
	if err := l.warm(ctx, write, to); err != nil {
		return err
	}
	passed := int64(-1)
	for {
		batch, next := l.next(passed)
		if batch == nil {
			return nil
		}
		if err := l.deliver(ctx, write, to, batch); err != nil {
			return err
		}
		passed = next
	}
}

// next passes what was delivered and waits for more. It returns nil if the lane is
// to end.
func (l *lane[T]) next(passed int64) (batch []T, next int64) {
	t := l.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if passed >= 0 {
		t.pass(l.pos, l.p, passed)
	}
	for l.gone.Err() == nil && !l.done(l.p) {
		part := &t.parts[l.p]
		if from := l.pos.next[l.p]; from < part.end() {
			return part.read(from, part.end())
		}
		l.asleep = true
		t.mu.Unlock()
		<-l.wake
		t.mu.Lock()
	}
	return nil, 0
}

// rouse wakes the lane if it waits for records.
func (l *lane[T]) rouse() {
	if l.asleep {
		l.asleep = false
		l.wake <- struct{}{}
	}
}

// deliver writes until it is done, or over.
func (l *lane[T]) deliver(ctx, write context.Context, to kemi.Lane[T], batch []T) error {
	for bound := againMin; ; bound = min(2*bound, againMax) {
		err := to.Write(write, batch)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || l.gone.Err() != nil {
			return err
		}
		t := time.NewTimer(rand.N(bound))
		select {
		case <-t.C:
		case <-ctx.Done(): // once more, and then never again
		case <-l.gone.Done():
			t.Stop()
			return err
		}
		t.Stop()
	}
}

// warm feeds the state with what it depends on of the input before the position.
func (l *lane[T]) warm(ctx, write context.Context, to kemi.Lane[T]) error {
	horizon := to.Horizon()
	if horizon <= 0 || l.topic.retain == 0 {
		return nil
	}
	from, end := l.rewind(horizon)
	if from == end {
		return nil
	}
	to.Mute(true)
	defer to.Mute(false)
	for from < end {
		var batch []T
		batch, from = l.again(from, end)
		if err := l.deliver(ctx, write, to, batch); err != nil {
			return err
		}
	}
	return nil
}

// rewind returns where to start again for a horizon, and the position.
func (l *lane[T]) rewind(horizon time.Duration) (from, end int64) {
	l.topic.mu.Lock()
	defer l.topic.mu.Unlock()
	part := &l.topic.parts[l.p]
	end = l.pos.next[l.p]
	if end == part.first {
		return end, end
	}
	return part.since(part.at(end-1).time.Add(-horizon), end), end
}

// again reads from below the position. What the topic has dropped meanwhile, because
// its slowest reader went on, is left out.
func (l *lane[T]) again(from, end int64) ([]T, int64) {
	l.topic.mu.Lock()
	defer l.topic.mu.Unlock()
	part := &l.topic.parts[l.p]
	if from = max(from, part.first); from >= end {
		return nil, end
	}
	return part.read(from, end)
}
