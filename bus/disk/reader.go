package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/internal/deal"
	"github.com/kemi-go/kemi/bus/internal/recovery"
	"github.com/kemi-go/kemi/internal/origin"
)

// handOver is how long a Write may go on when its partition moves, before it is cut off
// and the next owner writes the batch again.
const handOver = time.Second

// reader is what goes by one name, a group or an All, with the position that outlives
// the process.
type reader struct {
	topic  *topic
	name   readerName
	counts recovery.Counts

	mu      sync.Mutex
	next    []int64 // by partition: the position kept; -1: none
	pools   []*pool // of a group one at most, of an All one for each Run
	damage  map[int32]error
	warned  time.Time
	leaving chan struct{} // closed when it is forgotten, or is to stay; nil: nobody wants to forget it
}

// pool is members that share the partitions. All is under the reader's lock.
type pool struct {
	reader  *reader
	members []*member
	owner   []*member // by partition: who is to read it
	lanes   []*lane   // by partition: who reads it, be it on its way out
}

// member is one Run.
type member struct {
	pool  *pool
	call  chan struct{} // holds a token: look at what is your own
	dirty atomic.Bool   // some lane has moved since its position was kept
	drift atomic.Bool   // some lane has, though over nothing but ticks that nobody hears

	// Under the reader's lock.
	stopping bool
	failed   []error // by partition: why it is not read any more
}

// lane is one partition read by one member: what of it does not depend on the type.
type lane struct {
	*member
	part  *part
	sleep doze
	gone  context.Context // done: the partition is another's
	evict context.CancelFunc

	begun atomic.Bool // progress may be asked
	from  interface {
		Position() (recovery.Position, []kemi.Kept)
	}
	saved recovery.Position // under the reader's lock, as is …
	held  map[string][]byte // what was asked for and could not be kept yet
}

func (t *topic) reader(n readerName) *reader {
	t.readersMu.Lock()
	defer t.readersMu.Unlock()
	r := t.readers[n]
	if r == nil {
		r = &reader{topic: t, name: n, next: make([]int64, len(t.parts)), damage: map[int32]error{}}
		for p := range r.next {
			r.next[p] = -1
		}
		t.readers[n] = r
	}
	return r
}

// loadReaders reads who has a position, and checks that it is one.
func (t *topic) loadReaders() error {
	return t.db.scan(partKey(kindPosition, t.id, 0)[:5], func(k, v []byte) error {
		pos, name, p, err := readPosition(k, v)
		if err != nil || int(p) >= len(t.parts) {
			return damaged(t.db.Dir, fmt.Errorf("topic %q: the position of %.100q in partition %d cannot be read: %w", t.name, name.name, p, cmp.Or(err, errValue)))
		}
		t.reader(name).next[p] = pos.Next
		return nil
	})
}

func readPosition(k, sealed []byte) (pos recovery.Position, name readerName, part int32, err error) {
	name, part, rest, ok := parseReaderKey(k)
	if !ok || len(rest) > 0 {
		return pos, name, part, errors.New("the key is not that of a position")
	}
	v, err := unseal(k, sealed)
	if err == nil {
		err = pos.UnmarshalBinary(v)
	}
	return pos, name, part, err
}

// load returns the position of a partition and what is kept with it.
func (r *reader) load(p *part) (*recovery.Position, []kemi.Kept, error) {
	d := r.topic.db
	if err := d.enter(); err != nil {
		return nil, nil, err
	}
	defer d.gate.RUnlock()
	key := readerPartKey(kindPosition, r.topic.id, r.name, p.number)
	v, err := d.get(key)
	if err != nil || v == nil {
		return nil, nil, err
	}
	pos, _, _, err := readPosition(key, v)
	if err != nil {
		return nil, nil, err
	}
	var kept []kemi.Kept
	prefix := readerPartKey(kindKept, r.topic.id, r.name, p.number)
	err = d.scan(prefix, func(k, v []byte) error {
		text, err := unseal(k, v)
		if err != nil {
			return fmt.Errorf("what is kept as %.100q: %w", k[len(prefix):], err)
		}
		kept = append(kept, kemi.Kept{Key: string(k[len(prefix):]), Value: slices.Clone(text)})
		return nil
	})
	return &pos, kept, err
}

// join makes a member of a Run. While the reader is being forgotten it waits, and begins
// then with a new one.
func (t *topic) join(n readerName) *member {
	for {
		m, wait := t.reader(n).join()
		if m != nil {
			return m
		}
		<-wait
	}
}

func (r *reader) join() (_ *member, wait <-chan struct{}) {
	d, n := r.topic.db, len(r.topic.parts)
	d.runsMu.Lock() // before the reader's lock, as the committer takes them
	defer d.runsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leaving != nil {
		return nil, r.leaving
	}
	if len(r.pools) == 0 || r.name.all {
		r.pools = append(r.pools, &pool{reader: r, owner: make([]*member, n), lanes: make([]*lane, n)})
	}
	m := &member{pool: r.pools[len(r.pools)-1], call: make(chan struct{}, 1), failed: make([]error, n)}
	m.pool.members = append(m.pool.members, m)
	m.pool.deal()
	d.runs[m] = struct{}{}
	return m, nil
}

func (m *member) leave() {
	r := m.pool.reader
	d := r.topic.db
	d.runsMu.Lock()
	delete(d.runs, m)
	d.runsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	m.pool.members = slices.DeleteFunc(m.pool.members, func(x *member) bool { return x == m })
	m.pool.deal()
	if len(m.pool.members) == 0 {
		r.pools = slices.DeleteFunc(r.pools, func(p *pool) bool { return p == m.pool })
	}
}

// deal gives every partition to a member that is to stay.
func (p *pool) deal() {
	deal.Out(p.owner, slices.DeleteFunc(slices.Clone(p.members), func(m *member) bool { return m.stopping }))
	p.callMembers()
}

func (p *pool) callMembers() {
	for _, m := range p.members {
		select {
		case m.call <- struct{}{}:
		default: // is called already
		}
	}
}

// stop gives the partitions to the others. Writes under way are finished, or with cut
// cut off after a while.
func (m *member) stop(cut bool) {
	m.pool.reader.mu.Lock()
	defer m.pool.reader.mu.Unlock()
	m.stopping = true
	m.pool.deal()
	for _, l := range m.pool.lanes {
		if cut && l != nil && l.member == m {
			l.evict()
		}
	}
}

// mine makes lanes for the partitions that have become the member's, and tells those to
// end that no longer are. busy is false when there is nothing left to do.
func (m *member) mine() (opened []*lane, busy bool) {
	r := m.pool.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	busy = !m.stopping
	for p, owner := range m.pool.owner {
		l := m.pool.lanes[p]
		switch {
		case l != nil && l.member == m:
			busy = true
			if owner != m && !m.stopping {
				l.evict()
			}
		case owner != m || l != nil || m.failed[p] != nil:
		default:
			l = &lane{member: m, part: r.topic.parts[p], sleep: doze{make(chan struct{}, 1)}}
			l.gone, l.evict = context.WithCancel(context.Background())
			m.pool.lanes[p] = l
			delete(r.damage, l.part.number)
			opened = append(opened, l)
		}
	}
	return opened, busy
}

// end takes a lane off when what it has come to is kept, and closed it.
func (l *lane) end(err error, closeLane func()) {
	r := l.pool.reader
	d := r.topic.db
	if l.begun.Load() {
		l.dirty.Store(true)
		_ = d.wait(&request{keep: true}) // fails when the DB is closed: it comes again then
	}
	closeLane()
	r.mu.Lock()
	defer r.mu.Unlock()
	l.evict()
	if err != nil {
		l.failed[l.part.number] = err
		r.damage[l.part.number] = err
	}
	l.pool.lanes[l.part.number] = nil
	l.pool.callMembers()
}

func (m *member) result() error {
	m.pool.reader.mu.Lock()
	defer m.pool.reader.mu.Unlock()
	return errors.Join(m.failed...)
}

// keepPositions puts into b how far the readers have come. What has only drifted is not
// worth a sync: it rides along with something else.
func (d *DB) keepPositions(b *pebble.Batch) {
	rides := !b.Empty()
	d.runsMu.Lock()
	defer d.runsMu.Unlock()
	for m := range d.runs {
		if moved := m.dirty.Swap(false); moved || rides && m.drift.Load() {
			m.drift.Store(false)
			m.keep(b)
		}
	}
}

// keep asks the lane of partition 0 last: where state is shared, it tells of it.
func (m *member) keep(b *pebble.Batch) {
	r := m.pool.reader
	r.mu.Lock()
	defer r.mu.Unlock()
	type moved struct {
		*lane
		pos recovery.Position
	}
	var all []moved
	behind := false
	for p := len(m.pool.lanes) - 1; p >= 0; p-- {
		l := m.pool.lanes[p]
		if l == nil || l.member != m || !l.begun.Load() {
			continue
		}
		pos, kept := l.from.Position()
		for _, e := range kept {
			if l.held == nil {
				l.held = map[string][]byte{}
			}
			l.held[e.Key] = e.Value
		}
		if len(l.held) > 0 || pos.Next != l.saved.Next || pos.Rewind != l.saved.Rewind || !pos.Clock.Equal(l.saved.Clock) || pos.Proof != l.saved.Proof {
			all = append(all, moved{l, pos})
		}
		behind = behind || pos.Next < r.next[p]
	}
	// Of several Runs of an All the oldest keeps the position. When it has gone, the next
	// does so as soon as it has come as far.
	if r.name.all && (m.pool != r.pools[0] || behind) {
		return
	}
	for _, l := range all {
		p := l.part.number
		for name, value := range l.held {
			key := append(readerPartKey(kindKept, r.topic.id, r.name, p), name...)
			if value == nil {
				_ = b.Delete(key, nil)
			} else {
				_ = b.Set(key, seal(key, value), nil)
			}
		}
		key := readerPartKey(kindPosition, r.topic.id, r.name, p)
		_ = b.Set(key, seal(key, l.pos.AppendBinary(nil)), nil)
		l.held, l.saved = nil, l.pos
		r.next[p] = l.pos.Next
	}
}

// Forget drops the position of a name, that of a group and that of an All, what was kept
// with it, and what the topics of the DB know of its output: who reads by that name again
// begins with the oldest record, and all that is made of it is written. It is an error
// while a source of that name runs.
func (t *Topic[T]) Forget(name string) error {
	for _, n := range []readerName{{name, false}, {name, true}} {
		if err := t.reader(n).forget(); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) forget() error {
	t, d := r.topic, r.topic.db
	r.mu.Lock()
	if len(r.pools) > 0 || r.leaving != nil {
		r.mu.Unlock()
		return fmt.Errorf("disk: topic %q: %q still runs, or is being forgotten: stop it, then forget it", t.name, r.name.name)
	}
	leaving := make(chan struct{})
	r.leaving = leaving
	r.mu.Unlock()
	defer close(leaving)
	keys, err := r.keys()
	if err == nil {
		d.mu.Lock()
		topics := slices.Collect(maps.Values(d.topics))
		d.mu.Unlock()
		err = d.wait(&request{write: func(b *pebble.Batch) {
			for _, k := range keys {
				_ = b.Delete(k, nil)
			}
			for _, o := range topics {
				o.forget(b, origin.ReaderOf(t.log(), r.name.name, r.name.all))
			}
		}})
	}
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leaving = nil
		return err
	}
	t.readersMu.Lock()
	defer t.readersMu.Unlock()
	delete(t.readers, r.name)
	return nil
}

// forget drops the marks of a reader; it is for the committer.
func (t *topic) forget(b *pebble.Batch, reader string) {
	for s := range t.marks {
		if s.Reader == reader || strings.HasPrefix(s.Reader, reader+"@") {
			_ = b.Delete(markKey(t.id, s.Partition, s.Reader), nil)
			delete(t.marks, s)
		}
	}
}

// keys returns those of all that is kept of a reader. They are removed one by one, as
// Repair knows nothing of removed ranges.
func (r *reader) keys() (keys [][]byte, err error) {
	d := r.topic.db
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.gate.RUnlock()
	for _, kind := range []byte{kindPosition, kindKept} {
		err = errors.Join(err, d.scan(readerKey(kind, r.topic.id, r.name), func(k, _ []byte) error {
			keys = append(keys, slices.Clone(k))
			return nil
		}))
	}
	return keys, err
}

// warnSlow tells of readers that are about to lose what they have not read. before is
// the time of the oldest record that is safe from that for a while.
func (r *reader) warnSlow(now time.Time, left func(p int32, next int64) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pools) == 0 || now.Sub(r.warned) < time.Minute {
		return
	}
	for p, next := range r.next {
		if next >= 0 && left(int32(p), next) {
			r.warned = now
			r.topic.db.log.Warn("disk: a reader is so far behind that it is about to lose records: retention removes them when they are as old as TopicConfig.Retain says",
				zap.String("topic", r.topic.name), zap.String("reader", r.name.name), zap.Int("partition", p), zap.Int64("offset", next))
			return
		}
	}
}
