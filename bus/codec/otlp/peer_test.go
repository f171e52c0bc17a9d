package otlp_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

// The decoder that is not ours: the protobuf library with the messages of
// OpenTelemetry, and the mapping of the package doc written over its structs.

// TestTheProtobufLibraryReadsAndWritesTheSame reads what the codecs write with the
// protobuf library, has it write that again, in its own order of fields, and reads that.
func TestTheProtobufLibraryReadsAndWritesTheSame(t *testing.T) {
	for _, batch := range hardMetrics() {
		again(t, otlp.Metrics(), same, batch, &metricspb.MetricsData{})
	}
	for _, batch := range hardLogs() {
		again(t, otlp.Logs(), sameLog, batch, &logspb.LogsData{})
	}
}

func again[T any](t *testing.T, c bus.Codec[T], same func(a, b T) bool, batch []T, m proto.Message) {
	t.Helper()
	src, err := c.AppendBatch(nil, batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(src, m); err != nil {
		t.Fatalf("%v in %q", err, src)
	}
	if n := unknown(m.ProtoReflect()); n != 0 {
		t.Fatalf("%d bytes of fields that OTLP does not have in %q", n, src)
	}
	theirs, err := proto.Marshal(m)
	if err != nil || len(theirs) != len(src) {
		t.Fatalf("%v: the library writes %d bytes, and the codec %d", err, len(theirs), len(src))
	}
	got, err := c.DecodeBatch(nil, theirs)
	if err != nil || !slices.EqualFunc(got, batch, same) {
		t.Fatalf("%v: through the library\n%+v came back as\n%+v", err, batch, got)
	}
}

// unknown counts the bytes of unknown fields in a message.
func unknown(m protoreflect.Message) int {
	n := len(m.GetUnknown())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				n += unknown(v.List().Get(i).Message())
			}
		default:
			n += unknown(v.Message())
		}
		return true
	})
	return n
}

// TestOtherToolsSeeTheReading reads a batch as a tool does that knows nothing of kemi.
func TestOtherToolsSeeTheReading(t *testing.T) {
	src, err := otlp.Metrics().AppendBatch(nil, append(poll("sw1", 2),
		kemi.Counter("huge", kemi.LabelsOf("host", "sw1"), noon, math.MaxUint64),
		kemi.FloatCounter("cpu_seconds", kemi.LabelsOf("host", "sw2"), noon, 0.25)))
	if err != nil {
		t.Fatal(err)
	}
	var data metricspb.MetricsData
	if err := proto.Unmarshal(src, &data); err != nil {
		t.Fatal(err)
	}
	if len(data.ResourceMetrics) != 2 {
		t.Fatalf("%d resources for two hosts", len(data.ResourceMetrics))
	}
	sw1 := data.ResourceMetrics[0]
	if a := sw1.Resource.Attributes; len(a) != 1 || a[0].Key != "host.name" || a[0].Value.GetStringValue() != "sw1" {
		t.Errorf("the resource is %v", a)
	}
	ms := sw1.ScopeMetrics[0].Metrics
	if len(ms) != 6 {
		t.Fatalf("%d metrics, want one for each column of the table and one more", len(ms))
	}
	octets := ms[0].GetSum()
	if ms[0].Name != "if_hc_in_octets" || !octets.GetIsMonotonic() || octets.GetAggregationTemporality() != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE ||
		len(octets.DataPoints) != 2 || octets.DataPoints[1].GetAsInt() != 1<<33+7 || octets.DataPoints[0].TimeUnixNano != uint64(noon.UnixNano()) {
		t.Errorf("the counter is %v", ms[0])
	}
	for _, a := range octets.DataPoints[0].Attributes {
		if a.Key == "host" {
			t.Error("the host is on each point too")
		}
	}
	if g := ms[4].GetGauge(); g == nil || g.DataPoints[0].GetAsDouble() != 1 {
		t.Errorf("the gauge is %v", ms[4])
	}
	if v := ms[5].GetSum().DataPoints[0].GetAsDouble(); v != 1<<64 {
		t.Errorf("a counter that is more than an int64 can be is %v", v)
	}
	if v := data.ResourceMetrics[1].ScopeMetrics[0].Metrics[0].GetSum().DataPoints[0].GetAsDouble(); v != 0.25 {
		t.Errorf("the counter of fractions is %v", v)
	}
}

// TestRandomMessagesAreReadAsTheLibraryReadsThem fills messages at random, in all their
// fields, and compares what the codecs make of them with the mapping over structs.
func TestRandomMessagesAreReadAsTheLibraryReadsThem(t *testing.T) {
	rnd := random(t)
	metrics, logs := 0, 0
	// Most messages have no record, or one that is refused: it goes on until there were many.
	for n := 0; n < *rounds || (metrics < 3**rounds || logs < *rounds) && n < 100**rounds; n++ {
		var m metricspb.MetricsData
		fill(rnd, m.ProtoReflect(), 8)
		src, err := proto.Marshal(&m)
		if err != nil {
			t.Fatal(err)
		}
		metrics += checkMetrics(t, src)
		var l logspb.LogsData
		fill(rnd, l.ProtoReflect(), 8)
		if src, err = proto.Marshal(&l); err != nil {
			t.Fatal(err)
		}
		logs += checkLogs(t, src)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d metrics and %d logs were compared", metrics, logs)
	if metrics < 3**rounds || logs < *rounds {
		t.Error("that is too few to mean anything")
	}
}

func FuzzMetricsAgainstProtobuf(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 0))
	for range 20 {
		var m metricspb.MetricsData
		fill(rnd, m.ProtoReflect(), 8)
		src, _ := proto.Marshal(&m)
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) { checkMetrics(t, src) })
}

func FuzzLogsAgainstProtobuf(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 0))
	for range 20 {
		var l logspb.LogsData
		fill(rnd, l.ProtoReflect(), 8)
		src, _ := proto.Marshal(&l)
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) { checkLogs(t, src) })
}

// agree tells whether there are records to compare, and fails where the codec refuses
// what the library takes without a reason to. The codec may take more: it does not look
// into what it has no use for (a scope, an exemplar), nor whether that is UTF-8.
func agree(t *testing.T, src []byte, ours, theirs error) bool {
	t.Helper()
	if theirs == nil && ours != nil && !strings.Contains(ours.Error(), "this is another message") &&
		!strings.Contains(ours.Error(), "nested deeper") && !strings.Contains(ours.Error(), "asks for much more") {
		t.Errorf("only the codec refuses %q: %v", src, ours)
	}
	return theirs == nil && ours == nil
}

func checkMetrics(t *testing.T, src []byte) int {
	t.Helper()
	got, ours := otlp.Metrics().DecodeBatch(nil, src)
	var data metricspb.MetricsData
	theirs := proto.Unmarshal(src, &data)
	var want []kemi.Metric
	if theirs == nil {
		want, theirs = metricsOf(&data)
	}
	if !agree(t, src, ours, theirs) {
		return 0
	}
	if len(got) != len(want) {
		t.Errorf("%q: %d metrics, want %d", src, len(got), len(want))
		return 0
	}
	for i := range got {
		if !same(got[i], want[i]) {
			t.Errorf("%q: metric %d is\n%+v, want\n%+v", src, i, got[i], want[i])
			return 0
		}
	}
	return len(got)
}

func checkLogs(t *testing.T, src []byte) int {
	t.Helper()
	got, ours := otlp.Logs().DecodeBatch(nil, src)
	var data logspb.LogsData
	theirs := proto.Unmarshal(src, &data)
	if !agree(t, src, ours, theirs) {
		return 0
	}
	if strings.Contains(string(src), "kemi.kinds") {
		return 0 // ours, and held by the round trip
	}
	want := logsOf(&data)
	if len(got) != len(want) {
		t.Errorf("%q: %d logs, want %d", src, len(got), len(want))
		return 0
	}
	for i := range got {
		if !sameLog(got[i], want[i]) {
			t.Errorf("%q: log %d is\n%+v, want\n%+v", src, i, got[i], want[i])
			return 0
		}
	}
	return len(got)
}

// Longer runs, and those that failed: go test -rounds 100000 -seed 17.
var (
	rounds = flag.Int("rounds", 500, "how many batches a property is tried on")
	seed   = flag.Uint64("seed", 0, "where chance starts; 0: by chance")
)

func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed %d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// fill sets fields of m at random.
func fill(rnd *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if rnd.IntN(4) == 0 || depth == 0 && f.Message() != nil || f.ContainingOneof() != nil && rnd.IntN(2) == 0 {
			continue
		}
		if !f.IsList() {
			if f.Message() != nil {
				fill(rnd, m.Mutable(f).Message(), depth-1)
			} else {
				m.Set(f, scalar(rnd, f))
			}
			continue
		}
		list := m.Mutable(f).List()
		for range rnd.IntN(4) {
			if f.Message() != nil {
				fill(rnd, list.AppendMutable().Message(), depth-1)
			} else {
				list.Append(scalar(rnd, f))
			}
		}
	}
	// A histogram needs one more bucket than bounds.
	if h, ok := m.Interface().(*metricspb.HistogramDataPoint); ok {
		h.BucketCounts = nil
		if rnd.IntN(4) > 0 {
			for range len(h.ExplicitBounds) + 1 {
				h.BucketCounts = append(h.BucketCounts, rnd.Uint64N(1000))
			}
		} else {
			h.ExplicitBounds = nil
		}
	}
}

func scalar(rnd *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := rnd.Uint64() >> rnd.IntN(64)
	switch f.Kind() {
	case protoreflect.StringKind:
		s := pick(rnd, "", "host", "host.name", "service.name", "le", "a", "b", "kemi:%41", "ä\x00", "kemi.kind", "counter32", "kemi.time", "kemi.value", strconv.FormatUint(n, 10),
			"log.syslog.facility.code", "fluent.tag", "log.record.uid", "trace_id", "event_name", "warn", strings.Repeat("x", rnd.IntN(700)))
		return protoreflect.ValueOfString(s)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(n), byte(n >> 8), 0xff})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n&1 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(pick(rnd, 0, 1, 2, 2, 2, int32(n))))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(pick(rnd, math.Float64frombits(n), float64(n), 0, 1.5))
	case protoreflect.Sint32Kind, protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(pick(rnd, int32(rnd.IntN(7)-3), int32(n)))
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n) & pick[uint32](rnd, 0, 1, math.MaxUint32))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(n)
	}
	panic(f.Kind())
}

// ---- the mapping over structs ----

func nameOf(s string) string {
	rest, ok := strings.CutPrefix(s, "kemi:")
	if !ok {
		return s
	}
	parts := strings.Split(rest, "%")
	for i, p := range parts[1:] {
		if len(p) < 2 {
			return s
		}
		b, err := hex.DecodeString(p[:2])
		if err != nil || p[:2] != strings.ToUpper(p[:2]) {
			return s
		}
		parts[i+1] = string(b) + p[2:]
	}
	return strings.Join(parts, "")
}

func instant(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n/1e9), int64(n%1e9)).UTC()
}

func jsonOf(v *commonpb.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		q, _ := json.Marshal(x.StringValue)
		return string(q)
	case *commonpb.AnyValue_BytesValue:
		return `"` + base64.StdEncoding.EncodeToString(x.BytesValue) + `"`
	case *commonpb.AnyValue_ArrayValue:
		var parts []string
		for _, e := range x.ArrayValue.GetValues() {
			parts = append(parts, jsonOf(e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case *commonpb.AnyValue_KvlistValue:
		var parts []string
		for _, e := range x.KvlistValue.GetValues() {
			q, _ := json.Marshal(nameOf(e.Key))
			parts = append(parts, string(q)+":"+jsonOf(e.Value))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case *commonpb.AnyValue_DoubleValue:
		if math.IsNaN(x.DoubleValue) || math.IsInf(x.DoubleValue, 0) {
			return `"` + plain(v) + `"`
		}
	case nil, *commonpb.AnyValue_StringValueStrindex:
		return "null"
	}
	return plain(v)
}

func plain(v *commonpb.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return x.StringValue
	case *commonpb.AnyValue_BytesValue:
		return string(x.BytesValue)
	case *commonpb.AnyValue_BoolValue:
		return fmt.Sprint(x.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return fmt.Sprint(x.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(x.DoubleValue, 'g', -1, 64)
	case *commonpb.AnyValue_ArrayValue, *commonpb.AnyValue_KvlistValue:
		return jsonOf(v)
	}
	return ""
}

type labelMap map[string]string

func labelsOf(attrs []*commonpb.KeyValue) labelMap {
	m := labelMap{}
	for _, a := range attrs {
		m[nameOf(a.GetKey())] = plain(a.GetValue())
	}
	return m
}

func hostOf(attrs []*commonpb.KeyValue) labelMap {
	m := labelsOf(attrs)
	host, named := m["host.name"]
	if named {
		delete(m, "host.name")
		if other, ok := m["host"]; ok && host != "" {
			m["exported_host"] = other
		}
		if _, ok := m["host"]; !ok || host != "" {
			m["host"] = host
		}
	}
	return m
}

func (m labelMap) under(resource labelMap) kemi.Labels {
	all := maps.Clone(resource)
	for k, v := range m {
		if k == "host" && resource["host"] != "" {
			k = "exported_host"
		}
		if k == "exported_host" {
			if _, both := m["host"]; both && resource["host"] != "" {
				v = m["host"]
			}
		}
		all[k] = v
	}
	var labels []kemi.Label
	for k, v := range all {
		labels = append(labels, kemi.Label{Name: k, Value: v})
	}
	return kemi.NewLabels(labels...)
}

func (m labelMap) with(name string, v float64) labelMap {
	m = maps.Clone(m)
	m[name] = strconv.FormatFloat(v, 'g', -1, 64)
	return m
}

var stale = math.Float64frombits(0x7ff0000000000002)

func metricsOf(data *metricspb.MetricsData) (dst []kemi.Metric, err error) {
	for _, rm := range data.ResourceMetrics {
		res := hostOf(rm.GetResource().GetAttributes())
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				switch x := m.Data.(type) {
				case *metricspb.Metric_Gauge:
					for _, p := range x.Gauge.GetDataPoints() {
						dst = append(dst, numberOf(m, p, len(x.Gauge.GetDataPoints()), res, false))
					}
				case *metricspb.Metric_Sum:
					for _, p := range x.Sum.GetDataPoints() {
						dst = append(dst, numberOf(m, p, len(x.Sum.GetDataPoints()), res, x.Sum.AggregationTemporality == 2 && x.Sum.IsMonotonic))
					}
				case *metricspb.Metric_Histogram:
					for _, p := range x.Histogram.GetDataPoints() {
						d := dist{nameOf(m.Name), labelsOf(p.Attributes), res, instant(p.TimeUnixNano), p.Flags&1 != 0, x.Histogram.AggregationTemporality == 2, &dst}
						if n := len(p.BucketCounts); n != len(p.ExplicitBounds)+1 && (n != 0 || len(p.ExplicitBounds) != 0) && !d.stale {
							return nil, errors.New("buckets")
						}
						var sum uint64
						for i, b := range p.ExplicitBounds {
							if i < len(p.BucketCounts) {
								sum += p.BucketCounts[i]
							}
							d.count("_bucket", d.attrs.with("le", b), sum)
						}
						d.end(p.Count, p.Sum)
					}
				case *metricspb.Metric_ExponentialHistogram:
					for _, p := range x.ExponentialHistogram.GetDataPoints() {
						d := dist{nameOf(m.Name), labelsOf(p.Attributes), res, instant(p.TimeUnixNano), p.Flags&1 != 0, x.ExponentialHistogram.AggregationTemporality == 2, &dst}
						d.exponential(p)
						d.end(p.Count, p.Sum)
					}
				case *metricspb.Metric_Summary:
					for _, p := range x.Summary.GetDataPoints() {
						d := dist{nameOf(m.Name), labelsOf(p.Attributes), res, instant(p.TimeUnixNano), p.Flags&1 != 0, true, &dst}
						for _, q := range p.QuantileValues {
							v := q.Value
							if d.stale {
								v = stale
							}
							dst = append(dst, kemi.Gauge(d.name, d.attrs.with("quantile", q.Quantile).under(res), d.t, v))
						}
						d.float("_sum", p.Sum)
						d.count("_count", d.attrs, p.Count)
					}
				}
			}
		}
	}
	return dst, nil
}

func numberOf(m *metricspb.Metric, p *metricspb.NumberDataPoint, points int, res labelMap, counter bool) kemi.Metric {
	meta := labelMap{}
	for _, a := range m.Metadata {
		meta[a.GetKey()] = plain(a.GetValue())
	}
	name, labels, t := nameOf(m.Name), labelsOf(p.Attributes).under(res), instant(p.TimeUnixNano)
	if odd, err := parseOdd(meta["kemi.time"]); err == nil && p.TimeUnixNano == 0 && points == 1 {
		t = odd
	}
	v := stale
	if p.Flags&1 == 0 {
		switch x := p.Value.(type) {
		case *metricspb.NumberDataPoint_AsInt:
			if counter && x.AsInt >= 0 {
				if meta["kemi.kind"] == "counter32" && x.AsInt <= math.MaxUint32 {
					return kemi.Counter32(name, labels, t, uint32(x.AsInt))
				}
				return kemi.Counter(name, labels, t, uint64(x.AsInt))
			}
			v = float64(x.AsInt)
		case *metricspb.NumberDataPoint_AsDouble:
			v = x.AsDouble
			if n, err := strconv.ParseUint(meta["kemi.value"], 10, 64); err == nil && counter && points == 1 && float64(n) == v {
				return kemi.Counter(name, labels, t, n)
			}
		}
	}
	if counter {
		return kemi.FloatCounter(name, labels, t, v)
	}
	return kemi.Gauge(name, labels, t, v)
}

var oddTime = regexp.MustCompile(`^([+-]?[0-9]+)\.([0-9]{9})$`)

func parseOdd(s string) (time.Time, error) {
	parts := oddTime.FindStringSubmatch(s)
	if parts == nil {
		return time.Time{}, errors.New("no such time")
	}
	sec, err := strconv.ParseInt(parts[1], 10, 64)
	nsec, _ := strconv.Atoi(parts[2])
	return time.Unix(sec, int64(nsec)).UTC(), err
}

type dist struct {
	name    string
	attrs   labelMap
	res     labelMap
	t       time.Time
	stale   bool
	counter bool
	dst     *[]kemi.Metric
}

func (d dist) count(suffix string, attrs labelMap, n uint64) {
	m := kemi.Counter(d.name+suffix, attrs.under(d.res), d.t, n)
	switch {
	case d.stale && d.counter:
		m = kemi.FloatCounter(m.Name, m.Labels, d.t, stale)
	case d.stale:
		m = kemi.Gauge(m.Name, m.Labels, d.t, stale)
	case !d.counter:
		m = kemi.Gauge(m.Name, m.Labels, d.t, float64(n))
	}
	*d.dst = append(*d.dst, m)
}

func (d dist) float(suffix string, v float64) {
	if d.stale {
		v = stale
	}
	m := kemi.Gauge(d.name+suffix, d.attrs.under(d.res), d.t, v)
	if d.counter {
		m = kemi.FloatCounter(m.Name, m.Labels, d.t, v)
	}
	*d.dst = append(*d.dst, m)
}

func (d dist) end(count uint64, sum *float64) {
	d.count("_bucket", d.attrs.with("le", math.Inf(1)), count)
	if sum != nil {
		d.float("_sum", *sum)
	}
	d.count("_count", d.attrs, count)
}

func (d dist) exponential(p *metricspb.ExponentialHistogramDataPoint) {
	// The exponents of two on both sides of a bucket.
	sides := func(b *metricspb.ExponentialHistogramDataPoint_Buckets) (from, to []float64, n map[[2]float64]uint64) {
		n = map[[2]float64]uint64{}
		for i, c := range b.GetBucketCounts() {
			at := float64(b.GetOffset()) + float64(i)
			width := math.Pow(2, float64(min(-int64(p.Scale), 30)))
			lo, hi := at*width, (at+1)*width
			if p.Scale > 0 {
				lo = math.Floor(at / math.Pow(2, float64(min(p.Scale, 40))))
				hi = lo + 1
			}
			l, h := math.Pow(2, max(-2000, min(lo, 2000))), math.Pow(2, max(-2000, min(hi, 2000)))
			if k := len(from) - 1; k < 0 || from[k] != l || to[k] != h {
				from, to = append(from, l), append(to, h)
			}
			n[[2]float64{l, h}] += c
		}
		return from, to, n
	}
	var sum uint64
	from, to, n := sides(p.Negative)
	for i := len(from) - 1; i >= 0; i-- {
		sum += n[[2]float64{from[i], to[i]}]
		d.count("_bucket", d.attrs.with("le", 0-from[i]), sum)
	}
	sum += p.ZeroCount
	if p.ZeroCount > 0 || len(from) > 0 {
		d.count("_bucket", d.attrs.with("le", p.ZeroThreshold), sum)
	}
	from, to, n = sides(p.Positive)
	for i := range from {
		sum += n[[2]float64{from[i], to[i]}]
		if math.IsInf(to[i], 1) {
			break
		}
		d.count("_bucket", d.attrs.with("le", to[i]), sum)
	}
}

func anyOf(v *commonpb.AnyValue) slog.Value {
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return slog.StringValue(x.StringValue)
	case *commonpb.AnyValue_BytesValue:
		return slog.AnyValue(append([]byte{}, x.BytesValue...))
	case *commonpb.AnyValue_BoolValue:
		return slog.BoolValue(x.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return slog.Int64Value(x.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return slog.Float64Value(x.DoubleValue)
	case *commonpb.AnyValue_ArrayValue:
		list := []any{}
		for _, e := range x.ArrayValue.GetValues() {
			list = append(list, mapOf(anyOf(e)))
		}
		return slog.AnyValue(list)
	case *commonpb.AnyValue_KvlistValue:
		return slog.GroupValue(attrsOf(x.KvlistValue.GetValues())...)
	}
	return slog.Value{}
}

func mapOf(v slog.Value) any {
	if v.Kind() != slog.KindGroup {
		return v.Any()
	}
	m := map[string]any{}
	for _, a := range v.Group() {
		m[a.Key] = mapOf(a.Value)
	}
	return m
}

func attrsOf(kvs []*commonpb.KeyValue) (attrs []slog.Attr) {
	for _, a := range kvs {
		attrs = append(attrs, slog.Attr{Key: nameOf(a.GetKey()), Value: anyOf(a.GetValue())})
	}
	return attrs
}

func logsOf(data *logspb.LogsData) (dst []kemi.Log) {
	byKey := func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) }
	for _, rl := range data.ResourceLogs {
		var res []slog.Attr
		var host, app string
		for _, a := range rl.GetResource().GetAttributes() {
			switch a.GetKey() {
			case "host.name":
				host = plain(a.Value)
			case "service.name":
				app = plain(a.Value)
			default:
				res = append(res, attrsOf([]*commonpb.KeyValue{a})...)
			}
		}
		for _, sl := range rl.ScopeLogs {
			for _, r := range sl.LogRecords {
				l := kemi.Log{Time: instant(r.TimeUnixNano), Observed: instant(r.ObservedTimeUnixNano), Host: host, App: app, Message: plain(r.Body)}
				l.Severity = severities[min(max(int(r.SeverityNumber), 0), 25)]
				if l.Severity == 255 {
					l.Severity = map[string]kemi.Severity{"warn": kemi.SeverityWarning}[r.SeverityText]
					if l.Severity == 0 {
						l.Severity = kemi.SeverityInfo
					}
				}
				for _, a := range r.Attributes {
					n, isInt := a.GetValue().GetValue().(*commonpb.AnyValue_IntValue)
					switch {
					case a.GetKey() == "service.name":
						l.App = plain(a.Value)
					case a.GetKey() == "fluent.tag":
						l.Tag = plain(a.Value)
					case a.GetKey() == "log.record.uid":
						l.ID = plain(a.Value)
					case a.GetKey() == "kemi.time":
						if odd, err := parseOdd(plain(a.Value)); err == nil && l.Time.IsZero() {
							l.Time = odd
						}
					case a.GetKey() == "kemi.observed_time":
						if odd, err := parseOdd(plain(a.Value)); err == nil && l.Observed.IsZero() {
							l.Observed = odd
						}
					case a.GetKey() == "log.syslog.facility.code" && isInt && n.IntValue >= 0 && n.IntValue < 256:
						l.Facility = uint8(n.IntValue)
					default:
						l.Fields = append(l.Fields, attrsOf([]*commonpb.KeyValue{a})...)
					}
				}
				own := slices.Clone(l.Fields)
				missing := func(fields []slog.Attr, key string) bool {
					return !slices.ContainsFunc(fields, func(a slog.Attr) bool { return a.Key == key })
				}
				for key, value := range map[string]string{"event_name": r.EventName, "span_id": hex.EncodeToString(r.SpanId), "trace_id": hex.EncodeToString(r.TraceId)} {
					if value != "" && missing(own, key) {
						l.Fields = append(l.Fields, slog.String(key, value))
					}
				}
				own = slices.Clone(l.Fields)
				for _, a := range res {
					if missing(own, a.Key) {
						l.Fields = append(l.Fields, a)
					}
				}
				slices.SortStableFunc(l.Fields, byKey)
				dst = append(dst, l)
			}
		}
	}
	return dst
}

// severities are those of severity numbers; 255 leaves it to the text.
var severities = [26]kemi.Severity{255, 7, 7, 7, 7, 7, 7, 7, 7, 6, 5, 5, 5, 4, 4, 4, 4, 3, 2, 1, 1, 0, 0, 0, 0, 255}
