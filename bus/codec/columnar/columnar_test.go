package columnar_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec/columnar"
)

func TestMetrics(t *testing.T) {
	bustest.RunCodec(t, columnar.Metrics(), sameMetric, hardMetrics()...)
}

func TestLogs(t *testing.T) { bustest.RunCodec(t, columnar.Logs(), sameLog, hardLogs()...) }

func FuzzMetrics(f *testing.F) { bustest.FuzzCodec(f, columnar.Metrics(), hardMetrics()...) }

func FuzzLogs(f *testing.F) { bustest.FuzzCodec(f, columnar.Logs(), hardLogs()...) }

func encode[T any](tb testing.TB, c bus.Codec[T], batch []T) []byte {
	tb.Helper()
	src, err := c.AppendBatch(nil, batch)
	if err != nil {
		tb.Fatal(err)
	}
	return src
}

func decode[T any](tb testing.TB, c bus.Codec[T], src []byte) []T {
	tb.Helper()
	batch, err := c.DecodeBatch(nil, src)
	if err != nil {
		tb.Fatal(err)
	}
	return batch
}

// dice makes records of few distinct parts, so that all ways of sharing come about.
type dice struct{ *rand.Rand }

func newDice(t *testing.T) dice {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return dice{rand.New(rand.NewPCG(seed, 0))}
}

func (d dice) string() string {
	return []string{"", "a", "host", "if", "\xff\x00", "web1", "web2", strings.Repeat("x", 200)}[d.IntN(8)]
}

func (d dice) bits() uint64 { return d.Uint64() >> d.IntN(64) }

func (d dice) float() float64 {
	switch d.IntN(4) {
	case 0:
		return math.Float64frombits(d.Uint64())
	case 1:
		return float64(int64(d.Uint64()) >> d.IntN(64))
	case 2:
		return float64(d.IntN(1e6)-5e5) / 100
	}
	return float64(d.IntN(1e6)-5e5) / 1000
}

func (d dice) time() time.Time {
	switch d.IntN(5) {
	case 0:
		return time.Time{}
	case 1:
		return time.Unix(int64(d.Uint64())>>1, d.Int64N(1e9)).UTC()
	case 2:
		return time.Unix(d.Int64N(4), d.Int64N(3)*1e6).UTC()
	}
	return someTime
}

func (d dice) metrics() []kemi.Metric {
	batch := make([]kemi.Metric, d.IntN(200))
	var labels kemi.Labels
	for i := range batch {
		for range d.IntN(3) {
			labels = labels.With(d.string()+fmt.Sprint(d.IntN(9)), d.string())
		}
		if d.IntN(50) == 0 {
			labels = kemi.Labels{}
		}
		m := kemi.Counter(d.string(), labels, d.time(), d.bits())
		switch d.IntN(4) {
		case 0:
			m = kemi.Counter32(m.Name, labels, m.Time, uint32(d.bits()))
		case 1:
			m = kemi.Gauge(m.Name, labels, m.Time, d.float())
		case 2:
			m = kemi.FloatCounter(m.Name, labels, m.Time, d.float())
		}
		batch[i] = m
	}
	return batch
}

func (d dice) attrs(depth int) []slog.Attr {
	var attrs []slog.Attr
	for range d.IntN(5) {
		v := slog.StringValue(d.string())
		switch d.IntN(9) {
		case 0:
			v = slog.Int64Value(int64(d.bits()))
		case 1:
			v = slog.Uint64Value(d.bits())
		case 2:
			v = slog.Float64Value(d.float())
		case 3:
			v = slog.BoolValue(d.IntN(2) == 0)
		case 4:
			v = slog.DurationValue(time.Duration(d.bits()))
		case 5:
			v = slog.TimeValue(d.time())
		case 6:
			v = slog.Value{}
		case 7:
			if depth < 4 {
				v = slog.GroupValue(d.attrs(depth + 1)...)
			}
		}
		attrs = append(attrs, slog.Attr{Key: d.string(), Value: v})
	}
	return attrs
}

func (d dice) logs() []kemi.Log {
	batch := make([]kemi.Log, d.IntN(50))
	for i := range batch {
		batch[i] = kemi.Log{
			Time: d.time(), Observed: d.time(), Host: d.string(), App: d.string(), Severity: kemi.Severity(d.IntN(256)), Facility: uint8(d.IntN(256)),
			Message: d.string(), Fields: d.attrs(0), Tag: d.string(), ID: d.string(),
		}
	}
	return batch
}

// anyBatch sends batches made by chance through one codec, one after the other, as
// what it remembers of one must not show in another.
func anyBatch[T any](t *testing.T, c bus.Codec[T], next func() []T, same func(a, b T) bool) {
	for n := range 500 {
		batch := next()
		src := encode(t, c, batch)
		got := decode(t, c, src)
		if len(got) != len(batch) {
			t.Fatalf("batch %d: of %d records %d came back", n, len(batch), len(got))
		}
		for i := range got {
			if !same(got[i], batch[i]) {
				t.Fatalf("batch %d, record %d: %+v came back as %+v", n, i, batch[i], got[i])
			}
		}
	}
}

func TestAnyMetricsComeBack(t *testing.T) {
	anyBatch(t, columnar.Metrics(), newDice(t).metrics, sameMetric)
}

func TestAnyLogsComeBack(t *testing.T) { anyBatch(t, columnar.Logs(), newDice(t).logs, sameLog) }

// TestTimesComeBackInUTC has the one thing of a metric that does not come back.
func TestTimesComeBackInUTC(t *testing.T) {
	local := time.Now().In(time.FixedZone("KST", 9*3600))
	m := decode(t, columnar.Metrics(), encode(t, columnar.Metrics(), []kemi.Metric{kemi.Gauge("g", kemi.Labels{}, local, 1)}))[0]
	l := decode(t, columnar.Logs(), encode(t, columnar.Logs(), []kemi.Log{{Time: local, Observed: local, Fields: []slog.Attr{slog.Time("t", local)}}}))[0]
	for _, got := range []time.Time{m.Time, l.Time, l.Observed, l.Fields[0].Value.Time().UTC()} {
		if got != local.Round(0).UTC() {
			t.Errorf("%v came back as %v", local, got)
		}
	}
}

type valuer struct{}

func (valuer) LogValue() slog.Value { return slog.GroupValue(slog.Int("a", 1)) }

// TestAnyValuesComeBackAsTheirJSON holds the documentation, and that what came back
// once is the same after.
func TestAnyValuesComeBackAsTheirJSON(t *testing.T) {
	type point struct {
		X int     `json:"x"`
		Y float64 `json:"y"`
	}
	deep := []any{}
	for range 10_000 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		in   any
		want slog.Value
	}{
		{errLate, slog.StringValue("late")},
		{valuer{}, slog.GroupValue(slog.Int("a", 1))},
		{point{1, 0.5}, slog.GroupValue(slog.Int("x", 1), slog.Float64("y", 0.5))},
		{map[string]any{"b": nil, "a": uint64(math.MaxUint64), "c": 1e300}, slog.GroupValue(slog.Uint64("a", math.MaxUint64), slog.Any("b", nil), slog.Float64("c", 1e300))},
		{[]int{1, 2}, slog.AnyValue([]any{json.Number("1"), json.Number("2")})},
		{[]any{}, slog.AnyValue([]any{})},
		{[]point{{1, 2}}, slog.AnyValue([]any{map[string]any{"x": json.Number("1"), "y": json.Number("2")}})},
		{map[string]any{"l": []string{"a"}}, slog.GroupValue(slog.Any("l", []any{"a"}))},
		{[]byte{1, 2}, slog.StringValue("AQI=")},
		{(*point)(nil), slog.Value{}},
		{json.Number("1e999"), slog.StringValue("1e999")},
		{complex(1, 2), slog.StringValue("(1+2i)")},
		{deep, slog.StringValue(strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001))},
	} {
		got := decode(t, columnar.Logs(), encode(t, columnar.Logs(), []kemi.Log{{Fields: []slog.Attr{slog.Any("x", c.in)}}}))
		if want := []slog.Attr{{Key: "x", Value: c.want}}; !sameAttrs(got[0].Fields, want) {
			t.Errorf("%T came back as %.100v, want %.100v", c.in, got[0].Fields, want)
		}
		if again := decode(t, columnar.Logs(), encode(t, columnar.Logs(), got)); !sameAttrs(again[0].Fields, got[0].Fields) {
			t.Errorf("%v came back the second time as %v", got[0].Fields, again[0].Fields)
		}
	}
}

func TestWhatCannotBeEncodedSaysSo(t *testing.T) {
	m := kemi.Gauge("cpu", kemi.Labels{}, someTime, 1)
	m.Kind = 9
	dst, err := columnar.Metrics().AppendBatch([]byte("before"), []kemi.Metric{{}, m})
	if err == nil || !strings.Contains(err.Error(), `metric 1, "cpu", is a kind(9)`) || string(dst) != "before" {
		t.Errorf("%v, %q", err, dst)
	}
	deep := slog.Int("leaf", 1)
	for range 10_000 {
		deep = slog.Group("g", deep)
	}
	dst, err = columnar.Logs().AppendBatch([]byte("before"), []kemi.Log{{}, {Host: "web1", Fields: []slog.Attr{deep}}})
	if err == nil || !strings.Contains(err.Error(), `log 1 of "web1": its fields are nested more than 10000 deep`) || string(dst) != "before" {
		t.Errorf("%v, %q", err, dst)
	}
}

// TestForeignBytesSayWhatWasExpected of them.
func TestForeignBytesSayWhatWasExpected(t *testing.T) {
	u := func(head string, numbers ...uint64) []byte {
		b := []byte(head)
		for _, n := range numbers {
			b = binary.AppendUvarint(b, n)
		}
		return b
	}
	one := encode(t, columnar.Metrics(), []kemi.Metric{kemi.Gauge("g", kemi.LabelsOf("host", "web1"), someTime, 1)})
	longSet := u("kcm\x01", 1, 2, 1, 1, 'n', 'v', 1, 0, 0, 1, 0, 1, 2, 0, 0, 32)
	longSet = append(append(longSet, make([]byte, 32)...), 32, 0, 1, 0)
	log := encode(t, columnar.Logs(), []kemi.Log{{Host: "web1", Message: "m", Fields: []slog.Attr{slog.Int("a", 1)}}})
	for _, c := range []struct {
		decode func([]byte) error
		src    []byte
		want   string
	}{
		{metricsErr, nil, `these 0 bytes are not of kcol-metrics/1: they begin with "", want "kcm\x01"`},
		{metricsErr, []byte(`{"name":"cpu"}`), `begin with "{\"na", want "kcm\x01"`},
		{metricsErr, log, `begin with "kcl\x01", want "kcm\x01"`},
		{logsErr, one, `begin with "kcm\x01", want "kcl\x01"`},
		{metricsErr, []byte("kcm\x02rest"), "are of kcol-metrics/2, and this program reads kcol-metrics/1: upgrade the readers"},
		{metricsErr, []byte("kcm\x01"), "byte 4 of 4: the bytes end where the number of metrics should be"},
		{metricsErr, u("kcm\x01", 1<<40), "the number of metrics is 1099511627776, for which the 0 bytes that follow are too few"},
		{metricsErr, append([]byte("kcm\x01"), bytes.Repeat([]byte{0xff}, 11)...), "the number of metrics has more than 64 bits"},
		{metricsErr, u("kcm\x01", 0, 1), "the batch ends here, and 1 bytes follow"},
		{metricsErr, append(bytes.Clone(one), 0), "the batch ends here, and 1 bytes follow"},
		{metricsErr, u("kcm\x01", 1, 1, 200, 0), "bytes follow, the string should have 200"},
		{metricsErr, u("kcm\x01", 1, 0, 1, 5, 0, 0, 0), "the string of a name is 5, and the table has 0 entries"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 9, 0, 0, 0), "the kind of a name is 9, want 0 to 3"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0), "a label set has 1 and 0 labels of the one before it, which has 0"},
		{metricsErr, longSet, "a label set that borrows from the one before it has 33 labels, want at most 32"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 0, 1, 2), "metric 0 has the name 1, and the table has 1 entries"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 0, 0, 0), "a run of the name column has 0 records, want 1 to 1"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 9, 0), "metric 0 has the label set 0, and the table has 0 entries"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 5, 0), "the scale of the times is 5, want 0, 3, 6 or 9"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 9, 1, 0, 1, 2), "the fraction of a second of the times is 1, want less than 1"},
		{metricsErr, u("kcm\x01", 1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 9, 1, 0, 1, 0, 2, 0), "the number of a counter is in hundredths or thousandths"},
		{logsErr, u("kcl\x01", 1, 0, 1, 0, 0), "log 0 has the string 0 in the host column, and the table has 0 entries"},
		{logsErr, u("kcl\x01", 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1), "the priority of log 0 is -1, want 0 to 65535"},
		{logsErr, log[:len(log)-1], "the bytes end where the value of a field should be"},
		{logsErr, append(log[:len(log)-2:len(log)-2], u("", 8, 0, 1e9)...), "the fraction of a second of a field is 1000000000 ns, want less than 1000000000"},
		{logsErr, append(log[:len(log)-2:len(log)-2], 11, 0), "the type of a value is 11, want 0 to 10"},
		{logsErr, append(log[:len(log)-2:len(log)-2], 10, 2, '{', '}'), "the list of a field is not a JSON array"},
	} {
		if err := c.decode(c.src); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q:\n got %v\nwant %s", c.src, err, c.want)
		}
	}
}

func metricsErr(src []byte) error {
	_, err := columnar.Metrics().DecodeBatch(nil, src)
	return err
}

func logsErr(src []byte) error {
	_, err := columnar.Logs().DecodeBatch(nil, src)
	return err
}

// TestLabelsOutOfOrderAreSet reads what a writer of another make may have got wrong.
func TestLabelsOutOfOrderAreSet(t *testing.T) {
	good := kemi.LabelsOf("a", "1", "b", "2")
	src := encode(t, columnar.Metrics(), []kemi.Metric{kemi.Gauge("g", good, someTime, 1)})
	in := []byte{0, 0, 2, 0, 1} // the set
	at := bytes.Index(src, in)
	if at < 0 {
		t.Fatalf("%q is without %q", src, in)
	}
	src[at+3], src[at+4] = 1, 0
	if got := decode(t, columnar.Metrics(), src); got[0].Labels != good {
		t.Errorf("%v, want %v", got[0].Labels, good)
	}
}

func TestKnownMetricsCostNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a sync.Pool forgets at random")
	}
	for name, batch := range map[string][]kemi.Metric{"20 hosts of 50": polls(20, 50), "1 host of 80": polls(1, 80)} {
		t.Run(name, func(t *testing.T) {
			c := columnar.Metrics()
			src := encode(t, c, batch)
			dst := decode(t, c, src)
			if n := testing.AllocsPerRun(100, func() { dst, _ = c.DecodeBatch(dst[:0], src) }); n != 0 || len(dst) != len(batch) {
				t.Errorf("%v allocations for %d metrics", n, len(dst))
			}
			if n := testing.AllocsPerRun(100, func() { src, _ = c.AppendBatch(src[:0], batch) }); n != 0 {
				t.Errorf("%v allocations to encode", n)
			}
		})
	}
}

// TestACodecHoldsTheSetsItHasMade decodes a batch, forgets it, and lets the collector
// run: the label sets, which nobody else holds, are not made anew.
func TestACodecHoldsTheSetsItHasMade(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a sync.Pool forgets at random")
	}
	c := columnar.Metrics()
	src := encode(t, c, pollsOf(20, 50, 1)) // 1000 sets
	src = bytes.ReplaceAll(src, []byte("shop"), []byte("shoq"))
	dst := decode(t, c, src)
	clear(dst)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	dst, _ = c.DecodeBatch(dst[:0], src)
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 100 || len(dst) != 1000 {
		t.Errorf("%d allocations for %d metrics that were known", n, len(dst))
	}
}

var update = flag.Bool("update", false, "write golden files that are not there yet")

// golden compares bytes with those of the file. When it fails, what is written has
// changed. If readers of before could not read it, undo that: a change that is meant is a
// new version, with another number in the head and the name, a reader of the old one
// beside it, and files of its own. If they could, as where a shorter form is chosen, keep
// the old file under another name, to be read only, and write a new one with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
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
		t.Errorf("%s: other bytes than before, see the comment on golden\n got %q\nwant %q", name, got, want)
	}
}

func TestTheFormatStays(t *testing.T) {
	for i, batch := range hardMetrics() {
		stays(t, fmt.Sprint("kcol-metrics-1-", i), columnar.Metrics(), batch, sameMetric)
	}
	for i, batch := range hardLogs() {
		stays(t, fmt.Sprint("kcol-logs-1-", i), columnar.Logs(), batch, sameLog)
	}
}

func stays[T any](t *testing.T, name string, c bus.Codec[T], batch []T, same func(a, b T) bool) {
	t.Helper()
	golden(t, name, encode(t, c, batch))
	src, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, c, src); !slices.EqualFunc(got, batch, same) {
		t.Errorf("%s: %v came back as %v", name, batch, got)
	}
}
