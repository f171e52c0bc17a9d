package otlp_test

import (
	"encoding/binary"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

func attr(name, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// decodeForeign is the records of an SDK's metrics, one to a line.
func decodeForeign(t *testing.T, resource []*commonpb.KeyValue, metrics ...*metricspb.Metric) string {
	t.Helper()
	src, err := proto.Marshal(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource:     &resourcepb.Resource{Attributes: resource},
		ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: &commonpb.InstrumentationScope{Name: "sdk"}, Metrics: metrics}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := otlp.Metrics().DecodeBatch(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range batch {
		line, _, _ := strings.Cut(m.String(), " @")
		lines = append(lines, m.Kind.String()+" "+line)
	}
	return strings.Join(lines, "\n")
}

func TestWhatAnSDKSendsBecomesSeries(t *testing.T) {
	const delta, cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	web := []*commonpb.KeyValue{attr("host.name", "web1")}
	asInt := func(n int64, attrs ...*commonpb.KeyValue) []*metricspb.NumberDataPoint {
		return []*metricspb.NumberDataPoint{{Attributes: attrs, Value: &metricspb.NumberDataPoint_AsInt{AsInt: n}}}
	}
	gauge := func(points []*metricspb.NumberDataPoint) *metricspb.Metric {
		return &metricspb.Metric{Name: "m", Unit: "By", Description: "d", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: points}}}
	}
	sum := func(kind metricspb.AggregationTemporality, monotonic bool, points []*metricspb.NumberDataPoint) *metricspb.Metric {
		return &metricspb.Metric{Name: "m", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: kind, IsMonotonic: monotonic, DataPoints: points}}}
	}
	histogram := func(kind metricspb.AggregationTemporality) *metricspb.Metric {
		return &metricspb.Metric{Name: "h", Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{AggregationTemporality: kind, DataPoints: []*metricspb.HistogramDataPoint{
			{Attributes: []*commonpb.KeyValue{attr("path", "/")}, Count: 6, Sum: proto.Float64(9.5), ExplicitBounds: []float64{0.1, 5}, BucketCounts: []uint64{1, 2, 3}},
		}}}}
	}
	for name, c := range map[string]struct{ got, want string }{
		"an integer gauge":  {decodeForeign(t, web, gauge(asInt(-7))), `gauge m{host="web1"} -7`},
		"a cumulative sum":  {decodeForeign(t, web, sum(cumulative, true, asInt(7))), `counter m{host="web1"} 7`},
		"a negative one":    {decodeForeign(t, web, sum(cumulative, true, asInt(-7))), `floatcounter m{host="web1"} -7`},
		"an up-down sum":    {decodeForeign(t, web, sum(cumulative, false, asInt(7))), `gauge m{host="web1"} 7`},
		"a delta":           {decodeForeign(t, web, sum(delta, true, asInt(7))), `gauge m{host="web1"} 7`},
		"no recorded value": {decodeForeign(t, web, gauge([]*metricspb.NumberDataPoint{{Flags: 1}})), `gauge m{host="web1"} NaN`},
		"no host":           {decodeForeign(t, nil, gauge(asInt(1))), `gauge m{} 1`},
		"two hosts": {
			decodeForeign(t, append(web, attr("service.name", "shop"), attr("host", "x")), gauge(asInt(1, attr("a", "1"))), gauge(asInt(2, attr("host", "db1"), attr("service.name", "cart")))),
			`gauge m{a="1", exported_host="x", host="web1", service.name="shop"} 1` + "\n" + `gauge m{exported_host="db1", host="web1", service.name="cart"} 2`,
		},
		"values of all types": {
			decodeForeign(t, web, gauge(asInt(1, attr("s", ""),
				&commonpb.KeyValue{Key: "b", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
				&commonpb.KeyValue{Key: "i", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: -1}}},
				&commonpb.KeyValue{Key: "l", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{attr("k", "v"), {Key: "n"}}}}}}))),
			`gauge m{b="true", host="web1", i="-1", l="{\"k\":\"v\",\"n\":null}"} 1`,
		},
		"a histogram": {
			decodeForeign(t, web, histogram(cumulative)),
			`counter h_bucket{host="web1", le="0.1", path="/"} 1` + "\n" + `counter h_bucket{host="web1", le="5", path="/"} 3` + "\n" +
				`counter h_bucket{host="web1", le="+Inf", path="/"} 6` + "\n" + `floatcounter h_sum{host="web1", path="/"} 9.5` + "\n" + `counter h_count{host="web1", path="/"} 6`,
		},
		"an exponential one of scale 1": {
			decodeForeign(t, web, &metricspb.Metric{Name: "e", Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{
				AggregationTemporality: cumulative, DataPoints: []*metricspb.ExponentialHistogramDataPoint{{
					Count: 15, ZeroCount: 1, Scale: 1,
					Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: -1, BucketCounts: []uint64{1, 2, 3, 4}}, // up to 1, √2, 2, 2√2
					Negative: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: 0, BucketCounts: []uint64{3, 1}},        // -1 to -2
				}},
			}}}),
			`counter e_bucket{host="web1", le="-1"} 4` + "\n" + `counter e_bucket{host="web1", le="0"} 5` + "\n" + `counter e_bucket{host="web1", le="1"} 6` + "\n" +
				`counter e_bucket{host="web1", le="2"} 11` + "\n" + `counter e_bucket{host="web1", le="4"} 15` + "\n" + `counter e_bucket{host="web1", le="+Inf"} 15` + "\n" + `counter e_count{host="web1"} 15`,
		},
		"a summary": {
			decodeForeign(t, web, &metricspb.Metric{Name: "s", Data: &metricspb.Metric_Summary{Summary: &metricspb.Summary{DataPoints: []*metricspb.SummaryDataPoint{
				{Count: 2, Sum: 3, QuantileValues: []*metricspb.SummaryDataPoint_ValueAtQuantile{{Quantile: 0.5, Value: 1.5}}},
			}}}}),
			`gauge s{host="web1", quantile="0.5"} 1.5` + "\n" + `floatcounter s_sum{host="web1"} 3` + "\n" + `counter s_count{host="web1"} 2`,
		},
	} {
		if c.got != c.want {
			t.Errorf("%s is\n%s\nwant\n%s", name, c.got, c.want)
		}
	}
	if got := decodeForeign(t, web, histogram(delta)); strings.Contains(got, "counter") || strings.Count(got, "gauge") != 5 {
		t.Errorf("a histogram of deltas is\n%s", got)
	}
}

// TestLogsOfAnSDK reads a record as an SDK writes one: of a service, with a trace and a
// body that is a map.
func TestLogsOfAnSDK(t *testing.T) {
	src, err := proto.Marshal(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attr("host.name", "web1"), attr("service.name", "shop"), attr("env", "prod"), attr("path", "resource")}},
		ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{{
			TimeUnixNano: uint64(noon.UnixNano()), SeverityNumber: logspb.SeverityNumber_SEVERITY_NUMBER_WARN2, SeverityText: "WARN+1",
			Body:    &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{attr("msg", "slow")}}}},
			TraceId: []byte("0123456789abcdef"), Attributes: []*commonpb.KeyValue{attr("path", "/"), attr("fluent.tag", "t")},
		}, {}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := otlp.Logs().DecodeBatch(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	want := []kemi.Log{
		{
			Time: noon, Host: "web1", App: "shop", Severity: kemi.SeverityWarning, Message: `{"msg":"slow"}`, Tag: "t",
			Fields: []slog.Attr{slog.String("env", "prod"), slog.String("path", "/"), slog.String("trace_id", "30313233343536373839616263646566")},
		},
		{Host: "web1", App: "shop", Severity: kemi.SeverityInfo, Fields: []slog.Attr{slog.String("env", "prod"), slog.String("path", "resource")}},
	}
	if !slices.EqualFunc(got, want, sameLog) {
		t.Errorf("%+v, want\n%+v", got, want)
	}
}

// TestKindsThatDoNotFitAreNotBelieved changes the fields of a log on its way, as a
// collector may.
func TestKindsThatDoNotFitAreNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *logspb.LogRecord)
		want   slog.Value
	}{
		"nothing":            {func(*logspb.LogRecord) {}, slog.Uint64Value(7)},
		"one more attribute": {func(r *logspb.LogRecord) { r.Attributes = append(r.Attributes, attr("zone", "a")) }, slog.Int64Value(7)},
		"another value":      {func(r *logspb.LogRecord) { r.Attributes[0].Value = attr("", "seven").Value }, slog.StringValue("seven")},
	} {
		src, err := otlp.Logs().AppendBatch(nil, []kemi.Log{{Host: "web1", Fields: []slog.Attr{slog.Uint64("n", 7)}}})
		if err != nil {
			t.Fatal(err)
		}
		var data logspb.LogsData
		if err := proto.Unmarshal(src, &data); err != nil {
			t.Fatal(err)
		}
		c.change(data.ResourceLogs[0].ScopeLogs[0].LogRecords[0])
		src, _ = proto.Marshal(&data)
		got, err := otlp.Logs().DecodeBatch(nil, src)
		if err != nil || !sameValue(got[0].Fields[0].Value, c.want) {
			t.Errorf("%s changed: %+v, want %v (%v)", name, got, c.want, err)
		}
	}
}

// TestHostileBytesAreErrors asks for what only a few bytes cannot.
func TestHostileBytesAreErrors(t *testing.T) {
	field := func(num protowire.Number, parts ...string) string {
		return string(protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), strings.Join(parts, "")))
	}
	repeat := func(n int, s string) string { return strings.Repeat(s, n) }
	deep := ""
	for range 100000 {
		deep = field(5, field(1, deep))
		if len(deep) > 1<<16 {
			break
		}
	}
	point := func(attrs string) string { return field(1, field(2, field(2, field(5, field(1, attrs))))) }
	log := func(s string) string { return field(1, field(2, field(2, s))) }
	length := string(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), math.MaxUint64))
	// A thousand attributes of a resource would be on each of a hundred thousand points.
	var attrs, points []string
	for i := range 1000 {
		name := string(binary.BigEndian.AppendUint16(nil, uint16(0x4141+i)))
		attrs = append(attrs, field(1, field(1, name), field(2, field(1, "v"))))
	}
	for i := range 100000 {
		points = append(points, field(1, field(7, field(1, string(protowire.AppendVarint([]byte("p"), uint64(i)))), field(2, field(1, "v")))))
	}
	wide := field(1, field(1, attrs...), field(2, field(2, field(5, points...))))
	wideLogs := field(1, field(1, attrs...), field(2, repeat(100000, field(2, field(6, field(1, "a"))))))

	for name, c := range map[string]struct{ src, want string }{
		"a length beyond the end":  {length, "cut short"},
		"half a number":            {"\x0a\xff", "cut short"},
		"an endless number":        {repeat(20, "\xff"), "more than 64 bits"},
		"field 0":                  {"\x02\x00", "field number"},
		"wire type 7":              {"\x0f", "wire type"},
		"a group that is open":     {"\x7b", "cut short"},
		"a group that is not":      {"\x7c", "groups"},
		"groups in groups":         {repeat(100, "\x7b"), "nested deeper"},
		"JSON":                     {`{"resourceMetrics":[]}`, ""},
		"text":                     {"hello, world", ""},
		"lists in lists":           {point(field(7, field(1, "a"), field(2, deep))), "nested deeper"},
		"a resource on everything": {wide, "much more memory"},
		"logs":                     {log("\x09\x00\x00\x00\x00\x00\x00\x00\x01"), "another message"},
		"too few buckets":          {field(1, field(2, field(2, field(1, "h"), field(9, field(1, field(7, "12345678")))))), `"h"`},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := otlp.Metrics().DecodeBatch(nil, []byte(c.src))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20+256*uint64(len(c.src)) {
			t.Errorf("%s: %d bytes took %d MB to decode", name, len(c.src), used>>20)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "otlp: metrics: ") || len(err.Error()) > 400 {
			t.Errorf("%s: %d metrics and %v, want an error of %q", name, len(got), err, c.want)
		}
	}
	for name, c := range map[string]struct{ src, want string }{
		"lists in a body":          {log(field(5, deep)), "nested deeper"},
		"lists in a field":         {log(field(6, field(2, deep))), "nested deeper"},
		"a resource on everything": {wideLogs, "much more memory"},
		"metrics":                  {log(field(1, "name")), "another message"},
	} {
		if got, err := otlp.Logs().DecodeBatch(nil, []byte(c.src)); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "otlp: logs: ") {
			t.Errorf("%s: %d logs and %v, want an error of %q", name, len(got), err, c.want)
		}
	}
}

func TestFieldsOfLaterVersionsAreSkipped(t *testing.T) {
	src, err := otlp.Metrics().AppendBatch(nil, poll("sw1", 1))
	if err != nil {
		t.Fatal(err)
	}
	later := protowire.AppendTag(nil, 1000, protowire.StartGroupType)
	later = protowire.AppendFixed32(protowire.AppendTag(later, 7, protowire.Fixed32Type), 1)
	later = protowire.AppendTag(protowire.AppendTag(later, 8, protowire.StartGroupType), 8, protowire.EndGroupType)
	later = protowire.AppendTag(later, 1000, protowire.EndGroupType)
	later = protowire.AppendString(protowire.AppendTag(later, 99, protowire.BytesType), "new")
	got, err := otlp.Metrics().DecodeBatch(nil, slices.Concat(later, src, later))
	if err != nil || !slices.EqualFunc(got, poll("sw1", 1), same) {
		t.Errorf("%v, %v", got, err)
	}
}
