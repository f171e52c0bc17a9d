package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// The kinds of keys, which are the first byte.
//
//	T name                              a topic: id, partitions, what no other has
//	Y topic                             the type of its records, as text
//	B topic partition                   bounds of the partition
//	H topic partition offset            a hole that a repair has left: its end
//	M topic source-partition reader     how far the output of a reader has come: Seq
//	O topic reader partition            position of a reader
//	K topic reader partition key        what a reader keeps besides
//	r topic partition offset            a record
//
// topic is 4 bytes, partition 2, offset 8, big-endian; reader is a byte for group or
// all, 2 bytes of length, and the name.
const (
	kindTopic    = 'T'
	kindType     = 'Y'
	kindBounds   = 'B'
	kindHole     = 'H'
	kindMark     = 'M'
	kindPosition = 'O'
	kindKept     = 'K'
	kindRecord   = 'r' // behind all others
)

const (
	nameMax      = 512 // bytes of the name of a topic or a reader
	partitionMax = 1 << 14
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errValue   = errors.New("the checksum is wrong or the value cut short")
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func partKey(kind byte, topic uint32, partition int32) []byte {
	k := make([]byte, 0, 15)
	k = append(k, kind)
	k = binary.BigEndian.AppendUint32(k, topic)
	return binary.BigEndian.AppendUint16(k, uint16(partition))
}

// offsetKey is the key of a record or a hole.
func offsetKey(kind byte, topic uint32, partition int32, offset int64) []byte {
	return binary.BigEndian.AppendUint64(partKey(kind, topic, partition), uint64(offset))
}

const offsetKeyLen = 1 + 4 + 2 + 8

// parseOffsetKey reads what offsetKey has made.
func parseOffsetKey(k []byte) (topic uint32, partition int32, offset int64, ok bool) {
	if len(k) != offsetKeyLen || int64(binary.BigEndian.Uint64(k[7:])) < 0 {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint32(k[1:]), int32(binary.BigEndian.Uint16(k[5:])), int64(binary.BigEndian.Uint64(k[7:])), true
}

func topicKey(name string) []byte { return append([]byte{kindTopic}, name...) }

func typeKey(topic uint32) []byte { return binary.BigEndian.AppendUint32([]byte{kindType}, topic) }

// readerName is what a position goes by.
type readerName struct {
	name string
	all  bool
}

func readerKey(kind byte, topic uint32, r readerName) []byte {
	k := binary.BigEndian.AppendUint32([]byte{kind}, topic)
	if r.all {
		k = append(k, 'a')
	} else {
		k = append(k, 'g')
	}
	k = binary.BigEndian.AppendUint16(k, uint16(len(r.name)))
	return append(k, r.name...)
}

func parseReaderKey(k []byte) (r readerName, partition int32, rest []byte, ok bool) {
	if len(k) < 8 || k[5] != 'a' && k[5] != 'g' {
		return r, 0, nil, false
	}
	n := int(binary.BigEndian.Uint16(k[6:]))
	if n > nameMax || len(k) < 8+n+2 {
		return r, 0, nil, false
	}
	r = readerName{string(k[8 : 8+n]), k[5] == 'a'}
	k = k[8+n:]
	return r, int32(binary.BigEndian.Uint16(k)), k[2:], true
}

func readerPartKey(kind byte, topic uint32, r readerName, partition int32) []byte {
	return binary.BigEndian.AppendUint16(readerKey(kind, topic, r), uint16(partition))
}

func markKey(topic uint32, partition int32, reader string) []byte {
	k := binary.BigEndian.AppendUint32([]byte{kindMark}, topic)
	k = binary.BigEndian.AppendUint32(k, uint32(partition))
	return append(k, reader...)
}

func parseMarkKey(k []byte) (partition int32, reader string, ok bool) {
	if len(k) <= 9 || int32(binary.BigEndian.Uint32(k[5:])) < 0 {
		return 0, "", false
	}
	return int32(binary.BigEndian.Uint32(k[5:])), string(k[9:]), true
}

// after is the first key behind all that begin with k, whose last byte is not 255 for
// ever.
func after(k []byte) []byte {
	k = slices.Clone(k)
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}

// seal puts a checksum of key and value before the value. Values of records have it
// too, see head.
func seal(key, value []byte) []byte {
	sum := crc32.Update(checksum(value), castagnoli, key)
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(value)), sum), value...)
}

// unseal returns the value under a seal.
func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, errValue
	}
	if crc32.Update(checksum(sealed[4:]), castagnoli, key) != binary.LittleEndian.Uint32(sealed) {
		return nil, errValue
	}
	return sealed[4:], nil
}

// sealedInts are values of a few numbers.
func sealInts(key []byte, ints ...uint64) []byte {
	var v []byte
	for _, n := range ints {
		v = binary.AppendUvarint(v, n)
	}
	return seal(key, v)
}

func unsealInts(key, sealed []byte, ints ...*uint64) error {
	v, err := unseal(key, sealed)
	if err != nil {
		return err
	}
	for _, p := range ints {
		n, k := binary.Uvarint(v)
		if k <= 0 {
			return errValue
		}
		*p, v = n, v[k:]
	}
	if len(v) > 0 {
		return errors.New("the value is longer than this program knows it")
	}
	return nil
}

// head is what stands before the body of a record.
//
//	checksum 4   of the body, the rest of the head, and the key
//	time     8   when it was appended, nanoseconds since 1970
//	end      8   bytes of the partition so far, this record included
//	count    8   records of the partition so far, ticks left out
const headLen = 4 + 8 + 8 + 8

// putHead fills in the head of the record at key. sum is that of the body.
func putHead(head []byte, key []byte, sum uint32, at int64, end, count uint64) {
	binary.LittleEndian.PutUint64(head[4:], uint64(at))
	binary.LittleEndian.PutUint64(head[12:], end)
	binary.LittleEndian.PutUint64(head[20:], count)
	sum = crc32.Update(sum, castagnoli, head[4:headLen])
	binary.LittleEndian.PutUint32(head, crc32.Update(sum, castagnoli, key))
}

// stored is a record as it lies on the disk.
type stored struct {
	time  int64
	end   uint64
	count uint64
	tick  bool
	pack  byte // flagZstd, flagS2, or 0
	codec []byte
	size  int    // bytes of the value
	raw   int    // bytes that data has when it is not compressed
	data  []byte // aliases what was parsed
}

const (
	flagTick = 1 << iota
	flagZstd
	flagS2

	codecMax = 255
	rawMax   = recordMax
)

// appendBody appends the body of a record. data is compressed already if it is to be.
func appendBody(dst []byte, tick bool, pack byte, codec string, raw int, data []byte) []byte {
	flags := pack
	if tick {
		flags |= flagTick
	}
	dst = append(dst, flags, byte(len(codec)))
	dst = append(dst, codec...)
	dst = binary.AppendUvarint(dst, uint64(raw))
	return append(dst, data...)
}

func isTick(body []byte) bool { return body[0]&flagTick != 0 }

// parse reads a record and checks its sum.
func parse(key, value []byte) (s stored, err error) {
	if len(value) < headLen+3 {
		return s, errValue
	}
	body := value[headLen:]
	sum := crc32.Update(checksum(body), castagnoli, value[4:headLen])
	if crc32.Update(sum, castagnoli, key) != binary.LittleEndian.Uint32(value) {
		return s, errValue
	}
	s.size = len(value)
	s.time, s.end, s.count = int64(binary.LittleEndian.Uint64(value[4:])), binary.LittleEndian.Uint64(value[12:]), binary.LittleEndian.Uint64(value[20:])
	flags, n := body[0], int(body[1])
	if flags&^(flagTick|flagZstd|flagS2) != 0 || flags&flagZstd != 0 && flags&flagS2 != 0 {
		return s, fmt.Errorf("it is marked %#x, which this program does not know: it was written by a newer kemi", flags)
	}
	s.tick, s.pack = flags&flagTick != 0, flags&^flagTick
	if body = body[2:]; len(body) < n {
		return s, errValue
	}
	s.codec, body = body[:n], body[n:]
	raw, k := binary.Uvarint(body)
	if k <= 0 || raw > rawMax || s.pack == 0 && raw != uint64(len(body)-k) {
		return s, errValue
	}
	s.raw, s.data = int(raw), body[k:]
	return s, nil
}

// bounds is what is known of a partition when all its records are gone.
type bounds struct{ first, end, size, time, count uint64 }

func (b *bounds) seal(key []byte) []byte {
	return sealInts(key, b.first, b.end, b.size, b.time, b.count)
}

func (b *bounds) unseal(key, value []byte) error {
	return unsealInts(key, value, &b.first, &b.end, &b.size, &b.time, &b.count)
}

// seen takes in the record that stands at an offset.
func (b *bounds) seen(offset int64, s *stored) {
	b.end, b.size = max(b.end, uint64(offset)+1), max(b.size, s.end)
	b.time, b.count = max(b.time, uint64(s.time)), max(b.count, s.count)
}

func clockOf(nanos int64) time.Time { return time.Unix(0, nanos).UTC() }
