package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/internal/origin"
)

const (
	defaultPartitions = 64
	defaultRetain     = 7 * 24 * time.Hour
	defaultMaxRecord  = 16 << 20
	recordMax         = 256 << 20
	compressFrom      = 64      // bytes; less is not worth it
	poolMax           = 4 << 20 // bytes of a buffer that is kept for the next Write
	fullAgain         = 2 * time.Second
	decoderSlack      = 64 // bytes that the decoder wants behind what it decodes
)

// TopicConfig describes a topic. The zero value is usable for a type that is
// [bus.Keyed].
type TopicConfig[T any] struct {
	// Partitions is the number of lanes that a reader has. It is fixed when the topic is
	// made. The default is 64. Where a key lies is said by [bus.PartitionOf], as on
	// Kafka.
	Partitions int
	// Key is the partition key. The default is [bus.KeyOf], which is nil for a type that
	// is not Keyed: then all records are of one key.
	Key bus.Key[T]
	// Codecs is how records are written, and what else can be read. The default is
	// [codec.For].
	Codecs codec.Set[T]
	// Retain is how long records are kept, read or not. The default is 7 days. A
	// transform with a horizon needs at least that much.
	Retain time.Duration
	// RetainBytes is how much of the topic is kept, by the size it has on disk; the
	// oldest goes first, whatever its partition. The default, 0, sets no bound.
	RetainBytes int64
	// MaxRecord is the most bytes that a record may have in the codec's form. What was
	// written together for one key and is longer is stored in several pieces. The
	// default is 16 MiB.
	MaxRecord int
	// Zstd is to compress records with zstd. The default is S2, which costs a fifth of
	// the time or less, and leaves text almost twice as long; metrics in their own codec
	// are short already, and gain little. Both are always read.
	Zstd bool
}

// Topic is a [bus.Topic] on disk. Make one with [NewTopic]. All methods may be called
// by many goroutines. There is nothing to close but the DB.
type Topic[T any] struct {
	*topic
	key       bus.Key[T]
	codecs    codec.Set[T]
	maxRecord int
	zstd      bool
	writers   sync.Pool // of *writer[T]
}

var (
	_ bus.Topic[int] = (*Topic[int])(nil)
	_ kemi.Shared    = group[int]{}
)

// NewTopic returns the topic of that name of a DB, and makes it if it is not there. A
// topic is opened once. It keeps the type of its records, and is refused to another one,
// such as a topic of [kemi.Metric] to [kemi.Log]; types of a program's own may be renamed
// and are not told apart. The codec may change.
func NewTopic[T any](db *DB, name string, c TopicConfig[T]) (*Topic[T], error) {
	switch {
	case db == nil:
		return nil, fmt.Errorf("disk: topic %q has no DB: Open one", name)
	case name == "" || len(name) > nameMax:
		return nil, fmt.Errorf("disk: a topic has a name of 1 to %d bytes, not %d", nameMax, len(name))
	case c.Partitions < 0 || c.Partitions > partitionMax:
		return nil, fmt.Errorf("disk: topic %q: %d partitions: give 0, which stands for %d, or up to %d", name, c.Partitions, defaultPartitions, partitionMax)
	case c.Retain < 0:
		return nil, fmt.Errorf("disk: topic %q: records kept for %v: give 0, which stands for %v, or more", name, c.Retain, defaultRetain)
	case c.RetainBytes < 0:
		return nil, fmt.Errorf("disk: topic %q: %d bytes kept: give 0, which sets no bound, or more", name, c.RetainBytes)
	case c.MaxRecord < 0 || c.MaxRecord > recordMax:
		return nil, fmt.Errorf("disk: topic %q: records of up to %d bytes: give 0, which stands for %d, or up to %d", name, c.MaxRecord, defaultMaxRecord, recordMax)
	}
	if c.Codecs.Write == nil && c.Codecs.Read == nil {
		c.Codecs = codec.For[T]()
	}
	if err := c.Codecs.Check(); err != nil {
		return nil, fmt.Errorf("disk: topic %q: %w", name, err)
	}
	if n := len(c.Codecs.Write.Name()); n > codecMax {
		return nil, fmt.Errorf("disk: topic %q: a codec with a name of %d bytes: %d is the most", name, n, codecMax)
	}
	if c.Key == nil {
		c.Key = bus.KeyOf[T]()
	}
	t, err := db.topic(name, c.Partitions, codec.TypeName[T]())
	if err != nil {
		return nil, err
	}
	t.retain, t.retainBytes = cmp.Or(c.Retain, defaultRetain), c.RetainBytes
	own := &Topic[T]{topic: t, key: c.Key, codecs: c.Codecs, maxRecord: cmp.Or(c.MaxRecord, defaultMaxRecord), zstd: c.Zstd}
	own.writers.New = func() any { return &writer[T]{Topic: own, split: bus.NewSplitter(own.key)} }
	db.mu.Lock()
	t.open = true // retention may begin
	db.mu.Unlock()
	return own, nil
}

// topic returns what is there of a topic, or makes it.
func (d *DB) topic(name string, n int, record string) (*topic, error) {
	record = record[:min(len(record), nameMax)]
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.topics[name]
	if t != nil {
		switch {
		case t.claimed:
			return nil, fmt.Errorf("disk: topic %q is open already: use that one", name)
		case n != 0 && n != len(t.parts):
			return nil, fmt.Errorf("disk: topic %q has %d partitions and not %d, and their number cannot be changed, as keys would move: "+
				"give %d or 0, or make a topic of another name", name, len(t.parts), n, len(t.parts))
		case t.record != "" && !codec.SameType(t.record, record):
			return nil, fmt.Errorf("disk: topic %q has records of type %s and not %s: open it with that type, or make a topic of another name", name, t.record, record)
		}
		if t.record == "" { // it was made by a kemi that did not keep it
			key := typeKey(t.id)
			if err := d.wait(&request{write: func(b *pebble.Batch) { _ = b.Set(key, seal(key, []byte(record)), nil) }}); err != nil {
				return nil, err
			}
			t.record = record
		}
		t.claimed = true
		return t, nil
	}
	t = newTopic(d, name, d.ids+1, rand.Uint64(), cmp.Or(n, defaultPartitions))
	t.record = record
	key, typed := topicKey(name), typeKey(t.id)
	err := d.wait(&request{write: func(b *pebble.Batch) {
		_ = b.Set(key, sealInts(key, 1, uint64(t.id), uint64(len(t.parts)), t.mark), nil)
		_ = b.Set(typed, seal(typed, []byte(record)), nil)
	}})
	if err != nil {
		return nil, err
	}
	d.ids++
	d.topics[name] = t
	t.claimed = true
	return t, nil
}

// String returns the name in brackets, which is how diagrams draw a topic.
func (t *Topic[T]) String() string { return "[" + t.name + "]" }

// Write puts batch on the disk: all of it, or with an error nothing, with one
// exception. A record that cannot be encoded, or is larger than MaxRecord, is named in
// a [kemi.Partial], marked [kemi.Permanent]; the others are safe.
//
// What was made of records of a topic of the same DB is written once: if it is there
// already Write leaves it out, counts it and returns nil.
func (t *Topic[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	if err := t.db.guard.check(t.topic); err != nil {
		return err
	}
	w := t.writers.Get().(*writer[T])
	w.reset(ctx, batch)
	if len(w.entries) > 0 {
		r := &request{topic: t.topic, entries: w.entries, source: w.source, marks: w.marks, records: w.records, patient: true, done: make(chan error, 1)}
		if err := t.db.submit(r); err != nil {
			return err
		}
		select {
		case err := <-r.done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			if r.taken.CompareAndSwap(false, true) {
				return fmt.Errorf("disk: topic %q: given up before it was written: %w", t.name, context.Cause(ctx)) // w is still in the queue
			}
			if err := <-r.done; err != nil { // it is under way
				return err
			}
		}
		t.appended.Add(uint64(len(batch)-len(w.failed)) - r.left)
	}
	var err error
	if len(w.failed) > 0 {
		err = kemi.Partial(batch, w.failed...)
	}
	if cap(w.buf) <= poolMax {
		t.writers.Put(w)
	}
	return err
}

// writer encodes batches, one at a time.
type writer[T any] struct {
	*Topic[T]
	split   *bus.Splitter[T]
	entries []entry
	places  [][2]int // of the bodies, in buf
	buf     []byte
	plain   []byte // of one record, before it is compressed
	packed  []byte
	source  origin.Source
	marks   []origin.Mark
	records []int
	failed  []kemi.Failure
}

func (w *writer[T]) reset(ctx context.Context, batch []T) {
	w.entries, w.places, w.buf = w.entries[:0], w.places[:0], w.buf[:0]
	w.source, w.marks, w.records, w.failed = origin.Source{}, w.marks[:0], w.records[:0], nil
	if from := origin.Of(ctx); from.Covers(len(batch)) {
		// What was made of one record is kept together, so that it can be left out.
		w.source = from.Turn(w.topic)
		begin := 0
		for _, m := range from.Marks {
			if m.End > begin {
				bad := len(w.failed)
				w.encode(batch, begin, m.End)
				w.marks = append(w.marks, origin.Mark{End: len(w.entries), Seq: m.Seq})
				w.records = append(w.records, m.End-begin-(len(w.failed)-bad))
				begin = m.End
			}
		}
	} else {
		w.encode(batch, 0, len(batch))
	}
	for i, at := range w.places { // buf has moved while it grew
		w.entries[i].body = w.buf[at[0]:at[1]:at[1]]
		w.entries[i].sum = checksum(w.entries[i].body)
	}
}

// encode adds the records of a batch from begin to end.
func (w *writer[T]) encode(batch []T, begin, end int) {
	for _, part := range w.split.Split(batch[begin:end]) {
		p := w.parts[bus.PartitionOf(part.Key, len(w.parts))]
		w.encodePart(p, part.Records, func(i int) int { return begin + part.Index(i) })
	}
}

// encodePart adds records of one key. What cannot be in one piece is tried in two.
func (w *writer[T]) encodePart(p *part, records []T, index func(int) int) {
	var err error
	w.plain, err = w.codecs.Write.AppendBatch(w.plain[:0], records)
	if err == nil && len(w.plain) > w.maxRecord {
		err = fmt.Errorf("%w: it has %d bytes, and topic %q takes %d: raise MaxRecord, or send less in one record", ErrTooLarge, len(w.plain), w.name, w.maxRecord)
	}
	if err != nil {
		if half := len(records) / 2; half > 0 {
			w.encodePart(p, records[:half], index)
			w.encodePart(p, records[half:], func(i int) int { return index(half + i) })
			return
		}
		if !errors.Is(err, ErrTooLarge) {
			err = fmt.Errorf("disk: topic %q: the record cannot be encoded: %w", w.name, err)
		}
		w.failed = append(w.failed, kemi.Failure{Index: index(0), Err: kemi.Permanent(err)})
		return
	}
	data, pack := w.plain, byte(0)
	if len(data) >= compressFrom {
		how := byte(flagS2)
		if w.zstd {
			how = flagZstd
			w.packed = w.db.enc.EncodeAll(data, w.packed[:0])
		} else {
			w.packed = s2.Encode(w.packed[:cap(w.packed)], data)
		}
		if len(w.packed) < len(data)*9/10 {
			data, pack = w.packed, how
		}
	}
	from := len(w.buf)
	w.buf = appendBody(w.buf, false, pack, w.codecs.Write.Name(), len(w.plain), data)
	w.entries = append(w.entries, entry{part: p})
	w.places = append(w.places, [2]int{from, len(w.buf)})
}

// unpack appends the encoding of a record to dst.
func unpack(dec *zstd.Decoder, dst []byte, s *stored) ([]byte, error) {
	switch s.pack {
	case 0:
		return append(dst, s.data...), nil
	case flagS2:
		if n, err := s2.DecodedLen(s.data); err != nil || n != s.raw {
			return dst, errValue
		}
		dst = slices.Grow(dst, s.raw)
		raw, err := s2.Decode(dst[len(dst):len(dst)+s.raw], s.data)
		if err != nil {
			return dst, err
		}
		return dst[:len(dst)+len(raw)], nil
	}
	// The decoder would copy dst each time it grows it.
	dst = slices.Grow(dst, min(s.raw, defaultMaxRecord)+decoderSlack)
	raw, err := dec.DecodeAll(s.data, dst[len(dst):])
	switch {
	case err != nil:
		return dst, err
	case len(raw) != s.raw:
		return dst, errValue
	case len(raw) <= cap(dst)-len(dst): // it is there already
		return dst[:len(dst)+len(raw)], nil
	}
	return append(dst, raw...), nil
}

// Group returns a source that shares the topic with the others of that name.
func (t *Topic[T]) Group(name string) kemi.Source[T] {
	return group[T]{source[T]{t, readerName{name, false}}}
}

// All returns a source of every partition.
func (t *Topic[T]) All(name string) kemi.Source[T] {
	return all[T]{source[T]{t, readerName{name, true}}}
}
