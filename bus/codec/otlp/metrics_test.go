package otlp_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// poll is one poll of a host: columns of a table, as an SNMP poller brings them.
func poll(host string, rows int) []kemi.Metric {
	var batch []kemi.Metric
	for _, name := range []string{"if_hc_in_octets", "if_hc_out_octets", "if_in_errors", "if_out_errors", "if_oper_status"} {
		for i := range rows {
			labels := kemi.LabelsOf("host", host, "ifname", fmt.Sprintf("GigabitEthernet0/%d", i), "ifindex", fmt.Sprint(i),
				"dc", "icn1", "service", "edge", "rack", "r17")
			switch name {
			case "if_oper_status":
				batch = append(batch, kemi.Gauge(name, labels, noon, 1))
			case "if_in_errors", "if_out_errors":
				batch = append(batch, kemi.Counter32(name, labels, noon, uint32(i)))
			default:
				batch = append(batch, kemi.Counter(name, labels, noon, uint64(i)<<33+7))
			}
		}
	}
	return batch
}

// hardMetrics are what is hard on a codec.
func hardMetrics() [][]kemi.Metric {
	l := kemi.LabelsOf("host", "web1", "disk", "/")
	odd := kemi.LabelsOf("host", "w\xffeb", "kemi:x", "%", "a\xfe%", "\xff", "host.name", "other", "", "no name", "n", "\x00ä")
	var kinds []kemi.Metric
	for _, t := range []time.Time{
		noon, {}, time.Unix(0, 0).UTC(), time.Unix(0, 1).UTC(), time.Unix(-1, 5).UTC(),
		time.Date(-5000, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(20000, 1, 1, 0, 0, 0, 1, time.UTC), time.Unix(18446744073, 709551615).UTC(),
		time.Unix(18446744072, 999999999).UTC(), time.Unix(math.MaxInt64, 0).UTC(),
	} {
		for _, labels := range []kemi.Labels{l, odd, {}, kemi.LabelsOf("disk", "/")} {
			for _, f := range []float64{0, math.Copysign(0, -1), 1.5, math.NaN(), math.Float64frombits(0x7ff0000000000002), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324} {
				kinds = append(kinds, kemi.Gauge("g", labels, t, f), kemi.FloatCounter("f", labels, t, f))
			}
			for _, n := range []uint64{0, 1, 1<<53 + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64 - 1, math.MaxUint64} {
				kinds = append(kinds, kemi.Counter("c", labels, t, n), kemi.Counter32("", labels, t, uint32(n)))
			}
		}
	}
	return [][]kemi.Metric{
		poll("sw1", 10),
		append(poll("sw1", 2), poll("sw2", 1)...),
		kinds,
		{kemi.Gauge("a", l, noon, 1), kemi.Gauge("a", kemi.LabelsOf("host", "web2"), noon, 2), kemi.Gauge("a", l, noon, 3)},
		{kemi.Gauge("kemi:", l, noon, 1), kemi.Gauge("kemi:%41", l, noon, 1), kemi.Gauge("%41", l, noon, 1), kemi.Gauge("\xff\xc0%", l, noon, 1)},
		{kemi.Counter(strings.Repeat("long ", 500), kemi.LabelsOf("host", strings.Repeat("h", 70000)), noon, 1)},
		{{}},
		make([]kemi.Metric, 300),
	}
}

// same compares bits: not-a-numbers are equal if they are the same one.
func same(a, b kemi.Metric) bool {
	return a.Name == b.Name && a.Labels == b.Labels && a.Time.Equal(b.Time) && a.Time.Location() == b.Time.Location() && a.Kind == b.Kind &&
		a.Uint() == b.Uint() && math.Float64bits(a.Float()) == math.Float64bits(b.Float())
}

func TestMetrics(t *testing.T) { bustest.RunCodec(t, otlp.Metrics(), same, hardMetrics()...) }

// Seeds are short, or a fuzzer spends its time on copying them.
func FuzzMetrics(f *testing.F) {
	hard := hardMetrics()
	bustest.FuzzCodec(f, otlp.Metrics(), poll("sw1", 1), hard[2][:3], hard[2][600:605], hard[3], hard[4])
}

// TestAnyBatchComesBack draws batches of a few names, labels and times, so that they
// meet in all ways.
func TestAnyBatchComesBack(t *testing.T) {
	rnd := random(t)
	c := otlp.Metrics()
	for range *rounds {
		batch := make([]kemi.Metric, rnd.IntN(60))
		for i := range batch {
			batch[i] = anyMetric(rnd)
		}
		src, err := c.AppendBatch(nil, batch)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.DecodeBatch(nil, src)
		if err != nil || len(got) != len(batch) {
			t.Fatalf("of %d metrics %d come back: %v", len(batch), len(got), err)
		}
		for i := range batch {
			if !same(got[i], batch[i]) {
				t.Fatalf("%+v came back as %+v", batch[i], got[i])
			}
		}
	}
}

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

func anyText(rnd *rand.Rand) string {
	return pick(rnd, "", "web1", "host", "host.name", "a", "kemi:", "kemi:a", "%", "\xff", "ä", strings.Repeat("x", rnd.IntN(300)), string([]byte{byte(rnd.Uint32()), byte(rnd.Uint32())}))
}

func anyTime(rnd *rand.Rand) time.Time {
	return pick(rnd, time.Time{}, noon, noon, noon.Add(time.Second), time.Unix(0, 0).UTC(), time.Unix(rnd.Int64N(1<<40)-1<<39, 17).UTC())
}

func anyMetric(rnd *rand.Rand) kemi.Metric {
	var labels []kemi.Label
	for range rnd.IntN(4) {
		labels = append(labels, kemi.Label{Name: anyText(rnd), Value: anyText(rnd)})
	}
	if rnd.IntN(4) > 0 {
		labels = append(labels, kemi.Label{Name: "host", Value: pick(rnd, "web1", "web2")})
	}
	name, l, t, n := pick(rnd, "a", "a", "a", "b", anyText(rnd)), kemi.NewLabels(labels...), anyTime(rnd), rnd.Uint64()
	f := pick(rnd, math.Float64frombits(n), 0, 1, math.Float64frombits(0x7ff0000000000002))
	return pick(rnd, kemi.Gauge(name, l, t, f), kemi.FloatCounter(name, l, t, f), kemi.Counter(name, l, t, n>>rnd.IntN(64)), kemi.Counter32(name, l, t, uint32(n)))
}

func TestAMetricThatIsNoneIsRefused(t *testing.T) {
	big := kemi.Counter("wrap", kemi.LabelsOf("host", "web1"), noon, 1<<32)
	big.Kind = kemi.KindCounter32
	for want, m := range map[string]kemi.Metric{
		"kind(9)":    {Name: "wrap", Kind: 9},
		"4294967296": big,
	} {
		dst, err := otlp.Metrics().AppendBatch([]byte("before"), []kemi.Metric{kemi.Gauge("good", kemi.Labels{}, noon, 1), m})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"wrap"`) || string(dst) != "before" {
			t.Errorf("%q, %v: want an error with %s and the name", dst, err, want)
		}
	}
}
