package codec

import "encoding/binary"

// The tags of BER that stand in the headers of messages.
const (
	tagInteger  = 0x02
	tagString   = 0x04
	tagSequence = 0x30
)

// field reads one field of b: its tag, its content, and what follows it. Only
// definite lengths are allowed (RFC 3417, section 8).
func field(b []byte) (tag byte, content, rest []byte, ok bool) {
	if len(b) < 2 {
		return 0, nil, nil, false
	}
	n, head := int(b[1]), 2
	if n >= 0x80 {
		size := n & 0x7f
		if size == 0 || size > 3 || len(b) < 2+size {
			return 0, nil, nil, false
		}
		n = 0
		for _, x := range b[2 : 2+size] {
			n = n<<8 | int(x)
		}
		head += size
	}
	if n > len(b)-head {
		return 0, nil, nil, false
	}
	return b[0], b[head : head+n], b[head+n:], true
}

// open reads a field with the given tag.
func open(b []byte, want byte) (content, rest []byte, ok bool) {
	tag, content, rest, ok := field(b)
	return content, rest, ok && tag == want
}

func integer(b []byte) (n int64, rest []byte, ok bool) {
	c, rest, ok := open(b, tagInteger)
	if !ok || len(c) == 0 || len(c) > 8 {
		return 0, nil, false
	}
	n = int64(int8(c[0]))
	for _, x := range c[1:] {
		n = n<<8 | int64(x)
	}
	return n, rest, true
}

// idField returns the four bytes that hold the id of a message: the request-id of
// version 1 or 2c, the msgID of version 3.
func idField(msg []byte) ([]byte, bool) {
	b, _, ok := open(msg, tagSequence)
	if !ok {
		return nil, false
	}
	version, b, ok := integer(b)
	if !ok {
		return nil, false
	}
	if version == 3 {
		b, _, ok = open(b, tagSequence)
	} else {
		if _, b, ok = open(b, tagString); ok {
			_, b, _, ok = field(b) // the PDU
		}
	}
	if !ok {
		return nil, false
	}
	id, _, ok := open(b, tagInteger)
	return id, ok && len(id) == 4
}

// ID returns the id by which the answer to a request is known: the request-id of
// version 2c, the msgID of version 3. An id made by us always has four bytes.
func ID(msg []byte) (uint32, bool) {
	id, ok := idField(msg)
	if !ok {
		return 0, false
	}
	return binary.BigEndian.Uint32(id), true
}

// SampleID is an id to encode a message with whose id SetID will change.
const SampleID = 1 << 30

// SetID changes the request-id of a message that EncodeV2c made.
func SetID(msg []byte, id uint32) {
	if f, ok := idField(msg); ok {
		binary.BigEndian.PutUint32(f, id)
	}
}

// header is what stands in front of the data of a message of version 3 (RFC 3412,
// section 6, and RFC 3414, section 2.4).
type header struct {
	id          int64
	flags       byte
	model       int64
	engine      string
	boots, time uint32
	user        string
}

func parseHeader(msg []byte) (h header, ok bool) {
	b, _, ok := open(msg, tagSequence)
	if !ok {
		return h, false
	}
	version, b, ok := integer(b)
	if !ok || version != 3 {
		return h, false
	}
	global, b, ok := open(b, tagSequence)
	if !ok {
		return h, false
	}
	if h.id, global, ok = integer(global); !ok {
		return h, false
	}
	if _, global, ok = integer(global); !ok { // msgMaxSize
		return h, false
	}
	flags, global, ok := open(global, tagString)
	if !ok || len(flags) != 1 {
		return h, false
	}
	h.flags = flags[0]
	if h.model, _, ok = integer(global); !ok {
		return h, false
	}
	usm, _, ok := open(b, tagString)
	if !ok {
		return h, false
	}
	if usm, _, ok = open(usm, tagSequence); !ok {
		return h, false
	}
	engine, usm, ok := open(usm, tagString)
	if !ok {
		return h, false
	}
	boots, usm, ok := integer(usm)
	if !ok || boots < 0 || boots > maxClock {
		return h, false
	}
	clock, usm, ok := integer(usm)
	if !ok || clock < 0 || clock > maxClock {
		return h, false
	}
	user, _, ok := open(usm, tagString)
	if !ok {
		return h, false
	}
	h.engine, h.boots, h.time, h.user = string(engine), uint32(boots), uint32(clock), string(user)
	return h, true
}
