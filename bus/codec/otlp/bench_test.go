package otlp_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

// perMetric reports what one metric costs.
func perMetric(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/metric")
}

// BenchmarkDecode decodes the poll of a host: the same one again and again, those of a
// fleet in turn, and those of a fleet in which no two hosts have a label in common.
func BenchmarkDecode(b *testing.B) {
	for _, hosts := range []int{1, 1000, -1000} {
		var srcs [][]byte
		var alive [][]kemi.Metric
		strange := hosts < 0
		hosts = max(hosts, -hosts)
		for i := range hosts {
			alive = append(alive, poll(fmt.Sprintf("switch%d", i), 10))
			for j := range alive[i] {
				if m := &alive[i][j]; strange {
					m.Labels = m.Labels.With("ifalias", fmt.Sprintf("uplink %d of %s", j%10, m.Host()))
				}
			}
			src, err := otlp.Metrics().AppendBatch(nil, alive[i])
			if err != nil {
				b.Fatal(err)
			}
			srcs = append(srcs, src)
		}
		b.Run(fmt.Sprintf("hosts=%d/strange=%v/kemi", hosts, strange), func(b *testing.B) {
			c := otlp.Metrics()
			var dst []kemi.Metric
			b.ReportAllocs()
			for i := range b.N {
				var err error
				if dst, err = c.DecodeBatch(dst[:0], srcs[i%hosts]); err != nil || len(dst) != 50 {
					b.Fatal(len(dst), err)
				}
			}
			perMetric(b, 50)
		})
		b.Run(fmt.Sprintf("hosts=%d/strange=%v/proto", hosts, strange), func(b *testing.B) {
			var dst []kemi.Metric
			b.ReportAllocs()
			for i := range b.N {
				var err error
				if dst, err = decodeByProto(dst[:0], srcs[i%hosts]); err != nil || len(dst) != 50 {
					b.Fatal(len(dst), err)
				}
			}
			perMetric(b, 50)
		})
		if len(alive) != hosts {
			b.Fatal("the label sets have to stay alive")
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	batch := poll("switch1", 10)
	b.Run("kemi", func(b *testing.B) {
		c := otlp.Metrics()
		var dst []byte
		b.ReportAllocs()
		for range b.N {
			dst, _ = c.AppendBatch(dst[:0], batch)
		}
		perMetric(b, 50)
	})
	b.Run("proto", func(b *testing.B) {
		var dst []byte
		b.ReportAllocs()
		for range b.N {
			dst, _ = proto.MarshalOptions{}.MarshalAppend(dst[:0], toProto(batch))
		}
		perMetric(b, 50)
	})
}

// BenchmarkLogs encodes and decodes the lines of a host, 190 bytes each with four fields.
func BenchmarkLogs(b *testing.B) {
	var batch, dst []kemi.Log
	for i := range 50 {
		batch = append(batch, line("web1", i))
	}
	c := otlp.Logs()
	src, err := c.AppendBatch(nil, batch)
	if err != nil {
		b.Fatal(err)
	}
	perLog := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/log") }
	b.Run("encode/kemi", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			src, _ = c.AppendBatch(src[:0], batch)
		}
		perLog(b)
	})
	b.Run("decode/kemi", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if dst, err = c.DecodeBatch(dst[:0], src); err != nil {
				b.Fatal(err)
			}
		}
		perLog(b)
	})
	b.Run("decode/proto", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			var data logspb.LogsData
			if err := proto.Unmarshal(src, &data); err != nil {
				b.Fatal(err)
			}
			dst = append(dst[:0], logsOf(&data)...)
		}
		perLog(b)
	})
}

// decodeByProto is what a decoder over the slim protos does.
func decodeByProto(dst []kemi.Metric, src []byte) ([]kemi.Metric, error) {
	var data metricspb.MetricsData
	if err := proto.Unmarshal(src, &data); err != nil {
		return dst, err
	}
	var buf [16]kemi.Label
	for _, rm := range data.ResourceMetrics {
		resource := buf[:0]
		for _, a := range rm.GetResource().GetAttributes() {
			name := a.Key
			if name == "host.name" {
				name = "host"
			}
			resource = append(resource, kemi.Label{Name: name, Value: a.Value.GetStringValue()})
		}
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				counter32 := len(m.Metadata) == 1 && m.Metadata[0].Key == "kemi.kind" && m.Metadata[0].Value.GetStringValue() == "counter32"
				points := m.GetGauge().GetDataPoints()
				if m.GetSum() != nil {
					points = m.GetSum().DataPoints
				}
				for _, p := range points {
					pairs := resource
					for _, a := range p.Attributes {
						pairs = append(pairs, kemi.Label{Name: a.Key, Value: a.Value.GetStringValue()})
					}
					labels := kemi.NewLabels(pairs...)
					t := time.Unix(int64(p.TimeUnixNano/1e9), int64(p.TimeUnixNano%1e9)).UTC()
					switch {
					case m.GetSum() == nil:
						dst = append(dst, kemi.Gauge(m.Name, labels, t, p.GetAsDouble()))
					case counter32:
						dst = append(dst, kemi.Counter32(m.Name, labels, t, uint32(p.GetAsInt())))
					default:
						dst = append(dst, kemi.Counter(m.Name, labels, t, uint64(p.GetAsInt())))
					}
				}
			}
		}
	}
	return dst, nil
}

// toProto is the batch as the slim protos have it: of one host, and nothing odd.
func toProto(batch []kemi.Metric) *metricspb.MetricsData {
	str := func(name, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	sm := &metricspb.ScopeMetrics{}
	var points *[]*metricspb.NumberDataPoint
	for i, m := range batch {
		if i == 0 || batch[i-1].Name != m.Name || batch[i-1].Kind != m.Kind {
			pm := &metricspb.Metric{Name: m.Name}
			if m.Kind == kemi.KindGauge {
				g := &metricspb.Gauge{}
				pm.Data, points = &metricspb.Metric_Gauge{Gauge: g}, &g.DataPoints
			} else {
				s := &metricspb.Sum{AggregationTemporality: 2, IsMonotonic: true}
				pm.Data, points = &metricspb.Metric_Sum{Sum: s}, &s.DataPoints
			}
			if m.Kind == kemi.KindCounter32 {
				pm.Metadata = []*commonpb.KeyValue{str("kemi.kind", "counter32")}
			}
			sm.Metrics = append(sm.Metrics, pm)
		}
		p := &metricspb.NumberDataPoint{TimeUnixNano: uint64(m.Time.UnixNano())}
		switch {
		case m.Kind == kemi.KindCounter || m.Kind == kemi.KindCounter32:
			p.Value = &metricspb.NumberDataPoint_AsInt{AsInt: int64(m.Uint())}
		case math.Float64bits(m.Float()) == 0x7ff0000000000002:
			p.Flags = 1
		default:
			p.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: m.Float()}
		}
		for name, value := range m.Labels.All() {
			if name != "host" {
				p.Attributes = append(p.Attributes, str(name, value))
			}
		}
		*points = append(*points, p)
	}
	return &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource:     &resourcepb.Resource{Attributes: []*commonpb.KeyValue{str("host.name", batch[0].Host())}},
		ScopeMetrics: []*metricspb.ScopeMetrics{sm},
	}}}
}
