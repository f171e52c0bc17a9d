package otlp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// The wire format of protobuf: https://protobuf.dev/programming-guides/encoding.
// Messages are read out of strings, so that what is kept of them is a substring of a
// copy, or a copy of a substring, and never a place in memory that may change.

// The wire types.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeGroup   = 3
	typeEnd     = 4
	typeFixed32 = 5
)

// maxDepth is how deep values may lie in values, and groups in groups.
const maxDepth = 32

var (
	errShort   = errors.New("cut short")
	errVarint  = errors.New("a number of more than 64 bits")
	errField   = errors.New("a field number that cannot be")
	errType    = errors.New("a wire type that cannot be")
	errGroup   = errors.New("groups that do not match")
	errDepth   = fmt.Errorf("nested deeper than %d levels", maxDepth)
	errTooMuch = errors.New("asks for much more memory than it has bytes")
)

// message goes through the fields of a message:
//
//	for m.next() {
//		switch m.tag {
//
// The zero value with s set stands before the first field. It may be copied, to go
// through the same fields twice.
type message struct {
	s     string
	at, i int    // where the field starts, and where it ends
	tag   uint32 // of the field: its number and wire type
	n     uint64 // its value, of a varint or a fixed number
	body  string // its value, of bytes, strings and messages
	err   error
}

// tag is what m.tag is for a field.
func tag(num, typ uint32) uint32 { return num<<3 | typ }

// next reads a field. It returns false at the end and at an error.
func (m *message) next() bool {
	if m.i >= len(m.s) || m.err != nil {
		return false
	}
	m.at = m.i
	t := uint64(m.s[m.i])
	if t < 0x80 {
		m.i++
	} else if t = m.varint(); m.err != nil {
		return false
	}
	if t>>3 == 0 || t>>3 >= 1<<29 {
		m.err = errField
		return false
	}
	m.tag = uint32(t)
	switch t & 7 {
	case typeBytes:
		var n uint64
		if m.i < len(m.s) && m.s[m.i] < 0x80 {
			n = uint64(m.s[m.i])
			m.i++
		} else if n = m.varint(); m.err != nil {
			return false
		}
		if n > uint64(len(m.s)-m.i) {
			m.err = errShort
			return false
		}
		m.body = m.s[m.i : m.i+int(n)]
		m.i += int(n)
	case typeVarint:
		m.n = m.varint()
	case typeFixed64:
		if len(m.s)-m.i < 8 {
			m.err = errShort
			return false
		}
		m.n = fixed64(m.s[m.i:])
		m.i += 8
	case typeFixed32:
		if len(m.s)-m.i < 4 {
			m.err = errShort
			return false
		}
		s := m.s[m.i:]
		m.n = uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
		m.i += 4
	case typeGroup:
		m.skipGroup()
	case typeEnd:
		m.err = errGroup
	default:
		m.err = errType
	}
	return m.err == nil
}

func fixed64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// varint reads a number of up to ten bytes.
func (m *message) varint() uint64 {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if m.i >= len(m.s) {
			m.err = errShort
			return 0
		}
		b := m.s[m.i]
		m.i++
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	m.err = errVarint
	return 0
}

// skipGroup goes behind the end of a group. OTLP has none: it is always a field that
// is not known.
func (m *message) skipGroup() {
	var open [maxDepth]uint32
	start := m.tag
	open[0] = start
	for depth := 1; depth > 0; {
		if m.i >= len(m.s) {
			m.err = errShort
			return
		}
		// The other types are read by next, which comes here for those that open a group.
		f := message{s: m.s, i: m.i}
		t := f.varint()
		switch {
		case f.err != nil:
			m.err = f.err
			return
		case t>>3 == 0 || t>>3 >= 1<<29:
			m.err = errField
			return
		}
		switch t & 7 {
		case typeGroup:
			if depth == maxDepth {
				m.err = errDepth
				return
			}
			open[depth] = uint32(t)
			depth++
			m.i = f.i
		case typeEnd:
			depth--
			if open[depth]>>3 != uint32(t)>>3 {
				m.err = errGroup
				return
			}
			m.i = f.i
		default:
			f = message{s: m.s, i: m.i}
			if !f.next() {
				m.err = f.err
				return
			}
			m.i = f.i
		}
	}
	m.tag = start
}

// unknown is for a field whose tag is not expected. One with a number that is not
// known is skipped: it is of a later version. One that is known, of another wire type,
// is an error: these bytes are something else. known has the bit of each known number.
func (m *message) unknown(known uint32) error {
	if num := m.tag >> 3; num < 32 && known>>num&1 != 0 {
		return fmt.Errorf("field %d has wire type %d: this is another message", num, m.tag&7)
	}
	return nil
}

// fields is the mask of unknown.
func fields(nums ...uint) (mask uint32) {
	for _, n := range nums {
		mask |= 1 << n
	}
	return mask
}

// merged is the value of a message that may come in several parts. Protobuf merges
// them, which is what their bytes, one behind the other, mean as well.
type merged struct {
	s   string
	own []byte // where s lies from the second part on
	set bool
}

func (m *merged) add(part string) {
	if !m.set {
		m.s, m.set = part, true
		return
	}
	if m.own == nil {
		m.own = append(make([]byte, 0, 2*(len(m.s)+len(part))), m.s...)
	}
	m.own = append(m.own, part...)
	m.s = view(m.own)
}

// run is the bytes of all fields of one number, tags and all. They mostly lie
// together, and are then a piece of the message.
type run struct {
	merged
	end int
}

func (r *run) add(m *message) {
	if r.set && r.own == nil && r.end == m.at {
		r.s = m.s[m.at-len(r.s) : m.i]
	} else {
		r.merged.add(m.s[m.at:m.i])
	}
	r.end = m.i
}

// Writing. A message is opened, filled and closed; close puts its length before it.

func appendTag(b []byte, num, typ uint32) []byte {
	return binary.AppendUvarint(b, uint64(tag(num, typ)))
}

func appendString(b []byte, num uint32, s string) []byte {
	b = appendTag(b, num, typeBytes)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendVarint(b []byte, num uint32, v uint64) []byte {
	return binary.AppendUvarint(appendTag(b, num, typeVarint), v)
}

func appendFixed64(b []byte, num uint32, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(b, num, typeFixed64), v)
}

// open starts a message. It leaves one byte for the length, and start is where the
// message begins.
func open(b []byte, num uint32) (_ []byte, start int) {
	b = append(appendTag(b, num, typeBytes), 0)
	return b, len(b)
}

// closed ends the message at start. One of 128 bytes and more has to move, as its
// length takes more than the byte that was left for it: that is cheaper than to go
// through everything twice.
func closed(b []byte, start int) []byte {
	n := len(b) - start
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	size := varintLen(uint64(n))
	var room [9]byte
	b = append(b, room[:size-1]...)
	copy(b[start+size-1:], b[start:start+n])
	binary.PutUvarint(b[start-1:], uint64(n))
	return b
}

func varintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
