package disk

import (
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"
)

// retention removes what is too old, and of the topics with a bound what is too much.
func (d *DB) retention() {
	for _, t := range d.all() {
		at, _ := d.clock.now()
		now := clockOf(at)
		// Removing a little of each partition each second would leave the engine with
		// many small holes, so some more is kept.
		slack := min(t.retain/20, time.Minute)
		if err := t.removeBefore(now.Add(-t.retain), slack); err != nil {
			d.log.Error("disk: what is too old cannot be removed", zap.String("topic", t.name), zap.Error(err))
		}
		if err := t.bound(); err != nil {
			d.log.Error("disk: what is too much cannot be removed", zap.String("topic", t.name), zap.Error(err))
		}
		t.warnSlow(now)
	}
}

// cut is where a partition is to begin.
type cut struct {
	*part
	first int64
	base  uint64
	time  int64 // of the record at first; 0: there is none
}

// removeBefore removes records from before a time from all partitions where the oldest
// is older than that by slack.
func (t *topic) removeBefore(limit time.Time, slack time.Duration) error {
	var cuts []cut
	for _, p := range t.parts {
		if oldest := p.oldest(); oldest != 0 && oldest < limit.Add(-slack).UnixNano() {
			c, err := p.since(limit.UnixNano())
			if err != nil {
				return err
			}
			cuts = append(cuts, c)
		}
	}
	return t.remove(cuts)
}

// oldest returns the time of the oldest record, 0 if there is none or it is not known.
func (p *part) oldest() int64 {
	p.mu.Lock()
	first, end, at := p.first, p.end, p.begun
	p.mu.Unlock()
	if first >= end {
		return 0
	}
	if at == 0 {
		if c, err := p.since(0); err == nil {
			at = c.time
			p.mu.Lock()
			p.begun = at
			p.mu.Unlock()
		}
	}
	return at
}

// since returns where the records of a time and later begin.
func (p *part) since(at int64) (cut, error) {
	p.mu.Lock()
	first, end, size, last := p.first, p.end, p.size, p.last
	p.mu.Unlock()
	none := cut{p, end, size, 0}
	it, err := p.topic.db.engine.NewIter(&pebble.IterOptions{
		LowerBound: offsetKey(kindRecord, p.topic.id, p.number, first), UpperBound: offsetKey(kindRecord, p.topic.id, p.number, end),
	})
	if err != nil {
		return none, err
	}
	defer func() { _ = it.Close() }()
	if last < at {
		return none, nil
	}
	// What cannot be read is as old as what comes next and can be: it is not to keep all
	// that comes after it for ever.
	readable := func(i int) (s stored, ok bool) {
		for step := 1; i < int(end-first); i, step = i+step, 2*step {
			if !it.SeekGE(offsetKey(kindRecord, p.topic.id, p.number, first+int64(i))) {
				continue // damage, if not the end
			}
			if s, err := parse(it.Key(), it.Value()); err == nil {
				return s, true
			}
		}
		return s, false
	}
	n := sort.Search(int(end-first), func(i int) bool {
		s, ok := readable(i)
		return !ok || s.time >= at
	})
	from := first + int64(n)
	s, ok := readable(n)
	if !ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		return cut{p, from, p.base, p.begun}, it.Error()
	}
	if it.SeekGE(offsetKey(kindRecord, p.topic.id, p.number, from)) {
		_, _, from, _ = parseOffsetKey(it.Key()) // there is a hole up to here
	}
	return cut{p, from, s.end - min(s.end, uint64(s.size)), s.time}, nil
}

// bound removes the oldest records of a topic that has more bytes than it may.
func (t *topic) bound() error {
	if t.retainBytes == 0 || t.bytes() <= t.retainBytes {
		return nil
	}
	// The oldest goes first, so what is looked for is a time.
	from, to := int64(0), t.db.clock.last()
	for _, p := range t.parts {
		if at := p.oldest(); at != 0 && (from == 0 || at < from) {
			from = at
		}
	}
	var cuts []cut
	goal := t.retainBytes - t.retainBytes/20
	for range 40 {
		at := from + (to-from)/2
		var kept int64
		cuts = cuts[:0]
		for _, p := range t.parts {
			c, err := p.since(at)
			if err != nil {
				return err
			}
			cuts = append(cuts, c)
			p.mu.Lock()
			kept += int64(p.size - min(c.base, p.size))
			p.mu.Unlock()
		}
		if kept > goal {
			from = at
		} else if to = at; kept > goal-goal/20 {
			break
		}
		if to-from < int64(time.Millisecond) {
			break
		}
	}
	return t.remove(cuts)
}

// bytes is how much is kept.
func (t *topic) bytes() (n int64) {
	for _, p := range t.parts {
		p.mu.Lock()
		n += int64(p.size - min(p.base, p.size))
		p.mu.Unlock()
	}
	return n
}

// remove makes partitions begin where cuts say.
func (t *topic) remove(cuts []cut) error {
	type gone struct {
		*part
		from, to int64
	}
	var all []gone
	for _, c := range cuts {
		c.mu.Lock()
		if c.first > c.part.first {
			all = append(all, gone{c.part, c.part.first, c.first})
			// Readers are told before it is so: they never look for what is not there.
			c.part.first, c.part.base, c.part.begun = c.first, c.base, c.time
		}
		c.mu.Unlock()
	}
	if len(all) == 0 {
		return nil
	}
	return t.db.wait(&request{write: func(b *pebble.Batch) {
		for _, g := range all {
			_ = b.DeleteRange(offsetKey(kindRecord, t.id, g.number, g.from), offsetKey(kindRecord, t.id, g.number, g.to), nil)
			g.setBounds(b, g.to)
		}
	}})
}

// setBounds is for the committer.
func (p *part) setBounds(b *pebble.Batch, first int64) {
	key := partKey(kindBounds, p.topic.id, p.number)
	bounds := bounds{uint64(first), uint64(p.next), p.written, uint64(p.time), p.count}
	_ = b.Set(key, bounds.seal(key), nil)
}

// warnSlow tells of readers that are about to lose records.
func (t *topic) warnSlow(now time.Time) {
	t.readersMu.Lock()
	readers := make([]*reader, 0, len(t.readers))
	for _, r := range t.readers {
		readers = append(readers, r)
	}
	t.readersMu.Unlock()
	soon := now.Add(-t.retain + t.retain/5).UnixNano()
	for _, r := range readers {
		r.warnSlow(now, func(n int32, next int64) bool {
			p := t.parts[n]
			p.mu.Lock()
			first, end, begun := p.first, p.end, p.begun
			p.mu.Unlock()
			if next >= end || begun == 0 || begun > soon {
				return false // it has read all, or nothing is that old
			}
			if next < first {
				return true
			}
			c, err := p.since(soon)
			return err == nil && c.first > next
		})
	}
}
