// Package recovery reads a partition of a durable topic into a flow, so that a crash
// at any moment costs nothing and shows nowhere: rewind, mute, prove.
//
// The log of the partition is all there is. Its records have the time at which they
// were appended, and that is the time of the lane: before a record of another second
// the transform is ticked. So a live run and a replay see the same input in the same
// order, ticks included.
//
// A position is kept as two offsets. From Next on nothing has been delivered; from
// Rewind on the state depends on the input. A lane that starts is fed the records
// between them with the output muted, the state that this builds is compared with the
// proof in the position, and then the lane goes live.
//
// A room of the bus appends, reads, keeps positions and deals out partitions; a
// [Lane] does the rest:
//
//	l := recovery.Open(out, config)
//	from, err := l.Begin(ctx, position, kept, first)
//	for {
//		entries, next := … // read from there on
//		err = l.Feed(ctx, entries, next)
//		… l.Position(), l.Kept() // to be kept now or a little later
//	}
//	l.Close()
package recovery

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/origin"
)

const (
	// TickEvery is how far apart the ticks of a busy partition are. What matters is that
	// all lanes of a topic are ticked at the same times.
	TickEvery = time.Second

	// slack is added to every horizon. The lanes of one reader are not all at the same
	// time when their positions are kept; those of a shared transform have to rewind as
	// far as the one furthest behind needs them to.
	slack = 15 * time.Second

	pointsMax = 256  // places to rewind to
	batchMax  = 4096 // records in one Write
	againMin  = 10 * time.Millisecond
	againMax  = time.Second
)

// Entry is one record of the log of a partition.
type Entry struct {
	Offset int64
	Time   time.Time    // when it was appended, by the clock of the log
	Tick   bool         // nothing but the time: it keeps a silent partition going
	Codec  string       // by name
	Value  []byte       // one batch of one key. Only valid during Add
	Stamp  origin.Stamp // where it was made; zero: not known, or the log has no duplicates
	After  origin.Stamp // of the same source, and written before it; zero: any may be missing
}

// Config describes a lane.
type Config[T any] struct {
	Topic, Reader string
	All           bool // the reader is an All, and no group
	Partition     int32
	// Log tells the topic from all others, also from one of that name that was there
	// before. The default is Topic.
	Log string
	// Find returns the codec of a name, nil if it is not known.
	Find func(name string) bus.Codec[T]
	// Counts may be shared by many lanes.
	Counts *Counts
}

// Counts is what lanes have met.
type Counts struct {
	Duplicates atomic.Uint64 // records that had been delivered before
	Gaps       atomic.Uint64 // records left out because one before them had not come; both come again
	Refused    atomic.Uint64 // records no codec could read; they are in the dead letters
	Replayed   atomic.Uint64 // records fed again, muted
	Rewinds    atomic.Uint64 // replays
	Proved     atomic.Uint64 // of those: the state was what it had been
	Mismatched atomic.Uint64 // it was not
	Shortened  atomic.Uint64 // the log no longer had all of the input to replay
	Lost       atomic.Uint64 // offsets the log no longer had, and nobody had read

	TicksFailed atomic.Uint64 // ticks that the transform refused for good, or panicked on
}

// Lane is one partition on its way into a flow. Begin, Add, Flush and Feed are for one
// goroutine; the other methods may be called beside them.
type Lane[T any] struct {
	Config[T]
	lane kemi.Lane[T]

	horizon time.Duration
	at      int64 // the next offset to feed
	goal    int64 // where to go live
	live    bool
	clock   time.Time // of the last tick
	heard   time.Time // of the last entry
	marks   marks
	whole   bool // marks are of the log from its very beginning
	torn    bool // they are not, as Position.Torn says
	holed   bool // the log has lost what came after them
	lent    bool // marks is someone else's too, and must not be changed
	points  []point
	was     kemi.Proof
	reached time.Time // the clock at goal: the tick there may be among what was delivered
	restore []kemi.Kept

	codec bus.Codec[T] // the last one
	name  string
	batch []T
	from  origin.Batch // of batch
	ctx   context.Context
	outer context.Context // ctx says from, beside what outer says

	gone  context.Context // done: closed
	leave context.CancelFunc

	mu   sync.Mutex
	pos  Position
	kept map[string][]byte
}

// point is a place to rewind to: right after a tick.
type point struct {
	offset int64
	clock  time.Time
	marks  marks
}

// Open opens a lane of the flow behind out. A reader that has many opens the one of
// partition 0 first, and all of them before it feeds any.
func Open[T any](out kemi.Sink[T], c Config[T]) *Lane[T] {
	if c.Counts == nil {
		c.Counts = new(Counts)
	}
	l := &Lane[T]{
		Config: c,
		lane:   kemi.OpenLane(out, c.Topic+"/"+strconv.Itoa(int(c.Partition)), kemi.LogTicks()),
		from:   origin.Batch{Source: origin.Source{Reader: origin.ReaderOf(cmp.Or(c.Log, c.Topic), c.Reader, c.All), Partition: c.Partition}},
		kept:   map[string][]byte{},
	}
	l.gone, l.leave = context.WithCancel(context.Background())
	return l
}

// Begin says from which offset on the log has to be read. first is the oldest offset
// that is still there; a reader without a position begins with it.
func (l *Lane[T]) Begin(ctx context.Context, pos *Position, kept []kemi.Kept, first int64) (from int64, err error) {
	l.horizon = l.lane.Horizon()
	l.live, l.at, l.goal = true, first, first
	l.whole, l.holed, l.torn = first == 0, false, false
	if pos != nil {
		l.torn = pos.Torn
		l.whole = l.whole && !l.torn
		if first > pos.Next {
			l.Counts.Lost.Add(uint64(first - pos.Next))
			l.holed = true
		}
		l.clock, l.marks, l.restore = pos.Clock, pos.Marks, kept
		l.goal = max(pos.Next, first)
		l.at = l.goal
		if rewind := max(pos.Rewind, first); l.horizon > 0 && rewind < l.goal {
			l.at, l.live, l.was, l.reached = rewind, false, pos.Proof, pos.Clock
			l.clock, l.marks = pos.RewindClock, pos.RewindMarks
			if rewind > pos.Rewind {
				l.Counts.Shortened.Add(1)
				l.holed = true
				l.was = kemi.Proof{}
			}
			l.Counts.Rewinds.Add(1)
		}
	}
	l.lent = true
	l.points = append(l.points[:0], point{l.at, l.clock, l.marks})
	if l.horizon > 0 && !l.clock.IsZero() {
		// The state hears the time it is at, as it had when it came here first.
		l.lane.Mute(true)
		if err := l.tick(ctx, l.at, l.clock); err != nil {
			return 0, err
		}
	}
	if l.live {
		l.lane.Mute(false)
		if err := l.lane.Restore(kept); err != nil {
			return 0, fmt.Errorf("recovery: lane %s/%d: kept state: %w", l.Topic, l.Partition, err)
		}
		l.publish()
		return l.at, nil
	}
	l.mu.Lock()
	l.pos = *pos // nothing has happened yet
	l.mu.Unlock()
	l.lane.Mute(true)
	return l.at, nil
}

// Feed delivers entries in order and returns when they are safe. next is the offset
// to read at after them, be they none. With an error, which comes when ctx is done or
// the lane is closed, the lane is of no more use: what was delivered is in Position.
func (l *Lane[T]) Feed(ctx context.Context, entries []Entry, next int64) error {
	for i := range entries {
		if err := l.Add(ctx, &entries[i]); err != nil {
			return err
		}
	}
	return l.Flush(ctx, next)
}

// Add is Feed of one entry that returns before it is safe, which it is after the next
// [Lane.Flush]. The entry and its Value are the caller's again.
func (l *Lane[T]) Add(ctx context.Context, e *Entry) error {
	if e.Offset < l.at {
		return nil
	}
	if !l.live && e.Offset >= l.goal {
		if err := l.goLive(ctx, e.Offset); err != nil {
			return err
		}
	}
	// Most entries are of the very time of the one before, as they were appended together.
	if e.Time != l.heard {
		if err := l.hear(ctx, e); err != nil {
			return err
		}
	}
	if err := l.take(ctx, e); err != nil {
		return err
	}
	if len(l.batch) >= batchMax {
		if err := l.flush(ctx, e.Offset+1); err != nil {
			return err
		}
	}
	l.at = e.Offset + 1
	return nil
}

// Flush delivers what was added.
func (l *Lane[T]) Flush(ctx context.Context, next int64) error {
	if err := l.flush(ctx, max(next, l.at)); err != nil {
		return err
	}
	if !l.live && l.at >= l.goal {
		return l.goLive(ctx, l.at)
	}
	return nil
}

// hear takes the time of an entry, before which comes the tick of its second.
func (l *Lane[T]) hear(ctx context.Context, e *Entry) error {
	l.heard = e.Time
	t := e.Time.Truncate(TickEvery)
	if !t.After(l.clock) {
		return nil
	}
	if err := l.flush(ctx, e.Offset); err != nil {
		return err
	}
	if err := l.tick(ctx, e.Offset, t); err != nil {
		return err
	}
	l.clock = t
	l.point(e.Offset)
	if l.live {
		l.publish()
	}
	return nil
}

// take puts the records of an entry into the batch.
func (l *Lane[T]) take(ctx context.Context, e *Entry) error {
	if e.Tick {
		return nil
	}
	if e.Stamp.Seq != 0 {
		if !l.marks.passes(e.Stamp) {
			l.Counts.Duplicates.Add(1)
			return nil
		}
		// A write that failed in its middle has left what came after that. Its writer
		// writes all of it again; taken now, this one would have the one before it taken
		// for a duplicate. Where the log has lost records, that may have been one of them.
		if e.After.Seq != 0 && l.marks.passes(e.After) && !l.holed && (l.whole || l.marks.knows(e.After)) {
			l.Counts.Gaps.Add(1)
			return nil
		}
	}
	if l.codec == nil || l.name != e.Codec {
		l.codec, l.name = l.Find(e.Codec), e.Codec
	}
	if l.codec == nil {
		return l.refuse(ctx, e, fmt.Errorf("no reader of this topic knows the codec %.100q", e.Codec))
	}
	batch, err := l.codec.DecodeBatch(l.batch, e.Value)
	if err != nil {
		return l.refuse(ctx, e, err)
	}
	l.mark(e.Stamp)
	if len(batch) == len(l.batch) {
		return nil
	}
	l.batch = batch
	l.from.Marks = append(l.from.Marks, origin.Mark{End: len(batch), Seq: origin.OfRecord(e.Offset)})
	return nil
}

// mark notes that a record is in the batch, or has been dealt with.
func (l *Lane[T]) mark(s origin.Stamp) {
	if s.Seq == 0 {
		return
	}
	if l.lent {
		l.marks, l.lent = slices.Clone(l.marks), false
	}
	l.marks = l.marks.with(s)
}

// refuse brings what cannot be read to the dead letters, after what came before it. Only
// then is it marked: a position from before that must not have it taken for a duplicate
// when it is read again.
func (l *Lane[T]) refuse(ctx context.Context, e *Entry, why error) error {
	if err := l.flush(ctx, e.Offset); err != nil {
		return err
	}
	if !l.live {
		l.mark(e.Stamp)
		return nil // it was brought there before
	}
	l.Counts.Refused.Add(1)
	d := kemi.DeadLetter{
		Error:   fmt.Sprintf("the record at offset %d of %s/%d cannot be read: %v", e.Offset, l.Topic, l.Partition, why),
		Type:    fmt.Sprintf("%T", *new(T)),
		Format:  e.Codec,
		Payload: slices.Clone(e.Value),
		Origin:  kemi.Origin{Topic: l.Topic, Partition: l.Partition, Offset: e.Offset},
	}
	err := l.insist(ctx, func() error {
		err := l.lane.Refuse(ctx, d)
		if kemi.IsPermanent(err) {
			return nil // nobody wants it; it is counted
		}
		return err
	})
	if err == nil {
		l.mark(e.Stamp)
	}
	return err
}

// flush writes the batch. All before offset at is delivered then.
func (l *Lane[T]) flush(ctx context.Context, at int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.at = at
	if len(l.batch) > 0 {
		n := len(l.batch)
		if err := l.insist(ctx, func() error { return l.lane.Write(l.within(ctx), l.batch) }); err != nil {
			return err
		}
		if !l.live {
			l.Counts.Replayed.Add(uint64(n))
		}
		l.batch, l.from.Marks = l.batch[:0], l.from.Marks[:0]
	}
	if l.live {
		l.publish()
	}
	return nil
}

func (l *Lane[T]) tick(ctx context.Context, before int64, now time.Time) error {
	if !l.lane.Ticks() {
		return nil
	}
	l.from.Marks = append(l.from.Marks[:0], origin.Mark{Seq: origin.OfTick(before)})
	err := l.insist(ctx, func() error {
		err := l.lane.Tick(l.within(ctx), now)
		if kemi.IsPermanent(err) && ctx.Err() == nil && l.gone.Err() == nil {
			l.Counts.TicksFailed.Add(1)
			return nil // told by the flow; the next one comes anyway, as it does from a timer
		}
		return err
	})
	l.from.Marks = l.from.Marks[:0]
	return err
}

// within returns ctx with the origin of the batch in it.
func (l *Lane[T]) within(ctx context.Context) context.Context {
	l.from.Begin()
	if l.outer != ctx {
		l.outer, l.ctx = ctx, origin.With(ctx, &l.from)
	}
	return l.ctx
}

// insist calls until it is done, or over.
func (l *Lane[T]) insist(ctx context.Context, call func() error) error {
	for bound := againMin; ; bound = min(2*bound, againMax) {
		err := call()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || l.gone.Err() != nil {
			return err
		}
		t := time.NewTimer(rand.N(bound))
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-l.gone.Done():
		}
		t.Stop()
	}
}

// goLive ends the replay.
func (l *Lane[T]) goLive(ctx context.Context, at int64) error {
	if err := l.flush(ctx, at); err != nil {
		return err
	}
	if l.reached.After(l.clock) {
		if err := l.tick(ctx, at, l.reached); err != nil {
			return err
		}
		l.clock = l.reached
		l.point(at)
	}
	switch is := l.lane.Proof(); {
	case l.lane.Prove(l.was) != nil:
		l.Counts.Mismatched.Add(1) // told by the flow, which knows the stage
	case l.was != kemi.Proof{} && is == l.was: // those of two versions are not compared
		l.Counts.Proved.Add(1)
	}
	if err := l.lane.Restore(l.restore); err != nil {
		return fmt.Errorf("recovery: lane %s/%d: kept state: %w", l.Topic, l.Partition, err)
	}
	l.restore = nil
	l.lane.Mute(false)
	l.live = true
	l.publish()
	return nil
}

// point notes a place to rewind to, and forgets those that are too old.
func (l *Lane[T]) point(offset int64) {
	if l.horizon <= 0 {
		return
	}
	l.horizon = max(l.lane.Horizon(), time.Nanosecond) // a reload may have changed it
	need := l.clock.Add(-l.horizon - slack)
	old := 0
	for old+1 < len(l.points) && !l.points[old+1].clock.After(need) {
		old++
	}
	l.points = slices.Delete(l.points, 0, old)
	last := l.points[len(l.points)-1]
	if l.clock.Sub(last.clock) >= (l.horizon+slack)/pointsMax {
		l.points = append(l.points, point{offset, l.clock, l.marks})
		l.lent = true
	}
}

// publish makes the place it has come to known.
func (l *Lane[T]) publish() {
	l.lent = true
	pos := Position{Next: l.at, Clock: l.clock, Marks: l.marks, Rewind: l.at, RewindClock: l.clock, RewindMarks: l.marks, Torn: l.torn}
	if l.horizon > 0 {
		p := l.points[0]
		pos.Rewind, pos.RewindClock, pos.RewindMarks = p.offset, p.clock, p.marks
	}
	pos.Proof = l.lane.Proof()
	kept := l.lane.Keep(nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pos = pos
	for _, e := range kept {
		l.kept[e.Key] = e.Value
	}
}

// Position returns how far the lane has come, and what has changed since the last
// call of the state that no horizon bounds: both are to be kept together, the
// position not before the state. Of several lanes of one reader that of partition 0
// is to be asked last, and all are to be kept together.
func (l *Lane[T]) Position() (Position, []kemi.Kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kept []kemi.Kept
	for k, v := range l.kept {
		kept = append(kept, kemi.Kept{Key: k, Value: v})
	}
	clear(l.kept)
	slices.SortFunc(kept, func(a, b kemi.Kept) int { return compare(a.Key, b.Key) })
	return l.pos, kept
}

// Ticks tells whether the lane has to hear the time: a silent partition is to be given
// ticks then.
func (l *Lane[T]) Ticks() bool { return l.lane.Ticks() }

// Horizon is how much input before the position the state depends on: where there is
// none, nothing before Position.Next is read.
func (l *Lane[T]) Horizon() time.Duration { return l.lane.Horizon() }

// Live tells whether the replay is over, for the goroutine that feeds.
func (l *Lane[T]) Live() bool { return l.live }

// Missed says that the log no longer has the offsets from from up to to, which were to
// be read next. lost is how many of them nobody had read; the others were to be replayed.
func (l *Lane[T]) Missed(from, to int64) (lost int64) {
	if !l.live && from < l.goal {
		l.Counts.Shortened.Add(1)
		l.was = kemi.Proof{}
		from = min(l.goal, to)
	}
	l.Counts.Lost.Add(uint64(to - from))
	return to - from
}

// Close closes the lane of the flow: it cuts off a Write under way and waits for it.
// It may be called beside Feed, which returns an error then.
func (l *Lane[T]) Close() error {
	l.leave()
	return l.lane.Close()
}
