package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The tags of BER (X.690) and SMIv2 (RFC 2578, RFC 3416) that an agent needs.
const (
	tagInteger   = 0x02
	tagString    = 0x04
	tagNull      = 0x05
	tagOID       = 0x06
	tagSequence  = 0x30
	tagIPAddress = 0x40
	tagCounter32 = 0x41
	tagGauge32   = 0x42
	tagTimeTicks = 0x43
	tagOpaque    = 0x44
	tagCounter64 = 0x46

	tagNoSuchObject   = 0x80
	tagNoSuchInstance = 0x81
	tagEndOfMibView   = 0x82
)

// Value is the value of an object with its type on the wire. The zero Value is
// NULL.
type Value struct {
	ber []byte // tag, length, content; read-only
}

func number(tag byte, n int64) Value { return Value{appendInt(nil, tag, n)} }

// Integer returns an INTEGER, Integer32.
func Integer(n int32) Value { return number(tagInteger, int64(n)) }

// Counter32 returns a Counter32.
func Counter32(n uint32) Value { return number(tagCounter32, int64(n)) }

// Gauge32 returns a Gauge32, Unsigned32.
func Gauge32(n uint32) Value { return number(tagGauge32, int64(n)) }

// TimeTicks returns hundredths of a second.
func TimeTicks(n uint32) Value { return number(tagTimeTicks, int64(n)) }

// Counter64 returns a Counter64.
func Counter64(n uint64) Value { return Value{appendUint(nil, tagCounter64, n)} }

// String returns an OCTET STRING.
func String(s string) Value { return Value{element(tagString, s)} }

// Opaque returns an Opaque (RFC 2578, 7.1.9) with these bytes.
func Opaque(s string) Value { return Value{element(tagOpaque, s)} }

// IPAddress returns an IpAddress; a must be IPv4.
func IPAddress(a netip.Addr) Value {
	b := a.As4()
	return Value{element(tagIPAddress, string(b[:]))}
}

// ObjectID returns an OBJECT IDENTIFIER. It panics if s is none.
func ObjectID(s string) Value {
	oid, err := parseOID(s)
	if err != nil {
		panic(err)
	}
	return Value{appendOID(nil, oid)}
}

// Raw returns a value of any type, as it stands on the wire: for tests of readers.
func Raw(tag byte, content []byte) Value { return Value{element(tag, string(content))} }

// parseOID reads dotted numbers, with or without a leading dot.
func parseOID(s string) ([]uint32, error) {
	parts := strings.Split(strings.TrimPrefix(s, "."), ".")
	oid := make([]uint32, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("agent: object id %q: %w", s, err)
		}
		oid[i] = uint32(n)
	}
	switch {
	case len(oid) < 2 || len(oid) > maxOID:
		return nil, fmt.Errorf("agent: object id %q: want 2 to %d numbers", s, maxOID)
	case oid[0] > 2 || oid[0] < 2 && oid[1] > 39:
		return nil, fmt.Errorf("agent: object id %q: the first two numbers are out of range", s)
	case oid[0] == 2 && oid[1] > 1<<32-1-80:
		return nil, fmt.Errorf("agent: object id %q: the second number is out of range", s)
	}
	return oid, nil
}

func formatOID(oid []uint32) string {
	var b []byte
	for i, n := range oid {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(n), 10)
	}
	return string(b)
}

// ---- writing BER --------------------------------------------------------------

func appendLength(b []byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(b, byte(n))
	case n < 0x100:
		return append(b, 0x81, byte(n))
	default: // a datagram is never longer than two bytes can say
		return append(b, 0x82, byte(n>>8), byte(n))
	}
}

// lengthSize returns how many bytes appendLength(n) takes.
func lengthSize(n int) int {
	switch {
	case n < 0x80:
		return 1
	case n < 0x100:
		return 2
	default:
		return 3
	}
}

func appendInt(b []byte, tag byte, n int64) []byte {
	size := 1
	for v := n; v < -0x80 || v > 0x7f; v >>= 8 {
		size++
	}
	b = append(b, tag, byte(size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func appendUint(b []byte, tag byte, n uint64) []byte {
	if n>>63 == 0 {
		return appendInt(b, tag, int64(n))
	}
	b = append(b, tag, 9, 0) // the zero keeps it from being negative
	for i := 7; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

func element(tag byte, content string) []byte {
	return append(appendLength([]byte{tag}, len(content)), content...)
}

func appendOID(b []byte, oid []uint32) []byte {
	size := 0
	for i := 1; i < len(oid); i++ {
		for v := subID(oid, i); ; v >>= 7 {
			size++
			if v < 0x80 {
				break
			}
		}
	}
	b = appendLength(append(b, tagOID), size)
	for i := 1; i < len(oid); i++ {
		v := subID(oid, i)
		shift := 0
		for v>>shift >= 0x80 {
			shift += 7
		}
		for ; shift > 0; shift -= 7 {
			b = append(b, 0x80|byte(v>>shift)&0x7f)
		}
		b = append(b, byte(v)&0x7f)
	}
	return b
}

// subID returns the i-th number as it is written: the first two share one
// (X.690, 8.19.4).
func subID(oid []uint32, i int) uint32 {
	if i == 1 {
		return oid[0]*40 + oid[1]
	}
	return oid[i]
}

// ---- reading BER --------------------------------------------------------------

var errBER = errors.New("agent: not the BER of an SNMP message")

// cursor reads the elements of a BER encoding one after the other.
type cursor []byte

// next returns the tag and content of the next element.
func (c *cursor) next() (tag byte, content []byte, err error) {
	b := *c
	if len(b) < 2 {
		return 0, nil, errBER
	}
	tag, n, b := b[0], int(b[1]), b[2:]
	if n >= 0x80 {
		size := n & 0x7f
		// No indefinite lengths, and none that a datagram cannot have, though leading
		// zeros are allowed: net-snmp writes 30 82 00 1c.
		if size == 0 || size > 4 || size > len(b) {
			return 0, nil, errBER
		}
		n = 0
		for _, x := range b[:size] {
			if n > maxMessage {
				return 0, nil, errBER
			}
			n = n<<8 | int(x)
		}
		b = b[size:]
	}
	if n > len(b) {
		return 0, nil, errBER
	}
	*c = b[n:]
	return tag, b[:n], nil
}

// want returns the content of the next element, which must have this tag.
func (c *cursor) want(tag byte) ([]byte, error) {
	t, content, err := c.next()
	if err == nil && t != tag {
		err = errBER
	}
	return content, err
}

func (c *cursor) integer() (int32, error) {
	b, err := c.want(tagInteger)
	if err != nil || len(b) == 0 || len(b) > 4 {
		return 0, errBER
	}
	n := int32(int8(b[0]))
	for _, x := range b[1:] {
		n = n<<8 | int32(x)
	}
	return n, nil
}

// oid appends the numbers of the next element, an OBJECT IDENTIFIER, to dst.
func (c *cursor) oid(dst []uint32) ([]uint32, error) {
	b, err := c.want(tagOID)
	if err != nil || len(b) == 0 || b[len(b)-1]&0x80 != 0 {
		return dst, errBER
	}
	start := len(dst)
	var v uint64
	for _, x := range b {
		if v = v<<7 | uint64(x&0x7f); v > 1<<32-1 {
			return dst, errBER
		}
		if x&0x80 != 0 {
			continue
		}
		if len(dst) == start {
			first := min(v/40, 2)
			dst = append(dst, uint32(first), uint32(v-40*first))
		} else {
			dst = append(dst, uint32(v))
		}
		if v = 0; len(dst)-start > maxOID {
			return dst, errBER
		}
	}
	return dst, nil
}
