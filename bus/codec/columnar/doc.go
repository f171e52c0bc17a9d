// Package columnar has the codecs of metrics and logs between the stages of kemi: small,
// quick to read, and exact. [Metrics] is kcol-metrics/1, [Logs] is kcol-logs/1.
//
// A batch is a table stored by columns. What repeats in it, and in a poll of one host
// nearly everything but the numbers does, is stored once: strings, metric names with
// their kinds, labels, label sets, the time.
//
// # What comes back
//
// Metrics come back as they were, to the bit: counters above 2^53, not-a-numbers with
// their payload, infinities, -0, any bytes in strings. Logs do too, and their fields of
// the kinds string, int64, uint64, float64, bool, duration, time, group and nil. There
// are these exceptions:
//
//   - Times come back as the same instant in UTC, without a monotonic reading.
//   - A [log/slog.LogValuer] comes back as what it resolves to, an error as its text.
//   - Another any value comes back as what its JSON says, as [kemi.Log] itself does in
//     JSON: a number, a string, a bool, nil, a group for an object, and for an array an
//     any value that holds []any with [encoding/json.Number] in it. One that has no JSON
//     comes back as the text of fmt.Sprint. What came back so comes back the same the
//     next time.
//   - An empty list of fields comes back as nil.
//
// A metric of a kind that kemi does not know, and fields nested more than 10,000 deep,
// cannot be encoded.
//
// # Memory
//
// Decoding metrics allocates nothing but room in dst, once names and label sets are
// known. A label set is known while anybody holds it: a stage with state, as a rule, and
// for the others the codec itself, which holds the last 8192 sets that were new to it.
// It keeps 4096 names besides. So use one codec for a topic, and not a new one for each
// batch. What damaged or hostile bytes can make a decoder allocate is in proportion to
// their length, a few hundred times at the worst.
//
// # Format
//
// Everything that a reader of another make needs is here. There is no checksum, as the
// topics have theirs.
//
//	uvarint   an unsigned number, 7 bits in a byte, the lowest first, the top bit set in
//	          all bytes but the last; at most 10 bytes (as in protobuf)
//	svarint   a signed number x as the uvarint (x << 1) ^ (x >> 63)
//	f64       the 8 bytes of an IEEE 754 double, the lowest first
//	[n]x      n times x
//
//	strings = count uvarint, [count] length uvarint, the bytes of all of them
//
// A ref is the index of an entry in a table, from 0. A column is a list of as many signed
// numbers as the batch has records, written as runs of equal differences:
//
//	column  = runs, until they make up all records
//	run     = length uvarint (at least 1), difference svarint
//
// Each number is the one before it plus the difference of its run, and the one before
// the first is 0; sums wrap at 64 bits. So 7 7 7 7 is the runs (1, 7) (3, 0), and
// 0 1 2 3 is (1, 0) (3, 1).
//
//	times   = scale byte, seconds column, fraction column
//
// The time of a record is so many seconds since 1970-01-01 UTC, which may be negative,
// and fraction × 10^scale nanoseconds on top, less than a second. The scale is 0, 3, 6
// or 9. The zero time.Time is second -62135596800.
//
// Metrics, kcol-metrics/1:
//
//	batch   = "kcm" 0x01, records uvarint, and unless that is 0:
//	          strings, names, labels, sets,
//	          name column, set column, times, values
//	names   = count uvarint, [count] { string ref uvarint, kind byte }
//	labels  = count uvarint, [count] { name ref uvarint, value ref uvarint }
//	sets    = count uvarint, [count] { head uvarint, tail uvarint, own uvarint,
//	                                   [own] label ref uvarint }
//	values  = [(records+3)/4] byte, [records] number
//
// The kind is 0 gauge, 1 counter, 2 counter32, 3 floatcounter. A name is a string with a
// kind. A set is the first head labels of the set before it in the table, then its own
// labels, then the last tail labels of the set before it; a set that borrows any has at
// most 32 labels in all. Labels are in order of names. The name and the set column hold
// refs. Of the bytes before the numbers each has the forms of four of them, the lowest
// two bits that of the first:
//
//	0  the 64 bits of the number as they are, 8 bytes, the lowest first: an f64 for a
//	   gauge and a floatcounter, an unsigned number for the others
//	1  svarint x: the number is x
//	2  svarint x: the number is the double nearest to x / 100
//	3  svarint x: the number is the double nearest to x / 1000
//
// Forms 2 and 3 are for gauges and floatcounters only. A writer uses them only where they
// give back the very bits.
//
// Logs, kcol-logs/1:
//
//	batch   = "kcl" 0x01, records uvarint, and unless that is 0:
//	          strings,
//	          host column, app column, tag column (refs of strings),
//	          priority column (facility × 256 + severity),
//	          time times, observed times,
//	          [records] id length uvarint, the bytes of all ids,
//	          [records] message length uvarint, the bytes of all messages,
//	          [records] fields
//	fields  = count uvarint, [count] { key ref uvarint, value }
//	value   = type byte, and then by type:
//	          0 nil, 1 false, 2 true: nothing
//	          3 int64: svarint          4 uint64: uvarint        5 float64: f64
//	          6 string: length uvarint, bytes                    7 duration: svarint, in nanoseconds
//	          8 time: seconds svarint, nanoseconds uvarint       9 group: fields
//	          10 list: length uvarint, a JSON array
//
// Nothing follows. A change to any of this is a new version with a new name.
package columnar
