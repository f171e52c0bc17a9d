package kafka

import (
	"cmp"
	"slices"
	"time"
)

// Stats says what a topic of this process has done, and how far its readers in this
// process have come.
type Stats struct {
	Written     uint64 // records, acknowledged
	Batches     uint64 // records of Kafka, of these
	Failed      uint64 // records in Writes that failed or were given up
	Buffered    int64  // bytes of this cluster that wait to be acknowledged
	Unreached   uint64 // connections to brokers that did not come about, of this cluster
	Readers     []ReaderStats
	LastErr     string // of this cluster; empty when there was none
	LastErrTime time.Time
}

// ReaderStats is about the sources of one name.
type ReaderStats struct {
	Name       string
	All        bool   // or else a Group
	Group      string // as Kafka knows it
	Lag        int64  // of all partitions that are read here
	Partitions []PartitionStats

	Duplicates    uint64 // records of Kafka that had been delivered before
	Gaps          uint64 // left out because the one before had not come; both come again
	Refused       uint64 // could not be read; in the dead letters
	Replayed      uint64 // records fed again, muted
	Rewinds       uint64 // replays
	Proved        uint64 // of these: the state was what it had been
	Mismatched    uint64 // it was not
	Shortened     uint64 // the topic no longer had all of the input to replay
	Lost          uint64 // offsets that were gone before they were read
	Ahead         uint64 // fetches with a record of a time more than a minute after now
	Ticks         uint64 // records of nothing but the time, written for silent partitions
	StateLost     uint64 // partitions whose kept state had gone from Config.StateTopic
	CommitsFailed uint64
	Restarts      uint64 // of the client, by the watchdog and after trouble

	LastErr     string
	LastErrTime time.Time
}

// PartitionStats is how far one partition was read.
type PartitionStats struct {
	Partition int32
	Next, End int64 // the next offset to deliver, and that of the next record to be written
	Lag       int64 // between them, in records of Kafka
}

// Stats may be called at any time. It asks no broker.
func (t *Topic[T]) Stats() Stats {
	s := Stats{
		Written: t.written.Load(), Batches: t.records.Load(), Failed: t.failed.Load(),
		Buffered: t.c.producer.BufferedProduceBytes(),
	}
	w := &t.c.watch
	w.mu.Lock()
	s.Unreached, s.LastErr, s.LastErrTime = w.fails, w.err, w.at
	w.mu.Unlock()
	t.mu.Lock()
	readers := make([]*reading, 0, len(t.readers))
	for _, r := range t.readers {
		readers = append(readers, r)
	}
	t.mu.Unlock()
	for _, r := range readers {
		s.Readers = append(s.Readers, r.stats(t.name))
	}
	slices.SortFunc(s.Readers, func(a, b ReaderStats) int { return cmp.Compare(a.Group, b.Group) })
	return s
}

func (r *reading) stats(topic string) ReaderStats {
	c := &r.counts
	s := ReaderStats{
		Name: r.name, All: r.all, Group: topic + "." + r.name,
		Duplicates: c.Duplicates.Load(), Gaps: c.Gaps.Load(), Refused: c.Refused.Load(), Replayed: c.Replayed.Load(),
		Rewinds: c.Rewinds.Load(), Proved: c.Proved.Load(), Mismatched: c.Mismatched.Load(), Shortened: c.Shortened.Load(),
		Lost: c.Lost.Load(), Ahead: r.ahead.Load(), Ticks: r.ticks.Load(), CommitsFailed: r.fails.Load(), Restarts: r.again.Load(), StateLost: r.gone.Load(),
	}
	if r.all {
		s.Group += ".all"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.LastErr, s.LastErrTime = r.err, r.at
	for p, x := range r.parts {
		if !x.owned.Load() {
			continue
		}
		next, end := x.next.Load(), x.end.Load()
		lag := max(end-next, 0)
		s.Lag += lag
		s.Partitions = append(s.Partitions, PartitionStats{Partition: p, Next: next, End: end, Lag: lag})
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStats) int { return cmp.Compare(a.Partition, b.Partition) })
	return s
}
