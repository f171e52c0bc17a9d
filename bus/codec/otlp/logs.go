package otlp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

// The attributes of a log record that are not fields of the log. A field of one of
// these names is written with the prefix of escape.
const (
	serviceName  = "service.name"
	facilityCode = "log.syslog.facility.code"
	fluentTag    = "fluent.tag"
	recordUID    = "log.record.uid"
	observedTime = "kemi.observed_time" // as kemi.time
	fieldKinds   = "kemi.kinds"         // a letter for each value of the fields
)

func reserved(name string) bool {
	switch name {
	case serviceName, facilityCode, fluentTag, recordUID, metaTime, observedTime, fieldKinds:
		return true
	}
	return false
}

// The letters of kemi.kinds. A list and a group have none, and what is in them has.
const (
	kindPlain    = '-' // what the value says
	kindUint     = 'u' // an int, or a string of digits above the largest int64
	kindDuration = 'd' // an int of nanoseconds
	kindTime     = 't' // a string
	kindString   = 's' // bytes that are not UTF-8
)

// severityNumbers are those of the OpenTelemetry log data model, appendix B.
var severityNumbers = [...]uint64{
	kemi.SeverityEmergency: 21,
	kemi.SeverityAlert:     19,
	kemi.SeverityCritical:  18,
	kemi.SeverityError:     17,
	kemi.SeverityWarning:   13,
	kemi.SeverityNotice:    10,
	kemi.SeverityInfo:      9,
	kemi.SeverityDebug:     5,
}

// Logs returns the codec of logs, otlp-logs/1. Its encodings are LogsData, which is
// ExportLogsServiceRequest by another name.
func Logs() bus.Codec[kemi.Log] { return logs{} }

type logs struct{}

func (logs) Name() string { return "otlp-logs/1" }

func (logs) AppendBatch(dst []byte, batch []kemi.Log) ([]byte, error) {
	b := dst
	kinds := make([]byte, 0, 64) // one for the batch
	for i := 0; i < len(batch); {
		host := batch[i].Host
		var resource, scope int
		b, resource = open(b, 1) // ResourceLogs
		b = appendHost(b, host)
		b, scope = open(b, 2) // ScopeLogs
		for ; i < len(batch) && batch[i].Host == host; i++ {
			var err error
			if b, kinds, err = appendLog(b, kinds[:0], &batch[i]); err != nil {
				return dst, fmt.Errorf("otlp: log %d of %d, of %.100q: %w", i, len(batch), host, err)
			}
		}
		b = closed(closed(b, scope), resource)
	}
	return b, nil
}

// appendLog appends a LogRecord, and the letters of its fields to kinds.
func appendLog(b, kinds []byte, l *kemi.Log) ([]byte, []byte, error) {
	b, start := open(b, 2)
	at, timeOK := nanos(l.Time)
	observed, observedOK := nanos(l.Observed)
	if at != 0 {
		b = appendFixed64(b, 1, at)
	}
	if int(l.Severity) < len(severityNumbers) {
		b = appendVarint(b, 2, severityNumbers[l.Severity])
	}
	b = appendString(b, 3, l.Severity.String())
	if l.Message != "" {
		var body int
		b, body = open(b, 5)
		b = closed(appendText(b, l.Message), body)
	}
	for _, a := range [...]struct{ name, value string }{{serviceName, l.App}, {fluentTag, l.Tag}, {recordUID, l.ID}} {
		if a.value != "" {
			b = appendAttribute(b, 6, a.name, a.value)
		}
	}
	if l.Facility != 0 {
		var attr, value int
		b, attr = open(b, 6)
		b = appendString(b, 1, facilityCode)
		b, value = open(b, 2)
		b = closed(closed(appendVarint(b, 3, uint64(l.Facility)), value), attr)
	}
	if !timeOK {
		b = appendAttribute(b, 6, metaTime, oddTime(l.Time))
	}
	if !observedOK {
		b = appendAttribute(b, 6, observedTime, oddTime(l.Observed))
	}
	b, kinds, err := appendAttrs(b, 6, kinds, l.Fields, 0)
	if err != nil {
		return b, kinds, err
	}
	for _, k := range kinds {
		if k != kindPlain {
			b = appendAttribute(b, 6, fieldKinds, string(kinds))
			break
		}
	}
	if observed != 0 {
		b = appendFixed64(b, 11, observed)
	}
	return closed(b, start), kinds, nil
}

// appendText appends the value of a string, as an AnyValue has it.
func appendText(b []byte, s string) []byte {
	if utf8.ValidString(s) {
		return appendString(b, 1, s)
	}
	return appendString(b, 7, s)
}

// appendAttrs appends KeyValues, and the letters of their values to kinds.
func appendAttrs(b []byte, num uint32, kinds []byte, attrs []slog.Attr, depth int) ([]byte, []byte, error) {
	for _, a := range attrs {
		var attr, value int
		b, attr = open(b, num)
		if reserved(a.Key) {
			b = appendString(b, 1, withEscape(a.Key))
		} else if a.Key != "" {
			b = appendString(b, 1, escaped(a.Key))
		}
		b, value = open(b, 2)
		var err error
		if b, kinds, err = appendValue(b, kinds, a.Value, depth); err != nil {
			return b, kinds, fmt.Errorf("field %.100q: %w", a.Key, err)
		}
		b = closed(closed(b, value), attr)
	}
	return b, kinds, nil
}

// appendValue appends what is in an AnyValue.
func appendValue(b, kinds []byte, v slog.Value, depth int) ([]byte, []byte, error) {
	if depth >= maxDepth {
		return b, kinds, errDepth
	}
	v = v.Resolve()
	kind := byte(kindPlain)
	switch v.Kind() {
	case slog.KindString:
		s := v.String()
		if !utf8.ValidString(s) {
			kind = kindString
		}
		b = appendText(b, s)
	case slog.KindInt64:
		b = appendVarint(b, 3, uint64(v.Int64()))
	case slog.KindUint64:
		kind = kindUint
		if n := v.Uint64(); n <= math.MaxInt64 {
			b = appendVarint(b, 3, n)
		} else {
			b = appendString(b, 1, strconv.FormatUint(n, 10))
		}
	case slog.KindFloat64:
		b = appendFixed64(b, 4, math.Float64bits(v.Float64()))
	case slog.KindBool:
		n := uint64(0)
		if v.Bool() {
			n = 1
		}
		b = appendVarint(b, 2, n)
	case slog.KindDuration:
		kind = kindDuration
		b = appendVarint(b, 3, uint64(v.Duration()))
	case slog.KindTime:
		kind = kindTime
		b = appendString(b, 1, timeText(v.Time()))
	case slog.KindGroup:
		b, list := open(b, 6)
		b, kinds, err := appendAttrs(b, 1, kinds, v.Group(), depth+1)
		return closed(b, list), kinds, err
	default:
		return appendAny(b, kinds, v.Any(), depth)
	}
	return b, append(kinds, kind), nil
}

// appendAny appends a value that slog has no kind for.
func appendAny(b, kinds []byte, x any, depth int) ([]byte, []byte, error) {
	switch x := x.(type) {
	case nil:
	case []byte:
		b = appendString(b, 7, string(x))
	case []any:
		b, list := open(b, 5)
		for _, e := range x {
			var value int
			var err error
			b, value = open(b, 1)
			if b, kinds, err = appendValue(b, kinds, slog.AnyValue(e), depth+1); err != nil {
				return b, kinds, err
			}
			b = closed(b, value)
		}
		return closed(b, list), kinds, nil
	case map[string]any:
		attrs := make([]slog.Attr, 0, len(x))
		for _, key := range slices.Sorted(maps.Keys(x)) {
			attrs = append(attrs, slog.Any(key, x[key]))
		}
		return appendValue(b, kinds, slog.GroupValue(attrs...), depth)
	case error:
		b = appendText(b, x.Error())
	default:
		text, err := json.Marshal(x)
		if err != nil {
			text = fmt.Append(nil, x)
		}
		b = appendText(b, string(text))
	}
	return b, append(kinds, kindPlain), nil
}

// timeText is a time for people, where RFC 3339 can say it.
func timeText(t time.Time) string {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return oddTime(t)
	}
	return t.Format(time.RFC3339Nano)
}

func parseTimeText(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), true
	}
	return parseOddTime(s)
}

// severityOf is the severity of a number, or if there is none, of its text.
func severityOf(n uint64, text string) kemi.Severity {
	switch {
	case n == 0 || n > 24:
	case n >= 21:
		return kemi.SeverityEmergency
	case n >= 19:
		return kemi.SeverityAlert
	case n == 18:
		return kemi.SeverityCritical
	case n == 17:
		return kemi.SeverityError
	case n >= 13:
		return kemi.SeverityWarning
	case n >= 10:
		return kemi.SeverityNotice
	case n == 9:
		return kemi.SeverityInfo
	default:
		return kemi.SeverityDebug
	}
	text = strings.ToLower(text)
	switch text {
	case "emergency", "panic", "fatal":
		return kemi.SeverityEmergency
	case "critical":
		return kemi.SeverityCritical
	case "error":
		return kemi.SeverityError
	case "warn", "warning":
		return kemi.SeverityWarning
	case "trace":
		return kemi.SeverityDebug
	}
	var s kemi.Severity
	if s.UnmarshalText([]byte(text)) == nil {
		return s
	}
	if n, ok := strings.CutPrefix(text, "severity("); ok {
		n, ok = strings.CutSuffix(n, ")")
		if v, err := strconv.ParseUint(n, 10, 8); ok && err == nil {
			return kemi.Severity(v)
		}
	}
	return kemi.SeverityInfo
}
