package memory

import (
	"reflect"
	"slices"
	"time"
)

// chunkBytes is how much memory a partition takes at a time. Up to that much may be
// kept of records that everybody has read.
const chunkBytes = 32 << 10

// unit is what was written together for one key.
type unit[T any] struct {
	// records lie in a chunk, one unit after the other, and their capacity goes on to
	// the end of the chunk, over the units that follow.
	records []T
	seq     uint64 // in the topic, to tell which of two partitions has the older
	time    time.Time
}

// log is what is there of one partition. Offsets count units.
type log[T any] struct {
	units []unit[T] // those before head are gone
	head  int
	first int64 // the offset of units[head]
	chunk []T   // filled up to its length
	size  int   // of the next chunk, in records
}

func (l *log[T]) len() int            { return len(l.units) - l.head }
func (l *log[T]) end() int64          { return l.first + int64(l.len()) }
func (l *log[T]) at(o int64) *unit[T] { return &l.units[l.head+int(o-l.first)] }

// append puts a copy of u at the end.
func (l *log[T]) append(u unit[T]) {
	n := len(u.records)
	most := max(chunkBytes/max(int(reflect.TypeFor[T]().Size()), 1), 1)
	switch {
	case n > most/4:
		// With a chunk of its own no more than a quarter of a shared one goes to waste.
		u.records = slices.Clone(u.records)
	case n > cap(l.chunk)-len(l.chunk):
		l.size = min(max(2*l.size, 4*n), most)
		l.chunk = make([]T, 0, l.size)
		fallthrough
	default:
		from := len(l.chunk)
		l.chunk = append(l.chunk, u.records...)
		u.records = l.chunk[from:]
	}
	l.units = append(l.units, u)
}

// read returns the records from offset o up to offset end, or as many of them as lie
// in one chunk, and the offset after them. They are not copied.
func (l *log[T]) read(o, end int64) (records []T, next int64) {
	records = l.at(o).records
	for next = o + 1; next < end; next++ {
		n, more := len(records), l.at(next).records
		if n+len(more) > cap(records) || &records[:n+1][n] != &more[0] {
			break
		}
		records = records[:n+len(more)]
	}
	return records[:len(records):len(records)], next
}

// drop forgets the oldest unit and returns how many records it had.
func (l *log[T]) drop() int {
	n := len(l.units[l.head].records)
	l.units[l.head] = unit[T]{}
	l.head++
	l.first++
	if l.head > 64 && l.head > len(l.units)/2 {
		l.units = slices.Delete(l.units, 0, l.head)
		l.head = 0
	}
	return n
}

// since returns the lowest offset not above o from which on all units are of time t
// or later.
func (l *log[T]) since(t time.Time, o int64) int64 {
	for o > l.first && !l.at(o-1).time.Before(t) {
		o--
	}
	return o
}
