package columnar_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
)

var someTime = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// polls is what pollers bring: of each host so many metrics, with six labels. Five
// metrics have the same set.
func polls(hosts, each int) []kemi.Metric { return pollsOf(hosts, each, 5) }

func pollsOf(hosts, each, perSet int) []kemi.Metric {
	rnd := rand.New(rand.NewPCG(1, 2))
	at := time.Unix(1_763_640_000, 0).UTC()
	names := []string{"if_in_octets", "if_out_octets", "if_in_errors", "cpu_percent", "disk_used_bytes"}
	var batch []kemi.Metric
	for h := range hosts {
		for i := range each {
			name := names[i%len(names)]
			labels := kemi.LabelsOf("host", fmt.Sprintf("web%03d.dc1.example.com", h), "dc", "dc1", "rack", fmt.Sprint("r", h/4),
				"service", "shop", "os", "linux", "instance", fmt.Sprint("eth", i/perSet))
			switch i % len(names) {
			case 3:
				batch = append(batch, kemi.Gauge(name, labels, at, float64(rnd.IntN(10000))/100))
			case 4:
				batch = append(batch, kemi.Gauge(name, labels, at, float64(rnd.Int64N(1<<40))))
			default:
				batch = append(batch, kemi.Counter(name, labels, at, rnd.Uint64()>>(10+rnd.IntN(20))))
			}
		}
	}
	return batch
}

// hardMetrics have what is hard on a codec.
func hardMetrics() [][]kemi.Metric {
	bits := func(b uint64) float64 { return math.Float64frombits(b) }
	l := kemi.LabelsOf("host", "web1", "disk", "/")
	var numbers, times, sets, names []kemi.Metric
	for _, f := range []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 0.01, 0.001, 97.25, 1.0 / 3, 1e300, -1e-300, math.MaxFloat64, math.SmallestNonzeroFloat64,
		1 << 48, 1<<48 - 1, 1 << 53, 1<<63 + 1, math.Inf(1), math.Inf(-1), math.NaN(),
		bits(0x7ff0000000000001), bits(0x7ff8dead0000beef), bits(0xfff8000000000001), // signalling, and with a payload
	} {
		numbers = append(numbers, kemi.Gauge("g", l, someTime, f), kemi.FloatCounter("f", l, someTime, f))
	}
	for _, n := range []uint64{0, 1, 63, 64, 1<<53 + 1, 1<<55 - 1, 1 << 55, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
		numbers = append(numbers, kemi.Counter("c", l, someTime, n), kemi.Counter32("w", l, someTime, uint32(n)))
	}
	for _, t := range []time.Time{
		someTime, {}, time.Unix(0, 0).UTC(), time.Unix(-1, 999_999_999).UTC(), time.Unix(0, 1000).UTC(), time.Unix(1<<62, 1).UTC(),
		time.Unix(-1<<62, 0).UTC(), someTime.Truncate(time.Millisecond), someTime.Truncate(time.Second), time.Date(292277026, 1, 1, 0, 0, 0, 1, time.UTC),
	} {
		times = append(times, kemi.Gauge("g", l, t, 1), kemi.Gauge("g", l, t, 2))
	}
	for i := range 80 {
		sets = append(sets, kemi.Gauge("g", l, someTime, 1))
		l = l.With(fmt.Sprintf("l%02d", i*37%80), strings.Repeat("\xff\x00", i))
	}
	for i := range 80 {
		sets = append(sets, kemi.Gauge("g", l, someTime, 1))
		l = l.Without(fmt.Sprintf("l%02d", i*13%80))
	}
	for _, s := range []string{"", "\x00", "\xff\xfe", "ä\n\"", strings.Repeat("long", 1000)} {
		names = append(names, kemi.Gauge(s, kemi.LabelsOf(s, s), someTime, 1), kemi.Counter(s, kemi.Labels{}, someTime, 1))
	}
	// Times that go up, down and stay, whose runs are hard to tell apart.
	var runs []kemi.Metric
	for _, s := range []int64{5, 5, 5, 6, 7, 8, 8, 8, 7, 6, 5, 0, 1, 0, 1, 2} {
		runs = append(runs, kemi.Gauge("g", l, time.Unix(s, s%2*1e6).UTC(), 0))
	}
	return [][]kemi.Metric{numbers, times, sets, names, runs, {{}}, make([]kemi.Metric, 100), polls(3, 20)}
}

// sameMetric tells bits, which == does not where they are not a number.
func sameMetric(a, b kemi.Metric) bool {
	if a.Kind != b.Kind {
		return false
	}
	a.Kind, b.Kind = kemi.KindCounter, kemi.KindCounter
	return a == b
}

func hardLogs() [][]kemi.Log {
	fields := []slog.Attr{
		slog.String("", ""), slog.Int64("i", math.MinInt64), slog.Int64("i", math.MaxInt64), slog.Uint64("u", math.MaxUint64),
		slog.Float64("f", math.Float64frombits(0x7ff8dead0000beef)), slog.Float64("f", math.Copysign(0, -1)), slog.Bool("b", true), slog.Bool("b", false),
		slog.Duration("d", math.MinInt64), slog.Time("t", someTime), slog.Time("t", time.Time{}), slog.Time("t", time.Unix(1<<50, 1).UTC()),
		slog.Any("nil", nil), {},
		slog.Group("g", slog.Int("a", 1), slog.Group("h", slog.String("b", "\xff\x00"))), slog.Group("empty"),
	}
	deep := slog.Int("leaf", 1)
	for range 500 {
		deep = slog.Group("g", slog.Any("x", deep.Value))
	}
	batch := []kemi.Log{
		{},
		{
			Time: someTime, Observed: someTime.Add(time.Second), Host: "web1", App: "nginx", Severity: kemi.SeverityDebug, Facility: 23,
			Message: "upstream timed out", Fields: fields, Tag: "nginx.error", ID: "logs-3-17",
		},
		{Time: time.Unix(-1<<60, 1).UTC(), Host: "\xff\x00\n", App: strings.Repeat("a", 300), Severity: 255, Facility: 255, Message: "\x00\xff\r\n", Tag: "\n", ID: "\x00"},
		{Message: strings.Repeat("long ", 2000), Fields: []slog.Attr{deep}},
	}
	return [][]kemi.Log{batch, batch[:1], make([]kemi.Log, 100), lines(20)}
}

// lines is what a host logs.
func lines(n int) []kemi.Log {
	rnd := rand.New(rand.NewPCG(1, 2))
	var batch []kemi.Log
	for i := range n {
		at := someTime.Add(time.Duration(i) * 7 * time.Millisecond)
		batch = append(batch, kemi.Log{
			Time: at.Truncate(time.Millisecond), Observed: at, Host: "web001.dc1.example.com", App: []string{"nginx", "shop"}[rnd.IntN(2)],
			Severity: kemi.Severity(4 + rnd.IntN(3)), Facility: 16,
			Message: fmt.Sprintf("10.%d.%d.%d - - \"GET /item/%d?session=%x HTTP/1.1\" 200 %d \"https://shop.example.com/\" \"Mozilla/5.0 (X11; Linux x86_64)\"",
				rnd.IntN(256), rnd.IntN(256), rnd.IntN(256), rnd.IntN(1e6), rnd.Uint64(), rnd.IntN(1e5)),
			Fields: []slog.Attr{
				slog.Int64("bytes", rnd.Int64N(1e6)), slog.String("method", "GET"), slog.Int64("status", 200),
				slog.Float64("took", rnd.Float64()), slog.String("url", fmt.Sprintf("/item/%d", rnd.IntN(1e6))),
			},
			Tag: "nginx.access",
		})
	}
	return batch
}

func sameLog(a, b kemi.Log) bool {
	if !sameAttrs(a.Fields, b.Fields) || a.Time != b.Time || a.Observed != b.Observed {
		return false
	}
	return a.Host == b.Host && a.App == b.App && a.Severity == b.Severity && a.Facility == b.Facility && a.Message == b.Message && a.Tag == b.Tag && a.ID == b.ID
}

// sameAttrs tells bits and kinds.
func sameAttrs(a, b []slog.Attr) bool {
	if len(a) != len(b) || (a == nil) != (b == nil) {
		return false
	}
	for i := range a {
		v, w := a[i].Value, b[i].Value
		if a[i].Key != b[i].Key || v.Kind() != w.Kind() {
			return false
		}
		switch v.Kind() {
		case slog.KindFloat64:
			if math.Float64bits(v.Float64()) != math.Float64bits(w.Float64()) {
				return false
			}
		case slog.KindTime:
			if v.Time().UTC() != w.Time().UTC() {
				return false
			}
		case slog.KindGroup:
			if len(v.Group())+len(w.Group()) > 0 && !sameAttrs(v.Group(), w.Group()) {
				return false
			}
		case slog.KindAny:
			if fmt.Sprintf("%T %v", v.Any(), v.Any()) != fmt.Sprintf("%T %v", w.Any(), w.Any()) {
				return false
			}
		default:
			if !v.Equal(w) {
				return false
			}
		}
	}
	return true
}

var errLate = errors.New("late")
