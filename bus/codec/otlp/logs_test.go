package otlp_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

// line is a log as a syslog receiver makes it.
func line(host string, i int) kemi.Log {
	return kemi.Log{
		Time: noon.Add(time.Duration(i) * time.Millisecond), Observed: noon.Add(time.Second), Host: host, App: []string{"nginx", "sshd", "cron"}[i%3],
		Severity: kemi.Severity(i % 8), Facility: 16, Tag: "syslog." + host, ID: fmt.Sprintf("%016x", i),
		Message: fmt.Sprintf("GET /index.html?id=%d 200 512 0.003 %s", i, strings.Repeat("Mozilla/5.0 ", 10)),
		Fields:  []slog.Attr{slog.Int("bytes", 512), slog.String("method", "GET"), slog.String("path", "/index.html"), slog.Int("status", 200)},
	}
}

func hardLogs() [][]kemi.Log {
	l := line("web1", 1)
	with := func(attrs ...slog.Attr) kemi.Log {
		l := l
		l.Fields = attrs
		return l
	}
	odd := kemi.Log{
		Time: time.Unix(0, 0).UTC(), Observed: time.Unix(-7, 1).UTC(), Host: "\xff", App: "\xfe", Severity: 200, Facility: 255,
		Message: "\x00\xff", Tag: "\xc0", ID: "\xff\xff",
	}
	deep := slog.StringValue("bottom")
	for range 30 {
		deep = slog.GroupValue(slog.Attr{Key: "in", Value: deep})
	}
	return [][]kemi.Log{
		{line("web1", 0), line("web1", 1), line("web2", 2), line("web1", 3)},
		{{}, odd, {Host: "web1"}, {Severity: 8}, {Time: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		make([]kemi.Log, 300),
		{
			with(slog.Any("", nil), slog.Bool("b", true), slog.Duration("d", -time.Second), slog.Float64("f", math.NaN()), slog.Float64("g", math.Copysign(0, -1)),
				slog.Int64("i", math.MinInt64), slog.String("s", "a\xff"), slog.Time("t", noon), slog.Time("t0", time.Time{}), slog.Time("t1", time.Date(-1, 1, 1, 0, 0, 0, 3, time.UTC)),
				slog.Uint64("u", 7), slog.Uint64("v", math.MaxUint64)),
			with(slog.Any("bytes", []byte{0, 1, 0xff}), slog.Any("empty", []any{}), slog.Any("list", []any{"a", int64(1), uint64(2), time.Second, noon, nil, []any{true}, map[string]any{"k": 1.5, "\xff": "\xff"}})),
			with(slog.Group("g", slog.String("b", "first"), slog.String("a", "second"), slog.String("a", "again"), slog.Group("empty"), slog.Uint64("n", 1)), slog.Attr{Key: "zdeep", Value: deep}),
			with(slog.String("fluent.tag", "a field"), slog.String("kemi.kinds", "uuu"), slog.String("kemi.time", "x"), slog.String("kemi:", "y"), slog.String("kemi:kemi:", "z"),
				slog.Int("log.syslog.facility.code", 3), slog.Uint64("same", 1), slog.Uint64("same", 2), slog.String("service.name", "field")),
			with(slog.String("\xff", "not UTF-8"), slog.String("\xff%", "nor this")),
		},
	}
}

func sameLog(a, b kemi.Log) bool {
	fa, fb := a.Fields, b.Fields
	a.Fields, b.Fields = nil, nil
	return reflect.DeepEqual(a, b) && sameAttrs(fa, fb)
}

func sameAttrs(a, b []slog.Attr) bool {
	return slices.EqualFunc(a, b, func(a, b slog.Attr) bool { return a.Key == b.Key && sameValue(a.Value, b.Value) })
}

func sameValue(a, b slog.Value) bool {
	switch {
	case a.Kind() != b.Kind():
		return false
	case a.Kind() == slog.KindGroup:
		return sameAttrs(a.Group(), b.Group())
	case a.Kind() == slog.KindFloat64:
		return math.Float64bits(a.Float64()) == math.Float64bits(b.Float64())
	}
	return reflect.DeepEqual(a.Any(), b.Any())
}

func TestLogs(t *testing.T) { bustest.RunCodec(t, otlp.Logs(), sameLog, hardLogs()...) }

func FuzzLogs(f *testing.F) {
	hard := hardLogs()
	bustest.FuzzCodec(f, otlp.Logs(), hard[0], hard[1], hard[3][:2], hard[3][3:])
}

func TestAnyBatchOfLogsComesBack(t *testing.T) {
	rnd := random(t)
	for range *rounds {
		batch := make([]kemi.Log, rnd.IntN(20))
		for i := range batch {
			batch[i] = kemi.Log{
				Time: anyTime(rnd), Observed: anyTime(rnd), Host: anyText(rnd), App: anyText(rnd), Severity: kemi.Severity(rnd.IntN(10)),
				Facility: uint8(rnd.IntN(30)), Message: anyText(rnd), Fields: anyFields(rnd, 3), Tag: anyText(rnd), ID: anyText(rnd),
			}
			slices.SortStableFunc(batch[i].Fields, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
		}
		src, err := otlp.Logs().AppendBatch(nil, batch)
		if err != nil {
			t.Fatal(err)
		}
		got, err := otlp.Logs().DecodeBatch(nil, src)
		if err != nil || len(got) != len(batch) {
			t.Fatalf("of %d logs %d come back: %v", len(batch), len(got), err)
		}
		for i := range batch {
			if !sameLog(got[i], batch[i]) {
				t.Fatalf("%+v came back as\n%+v", batch[i], got[i])
			}
		}
	}
}

func anyFields(rnd *rand.Rand, depth int) []slog.Attr {
	var attrs []slog.Attr
	for range rnd.IntN(6) {
		key := pick(rnd, "service.name", "kemi.kinds", "a", "b", "c", anyText(rnd))
		v := pick(rnd, slog.StringValue(anyText(rnd)), slog.Int64Value(rnd.Int64()), slog.Uint64Value(rnd.Uint64()), slog.Float64Value(rnd.Float64()),
			slog.BoolValue(true), slog.DurationValue(time.Duration(rnd.Int64())), slog.TimeValue(anyTime(rnd)), slog.AnyValue([]byte(anyText(rnd))), slog.AnyValue(nil))
		if depth > 0 && rnd.IntN(4) == 0 {
			v = slog.GroupValue(anyFields(rnd, depth-1)...)
		}
		attrs = append(attrs, slog.Attr{Key: key, Value: v})
	}
	return attrs
}

// secret resolves to something else.
type secret struct{}

func (secret) LogValue() slog.Value { return slog.StringValue("***") }

// TestWhatSlogHasNoKindForComesBackAsItsText goes through values that a program may put
// into a field and that are not the same on the other side.
func TestWhatSlogHasNoKindForComesBackAsItsText(t *testing.T) {
	l := line("web1", 0)
	l.Fields = []slog.Attr{
		slog.Any("a", errors.New("no route")), slog.Any("b", struct{ X int }{3}), slog.Any("c", []string{"x"}), slog.Any("d", secret{}),
		slog.Any("e", map[string]any{"z": 1, "y": []any{1}}), slog.Any("f", math.Inf), slog.Any("g", []any{1, map[string]any{}}),
	}
	src, err := otlp.Logs().AppendBatch(nil, []kemi.Log{l})
	if err != nil {
		t.Fatal(err)
	}
	got, err := otlp.Logs().DecodeBatch(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	f := got[0].Fields
	if !strings.HasPrefix(f[5].Value.String(), "0x") {
		t.Errorf("a function is %v", f[5])
	}
	f[5].Value = slog.Value{}
	want := []slog.Attr{
		slog.String("a", "no route"), slog.String("b", `{"X":3}`), slog.String("c", `["x"]`), slog.String("d", "***"),
		slog.Group("e", slog.Any("y", []any{int64(1)}), slog.Int("z", 1)), slog.Any("f", nil), slog.Any("g", []any{int64(1), map[string]any{}}),
	}
	if !sameAttrs(f, want) {
		t.Errorf("%v, want %v", f, want)
	}
}

func TestAFieldThatHasNoEndIsRefused(t *testing.T) {
	loop := []any{nil}
	loop[0] = loop
	l := kemi.Log{Host: "web1", Fields: []slog.Attr{slog.Any("loop", loop)}}
	dst, err := otlp.Logs().AppendBatch([]byte("before"), []kemi.Log{l})
	if err == nil || !strings.Contains(err.Error(), `"loop"`) || string(dst) != "before" {
		t.Errorf("%q, %v", dst, err)
	}
}
