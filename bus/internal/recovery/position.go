package recovery

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

func compare(a, b string) int { return strings.Compare(a, b) }

// Position is how far a reader has come in a partition.
type Position struct {
	Next  int64     // the first offset that was not delivered
	Clock time.Time // of the last tick before it; zero: there was none
	Marks marks     // what has been delivered of each source, where the log may have duplicates

	Rewind      int64 // the state at Next is made of the input from here on
	RewindClock time.Time
	RewindMarks marks

	Proof kemi.Proof // of the state at Next

	// Torn: somebody has set Next, and there may be sources before it without a mark.
	Torn bool
}

// Back sets p back to offset to, as the log has lost what came after it, or may have,
// and gives offsets out again. Marks and clock are of what is lost. State is built from
// the beginning of the log, since how far before to it reaches is not known; a reader
// that does not look back at its input keeps the marks, and drops what it has had.
func (p *Position) Back(to int64, looksBack bool) {
	if looksBack {
		*p = Position{Next: to, Torn: p.Torn}
		return
	}
	*p = Position{Next: to, Rewind: to, Marks: p.Marks, RewindMarks: p.Marks, Torn: p.Torn}
}

// marks are the furthest stamps that have come, in order of sources.
type marks []origin.Stamp

func order(a, b origin.Stamp) int {
	if c := strings.Compare(a.Reader, b.Reader); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

// passes tells whether a stamp lies beyond the mark of its source.
func (m marks) passes(s origin.Stamp) bool {
	i, ok := slices.BinarySearchFunc(m, s, order)
	return !ok || s.After(m[i])
}

// knows tells whether there is a mark of the source of a stamp.
func (m marks) knows(s origin.Stamp) bool {
	_, ok := slices.BinarySearchFunc(m, s, order)
	return ok
}

// with changes m to the marks after a stamp has passed.
func (m marks) with(s origin.Stamp) marks {
	i, ok := slices.BinarySearchFunc(m, s, order)
	if ok {
		m[i] = s
		return m
	}
	return slices.Insert(m, i, s)
}

const (
	positionVersion = 1
	positionTorn    = 2
	marksMax        = 1 << 14 // of one position, as a limit to what is believed
)

// AppendBinary appends p for [Position.UnmarshalBinary]. The marks to rewind to are
// told by their distance from the others, as there may be many.
func (p *Position) AppendBinary(dst []byte) []byte {
	version := byte(positionVersion)
	if p.Torn {
		version = positionTorn
	}
	dst = append(dst, version)
	dst = binary.AppendVarint(dst, p.Next)
	dst = binary.AppendVarint(dst, p.Next-p.Rewind)
	dst = binary.AppendVarint(dst, nanos(p.Clock))
	dst = binary.AppendVarint(dst, nanos(p.RewindClock))
	dst = binary.LittleEndian.AppendUint64(dst, p.Proof.Version)
	dst = binary.LittleEndian.AppendUint64(dst, p.Proof.Hash)
	dst = binary.AppendUvarint(dst, uint64(len(p.Marks)))
	reader := ""
	for _, m := range p.Marks {
		// "" stands for the reader before.
		if m.Reader == reader {
			dst = binary.AppendUvarint(dst, 0)
		} else {
			dst = binary.AppendUvarint(dst, uint64(len(m.Reader)))
			dst = append(dst, m.Reader...)
			reader = m.Reader
		}
		dst = binary.AppendUvarint(dst, uint64(m.Partition))
		dst = binary.AppendUvarint(dst, uint64(m.Seq))
		dst = binary.AppendUvarint(dst, uint64(m.Ordinal))
		// All that is among the marks to rewind to is among the others.
		var old origin.Stamp
		if i, ok := slices.BinarySearchFunc(p.RewindMarks, m, order); ok {
			old = p.RewindMarks[i]
		}
		dst = binary.AppendUvarint(dst, uint64(m.Seq-old.Seq))
		dst = binary.AppendUvarint(dst, uint64(old.Ordinal))
	}
	return dst
}

var errPosition = errors.New("recovery: not a position")

// UnmarshalBinary reads what AppendBinary has written.
func (p *Position) UnmarshalBinary(src []byte) error {
	if len(src) == 0 {
		return errPosition
	}
	if src[0] != positionVersion && src[0] != positionTorn {
		return fmt.Errorf("recovery: a position of version %d, and this program knows %d: it was written by a newer kemi", src[0], positionTorn)
	}
	r := reader{src[1:], false}
	q := Position{Next: r.varint(), Torn: src[0] == positionTorn}
	q.Rewind = q.Next - r.varint()
	q.Clock, q.RewindClock = timeOf(r.varint()), timeOf(r.varint())
	q.Proof = kemi.Proof{Version: r.fixed(), Hash: r.fixed()}
	name := ""
	for n := r.uvarint(marksMax); n > 0 && !r.bad; n-- {
		if k := r.uvarint(math.MaxUint64); k > uint64(len(r.src)) {
			r.bad = true
		} else if k > 0 {
			name, r.src = string(r.src[:k]), r.src[k:]
		}
		s := origin.Stamp{Source: origin.Source{Reader: name, Partition: int32(r.uvarint(math.MaxInt32))}}
		s.Seq, s.Ordinal = origin.Seq(r.uvarint(math.MaxUint64)), uint32(r.uvarint(math.MaxUint32))
		old := s
		old.Seq, old.Ordinal = s.Seq-origin.Seq(r.uvarint(uint64(s.Seq))), uint32(r.uvarint(math.MaxUint32))
		if name == "" || s.Seq == 0 || len(q.Marks) > 0 && order(q.Marks[len(q.Marks)-1], s) >= 0 {
			r.bad = true
		}
		q.Marks = append(q.Marks, s)
		if old.Seq != 0 {
			q.RewindMarks = append(q.RewindMarks, old)
		}
	}
	if r.bad || len(r.src) > 0 || q.Next < 0 || q.Rewind < 0 || q.Rewind > q.Next {
		return errPosition
	}
	*p = q
	return nil
}

// Text returns p as text, for where bytes do not fit.
func (p *Position) Text() string {
	return "kemi1:" + base64.RawStdEncoding.EncodeToString(p.AppendBinary(nil))
}

// ParseText reads what Text has written.
func (p *Position) ParseText(text string) error {
	b64, ok := strings.CutPrefix(text, "kemi1:")
	if !ok {
		return errPosition
	}
	b, err := base64.RawStdEncoding.DecodeString(b64)
	if err != nil {
		return errPosition
	}
	return p.UnmarshalBinary(b)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// reader reads numbers. Once something is wrong all are 0.
type reader struct {
	src []byte
	bad bool
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.src)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.src = r.src[n:]
	return v
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.src)
	if n <= 0 || v > most || r.bad {
		r.bad = true
		return 0
	}
	r.src = r.src[n:]
	return v
}

func (r *reader) fixed() uint64 {
	if len(r.src) < 8 {
		r.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.src)
	r.src = r.src[8:]
	return v
}
