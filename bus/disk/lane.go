package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/internal/recovery"
)

// readMax is how many bytes of records a lane reads ahead, as the codec has them. One
// record may go beyond it.
const (
	readMax     = 512 << 10
	readEntries = 4096
)

type source[T any] struct {
	topic *Topic[T]
	name  readerName
}

// group and all differ in that only a group is kemi.Shared.
type (
	group[T any] struct{ source[T] }
	all[T any]   struct{ source[T] }
)

// Shares says that members of a group share the topic.
func (group[T]) Shares() bool { return true }

// String is that of the topic.
func (s source[T]) String() string { return s.topic.String() }

// Run reads until ctx is done. What is not delivered then waits on the disk for the
// next Run of the name. The error tells of damage that some partition was stopped at.
func (s source[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	if n := len(s.name.name); n == 0 || n > nameMax {
		return fmt.Errorf("disk: topic %q: the name of a reader has 1 to %d bytes, not %d", s.topic.name, nameMax, n)
	}
	d := s.topic.db
	select {
	case <-d.done:
		return ErrClosed
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := false
	m := s.topic.join(s.name)
	defer m.leave()
	asked, over := ctx.Done(), d.done
	for {
		opened, busy := m.mine()
		if !busy {
			if closed {
				return ErrClosed
			}
			return m.result()
		}
		// All lanes are open before one is fed: they may share state, and wait for each
		// other with their ticks.
		start := make([]func(), len(opened))
		for i, l := range opened {
			start[i] = s.open(ctx, l, out)
		}
		for _, run := range start {
			go run()
		}
		select {
		case <-m.call:
		case <-asked:
			asked = nil
			m.stop(closed)
		case <-over:
			over, closed = nil, true
			cancel()
			m.stop(true)
		}
	}
}

// open opens the lane of the flow and returns what is to run then.
func (s source[T]) open(ctx context.Context, l *lane, out kemi.Sink[T]) func() {
	rec := recovery.Open(out, recovery.Config[T]{
		Topic: s.topic.name, Reader: s.name.name, All: s.name.all, Partition: l.part.number,
		Log: s.topic.log(),
		Find: func(name string) bus.Codec[T] {
			c, err := s.topic.codecs.Find(name)
			if err != nil {
				return nil
			}
			return c
		},
		Counts: &l.pool.reader.counts,
	})
	l.from = rec
	r := &laneReader[T]{lane: l, rec: rec, db: s.topic.db}
	return func() {
		feed, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		unhook := context.AfterFunc(l.gone, func() {
			stop()
			t := time.NewTimer(handOver)
			defer t.Stop()
			select {
			case <-t.C:
				_ = rec.Close() // cuts off a Write under way
			case <-ended:
			}
		})
		err := r.run(feed)
		unhook()
		close(ended)
		damage := feed.Err() == nil && !errors.Is(err, ErrClosed)
		stop()
		r.wantTicks(false)
		if !damage {
			err = nil // it was to end
		} else if err != nil {
			err = fmt.Errorf("disk: topic %q, partition %d, read by %q: %w", s.topic.name, l.part.number, s.name.name, err)
			s.topic.db.log.Error("disk: a reader has stopped at a partition; the others go on", zap.Error(err))
		}
		// The position is kept before the lane is closed, and with it its state.
		l.end(err, func() { _ = rec.Close() })
	}
}

// laneReader reads a partition into a lane.
type laneReader[T any] struct {
	*lane
	rec   *recovery.Lane[T]
	db    *DB
	ticks bool
	buf   []byte
	codec string
	got   []recovery.Entry
}

// run reads until ctx is done, which it returns an error for, or something is wrong
// with the partition.
func (r *laneReader[T]) run(ctx context.Context) error {
	pos, kept, err := r.pool.reader.load(r.part)
	if errors.Is(err, ErrClosed) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: its position cannot be read: %w", ErrDamaged, err)
	}
	r.part.mu.Lock()
	first, end := r.part.first, r.part.end
	if r.part.lanes == nil {
		r.part.lanes = map[*doze]struct{}{}
	}
	r.part.lanes[&r.sleep] = struct{}{}
	r.part.mu.Unlock()
	defer func() {
		r.part.mu.Lock()
		defer r.part.mu.Unlock()
		delete(r.part.lanes, &r.sleep)
	}()
	if pos != nil {
		if pos.Next > end {
			return fmt.Errorf("%w: the reader has come to offset %d, and the partition ends at %d", ErrDamaged, pos.Next, end)
		}
		r.saved = *pos
		r.tellLost(pos.Next, first)
	}
	from, err := r.rec.Begin(ctx, pos, kept, first)
	if err != nil {
		return err
	}
	r.warnShort()
	r.begun.Store(true)
	for {
		r.wantTicks(r.rec.Ticks())
		next, err := r.read(from)
		if err != nil {
			return err
		}
		if next == from {
			select {
			case <-r.sleep.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := r.rec.Feed(ctx, r.got, next); err != nil {
			return err
		}
		from = next
		if r.drifts() {
			r.drift.Store(true)
		} else {
			r.dirty.Store(true)
		}
	}
}

// drifts tells whether what was read is ticks, and the lane has no use for them.
func (r *laneReader[T]) drifts() bool {
	return !r.rec.Ticks() && !slices.ContainsFunc(r.got, func(e recovery.Entry) bool { return !e.Tick }) && len(r.got) > 0
}

// warnShort tells when a transform depends on more than there is.
func (r *laneReader[T]) warnShort() {
	if h := r.rec.Horizon(); h > r.part.topic.retain && r.part.number == 0 {
		r.db.log.Warn("disk: a transform depends on more of the past than the topic keeps, and will not be what it was after a restart: raise TopicConfig.Retain",
			zap.String("topic", r.part.topic.name), zap.String("reader", r.pool.reader.name.name), zap.Duration("horizon", h), zap.Duration("retain", r.part.topic.retain))
	}
}

func (r *laneReader[T]) wantTicks(want bool) {
	if r.ticks == want {
		return
	}
	r.ticks = want
	r.part.mu.Lock()
	defer r.part.mu.Unlock()
	if want {
		r.part.clocked++
	} else {
		r.part.clocked--
	}
}

// tellLost logs that retention was faster than the reader. The lane counts it.
func (r *laneReader[T]) tellLost(from, to int64) {
	if to > from {
		r.db.log.Error("disk: a reader has lost records: they were removed before it came to them",
			zap.String("topic", r.part.topic.name), zap.String("reader", r.pool.reader.name.name), zap.Int32("partition", r.part.number),
			zap.Int64("from", from), zap.Int64("to", to))
	}
}

// read fills got with what lies from an offset on, and returns the offset after it.
func (r *laneReader[T]) read(from int64) (next int64, err error) {
	p := r.part
	p.mu.Lock()
	first, end := p.first, p.end
	p.mu.Unlock()
	r.got = r.got[:0]
	if r.buf = r.buf[:0]; cap(r.buf) > 4*readMax {
		r.buf = nil
	}
	if first > from {
		r.lose(from, first)
		from = first
	}
	if from >= end {
		return from, nil
	}
	if err := r.db.enter(); err != nil {
		return 0, err
	}
	defer r.db.gate.RUnlock()
	it, err := r.db.engine.NewIter(&pebble.IterOptions{
		LowerBound: offsetKey(kindRecord, p.topic.id, p.number, from),
		UpperBound: offsetKey(kindRecord, p.topic.id, p.number, end),
	})
	if err != nil {
		return 0, r.damage(from, end, err)
	}
	defer func() { _ = it.Close() }()
	next = from
	for ok := it.First(); ok && len(r.buf) < readMax && len(r.got) < readEntries; ok = it.Next() {
		_, _, offset, _ := parseOffsetKey(it.Key())
		if offset != next {
			if next, err = r.skip(next, offset); err != nil {
				return 0, err
			}
			if next != offset {
				return 0, r.damage(next, offset, errors.New("they are not there"))
			}
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return r.upTo(next, offset+1, err)
		}
		s, err := parse(it.Key(), value)
		if err == nil && !s.tick {
			before := len(r.buf)
			if r.buf, err = unpack(r.db.dec, r.buf, &s); err == nil {
				s.data = r.buf[before:]
			}
		}
		if err != nil {
			return r.upTo(next, offset+1, err)
		}
		if string(s.codec) != r.codec {
			r.codec = string(s.codec)
		}
		r.got = append(r.got, recovery.Entry{Offset: offset, Time: clockOf(s.time), Tick: s.tick, Codec: r.codec, Value: s.data})
		next = offset + 1
	}
	if err := it.Error(); err != nil {
		return r.upTo(next, end, err)
	}
	if len(r.got) == 0 {
		return r.skip(next, end)
	}
	return next, nil
}

// upTo returns what was read before damage, and the damage when there was nothing.
func (r *laneReader[T]) upTo(next, end int64, err error) (int64, error) {
	if len(r.got) > 0 {
		return next, nil // it is met again
	}
	return 0, r.damage(next, end, err)
}

// skip goes over what is known to be gone: removed by retention meanwhile, or lost to a
// repair.
func (r *laneReader[T]) skip(from, to int64) (int64, error) {
	p := r.part
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	begin := from
	if first > from {
		from = min(first, to)
	}
	for from < to {
		hole, err := r.db.hole(p.topic.id, p.number, from)
		if err != nil {
			return 0, r.damage(from, to, err)
		}
		if hole == 0 {
			break
		}
		from = min(hole, to)
	}
	if from < to {
		return 0, r.damage(from, to, errors.New("they are not there"))
	}
	r.lose(begin, from)
	return from, nil
}

// lose tells of offsets that are gone. Those that are only replayed are no loss.
func (r *laneReader[T]) lose(from, to int64) {
	if to > from {
		r.tellLost(to-r.rec.Missed(from, to), to)
	}
}

func (r *laneReader[T]) damage(from, to int64, err error) error {
	return fmt.Errorf("%w: offsets %d to %d cannot be read (run disk.Check to see how far it goes, disk.Repair to go on behind it): %w", ErrDamaged, from, to-1, err)
}

// hole returns where the hole ends that an offset lies in, 0 if it lies in none.
func (d *DB) hole(topic uint32, part int32, offset int64) (end int64, err error) {
	it, err := d.engine.NewIter(&pebble.IterOptions{
		LowerBound: partKey(kindHole, topic, part), UpperBound: offsetKey(kindHole, topic, part, offset+1),
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = it.Close() }()
	if it.Last() {
		var to uint64
		if err := unsealInts(it.Key(), it.Value(), &to); err != nil {
			return 0, err
		}
		if int64(to) > offset {
			return int64(to), nil
		}
	}
	return 0, it.Error()
}
