// Package memory has topics that live and die with the process: for hand-over
// between the flows of one program, for tests and for examples.
//
// A topic in memory behaves as the durable ones do, keys, groups, positions and
// warm-up included, with two differences. It is bounded: Write blocks while the
// slowest reader is Capacity records behind. And since what it holds is lost with
// the process, a reader that is asked to stop first hands over what waits.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

const (
	defaultPartitions = 8
	defaultCapacity   = 1 << 16
)

// Config describes a topic. The zero value is usable for a type that is
// [bus.Keyed].
type Config[T any] struct {
	// Partitions is the number of lanes that a reader has. The default is 8: enough
	// to keep the cores of a small machine busy while some lanes wait for a network,
	// and the same on every machine. Where a key lies is said by [bus.PartitionOf], as
	// on Kafka.
	Partitions int
	// Key is the partition key. The default is [bus.KeyOf], which is nil for a type
	// that is not Keyed: then all records are of one key.
	Key bus.Key[T]
	// Capacity is in records. Write blocks while the slowest reader is that many
	// behind; one batch may go beyond it. The default is 65,536.
	Capacity int
	// Retain keeps records that every reader has passed, to warm up a lane whose
	// transform has a horizon when its partition moves or a pipeline is replaced. It is
	// counted back from the newest record that all have passed, in each partition, by
	// the times of the Writes. The default is to keep nothing. What is retained comes
	// on top of Capacity.
	Retain time.Duration
}

// Topic is a [bus.Topic] in memory. Make one with [NewTopic]. All methods may be
// called by many goroutines. There is nothing to close: a topic runs no goroutine
// of its own.
type Topic[T any] struct {
	name     string
	capacity int
	retain   time.Duration
	splits   sync.Pool // of *bus.Splitter[T]

	mu      sync.Mutex
	parts   []log[T]
	names   map[name]*position[T]
	places  []*position[T] // those of names, and one for each Run of an All
	space   chan struct{}  // closed when there may be room again; nil: nobody waits
	blocked int
	held    int
	written uint64
	dropped uint64
}

// name is what a position goes by.
type name struct {
	name string
	all  bool
}

var (
	_ bus.Topic[int] = (*Topic[int])(nil)
	_ kemi.Shared    = group[int]{}
)

// NewTopic returns an empty topic. The name is for logs and drawings; two topics of
// one name are two topics.
func NewTopic[T any](topic string, c Config[T]) (*Topic[T], error) {
	switch {
	case topic == "":
		return nil, errors.New("memory: a topic needs a name")
	case c.Partitions < 0:
		return nil, fmt.Errorf("memory: topic %q: %d partitions: give 0, which stands for %d, or more", topic, c.Partitions, defaultPartitions)
	case c.Capacity < 0:
		return nil, fmt.Errorf("memory: topic %q: a capacity of %d records: give 0, which stands for %d, or more", topic, c.Capacity, defaultCapacity)
	case c.Retain < 0:
		return nil, fmt.Errorf("memory: topic %q: records retained for %v: give 0, which keeps nothing, or more", topic, c.Retain)
	}
	key := c.Key
	if key == nil {
		key = bus.KeyOf[T]()
	}
	return &Topic[T]{
		name:     topic,
		capacity: cmp.Or(c.Capacity, defaultCapacity),
		retain:   c.Retain,
		splits:   sync.Pool{New: func() any { return bus.NewSplitter(key) }},
		parts:    make([]log[T], cmp.Or(c.Partitions, defaultPartitions)),
		names:    map[name]*position[T]{},
	}, nil
}

// String returns the name in brackets, which is how diagrams draw a topic.
func (t *Topic[T]) String() string { return "[" + t.name + "]" }

// Write puts a copy of batch on the topic: all of it, or with an error nothing.
//
// It blocks while the slowest reader is Capacity records behind, until there is
// room or ctx is done. A topic that nobody reads keeps at most Capacity records and
// at least the newest batch of a key; it drops the oldest, and [Stats] counts them.
func (t *Topic[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	s := t.splits.Get().(*bus.Splitter[T])
	defer t.splits.Put(s)
	parts := s.Split(batch)

	t.mu.Lock()
	defer t.mu.Unlock()
	for slow := t.behind(); slow != nil; slow = t.behind() {
		if err := t.wait(ctx, slow); err != nil {
			return err
		}
	}
	var at time.Time
	if t.retain > 0 {
		at = time.Now() // under the lock, so that times are in order
	}
	for _, part := range parts {
		p := bus.PartitionOf(part.Key, len(t.parts))
		t.parts[p].append(unit[T]{records: part.Records, seq: t.written, time: at})
		t.written += uint64(len(part.Records))
		for _, pos := range t.places {
			pos.waiting += len(part.Records)
			if l := pos.lanes[p]; l != nil {
				l.rouse()
			}
		}
	}
	t.held += len(batch)
	if len(t.places) == 0 {
		t.dropOldest()
	}
	return nil
}

// behind returns a reader for which there is no room.
func (t *Topic[T]) behind() *position[T] {
	for _, pos := range t.places {
		if pos.waiting >= t.capacity {
			return pos
		}
	}
	return nil
}

// wait gives up the lock until there may be room.
func (t *Topic[T]) wait(ctx context.Context, slow *position[T]) error {
	if t.space == nil {
		t.space = make(chan struct{})
	}
	space, waiting := t.space, slow.waiting
	t.blocked++
	t.mu.Unlock()
	var err error
	select {
	case <-space:
	case <-ctx.Done():
		err = fmt.Errorf("memory: topic %v is full: %d records wait for %q: %w", t, waiting, slow.name.name, context.Cause(ctx))
	}
	t.mu.Lock()
	t.blocked--
	return err
}

// roomy wakes the writers that wait, if there is room.
func (t *Topic[T]) roomy() {
	if t.space != nil && t.behind() == nil {
		close(t.space)
		t.space = nil
	}
}

// dropOldest makes room where nobody reads.
func (t *Topic[T]) dropOldest() {
	for t.held > t.capacity {
		var oldest *log[T]
		for p := range t.parts {
			if l := &t.parts[p]; l.len() > 0 && (oldest == nil || l.at(l.first).seq < oldest.at(oldest.first).seq) {
				oldest = l
			}
		}
		if len(oldest.at(oldest.first).records) == t.held {
			return // the newest batch of a key stays, however large
		}
		n := oldest.drop()
		t.held -= n
		t.dropped += uint64(n)
	}
}

// Group returns a source that shares the topic with the others of that name. From
// this call on, and until [Topic.Forget], the topic keeps what the name has not read,
// and Write blocks when that is Capacity records: a pipeline that is being started
// loses nothing, and a name that will not be read again has to be forgotten.
func (t *Topic[T]) Group(group string) kemi.Source[T] { return newGroup(t, group) }

// All returns a source of every partition. The name counts as that of a Group does.
func (t *Topic[T]) All(all string) kemi.Source[T] { return newAll(t, all) }

// Forget drops the positions of a name, that of a group and that of an All, and with
// them the claim to the records they have not read. It is an error while a source of
// that name runs.
func (t *Topic[T]) Forget(reader string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pos := range t.places {
		if pos.name.name == reader && len(pos.members) > 0 {
			return fmt.Errorf("memory: topic %v: %q still runs: stop it, then forget it", t, reader)
		}
	}
	for _, all := range []bool{false, true} {
		if pos := t.names[name{reader, all}]; pos != nil {
			delete(t.names, pos.name)
			t.abandon(pos)
		}
	}
	return nil
}

// abandon takes a position off the topic.
func (t *Topic[T]) abandon(pos *position[T]) {
	t.places = slices.DeleteFunc(t.places, func(x *position[T]) bool { return x == pos })
	for p := range t.parts {
		t.trim(p)
	}
	t.roomy()
}

// Stats says how far a topic and its readers have come. Counts are records.
type Stats struct {
	Written uint64 // since the topic was made
	Dropped uint64 // of Written: nobody read the topic, and it was full
	Held    int    // in memory: waiting for a reader, or retained
	Blocked int    // Writes that wait for room now
	Readers []Lag  // by name, groups before Alls
}

// Lag is how far the readers of one name are behind.
type Lag struct {
	Name    string
	All     bool // or else a Group
	Running int  // sources of that name that run now
	Waiting int  // records; with several Runs of an All, of the one that is furthest behind
}

// Stats may be called at any time.
func (t *Topic[T]) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Written: t.written, Dropped: t.dropped, Held: t.held, Blocked: t.blocked}
	at := map[name]int{}
	for _, pos := range t.places {
		i, ok := at[pos.name]
		if !ok {
			i = len(s.Readers)
			at[pos.name] = i
			s.Readers = append(s.Readers, Lag{Name: pos.name.name, All: pos.name.all})
		}
		l := &s.Readers[i]
		l.Running += len(pos.members)
		l.Waiting = max(l.Waiting, pos.waiting)
	}
	slices.SortFunc(s.Readers, func(a, b Lag) int {
		switch {
		case a.All == b.All:
			return cmp.Compare(a.Name, b.Name)
		case b.All:
			return -1
		}
		return 1
	})
	return s
}
