// Package origin carries where records come from on the bus, from the source that
// read them to the topic that takes what was made of them.
//
// It travels in the values of a context, past the transform and past sink wrappers
// that do not know of it. A durable topic writes it beside its records, and a record
// that was delivered before is known by it.
package origin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Source is one partition as one reader reads it. Two flows that read one topic under
// different names make different things of it, so the name of the reader is part of
// it.
type Source struct {
	Reader    string // see ReaderOf
	Partition int32
}

// ReaderOf is "<log>@<name>" of a group and "<log>@@<name>" of an All, where log is what
// tells a topic from all others, also from one of the same name that was there before.
// No two readers have the same.
func ReaderOf(log, name string, all bool) string {
	at := "@"
	if all {
		at = "@@"
	}
	e := strings.NewReplacer("%", "%25", "@", "%40")
	return e.Replace(log) + at + e.Replace(name)
}

// Seq numbers what a reader of a partition delivers: the time that passed before a
// record, and the record. It grows with the offset, and is never 0.
type Seq uint64

// OfTick is the Seq of the tick before the record at an offset.
func OfTick(offset int64) Seq { return Seq(offset)*2 + 1 }

// OfRecord is the Seq of the record at an offset.
func OfRecord(offset int64) Seq { return Seq(offset)*2 + 2 }

// Mark says that the records of a batch from the mark before up to End come of Seq.
type Mark struct {
	End int
	Seq Seq
}

// Batch is the origin of one batch. It is valid during the Write it came with.
type Batch struct {
	Source
	Marks []Mark // in order; End grows or stays, Seq grows

	mu    sync.Mutex
	turns []turn
}

// turn counts the Writes of one batch to one topic.
type turn struct {
	topic any
	n     int
}

// Begin says that the batch is about to be written, perhaps again.
func (b *Batch) Begin() {
	b.mu.Lock()
	b.turns = b.turns[:0]
	b.mu.Unlock()
}

// Turn returns the Source that a Write to a topic is to be known by. A sink may write to
// one topic more than once in one Write of its own, each time something else (a record,
// and a summary of it); the second time is a source by itself. topic is anything that
// can be compared.
func (b *Batch) Turn(topic any) Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.turns {
		if t := &b.turns[i]; t.topic == topic {
			t.n++
			return Source{b.Reader + "@" + strconv.Itoa(t.n), b.Partition}
		}
	}
	b.turns = append(b.turns, turn{topic, 0})
	return b.Source
}

// Covers tells whether the marks are about a batch of n records. They are not if a
// stage on the way has taken records out or put others in; nothing is known of such a
// batch then.
func (b *Batch) Covers(n int) bool {
	return b != nil && len(b.Marks) > 0 && b.Marks[len(b.Marks)-1].End == n
}

type key struct{}

// carrier is a context of its own kind, since one is made for each batch.
type carrier struct {
	context.Context
	b *Batch
}

func (c *carrier) Value(k any) any {
	if _, ok := k.(key); ok {
		return c.b
	}
	return c.Context.Value(k)
}

// With returns a context that says where a batch comes from. A nil b says that it is
// not known.
func With(ctx context.Context, b *Batch) context.Context { return &carrier{ctx, b} }

// Of returns where a batch comes from, nil if that is not known.
func Of(ctx context.Context) *Batch {
	b, _ := ctx.Value(key{}).(*Batch)
	return b
}

func (b *Batch) part(by string) Source {
	return Source{b.Reader + "@" + strings.NewReplacer("%", "%25", "@", "%40").Replace(by), b.Partition}
}

// Pick returns the context for those records of a batch of n that stand at the given
// indexes, which must grow: what a sink wrapper hands on that parts batches always in
// the same way. What it parts them by, such as the name of a route, is part of the
// source then: two parts may go to the same topic.
func Pick(ctx context.Context, n int, at []int, by string) context.Context {
	b := Of(ctx)
	if b == nil {
		return ctx
	}
	if !b.Covers(n) {
		return With(ctx, nil)
	}
	picked := &Batch{Source: b.part(by), Marks: make([]Mark, 0, len(b.Marks))}
	i := 0
	for _, m := range b.Marks {
		from := i
		for i < len(at) && at[i] < m.End {
			i++
		}
		if i > from {
			picked.Marks = append(picked.Marks, Mark{i, m.Seq})
		}
	}
	return With(ctx, picked)
}

// PickAll is Pick of all records of a batch of n.
func PickAll(ctx context.Context, n int, by string) context.Context {
	b := Of(ctx)
	if b == nil {
		return ctx
	}
	if !b.Covers(n) {
		return With(ctx, nil)
	}
	return With(ctx, &Batch{Source: b.part(by), Marks: b.Marks})
}

// Stamp is what stands beside a record on a topic: the Seq it was made of, and which
// of the records made of it this is, counted from 0 in the order of writing.
type Stamp struct {
	Source
	Seq     Seq
	Ordinal uint32
}

// Append appends the text of the stamp: "<topic>@<reader>/<partition>/<seq>/<ordinal>".
func (s Stamp) Append(dst []byte) []byte {
	dst = append(dst, s.Reader...)
	dst = append(dst, '/')
	dst = strconv.AppendInt(dst, int64(s.Partition), 10)
	dst = append(dst, '/')
	dst = strconv.AppendUint(dst, uint64(s.Seq), 10)
	dst = append(dst, '/')
	return strconv.AppendUint(dst, uint64(s.Ordinal), 10)
}

var errStamp = errors.New("origin: not a stamp: want <topic>@<reader>/<partition>/<seq>/<ordinal>")

const readerMax = 1024 // bytes of a Reader

// Parse reads the text of a stamp.
func Parse(text string) (s Stamp, err error) {
	rest := text
	cut := func(bits int) (n uint64) {
		i := strings.LastIndexByte(rest, '/')
		if err != nil || i < 0 {
			err = errStamp
			return 0
		}
		digits := rest[i+1:]
		rest = rest[:i]
		n, bad := strconv.ParseUint(digits, 10, bits)
		if bad != nil || digits[0] == '+' || digits[0] == '0' && len(digits) > 1 {
			err = errStamp
		}
		return n
	}
	s.Ordinal = uint32(cut(32))
	s.Seq = Seq(cut(64))
	s.Partition = int32(cut(31))
	s.Reader = rest
	if err == nil && (s.Seq == 0 || rest == "" || len(rest) > readerMax) {
		err = errStamp
	}
	if err != nil {
		return Stamp{}, fmt.Errorf("%w, have %.100q", err, text)
	}
	return s, nil
}

// After tells whether s lies behind o, which is a stamp of the same source.
func (s Stamp) After(o Stamp) bool {
	if s.Seq != o.Seq {
		return s.Seq > o.Seq
	}
	return s.Ordinal > o.Ordinal
}
