// Package bus has the contract of topics: where records wait between flows.
//
// A [Topic] is a Sink on one side and a Source on the other. It is the only place
// in kemi where records may wait; everything else holds one batch per lane. The
// implementations are in the folders below, and all of them pass bus/bustest.
package bus

import (
	"reflect"

	"github.com/kemi-go/kemi"
)

// Topic carries records of one type from flow to flow.
//
// Write returns nil when the whole batch is on the topic, as safe as the topic is:
// in memory, on disk, replicated. Records of one partition key are read in the
// order in which they were written; those of different keys in no promised order.
// A topic stores batches of one key, not single records: what is written together
// for one host is read together, in one Write of the reader, perhaps with more
// beside it. The partition of a key is [PartitionOf].
//
// A source reads through one [kemi.Lane] for each partition, called
// "<topic>/<partition>". A name that reads for the first time starts at the oldest
// record that is still there. Its position moves over a record only after the
// reader's Write has returned nil, and it outlives the reader: the next Run of the
// name goes on from there. What a reader refuses comes again, in order. Before a
// lane with a horizon is given new records it is fed, muted, the input before its
// position that the horizon reaches back to, as far as the topic still has it.
//
// Whether a source that is asked to stop first hands over what waits on the topic
// depends on where records are safe: a topic in memory does, a durable one need not.
//
// A topic and its sources have the same String, so that a drawing of the pipeline
// shows one node.
type Topic[T any] interface {
	kemi.Sink[T]

	// Group reads the topic as one of the members that go by this name: each record
	// goes to one of them, at least once. It is a kemi.Shared source. Partitions are
	// dealt out anew when a member comes or goes, and each is handed over only after
	// the Write under way has returned, so the order of a key holds.
	Group(name string) kemi.Source[T]

	// All reads every partition, whoever else reads the topic, be it by the same name:
	// each Run sees every record from the name's position on, at least once. It is for
	// rules that aggregate over hosts. The position is the furthest that any Run has
	// come to; it has nothing to do with a group of that name.
	All(name string) kemi.Source[T]
}

// Key tells the partition key of a record. It always gives the same answer for the
// same record, and it may be called by many goroutines.
type Key[T any] func(T) string

// Keyed is a record that knows its partition key. All records of the root package
// but DeadLetter do.
type Keyed interface{ PartitionKey() string }

// KeyOf returns the key function of a type that is [Keyed], or nil. A topic without
// a key function has one key, the empty one, and so keeps the order of everything.
func KeyOf[T any]() Key[T] {
	typ := reflect.TypeFor[T]()
	if !typ.Implements(reflect.TypeFor[Keyed]()) {
		return nil
	}
	if typ.Kind() == reflect.Interface { // a conversion between interfaces allocates nothing
		return func(r T) string { return any(r).(Keyed).PartitionKey() }
	}
	// The method itself, with the receiver as its argument. Going through Keyed would
	// put each record into an interface, which is an allocation for each.
	m, _ := typ.MethodByName("PartitionKey")
	return m.Func.Interface().(func(T) string)
}

// Codec turns batches into bytes and back. A topic names the codec in a header of
// each record, so that a reader takes records of any codec it knows and a topic can
// change its codec while it runs.
//
// A Codec has no state and may be used by many goroutines. bustest.RunCodec checks
// what is said here.
type Codec[T any] interface {
	// Name is what the header says: a name and a version, such as "json/1". It never
	// comes to mean another format.
	Name() string
	// AppendBatch appends the encoding of batch to dst. The same batch gives the same
	// bytes.
	AppendBatch(dst []byte, batch []T) ([]byte, error)
	// DecodeBatch appends the records in src to dst. It keeps no reference to src.
	// Bytes that are not of this codec give an error and never a panic, and no more
	// memory than bytes of that length can ask for; what is returned with an error
	// begins with dst, unchanged.
	DecodeBatch(dst []T, src []byte) ([]T, error)
}
