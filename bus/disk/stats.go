package disk

import (
	"cmp"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Stats says how a DB is. Counts are since Open.
type Stats struct {
	Guard  Guard
	Topics []TopicStats // by name
}

// TopicStats says how far a topic and its readers have come.
type TopicStats struct {
	Name       string
	Written    uint64 // records
	Duplicates uint64 // records left out because they were there already
	Refused    uint64 // Writes, because the disk was nearly full
	Bytes      int64  // on disk, before what the engine adds
	Partitions []PartitionStats
	Readers    []ReaderStats // by name, groups before Alls
}

// PartitionStats says what there is of one partition. Offsets count what was written
// together, and ticks.
type PartitionStats struct {
	First, End int64 // offsets from First to before End can be read
	Bytes      int64
	Newest     time.Time // zero: nothing was ever written
}

// ReaderStats says how far the readers of one name have come.
type ReaderStats struct {
	Name    string
	All     bool  // or else a Group
	Running int   // sources of that name that run now
	Lag     int64 // records between its position and the ends, ticks left out

	Refused    uint64 // records that no codec could read; they are in the dead letters
	Replayed   uint64 // records fed again, muted
	Rewinds    uint64 // replays
	Proved     uint64 // of those: the state was what it had been
	Mismatched uint64 // it was not
	Shortened  uint64 // there was less input than the state depended on
	Lost       uint64 // offsets that were gone before they were read

	Damage map[int32]error // partitions where it has stopped, until a repair
}

// Stats may be called at any time.
func (d *DB) Stats() Stats {
	s := Stats{Guard: Guard{Full: d.guard.state.Load() != roomy, Free: d.guard.free.Load(), Least: d.guard.least.Load()}}
	for _, t := range d.all() {
		ts := t.stats()
		s.Guard.Refused += ts.Refused
		s.Topics = append(s.Topics, ts)
	}
	slices.SortFunc(s.Topics, func(a, b TopicStats) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// Stats may be called at any time.
func (t *Topic[T]) Stats() TopicStats { return t.stats() }

func (t *topic) stats() TopicStats {
	s := TopicStats{Name: t.name, Written: t.appended.Load(), Duplicates: t.duplicates.Load(), Refused: t.refused.Load()}
	for _, p := range t.parts {
		p.mu.Lock()
		ps := PartitionStats{First: p.first, End: p.end, Bytes: int64(p.size - min(p.base, p.size))}
		if p.last != 0 {
			ps.Newest = clockOf(p.last)
		}
		p.mu.Unlock()
		s.Bytes += ps.Bytes
		s.Partitions = append(s.Partitions, ps)
	}
	t.readersMu.Lock()
	readers := make([]*reader, 0, len(t.readers))
	for _, r := range t.readers {
		readers = append(readers, r)
	}
	t.readersMu.Unlock()
	for _, r := range readers {
		s.Readers = append(s.Readers, r.stats())
	}
	slices.SortFunc(s.Readers, func(a, b ReaderStats) int {
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

func (r *reader) stats() ReaderStats {
	c := &r.counts
	s := ReaderStats{
		Name: r.name.name, All: r.name.all,
		Refused: c.Refused.Load(), Replayed: c.Replayed.Load(), Rewinds: c.Rewinds.Load(), Proved: c.Proved.Load(),
		Mismatched: c.Mismatched.Load(), Shortened: c.Shortened.Load(), Lost: c.Lost.Load(),
		Damage: map[int32]error{},
	}
	r.mu.Lock()
	for _, p := range r.pools {
		s.Running += len(p.members)
	}
	for p, err := range r.damage {
		s.Damage[p] = err
	}
	next := slices.Clone(r.next)
	r.mu.Unlock()
	for p, at := range next {
		s.Lag += r.topic.parts[p].behind(at)
	}
	return s
}

// behind counts the records from an offset on, and no ticks.
func (p *part) behind(from int64) int64 {
	p.mu.Lock()
	first, end, counted := p.first, p.end, p.counted
	p.mu.Unlock()
	if from = max(from, first); from >= end {
		return 0
	}
	d := p.topic.db
	if d.enter() != nil {
		return end - from // it is closed, and this as good as can be had
	}
	defer d.gate.RUnlock()
	it, err := d.engine.NewIter(&pebble.IterOptions{
		LowerBound: offsetKey(kindRecord, p.topic.id, p.number, from), UpperBound: offsetKey(kindRecord, p.topic.id, p.number, end),
	})
	if err != nil {
		return end - from
	}
	defer func() { _ = it.Close() }()
	if !it.First() {
		return 0 // all of it is gone
	}
	s, err := parse(it.Key(), it.Value())
	if err != nil {
		return end - from // its reader tells of that
	}
	before := s.count
	if !s.tick {
		before--
	}
	return int64(counted - min(before, counted))
}
