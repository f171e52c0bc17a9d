// Package jsonl has the codec json/1, for topics that others read too: kcat, jq,
// Logstash, ksqlDB, or a program in any language.
//
// A batch is JSON lines: each record is one JSON value, as encoding/json writes it, on a
// line of its own with a newline behind it. A message on Kafka is a batch, so
//
//	kcat -C -t metrics -e | jq .name
//
// works, and so does Logstash with its json_lines codec. ksqlDB and the JSON converter of
// Kafka Connect take one value in a message and no more: for them, write batches of one
// record, which are plain JSON. A reader takes lines with \r\n, a last line without its
// newline, and empty lines, so that messages may be made by hand.
//
// It serves any type that encoding/json does. The records of package kemi say there how
// they are written: [kemi.Metric.MarshalJSON], [kemi.Log.MarshalJSON] and so on. What JSON
// cannot say does not come back as it was:
//
//   - Bytes of a string that are not UTF-8 become U+FFFD.
//   - A not-a-number is NaN again, without its payload. In a type of your own it is an
//     error, unless the type has a way to write it.
//   - A time has its zone's offset and no more; one before the year 0 or after 9999 is
//     an error.
//   - Fields of a log come back as the kinds that JSON has: a duration as its nanoseconds,
//     a time as a string, 1.0 as the integer 1, sorted by key.
//
// Bytes that were cut off between two lines look like a shorter batch: the topic has to
// have the checksum, as those of kemi do. Memory for decoding is in proportion to the
// bytes; a value is nested at most 10,000 deep.
package jsonl

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

// Codec returns the codec json/1 for records of type T.
func Codec[T any]() bus.Codec[T] { return lines[T]{} }

type lines[T any] struct{}

// Name is that of the codec.
const Name = "json/1"

func (lines[T]) Name() string { return Name }

func (lines[T]) AppendBatch(dst []byte, batch []T) ([]byte, error) {
	out := dst
	var err error
	for i := range batch {
		switch r := any(&batch[i]).(type) { // a pointer, since a value would be copied to the heap
		case *kemi.Metric:
			out, err = appendMetric(out, r)
		case *kemi.Log:
			out, err = appendLog(out, r)
		default:
			out, err = appendJSON(out, r)
		}
		if err != nil {
			return dst, fmt.Errorf("jsonl: record %d of %d: %w", i, len(batch), err)
		}
		out = append(out, '\n')
	}
	return out, nil
}

func (lines[T]) DecodeBatch(dst []T, src []byte) ([]T, error) {
	had := len(dst)
	var record, zero T
	for n := 1; len(src) > 0; n++ {
		var line []byte
		line, src, _ = bytes.Cut(src, []byte{'\n'})
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		record = zero // nothing of one record is to show in the next
		if err := decode(line, &record); err != nil {
			clear(dst[had:])
			return dst[:had], fmt.Errorf("jsonl: line %d: want the JSON of one %T on each line: %w", n, record, err)
		}
		dst = append(dst, record)
	}
	return dst, nil
}

func decode(line []byte, record any) error {
	switch r := record.(type) { // they look at all of the line by themselves
	case *kemi.Metric:
		if m, ok := readMetric(line); ok {
			*r = m
			return nil
		}
		return r.UnmarshalJSON(line)
	case *kemi.Log:
		return r.UnmarshalJSON(line)
	}
	return json.Unmarshal(line, record)
}

func appendJSON(dst []byte, x any) ([]byte, error) {
	text, err := json.Marshal(x)
	return append(dst, text...), err
}
