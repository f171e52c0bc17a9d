package columnar

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

// The types of a field's value.
const (
	nilValue = iota
	falseValue
	trueValue
	int64Value
	uint64Value
	float64Value
	stringValue
	durationValue
	timeValue
	groupValue
	listValue
)

func (w *logsWriter) attrs(attrs []slog.Attr, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its fields are nested more than %d deep", maxDepth)
	}
	w.fields = binary.AppendUvarint(w.fields, uint64(len(attrs)))
	for _, a := range attrs {
		w.fields = binary.AppendUvarint(w.fields, uint64(w.string(a.Key)))
		if err := w.value(a.Value.Resolve(), depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *logsWriter) value(v slog.Value, depth int) error {
	b := w.fields
	switch v.Kind() {
	case slog.KindBool:
		if v.Bool() {
			b = append(b, trueValue)
		} else {
			b = append(b, falseValue)
		}
	case slog.KindInt64:
		b = binary.AppendVarint(append(b, int64Value), v.Int64())
	case slog.KindUint64:
		b = binary.AppendUvarint(append(b, uint64Value), v.Uint64())
	case slog.KindFloat64:
		b = binary.LittleEndian.AppendUint64(append(b, float64Value), math.Float64bits(v.Float64()))
	case slog.KindString:
		b = appendBytes(append(b, stringValue), v.String())
	case slog.KindDuration:
		b = binary.AppendVarint(append(b, durationValue), int64(v.Duration()))
	case slog.KindTime:
		t := v.Time()
		b = binary.AppendVarint(append(b, timeValue), t.Unix())
		b = binary.AppendUvarint(b, uint64(t.Nanosecond()))
	case slog.KindGroup:
		w.fields = append(b, groupValue)
		return w.attrs(v.Group(), depth+1)
	default:
		if v.Any() == nil {
			b = append(b, nilValue)
			break
		}
		plain, list := plainOf(v.Any())
		if list == nil {
			return w.value(plain, depth)
		}
		b = append(binary.AppendUvarint(append(b, listValue), uint64(len(list))), list...)
	}
	w.fields = b
	return nil
}

func (r *reader) value(t *texts, depth int) slog.Value {
	switch typ := r.byte("type of a value"); typ {
	case nilValue:
	case falseValue, trueValue:
		return slog.BoolValue(typ == trueValue)
	case int64Value:
		return slog.Int64Value(r.svarint("value of a field"))
	case uint64Value:
		return slog.Uint64Value(r.uvarint("value of a field"))
	case float64Value:
		return slog.Float64Value(math.Float64frombits(r.uint64("value of a field")))
	case stringValue:
		return slog.StringValue(string(r.bytes(r.count("length of a field", 1), "value of a field")))
	case durationValue:
		return slog.DurationValue(time.Duration(r.svarint("value of a field")))
	case timeValue:
		sec, nanos := r.svarint("value of a field"), r.uvarint("fraction of a second of a field")
		if nanos >= 1e9 {
			r.fail("the fraction of a second of a field is %d ns, want less than 1000000000", nanos)
			break
		}
		return slog.TimeValue(time.Unix(sec, int64(nanos)).UTC())
	case groupValue:
		return slog.GroupValue(r.attrs(t, depth+1)...)
	case listValue:
		text := r.bytes(r.count("length of a field", 1), "value of a field")
		x, err := decodeJSON(text)
		list, ok := x.([]any)
		if !ok && r.err == nil {
			r.fail("the list of a field is not a JSON array: %v", err)
		}
		return slog.AnyValue(list)
	default:
		r.fail("the type of a value is %d, want 0 to %d", typ, listValue)
	}
	return slog.Value{}
}

// plainOf returns the value that the JSON of x says, or, for an array, the JSON.
func plainOf(x any) (v slog.Value, list []byte) {
	if err, ok := x.(error); ok {
		return slog.StringValue(err.Error()), nil
	}
	text, err := json.Marshal(x)
	if err != nil {
		return slog.StringValue(fmt.Sprint(x)), nil
	}
	y, err := decodeJSON(text)
	if err != nil { // too deep
		return slog.StringValue(string(text)), nil
	}
	if _, ok := y.([]any); ok {
		return slog.Value{}, text
	}
	return valueOf(y), nil
}

func decodeJSON(text []byte) (x any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // keeps integers of 64 bits
	if err := d.Decode(&x); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more follows it")
	}
	return x, nil
}

// valueOf makes the same of JSON as kemi.Log does.
func valueOf(x any) slog.Value {
	switch x := x.(type) {
	case map[string]any:
		var attrs []slog.Attr
		for _, key := range slices.Sorted(maps.Keys(x)) {
			attrs = append(attrs, slog.Attr{Key: key, Value: valueOf(x[key])})
		}
		return slog.GroupValue(attrs...)
	case json.Number:
		if n, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			return slog.Int64Value(n)
		}
		if n, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return slog.Uint64Value(n)
		}
		if f, err := x.Float64(); err == nil {
			return slog.Float64Value(f)
		}
		return slog.StringValue(x.String())
	}
	return slog.AnyValue(x)
}
