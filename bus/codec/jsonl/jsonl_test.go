package jsonl_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
)

var someTime = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

func metrics() [][]kemi.Metric {
	l := kemi.LabelsOf("host", "web1", "path", `C:\<a> & "b"`, "ä", "\n\x00\u2028\x7f")
	var batch []kemi.Metric
	for _, f := range []float64{0, math.Copysign(0, -1), 1, 0.1, 1e21, 1e-7, 123456789, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN()} {
		batch = append(batch, kemi.Gauge("g", l, someTime, f), kemi.FloatCounter("f", l, someTime, -f))
	}
	for _, n := range []uint64{0, 1<<53 + 1, math.MaxUint64} {
		batch = append(batch, kemi.Counter("c", l, someTime, n), kemi.Counter32("", kemi.Labels{}, someTime, uint32(n)))
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)} {
		batch = append(batch, kemi.Gauge("g", l, at, 1))
	}
	return [][]kemi.Metric{batch, {{}}, make([]kemi.Metric, 100)}
}

func sameMetric(a, b kemi.Metric) bool {
	if math.IsNaN(a.Float()) && math.IsNaN(b.Float()) { // one is as good as another
		return a.Kind == b.Kind && a.Name == b.Name && a.Labels == b.Labels && a.Time.Equal(b.Time)
	}
	return a == b
}

func logs() [][]kemi.Log {
	return [][]kemi.Log{{
		{},
		{
			Time: someTime, Observed: someTime.Add(time.Second), Host: "web1", App: "nginx", Severity: kemi.SeverityDebug, Facility: 23,
			Message: "<upstream> & \"timed out\"\r\n", Tag: "nginx.error", ID: "logs-3-17",
			Fields: []slog.Attr{
				slog.Float64("avg", 0.5), slog.Uint64("big", math.MaxUint64), slog.Group("http", slog.Bool("tls", true), slog.String("verb", "GET")),
				slog.Any("nil", nil), slog.Int64("small", math.MinInt64), slog.Float64("tiny", 1e-300), slog.String("url", "/a?b=<c>"),
			},
		},
	}, make([]kemi.Log, 50)}
}

func alerts() [][]kemi.Alert {
	labels := kemi.LabelsOf("alertname", "DiskFull", "host", "web1")
	a := kemi.Alert{
		Rule: "DiskFull", Labels: labels, Annotations: kemi.LabelsOf("summary", "disk 97% full"), State: kemi.StateFiring,
		Time: someTime, StartsAt: someTime.Add(-time.Minute), Value: 97.25, Fingerprint: kemi.Fingerprint(labels.Hash()),
		Evidence: []kemi.Evidence{{Text: "disk_used_percent 97.25", Time: someTime, Origin: kemi.Origin{Topic: "metrics", Partition: 3, Offset: 1 << 40}}},
	}
	inf := a
	inf.State, inf.EndsAt, inf.Value, inf.Evidence = kemi.StateResolved, someTime, math.Inf(1), nil
	return [][]kemi.Alert{{a, inf, {}}}
}

func jobs() [][]kemi.Job {
	return [][]kemi.Job{{{}, {
		Target: "10.0.0.1:161", Resource: "sw1", Service: "net", Profiles: []string{"linux"}, Auth: "v3", Labels: kemi.LabelsOf("dc", "a"),
		Scheduled: someTime, Interval: time.Minute, Deadline: someTime.Add(time.Minute),
	}}}
}

func deadLetters() [][]kemi.DeadLetter {
	return [][]kemi.DeadLetter{{{}, {
		Time: someTime, Flow: "f", Stage: "s", Error: "e", Stack: "at\nhere", Type: "kemi.Metric", Format: "json", Payload: []byte{0, 0xff, '"', '\n'},
		Origin: kemi.Origin{Topic: "t", Partition: 1, Offset: 2},
	}}}
}

// order is a record of a user.
type order struct {
	ID    int            `json:"id"`
	Lines []string       `json:"lines,omitempty"`
	Tags  map[string]int `json:"tags,omitempty"`
	Next  *order         `json:"next,omitempty"`
}

func orders() [][]order {
	return [][]order{{{}, {ID: 1, Lines: []string{"a\nb", "ä"}, Tags: map[string]int{"x": 1, "y": 2, "z": 3}, Next: &order{ID: 2}}}}
}

func TestCodec(t *testing.T) {
	t.Run("Metric", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[kemi.Metric](), sameMetric, metrics()...) })
	t.Run("Log", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[kemi.Log](), nil, logs()...) })
	t.Run("Alert", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[kemi.Alert](), nil, alerts()...) })
	t.Run("Job", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[kemi.Job](), nil, jobs()...) })
	t.Run("DeadLetter", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[kemi.DeadLetter](), nil, deadLetters()...) })
	t.Run("of a user", func(t *testing.T) { bustest.RunCodec(t, jsonl.Codec[order](), nil, orders()...) })
	t.Run("any", func(t *testing.T) {
		bustest.RunCodec(t, jsonl.Codec[any](), nil, []any{nil, 1.5, "a", true, []any{}, map[string]any{"a": nil}})
	})
}

func FuzzMetrics(f *testing.F) { bustest.FuzzCodec(f, jsonl.Codec[kemi.Metric](), metrics()...) }

func FuzzLogs(f *testing.F) { bustest.FuzzCodec(f, jsonl.Codec[kemi.Log](), logs()...) }

func FuzzAlerts(f *testing.F) { bustest.FuzzCodec(f, jsonl.Codec[kemi.Alert](), alerts()...) }

func FuzzOrders(f *testing.F) { bustest.FuzzCodec(f, jsonl.Codec[order](), orders()...) }

// TestItIsWhatEncodingJSONWrites holds the quick ways against the slow one, on records
// made by chance.
func TestItIsWhatEncodingJSONWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	text := func() string {
		b := make([]byte, rnd.IntN(5))
		for i := range b {
			b[i] = " a~z\"\\<>&\x00\n\x1f\x7f\xc3\xa4\xff"[rnd.IntN(16)]
		}
		return string(b)
	}
	float := func() float64 {
		if rnd.IntN(2) == 0 {
			return math.Float64frombits(rnd.Uint64())
		}
		return math.Pow(10, float64(rnd.IntN(60)-30)) * float64(rnd.IntN(3)-1)
	}
	at := func() time.Time {
		u := time.Unix(rnd.Int64N(1<<37)-1<<35, rnd.Int64N(1e9))
		return u.In(time.FixedZone("", 60*(rnd.IntN(2000)-1000)))
	}
	var attrs func(depth int) []slog.Attr
	attrs = func(depth int) (list []slog.Attr) {
		for range rnd.IntN(4) {
			list = append(list, []slog.Attr{
				slog.String(text(), text()), slog.Int64(text(), rnd.Int64()), slog.Uint64(text(), rnd.Uint64()), slog.Float64(text(), float()),
				slog.Bool(text(), true), slog.Duration(text(), time.Duration(rnd.Int64())), slog.Time(text(), at()), slog.Any(text(), nil),
				slog.Any(text(), errors.New(text())), slog.Any(text(), []string{text()}), slog.Any(text(), map[string]any{text(): float()}),
			}[rnd.IntN(11)])
			if depth < 3 && rnd.IntN(3) == 0 {
				list = append(list, slog.Attr{Key: text(), Value: slog.GroupValue(attrs(depth + 1)...)})
			}
		}
		return list
	}
	wrote := 0
	for range 20_000 {
		labels := kemi.LabelsOf(text(), text(), text(), text())
		m := []kemi.Metric{
			kemi.Gauge(text(), labels, at(), float()), kemi.Counter(text(), labels, at(), rnd.Uint64()),
			kemi.Counter32(text(), labels, at(), rnd.Uint32()), kemi.FloatCounter(text(), labels, at(), float()),
		}[rnd.IntN(4)]
		l := kemi.Log{
			Time: at(), Host: text(), App: text(), Severity: kemi.Severity(rnd.IntN(8)), Facility: uint8(rnd.Uint32()),
			Message: text(), Fields: attrs(0), Tag: text(), ID: text(),
		}
		if rnd.IntN(2) == 0 {
			l.Observed = at()
		}
		wrote += likeStd(t, m) + likeStd(t, l)
	}
	if wrote < 30_000 {
		t.Errorf("only %d of 40000 records could be written", wrote)
	}
}

// likeStd compares one record, and counts it if there is JSON of it.
func likeStd[T any](t *testing.T, record T) int {
	t.Helper()
	want, wantErr := json.Marshal(record)
	got, err := jsonl.Codec[T]().AppendBatch(nil, []T{record})
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%+v: %v, and encoding/json says %v", record, err, wantErr)
	}
	if err != nil {
		return 0
	}
	if want = append(want, '\n'); !bytes.Equal(got, want) {
		t.Fatalf("%+v:\n got %s\nwant %s", record, got, want)
	}
	return 1
}

func TestWhatCouldNotBeReadIsNotWritten(t *testing.T) {
	kind, wide := kemi.Gauge("cpu", kemi.Labels{}, someTime, 1), kemi.Counter("in", kemi.Labels{}, someTime, 1<<32)
	kind.Kind, wide.Kind = 9, kemi.KindCounter32
	refused(t, `record 1 of 2: metric "cpu" is a kind(9)`, kemi.Metric{}, kind)
	refused(t, `metric "in" is a counter32 of 4294967296`, wide)
	refused(t, `metric "cpu": Time.AppendText: year outside of range`, kemi.Gauge("cpu", kemi.Labels{}, time.Unix(1<<50, 0).UTC(), 1))
	refused(t, `a log of "web1" has the severity(8)`, kemi.Log{Host: "web1", Severity: 8})
	refused(t, `a log of "web1": Time.AppendText`, kemi.Log{Host: "web1", Time: time.Unix(-1<<50, 0).UTC()})
	refused(t, "unsupported value: NaN", math.NaN())
}

func refused[T any](t *testing.T, want string, batch ...T) {
	t.Helper()
	dst, err := jsonl.Codec[T]().AppendBatch([]byte("before"), batch)
	if err == nil || !strings.Contains(err.Error(), want) || string(dst) != "before" {
		t.Errorf("%v, %q; want %s", err, dst, want)
	}
}

func TestMessagesMayBeMadeByHand(t *testing.T) {
	got, err := jsonl.Codec[order]().DecodeBatch(nil, []byte("\n  {\"id\": 1, \"lines\":[\"a\",\"b\"]}\r\n\r\n{ \"id\":2, \"more\": [1] } \n{\"id\":3,\"lines\":[\"c\"]}"))
	if want := []order{{ID: 1, Lines: []string{"a", "b"}}, {ID: 2}, {ID: 3, Lines: []string{"c"}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestForeignBytesSayWhatWasExpected(t *testing.T) {
	for src, want := range map[string]string{
		"kcm\x01rest":               "line 1: want the JSON of one kemi.Metric on each line: invalid character 'k'",
		`[{"name":"cpu"}]`:          "line 1: want the JSON of one kemi.Metric on each line: json: cannot unmarshal array",
		"null":                      "line 1: want the JSON of one kemi.Metric",
		"{}":                        "line 1: want the JSON of one kemi.Metric",
		"{\"name\":\"cpu\"":         "unexpected end of JSON input",
		"{} {}":                     "invalid character '{' after top-level value",
		strings.Repeat("[", 20_000): "exceeded max depth",
		`{"kind":"gauge","value":1}` + "\n" + `{"kind":"counter","value":1.5}`: "line 2: want the JSON of one kemi.Metric",
	} {
		had := kemi.Gauge("before", kemi.Labels{}, someTime, 1)
		got, err := jsonl.Codec[kemi.Metric]().DecodeBatch([]kemi.Metric{had}, []byte(src))
		if err == nil || !strings.Contains(err.Error(), want) || len(got) != 1 || got[0] != had {
			t.Errorf("%.40q: %v, %v; want %s", src, got, err, want)
		}
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	batch := []kemi.Metric{kemi.Gauge("cpu", kemi.LabelsOf("host", "web1"), someTime, 1), kemi.Counter("in", kemi.LabelsOf("host", "web1"), someTime, 1)}
	lines := []kemi.Log{{Time: someTime, Host: "web1", Message: "m", Fields: []slog.Attr{slog.Int("a", 1), slog.Float64("b", 0.5), slog.String("c", "d")}}}
	var dst []byte
	if n := testing.AllocsPerRun(100, func() {
		dst, _ = jsonl.Codec[kemi.Metric]().AppendBatch(dst[:0], batch)
		dst, _ = jsonl.Codec[kemi.Log]().AppendBatch(dst[:0], lines)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var update = flag.Bool("update", false, "write golden files that are not there yet")

// TestTheFormatStays compares with files of testdata. When it fails, what others read on
// their topics has changed: undo that. A field that is added is no change of the format;
// then, and only then, remove the file and run with -update.
func TestTheFormatStays(t *testing.T) {
	golden(t, "metrics", metrics()[0])
	golden(t, "logs", logs()[0])
	golden(t, "alerts", alerts()[0])
	golden(t, "jobs", jobs()[0])
	golden(t, "deadletters", deadLetters()[0])
}

func golden[T any](t *testing.T, name string, batch []T) {
	file := filepath.Join("testdata", "json-1-"+name+".golden")
	got, err := jsonl.Codec[T]().AppendBatch(nil, batch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil && *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format has changed, see the comment\n got %s\nwant %s", name, got, want)
	}
}

// std is encoding/json without further ado, the peer.
type std[T any] struct{ bus.Codec[T] }

func (std[T]) Name() string { return "std" }

func (std[T]) AppendBatch(dst []byte, batch []T) ([]byte, error) {
	b, err := json.Marshal(batch)
	return append(dst, b...), err
}

func (std[T]) DecodeBatch(dst []T, src []byte) ([]T, error) {
	var batch []T
	err := json.Unmarshal(src, &batch)
	return append(dst, batch...), err
}

func BenchmarkMetrics(b *testing.B) {
	var batch []kemi.Metric
	for i := range 1000 {
		l := kemi.LabelsOf("host", fmt.Sprintf("web%03d.dc1.example.com", i/50), "dc", "dc1", "rack", "r1", "service", "shop", "os", "linux",
			"instance", fmt.Sprint("eth", i%50/5))
		batch = append(batch, kemi.Counter("if_in_octets", l, someTime, rand.Uint64()>>20))
	}
	benchmark(b, batch)
}

func BenchmarkLogs(b *testing.B) {
	var batch []kemi.Log
	for range 1000 {
		l := logs()[0][1]
		l.Message = strings.Repeat("upstream timed out ", 10)
		batch = append(batch, l)
	}
	benchmark(b, batch)
}

func benchmark[T any](b *testing.B, batch []T) {
	for _, c := range []bus.Codec[T]{jsonl.Codec[T](), std[T]{}} {
		src, err := c.AppendBatch(nil, batch)
		if err != nil {
			b.Fatal(err)
		}
		for name, do := range map[string]func(){
			"encode": func() { src, _ = c.AppendBatch(src[:0], batch) },
			"decode": func() { batch, _ = c.DecodeBatch(batch[:0], src) },
		} {
			b.Run(c.Name()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					do()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/record")
			})
		}
	}
}
