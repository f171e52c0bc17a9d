package otlp

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

// The attributes and the metadata that have a meaning, besides those of log records.
const (
	hostName  = "host.name"
	metaKind  = "kemi.kind"  // counter32
	metaTime  = "kemi.time"  // seconds since 1970 and nine digits, where a uint64 of nanoseconds cannot say it
	metaValue = "kemi.value" // decimal, of a counter above the largest int64
)

// staleNaN is the value of the staleness marker of Prometheus.
const staleNaN = 0x7ff0000000000002

const cumulative = 2 // AGGREGATION_TEMPORALITY_CUMULATIVE

const noRecordedValue = 1 // FLAG_NO_RECORDED_VALUE

// Metrics returns the codec of metrics, otlp-metrics/1. Its encodings are
// MetricsData, which is ExportMetricsServiceRequest by another name.
//
// It keeps label sets and names that it has seen, to decode the next batch without
// making them anew: up to about 2 MB for each goroutine that decodes at one time, and
// forgotten when they have not been used for a while.
func Metrics() bus.Codec[kemi.Metric] { return &metrics{} }

type metrics struct{ decoders pool }

func (*metrics) Name() string { return "otlp-metrics/1" }

func (*metrics) AppendBatch(dst []byte, batch []kemi.Metric) ([]byte, error) {
	b := dst
	for i := 0; i < len(batch); {
		host := batch[i].Host()
		var resource, scope int
		b, resource = open(b, 1) // ResourceMetrics
		b = appendHost(b, host)
		b, scope = open(b, 2) // ScopeMetrics
		labels := batch[i].Labels
		for i < len(batch) && (batch[i].Labels == labels || batch[i].Host() == host) {
			labels = batch[i].Labels
			n := alike(batch[i:])
			var err error
			if b, err = appendMetric(b, batch[i:i+n]); err != nil {
				return dst, fmt.Errorf("otlp: metric %d of %d, %.100q: %w", i, len(batch), batch[i].Name, err)
			}
			i += n
		}
		b = closed(closed(b, scope), resource)
	}
	return b, nil
}

// alike is how many of the metrics go into one message: those of one name and kind and
// host, unless they need metadata of their own.
func alike(batch []kemi.Metric) int {
	first := &batch[0]
	if odd(first) {
		return 1
	}
	n := 1
	for ; n < len(batch); n++ {
		m := &batch[n]
		if m.Name != first.Name || m.Kind != first.Kind || odd(m) || m.Labels != first.Labels && m.Host() != first.Host() {
			break
		}
	}
	return n
}

func odd(m *kemi.Metric) bool {
	_, ok := nanos(m.Time)
	return !ok || large(m)
}

// large tells whether a counter is above what OTLP has for whole numbers.
func large(m *kemi.Metric) bool { return m.Kind == kemi.KindCounter && m.Uint() > math.MaxInt64 }

// appendMetric appends a Metric, in the order of field numbers as all others do.
func appendMetric(b []byte, points []kemi.Metric) ([]byte, error) {
	first := &points[0]
	b, start := open(b, 2)
	if first.Name != "" {
		b = appendString(b, 1, escaped(first.Name))
	}
	var data int
	switch first.Kind {
	case kemi.KindGauge:
		b, data = open(b, 5)
	case kemi.KindCounter, kemi.KindCounter32, kemi.KindFloatCounter:
		b, data = open(b, 7)
	default:
		return b, fmt.Errorf("no such kind: %v", first.Kind)
	}
	for i := range points {
		m := &points[i]
		if m.Kind == kemi.KindCounter32 && m.Uint() > math.MaxUint32 {
			return b, fmt.Errorf("%d is more than a counter32 can be", m.Uint())
		}
		b = appendPoint(b, m)
	}
	if first.Kind != kemi.KindGauge {
		b = appendVarint(b, 2, cumulative)
		b = appendVarint(b, 3, 1) // monotonic
	}
	b = closed(b, data)
	if first.Kind == kemi.KindCounter32 {
		b = append(b, meta32...)
	}
	if _, ok := nanos(first.Time); !ok {
		b = appendAttribute(b, 12, metaTime, oddTime(first.Time))
	}
	if large(first) {
		b = appendAttribute(b, 12, metaValue, strconv.FormatUint(first.Uint(), 10))
	}
	return closed(b, start), nil
}

// meta32 is the metadata of a Counter32.
var meta32 = string(appendAttribute(nil, 12, metaKind, "counter32"))

// appendPoint appends a NumberDataPoint.
func appendPoint(b []byte, m *kemi.Metric) []byte {
	b, start := open(b, 1)
	if n, _ := nanos(m.Time); n != 0 {
		b = appendFixed64(b, 3, n)
	}
	stale := false
	switch {
	case m.Kind == kemi.KindCounter32, m.Kind == kemi.KindCounter && !large(m):
		b = appendFixed64(b, 6, m.Uint())
	default:
		v := math.Float64bits(m.Float())
		if stale = v == staleNaN; !stale {
			b = appendFixed64(b, 4, v)
		}
	}
	for i := range m.Labels.Len() {
		if l := m.Labels.At(i); l.Name != kemi.LabelHost {
			b = appendAttribute(b, 7, l.Name, l.Value)
		}
	}
	if stale {
		b = appendVarint(b, 8, noRecordedValue)
	}
	return closed(b, start)
}

// appendHost appends a Resource.
func appendHost(b []byte, host string) []byte {
	if host == "" {
		return b
	}
	b, start := open(b, 1)
	return closed(appendAttribute(b, 1, hostName, host), start)
}

// appendAttribute appends a KeyValue of a string, or of bytes where it is not UTF-8.
func appendAttribute(b []byte, num uint32, name, value string) []byte {
	name = escaped(name)
	typ := uint32(1) // string_value
	if !utf8.ValidString(value) {
		typ = 7 // bytes_value
	}
	// The lengths are known here, so nothing has to move.
	sv := 1 + varintLen(uint64(len(value))) + len(value)
	kv := 1 + varintLen(uint64(sv)) + sv
	if name != "" {
		kv += 1 + varintLen(uint64(len(name))) + len(name)
	}
	b = append(b, byte(tag(num, typeBytes)))
	b = binary.AppendUvarint(b, uint64(kv))
	if name != "" {
		b = append(b, byte(tag(1, typeBytes)))
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	b = append(b, byte(tag(2, typeBytes)))
	b = binary.AppendUvarint(b, uint64(sv))
	b = append(b, byte(tag(typ, typeBytes)))
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// nanos is a time as OTLP has it, 0 for the zero time. ok is false where it cannot: for
// the first nanosecond of 1970, which would be no time at all, for what is before it,
// and from the year 2554 on.
func nanos(t time.Time) (n uint64, ok bool) {
	sec := t.Unix()
	if sec < 0 || sec >= math.MaxUint64/1_000_000_000 {
		return 0, t.IsZero()
	}
	n = uint64(sec)*1e9 + uint64(t.Nanosecond())
	return n, n != 0
}

// timeOf is the time of nanos.
func timeOf(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n/1e9), int64(n%1e9)).UTC()
}

// oddTime is a time that nanos has no number for.
func oddTime(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

// parseOddTime reads what oddTime writes.
func parseOddTime(s string) (time.Time, bool) {
	whole, frac, ok := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec, err2 := strconv.ParseUint(frac, 10, 32)
	if !ok || err != nil || err2 != nil || len(frac) != 9 {
		return time.Time{}, false
	}
	return time.Unix(sec, int64(nsec)).UTC(), true
}
