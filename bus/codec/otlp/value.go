package otlp

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// AnyValue: a value of an attribute, and the body of a log record.

// The oneof of AnyValue.
const (
	stringValue = 1<<3 | typeBytes
	boolValue   = 2<<3 | typeVarint
	intValue    = 3<<3 | typeVarint
	doubleValue = 4<<3 | typeFixed64
	arrayValue  = 5<<3 | typeBytes
	listValue   = 6<<3 | typeBytes
	bytesValue  = 7<<3 | typeBytes
	indexValue  = 8<<3 | typeVarint // of profiles; elsewhere no value
)

// keyValue reads a KeyValue; value is an AnyValue.
func keyValue(s string) (key, value string, err error) {
	var v merged
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			key = m.body
		case tag(2, typeBytes):
			v.add(m.body)
		case tag(3, typeVarint):
		default:
			if err := m.unknown(fields(1, 2, 3)); err != nil {
				return "", "", fmt.Errorf("KeyValue: %w", err)
			}
		}
	}
	return key, v.s, m.err
}

// value is an AnyValue. kind is 0 where there is none.
type value struct {
	kind uint32
	n    uint64
	body string
}

func anyValue(s string) (v value, err error) {
	// Nearly all are one short string.
	if len(s) >= 2 && s[0] == stringValue && s[1] < 0x80 && int(s[1]) == len(s)-2 {
		return value{kind: stringValue, body: s[2:]}, nil
	}
	var body merged
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case stringValue, bytesValue, boolValue, intValue, doubleValue:
			v, body = value{m.tag, m.n, m.body}, merged{}
		case indexValue:
			v, body = value{}, merged{}
		case arrayValue, listValue:
			if v.kind != m.tag {
				v, body = value{kind: m.tag}, merged{}
			}
			body.add(m.body)
			v.body = body.s
		default:
			if err := m.unknown(fields(1, 2, 3, 4, 5, 6, 7, 8)); err != nil {
				return v, fmt.Errorf("AnyValue: %w", err)
			}
		}
	}
	return v, m.err
}

// textOf returns an AnyValue as a label or a message has it: strings and bytes as they
// are, lists and maps as JSON.
func textOf(s string) (string, error) {
	v, err := anyValue(s)
	if err != nil {
		return "", err
	}
	switch v.kind {
	case 0:
		return "", nil
	case stringValue, bytesValue:
		return v.body, nil
	case boolValue:
		return strconv.FormatBool(v.n != 0), nil
	case intValue:
		return strconv.FormatInt(int64(v.n), 10), nil
	case doubleValue:
		return strconv.FormatFloat(math.Float64frombits(v.n), 'g', -1, 64), nil
	}
	b, err := appendJSON(nil, s, 0)
	return string(b), err
}

func appendJSON(b []byte, s string, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return b, errDepth
	}
	v, err := anyValue(s)
	if err != nil {
		return b, err
	}
	switch v.kind {
	case stringValue:
		return appendQuoted(b, v.body), nil
	case bytesValue:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, []byte(v.body))
		return append(b, '"'), nil
	case boolValue:
		return strconv.AppendBool(b, v.n != 0), nil
	case intValue:
		return strconv.AppendInt(b, int64(v.n), 10), nil
	case doubleValue:
		f := math.Float64frombits(v.n)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return strconv.AppendQuote(b, strconv.FormatFloat(f, 'g', -1, 64)), nil
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64), nil
	case arrayValue, listValue:
		ends := "[]"
		if v.kind == listValue {
			ends = "{}"
		}
		b = append(b, ends[0])
		first := true
		err := elements(v.body, func(e string) (err error) {
			if !first {
				b = append(b, ',')
			}
			first = false
			if v.kind == listValue {
				var key string
				if key, e, err = keyValue(e); err != nil {
					return err
				}
				b = append(appendQuoted(b, unescaped(key)), ':')
			}
			b, err = appendJSON(b, e, depth+1)
			return err
		})
		return append(b, ends[1]), err
	}
	return append(b, "null"...), nil
}

func appendQuoted(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string has JSON always
	return append(b, q...)
}

// elements calls f for each value of an ArrayValue or a KeyValueList.
func elements(s string, f func(string) error) error {
	for m := (message{s: s}); ; {
		if !m.next() {
			return m.err
		}
		var err error
		if m.tag == tag(1, typeBytes) {
			err = f(m.body)
		} else {
			err = m.unknown(fields(1))
		}
		if err != nil {
			return err
		}
	}
}
