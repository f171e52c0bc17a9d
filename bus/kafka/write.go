package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/origin"
)

// overhead is what a record and its batch take beyond key, value and headers, and
// apiece what is counted for it in memory.
const (
	overhead = 256
	apiece   = 512
)

// write is one Write under way. Its memory is used again when all of it has been
// acknowledged.
type write[T any] struct {
	topic   *Topic[T]
	split   *bus.Splitter[T]
	records []kgo.Record
	headers []kgo.RecordHeader
	arena   arena
	codec   []byte                 // the name
	after   map[int32]origin.Stamp // by partition: what was put there last
	refused []kemi.Failure
	bytes   int

	pending atomic.Int64
	failed  atomic.Pointer[error] // the first
	done    chan struct{}
	timer   *time.Timer // of stillness
}

func newWrite[T any](t *Topic[T]) *write[T] {
	return &write[T]{topic: t, split: bus.NewSplitter(t.config.Key), codec: []byte(t.config.Codecs.Write.Name()), after: map[int32]origin.Stamp{}, timer: time.NewTimer(time.Hour)}
}

// Write puts batch on the topic and returns when all replicas in sync have it. It is
// all or nothing to the caller: with an error that is no kemi.Partial all of it is to
// be written again, and readers drop what they have had. A Partial names records that
// are too large or that the codec refuses; the others are written.
//
// It blocks while [Config].BufferMemory is used up or the cluster does not answer,
// until ctx is done. The client goes on with what it has been given by then. Where
// nothing is acknowledged for long although the topic is as it should be, it fails, and
// so do the other Writes of the Cluster: they are to be repeated.
func (t *Topic[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("kafka: topic %s: %w", t.name, context.Cause(ctx))
	}
	w := t.writes.Get().(*write[T])
	w.fill(batch, origin.Of(ctx))
	refused := kemi.Partial(batch, w.refused...)
	if len(w.records) == 0 {
		w.release()
		return refused
	}
	if err := t.c.memory.take(ctx, w.bytes, t.c.config.BufferMemory); err != nil {
		err = &said{fmt.Sprintf("kafka: topic %s: %v: the %d bytes that Config.BufferMemory allows", t.name, ErrFull, t.c.config.BufferMemory), ErrFull, err}
		w.release()
		return err
	}
	if err := w.produce(ctx); err != nil {
		t.failed.Add(uint64(len(batch)))
		return err
	}
	t.written.Add(uint64(len(batch) - len(w.refused)))
	t.records.Add(uint64(len(w.records)))
	w.release()
	return refused
}

// produce hands the records to the client and waits for it.
//
// What must never happen is a gap: that a record is lost and one that comes after it
// in the same partition, of the same source, is there. A reader that has seen the later
// one drops the earlier one when it is written again. How the client keeps records in
// order and where that ends:
//
//   - Nothing of ours takes a record back. The context of a record would: the client
//     drops records whose context is done, and writes those of the next Write. So
//     records have none, and are tried for ever: no timeout, no bound of retries.
//   - A batch that the broker refuses for good (not allowed, too large, topic gone) fails
//     with everything that waits behind it in its partition. That leaves no gap among
//     what the client had. But a Write of many records may be handing them over just
//     then: 1 to 500 are given to the client, the broker refuses 1 to 300, the client
//     fails all it has, which is up to 500, and then takes 501, and may now be allowed
//     to. Also a batch that was sent before the refusal came back may be accepted by a
//     broker that knows nothing of the producer, as after a retention.
//   - A Write that is given up (hard stop) leaves its records with the client. The lane
//     delivers the same input again and so the same records, behind the others: the
//     first of each is taken, whichever it is, and all before it are there, as a lane
//     does not go on to its next Write before this one is acknowledged.
//   - A client that stands still is made to fail all it has (see stillness). What it had
//     sent may still arrive, before it begins anew with another epoch, and not after.
//   - A client that is closed fails all it has, and nothing comes after it.
//
// So gaps are possible only within one Write, and there every record says what of the
// same source the Write has put before it into the partition (kemi-after). A reader
// that has not had that one leaves the record out: it is going to be written again,
// since its Write has failed.
func (w *write[T]) produce(ctx context.Context) error {
	t := w.topic
	n := len(w.records)
	w.pending.Store(int64(n))
	w.failed.Store(nil)
	w.done = make(chan struct{})
	promise := w.acknowledged
	client := t.c.producer
	for i := range w.records {
		client.Produce(context.Background(), &w.records[i], promise)
	}
	still := false // it stood still already when the timer came last, and nothing kept it
	for left, waiting := int64(n), true; waiting; {
		w.timer.Reset(t.c.still.after)
		select {
		case <-w.done:
			waiting = false
		case <-ctx.Done():
			select {
			case <-w.done:
				waiting = false
			default: // w is the client's now
				return fmt.Errorf("kafka: topic %s: given up before the cluster had acknowledged %d records: %w", t.name, n, context.Cause(ctx))
			}
		case <-w.timer.C:
			was := left
			left = w.pending.Load()
			switch ok := left == was && t.c.healthy(ctx, t.name); {
			case ok && still: // and not just back
				t.c.endStillness()
			default:
				still = ok
			}
		}
	}
	w.timer.Stop()
	if err := w.failed.Load(); err != nil {
		e := fmt.Errorf("kafka: topic %s: %w", t.name, t.c.explain(*err, t.name))
		if errors.Is(*err, kgo.ErrClientClosed) {
			return e
		}
		t.c.watch.note("a write failed", e)
		w.release()
		return e
	}
	return nil
}

func (w *write[T]) acknowledged(_ *kgo.Record, err error) {
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}
	if w.pending.Add(-1) == 0 {
		w.topic.c.memory.give(w.bytes, w.topic.c.config.BufferMemory)
		close(w.done)
	}
}

// release makes w free to be used again.
func (w *write[T]) release() {
	const most = 8 << 20
	clear(w.records)
	clear(w.headers)
	clear(w.refused)
	clear(w.after)
	w.records, w.headers, w.refused, w.bytes = w.records[:0], w.headers[:0], w.refused[:0], 0
	if w.arena.reset() <= most {
		w.topic.writes.Put(w)
	}
}

// fill makes the records of a batch.
func (w *write[T]) fill(batch []T, from *origin.Batch) {
	if !from.Covers(len(batch)) {
		w.segment(batch, 0, origin.Stamp{})
	} else {
		at, source := 0, from.Turn(w.topic)
		for _, m := range from.Marks {
			w.segment(batch[at:m.End], at, origin.Stamp{Source: source, Seq: m.Seq})
			at = m.End
		}
	}
	for i := range w.records {
		r := &w.records[i]
		w.bytes += len(r.Key) + len(r.Value) + apiece
	}
}

// segment makes the records of what came of one record of the source. An ordinal is
// the number of the last record in it, and not that of the record of Kafka: how many
// fit into one is a matter of limits, which may change between a write and its
// repetition.
func (w *write[T]) segment(batch []T, at int, stamp origin.Stamp) {
	for _, part := range w.split.Split(batch) {
		p := int32(bus.PartitionOf(part.Key, w.topic.partitions))
		w.chunk(part, 0, len(part.Records), at, p, w.text(func(dst []byte) []byte { return append(dst, part.Key...) }), stamp)
		stamp.Ordinal += uint32(len(part.Records))
	}
}

// chunk makes one record of the records [i,j) of a part, or as many as are needed.
func (w *write[T]) chunk(part bus.Part[T], i, j, at int, partition int32, key []byte, stamp origin.Stamp) {
	value, err := w.topic.config.Codecs.Write.AppendBatch(w.arena.room(), part.Records[i:j])
	most := int(w.topic.c.limit(w.topic.name)) - overhead - len(key) - len(stamp.Reader)
	size := len(value)
	switch {
	case err == nil && size <= most:
	case j-i > 1: // in halves, to keep together as much as can be and to find who is to blame
		half := i + (j-i)/2
		w.chunk(part, i, half, at, partition, key, stamp)
		w.chunk(part, half, j, at, partition, key, stamp)
		return
	default:
		if err == nil {
			err = &said{fmt.Sprintf("kafka: topic %s: a record takes %d bytes and %d is the limit: raise max.message.bytes of the topic and Config.BatchMaxBytes",
				w.topic.name, size, most), ErrTooLarge, kerr.MessageTooLarge}
		} else {
			err = fmt.Errorf("kafka: topic %s: %w", w.topic.name, err)
		}
		w.refused = append(w.refused, kemi.Failure{Index: at + part.Index(i), Err: kemi.Permanent(err)})
		return
	}
	value = w.arena.keep(value)
	r := kgo.Record{Topic: w.topic.name, Partition: partition, Key: key, Value: value}
	first := len(w.headers)
	w.headers = append(w.headers, kgo.RecordHeader{Key: headerCodec, Value: w.codec})
	if stamp.Seq != 0 {
		stamp.Ordinal += uint32(j - 1)
		w.headers = append(w.headers, kgo.RecordHeader{Key: headerOrigin, Value: w.text(stamp.Append)})
		if last, ok := w.after[partition]; ok {
			w.headers = append(w.headers, kgo.RecordHeader{Key: headerAfter, Value: w.text(func(dst []byte) []byte { return appendAfter(dst, last) })})
		}
		w.after[partition] = stamp
	}
	r.Headers = w.headers[first:len(w.headers):len(w.headers)]
	w.records = append(w.records, r)
}

// text puts text beside the values.
func (w *write[T]) text(app func([]byte) []byte) []byte {
	return w.arena.keep(app(w.arena.room()))
}

// arena is memory that is given out in pieces, and is not moved when it grows.
type arena struct {
	blocks [][]byte // the one in use has its length
	at     int
	last   int // how large a piece may be expected to be
}

const arenaBlock = 64 << 10

// room returns an empty slice to append to, after which keep is to be called, or else
// nothing was taken.
func (a *arena) room() []byte {
	for ; a.at < len(a.blocks); a.at++ {
		b := a.blocks[a.at]
		if free := cap(b) - len(b); free >= min(a.last, cap(b)/2) && free > 0 {
			return b[len(b):]
		}
	}
	a.blocks = append(a.blocks, make([]byte, 0, max(arenaBlock, 8*a.last)))
	return a.blocks[a.at]
}

// keep keeps what was appended to room.
func (a *arena) keep(piece []byte) []byte {
	a.last = max(len(piece), a.last-a.last/8)
	b := &a.blocks[a.at]
	if free := cap(*b) - len(*b); cap(piece) == free && len(piece) > 0 && &piece[0] == &(*b)[:len(*b)+1][len(*b)] {
		*b = (*b)[:len(*b)+len(piece)]
	} // or else it has outgrown the block, and is by itself
	return piece[:len(piece):len(piece)]
}

// reset makes all of it free again and returns how much that is.
func (a *arena) reset() (size int) {
	for i, b := range a.blocks {
		size += cap(b)
		a.blocks[i] = b[:0]
	}
	a.at = 0
	return size
}
