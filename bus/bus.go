// Package bus has the contract of topics: where records wait between flows.
//
// A [Topic] is a Sink on one side and a Source on the other. It is the only place
// in kemi where records may wait; everything else holds one batch per lane. The
// implementations are in the folders below, and all of them pass bus/bustest.
package bus

import (
	"fmt"

	"github.com/kemi-go/kemi"
)

// Topic carries records of one type from flow to flow.
//
// Write returns nil when the whole batch is on the topic, as safe as the topic is:
// in memory, on disk, replicated. Records of one partition key are read in the
// order in which they were written; those of different keys in no promised order.
// A topic stores batches of one key, not single records: what is written together
// for one host is read together.
type Topic[T any] interface {
	kemi.Sink[T]

	// Group reads the topic as one of the members that go by this name: each record
	// goes to one of them, at least once. It is a kemi.Shared source.
	Group(name string) kemi.Source[T]

	// All reads every partition, whoever else reads the topic. It is for rules that
	// aggregate over hosts. The name keeps the position, like that of a group.
	All(name string) kemi.Source[T]
}

// Key tells the partition key of a record.
type Key[T any] func(T) string

// Keyed is a record that knows its partition key. All records of the root package
// but DeadLetter do.
type Keyed interface{ PartitionKey() string }

// KeyOf returns the key function of a type that is Keyed, or nil.
func KeyOf[T any]() Key[T] {
	var zero T
	if _, ok := any(zero).(Keyed); !ok {
		return nil
	}
	return func(r T) string { return any(r).(Keyed).PartitionKey() }
}

// Codec turns batches into bytes and back. A topic names the codec in a header of
// each record, so that a reader takes records of any codec it knows and a topic can
// change its codec while it runs.
//
// A Codec has no state and may be used by many goroutines.
type Codec[T any] interface {
	// Name is what the header says: a name and a version, such as "json/1". It never
	// comes to mean another format.
	Name() string
	// AppendBatch appends the encoding of batch to dst. The same batch gives the same
	// bytes.
	AppendBatch(dst []byte, batch []T) ([]byte, error)
	// DecodeBatch appends the records in src to dst. It keeps no reference to src.
	// Bytes that are not of this codec give an error and never a panic.
	DecodeBatch(dst []T, src []byte) ([]T, error)
}

// PartitionOf returns the partition of a key: murmur2 as Kafka's clients use it, so
// that moving a topic to Kafka keeps each host where it was.
func PartitionOf(key string, partitions int) int {
	if partitions <= 0 {
		panic(fmt.Sprintf("bus: %d partitions", partitions))
	}
	return int(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 is MurmurHash2 (A. Appleby) with the seed of Kafka's DefaultPartitioner.
func murmur2(s string) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(s))
	for len(s) >= 4 {
		k := uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
		s = s[4:]
	}
	switch len(s) {
	case 3:
		h ^= uint32(s[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(s[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(s[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
