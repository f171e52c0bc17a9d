package otlp

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
)

func (logs) DecodeBatch(dst []kemi.Log, src []byte) ([]kemi.Log, error) {
	r := logReader{dst: dst, budget: freePairs + pairsEach*len(src)}
	// A view, not a copy: each resource and each record is cloned as a whole, so that a
	// log which is kept keeps its own bytes and no others.
	if err := walk(view(src), "Logs", &r); err != nil {
		return dst, fmt.Errorf("otlp: logs: %w", err)
	}
	return r.dst, nil
}

// logReader reads one batch.
type logReader struct {
	dst       []kemi.Log
	host, app string      // of the resource
	shared    []slog.Attr // of the resource, sorted by key
	budget    int         // fields that may still be made, as those of a resource are on each of its logs
}

func (r *logReader) setResource(attrs string) error {
	r.host, r.app, r.shared = "", "", nil
	for m := (message{s: strings.Clone(attrs)}); m.next(); {
		key, value, err := keyValue(m.body)
		if err == nil {
			switch key {
			case hostName:
				r.host, err = textOf(value)
			case serviceName:
				r.app, err = textOf(value)
			default:
				var v slog.Value
				v, err = slogValue(value, nil, 0)
				r.shared = append(r.shared, slog.Attr{Key: unescaped(key), Value: v})
			}
		}
		if err != nil {
			return fmt.Errorf("attribute %.100q: %w", key, err)
		}
	}
	sortAttrs(r.shared)
	return nil
}

func sortAttrs(attrs []slog.Attr) {
	byKey := func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(attrs, byKey) {
		slices.SortStableFunc(attrs, byKey)
	}
}

func (r *logReader) grow(n int) { r.dst = slices.Grow(r.dst, n) }

// one reads a LogRecord.
func (r *logReader) one(s string) error {
	l, err := r.record(strings.Clone(s))
	if err != nil {
		return fmt.Errorf("LogRecord: %w", err)
	}
	r.dst = append(r.dst, l)
	return nil
}

// record reads a LogRecord, whose bytes it keeps.
func (r *logReader) record(s string) (kemi.Log, error) {
	l := kemi.Log{Host: r.host, App: r.app}
	var body merged
	var attrs run
	var at, observed, number uint64
	var severity, event, trace, span string
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeFixed64):
			at = m.n
		case tag(2, typeVarint):
			number = m.n
		case tag(3, typeBytes):
			severity = m.body
		case tag(5, typeBytes):
			body.add(m.body)
		case tag(6, typeBytes):
			attrs.add(&m)
		case tag(9, typeBytes):
			trace = m.body
		case tag(10, typeBytes):
			span = m.body
		case tag(11, typeFixed64):
			observed = m.n
		case tag(12, typeBytes):
			event = m.body
		case tag(7, typeVarint), tag(8, typeFixed32):
		default:
			if err := m.unknown(fields(1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12)); err != nil {
				return l, err
			}
		}
	}
	if m.err != nil {
		return l, m.err
	}
	l.Time, l.Observed, l.Severity = timeOf(at), timeOf(observed), severityOf(number, severity)
	var err error
	if l.Message, err = textOf(body.s); err != nil {
		return l, fmt.Errorf("body: %w", err)
	}
	n, kinds, err := named(&l, attrs.s)
	if err != nil {
		return l, err
	}
	extra := [...]slog.Attr{
		slog.String("event_name", event),
		slog.String("span_id", hex.EncodeToString([]byte(span))),
		slog.String("trace_id", hex.EncodeToString([]byte(trace))),
	}
	for _, a := range extra {
		if a.Value.String() != "" {
			n++
		}
	}
	if n == 0 {
		l.Fields = slices.Clip(r.shared)
		return l, nil
	}
	if r.budget -= n + len(r.shared); r.budget < 0 {
		return l, errTooMuch
	}
	own := make([]slog.Attr, 0, n)
	hints := letters{s: kinds}
	if own, err = appendFields(own, attrs.s, &hints); err != nil {
		return l, err
	}
	if kinds != "" && (hints.bad || hints.i != len(kinds)) {
		// Somebody has changed the fields since: they are what they say.
		if own, err = appendFields(own[:0], attrs.s, nil); err != nil {
			return l, err
		}
	}
	for _, a := range extra {
		if a.Value.String() != "" && !slices.ContainsFunc(own, func(o slog.Attr) bool { return o.Key == a.Key }) {
			own = append(own, a)
		}
	}
	sortAttrs(own)
	if l.Fields = own; len(r.shared) > 0 {
		l.Fields = withShared(own, r.shared)
	}
	return l, nil
}

// withShared merges the fields of the resource with those of a log, which stand where
// they have the same key. Both are sorted.
func withShared(own, shared []slog.Attr) []slog.Attr {
	all := make([]slog.Attr, 0, len(own)+len(shared))
	for _, a := range shared {
		for len(own) > 0 && own[0].Key < a.Key {
			all, own = append(all, own[0]), own[1:]
		}
		if len(own) == 0 || own[0].Key != a.Key {
			all = append(all, a)
		}
	}
	return append(all, own...)
}

// field tells whether an attribute is a field of the log.
func field(key, value string) bool {
	if key == facilityCode {
		v, err := anyValue(value)
		return err != nil || v.kind != intValue || v.n > math.MaxUint8
	}
	return !reserved(key)
}

// named reads the attributes that are not fields, and counts those that are.
func named(l *kemi.Log, attrs string) (fields int, kinds string, err error) {
	for m := (message{s: attrs}); ; {
		if !m.next() {
			return fields, kinds, m.err
		}
		key, value, err := keyValue(m.body)
		if err != nil {
			return 0, "", err
		}
		if field(key, value) {
			fields++
			continue
		}
		text, err := textOf(value)
		if err != nil {
			return 0, "", fmt.Errorf("attribute %.100q: %w", key, err)
		}
		switch key {
		case serviceName:
			l.App = text
		case fluentTag:
			l.Tag = text
		case recordUID:
			l.ID = text
		case facilityCode:
			n, _ := strconv.ParseUint(text, 10, 8)
			l.Facility = uint8(n)
		case metaTime:
			if t, ok := parseOddTime(text); ok && l.Time.IsZero() {
				l.Time = t
			}
		case observedTime:
			if t, ok := parseOddTime(text); ok && l.Observed.IsZero() {
				l.Observed = t
			}
		case fieldKinds:
			kinds = text
		}
	}
}

// appendFields appends the attributes that are fields.
func appendFields(dst []slog.Attr, attrs string, hints *letters) ([]slog.Attr, error) {
	for m := (message{s: attrs}); m.next(); {
		key, value, err := keyValue(m.body)
		if err != nil {
			return dst, err
		}
		if !field(key, value) {
			continue
		}
		v, err := slogValue(value, hints, 0)
		if err != nil {
			return dst, fmt.Errorf("attribute %.100q: %w", key, err)
		}
		dst = append(dst, slog.Attr{Key: unescaped(key), Value: v})
	}
	return dst, nil
}

// letters goes through kemi.kinds. A nil or empty one says nothing.
type letters struct {
	s   string
	i   int
	bad bool // it does not fit the values
}

func (l *letters) next() byte {
	if l == nil || l.s == "" {
		return kindPlain
	}
	if l.i++; l.i > len(l.s) {
		l.bad = true
		return kindPlain
	}
	return l.s[l.i-1]
}

// slogValue reads an AnyValue.
func slogValue(s string, hints *letters, depth int) (slog.Value, error) {
	if depth >= maxDepth {
		return slog.Value{}, errDepth
	}
	v, err := anyValue(s)
	if err != nil {
		return slog.Value{}, err
	}
	switch v.kind {
	case arrayValue:
		list := []any{}
		err := elements(v.body, func(e string) error {
			x, err := slogValue(e, hints, depth+1)
			list = append(list, inList(x))
			return err
		})
		return slog.AnyValue(list), err
	case listValue:
		var attrs []slog.Attr
		err := elements(v.body, func(e string) error {
			key, value, err := keyValue(e)
			if err != nil {
				return err
			}
			x, err := slogValue(value, hints, depth+1)
			attrs = append(attrs, slog.Attr{Key: unescaped(key), Value: x})
			return err
		})
		return slog.GroupValue(attrs...), err
	}
	kind := hints.next()
	if kind != kindPlain {
		if x, ok := v.hinted(kind); ok {
			return x, nil
		}
		hints.bad = true
	}
	switch v.kind {
	case stringValue:
		return slog.StringValue(v.body), nil
	case boolValue:
		return slog.BoolValue(v.n != 0), nil
	case intValue:
		return slog.Int64Value(int64(v.n)), nil
	case doubleValue:
		return slog.Float64Value(math.Float64frombits(v.n)), nil
	case bytesValue:
		return slog.AnyValue([]byte(v.body)), nil
	}
	return slog.Value{}, nil
}

// hinted is the value of a kind that OTLP has none for.
func (v value) hinted(kind byte) (slog.Value, bool) {
	switch {
	case kind == kindUint && v.kind == intValue:
		return slog.Uint64Value(v.n), int64(v.n) >= 0
	case kind == kindUint && v.kind == stringValue:
		n, err := strconv.ParseUint(v.body, 10, 64)
		return slog.Uint64Value(n), err == nil
	case kind == kindDuration && v.kind == intValue:
		return slog.DurationValue(time.Duration(v.n)), true
	case kind == kindTime && v.kind == stringValue:
		t, ok := parseTimeText(v.body)
		return slog.TimeValue(t), ok
	case kind == kindString && v.kind == bytesValue:
		return slog.StringValue(v.body), true
	}
	return slog.Value{}, false
}

// inList is a value as an element of a list: a group is a map there.
func inList(v slog.Value) any {
	if v.Kind() != slog.KindGroup {
		return v.Any()
	}
	m := make(map[string]any, len(v.Group()))
	for _, a := range v.Group() {
		m[a.Key] = inList(a.Value)
	}
	return m
}
