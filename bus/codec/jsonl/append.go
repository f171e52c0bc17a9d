package jsonl

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/kemi-go/kemi"
)

// What is here gives the same bytes as encoding/json does for the same record, many
// times faster. A record that could be written but not read again is refused.

func appendMetric(dst []byte, m *kemi.Metric) ([]byte, error) {
	switch {
	case m.Kind > kemi.KindFloatCounter:
		return dst, fmt.Errorf("metric %q is a %v, which no reader knows", m.Name, m.Kind)
	case m.Kind == kemi.KindCounter32 && m.Uint() > math.MaxUint32:
		return dst, fmt.Errorf("metric %q is a counter32 of %d", m.Name, m.Uint())
	}
	dst = appendString(append(dst, `{"name":`...), m.Name)
	dst = append(dst, `,"labels":{`...)
	for i := range m.Labels.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		l := m.Labels.At(i)
		dst = appendString(append(appendString(dst, l.Name), ':'), l.Value)
	}
	dst, err := appendTime(append(dst, `},"time":`...), m.Time)
	if err != nil {
		return dst, fmt.Errorf("metric %q: %w", m.Name, err)
	}
	dst = append(append(dst, `,"kind":"`...), m.Kind.String()...)
	dst = append(dst, `","value":`...)
	switch f := m.Float(); {
	case m.Kind == kemi.KindCounter || m.Kind == kemi.KindCounter32:
		dst = strconv.AppendUint(dst, m.Uint(), 10)
	case math.IsNaN(f) || math.IsInf(f, 0):
		dst = append(strconv.AppendFloat(append(dst, '"'), f, 'g', -1, 64), '"')
	default:
		dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	return append(dst, '}'), nil
}

func appendLog(dst []byte, l *kemi.Log) ([]byte, error) {
	if l.Severity > kemi.SeverityDebug {
		return dst, fmt.Errorf("a log of %q has the %v, which no reader knows", l.Host, l.Severity)
	}
	dst, err := appendTime(append(dst, `{"time":`...), l.Time)
	if err == nil && !l.Observed.IsZero() {
		dst, err = appendTime(append(dst, `,"observed":`...), l.Observed)
	}
	if err != nil {
		return dst, fmt.Errorf("a log of %q: %w", l.Host, err)
	}
	dst = appendString(append(dst, `,"host":`...), l.Host)
	if l.App != "" {
		dst = appendString(append(dst, `,"app":`...), l.App)
	}
	dst = append(append(dst, `,"severity":"`...), l.Severity.String()...)
	dst = strconv.AppendUint(append(dst, `","facility":`...), uint64(l.Facility), 10)
	dst = appendString(append(dst, `,"message":`...), l.Message)
	if len(l.Fields) > 0 {
		dst = appendFields(append(dst, `,"fields":`...), l.Fields)
	}
	if l.Tag != "" {
		dst = appendString(append(dst, `,"tag":`...), l.Tag)
	}
	if l.ID != "" {
		dst = appendString(append(dst, `,"id":`...), l.ID)
	}
	return append(dst, '}'), nil
}

func appendFields(dst []byte, attrs []slog.Attr) []byte {
	dst = append(dst, '{')
	for i, a := range attrs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendValue(append(appendString(dst, a.Key), ':'), a.Value.Resolve())
	}
	return append(dst, '}')
}

func appendValue(dst []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return appendString(dst, v.String())
	case slog.KindBool:
		return strconv.AppendBool(dst, v.Bool())
	case slog.KindInt64:
		return strconv.AppendInt(dst, v.Int64(), 10)
	case slog.KindDuration:
		return strconv.AppendInt(dst, int64(v.Duration()), 10)
	case slog.KindUint64:
		return strconv.AppendUint(dst, v.Uint64(), 10)
	case slog.KindFloat64:
		if f := v.Float64(); f == 0 || math.Abs(f) >= 1e-6 && math.Abs(f) < 1e21 {
			return strconv.AppendFloat(dst, f, 'f', -1, 64)
		}
	case slog.KindGroup:
		return appendFields(dst, v.Group())
	}
	x := v.Any()
	if err, ok := x.(error); ok {
		return appendString(dst, err.Error())
	}
	if out, err := appendJSON(dst, x); err == nil {
		return out
	}
	return appendString(dst, fmt.Sprint(x))
}

func appendTime(dst []byte, t time.Time) ([]byte, error) {
	dst, err := t.AppendText(append(dst, '"'))
	return append(dst, '"'), err
}

// appendString writes a string that is plain by hand.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			dst, _ = appendJSON(dst, s) // a string has JSON always
			return dst
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
