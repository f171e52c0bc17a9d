package kemi_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

var someTime = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// roundTrip writes x as JSON and reads it back.
func roundTrip[T any](t *testing.T, x T) T {
	t.Helper()
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatalf("%+v: %v", x, err)
	}
	var back T
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return back
}

// TestACounterLosesNoBits sends the counters through everything they go through,
// where a float64 would round.
func TestACounterLosesNoBits(t *testing.T) {
	for _, n := range []uint64{0, 1, 1<<53 + 1, 1<<63 + 1, math.MaxUint64 - 1, math.MaxUint64} {
		m := kemi.Counter("if_in_octets", kemi.LabelsOf("host", "sw1"), someTime, n)
		if m.Uint() != n {
			t.Errorf("Uint = %d, want %d", m.Uint(), n)
		}
		if back := roundTrip(t, m); back != m || back.Uint() != n {
			t.Errorf("%d came back as %d", n, back.Uint())
		}
	}
	if m := kemi.Counter("c", kemi.Labels{}, someTime, math.MaxUint64); !strings.Contains(m.String(), "18446744073709551615") {
		t.Errorf("printed as %s", m)
	}
}

func TestNumbersOfMetrics(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		m     kemi.Metric
		float float64
		uint  uint64
	}{
		{kemi.Gauge("g", kemi.Labels{}, someTime, 1.5), 1.5, 1},
		{kemi.Gauge("g", kemi.Labels{}, someTime, -1.5), -1.5, 0},
		{kemi.Gauge("g", kemi.Labels{}, someTime, nan), nan, 0},
		{kemi.Gauge("g", kemi.Labels{}, someTime, inf), inf, math.MaxUint64},
		{kemi.Gauge("g", kemi.Labels{}, someTime, -inf), -inf, 0},
		{kemi.Gauge("g", kemi.Labels{}, someTime, 1e300), 1e300, math.MaxUint64},
		{kemi.Gauge("g", kemi.Labels{}, someTime, math.Copysign(0, -1)), math.Copysign(0, -1), 0},
		{kemi.FloatCounter("f", kemi.Labels{}, someTime, 0.25), 0.25, 0},
		{kemi.Counter("c", kemi.Labels{}, someTime, 1<<53), 1 << 53, 1 << 53},
		{kemi.Counter32("c", kemi.Labels{}, someTime, math.MaxUint32), math.MaxUint32, math.MaxUint32},
	} {
		for _, m := range []kemi.Metric{c.m, roundTrip(t, c.m)} {
			if math.Float64bits(m.Float()) != math.Float64bits(c.float) && !(math.IsNaN(m.Float()) && math.IsNaN(c.float)) {
				t.Errorf("%v: Float = %v", c.m, m.Float())
			}
			if m.Uint() != c.uint || m.Kind != c.m.Kind || !m.Time.Equal(c.m.Time) {
				t.Errorf("%v: Uint = %d, kind %v, time %v", c.m, m.Uint(), m.Kind, m.Time)
			}
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	for k, name := range map[kemi.Kind]string{
		kemi.KindGauge: "gauge", kemi.KindCounter: "counter", kemi.KindCounter32: "counter32", kemi.KindFloatCounter: "floatcounter",
	} {
		if k.String() != name || k.IsCounter() != (k != kemi.KindGauge) || roundTrip(t, k) != k {
			t.Errorf("%d is %q, a counter: %v", k, k, k.IsCounter())
		}
	}
	var k kemi.Kind
	if err := k.UnmarshalText([]byte("summary")); err == nil || !strings.Contains(err.Error(), "summary") || !strings.Contains(err.Error(), "counter32") {
		t.Errorf("%v, want what it was and what it may be", err)
	}
	if s := kemi.Kind(9).String(); s != "kind(9)" {
		t.Error(s)
	}
}

func TestABadMetricIsAnErrorThatNamesIt(t *testing.T) {
	for _, s := range []string{
		`{"name":"cpu","kind":"counter","value":-1}`,
		`{"name":"cpu","kind":"counter","value":1.5}`,
		`{"name":"cpu","kind":"counter","value":18446744073709551616}`,
		`{"name":"cpu","kind":"counter32","value":4294967296}`,
		`{"name":"cpu","kind":"gauge","value":1e999}`,
		`{"name":"cpu","kind":"gauge","value":"many"}`,
		`{"name":"cpu","kind":"gauge","value":null}`,
		`{"name":"cpu","kind":"gauge"}`,
	} {
		var m kemi.Metric
		if err := json.Unmarshal([]byte(s), &m); err == nil || !strings.Contains(err.Error(), `"cpu"`) {
			t.Errorf("%s: %v, %v", s, m, err)
		}
	}
}

func FuzzMetricJSON(f *testing.F) {
	for _, m := range append(metrics(1),
		kemi.Counter("c", kemi.LabelsOf("host", "h"), someTime, math.MaxUint64),
		kemi.Counter32("c", kemi.Labels{}, someTime, 1),
		kemi.FloatCounter("f", kemi.Labels{}, someTime, math.NaN()),
		kemi.Gauge("g", kemi.Labels{}, time.Time{}, math.Inf(-1))) {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"value":"0x1p-2"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m kemi.Metric
		if json.Unmarshal(b, &m) != nil {
			return
		}
		back := roundTrip(t, m)
		if math.IsNaN(m.Float()) && math.IsNaN(back.Float()) {
			m, back = kemi.Gauge(m.Name, m.Labels, m.Time, 0), kemi.Gauge(back.Name, back.Labels, back.Time, 0)
		}
		if !back.Time.Equal(m.Time) {
			t.Errorf("%s: the time %v came back as %v", b, m.Time, back.Time)
		}
		if back.Time = m.Time; back != m {
			t.Errorf("%s: %v came back as %v", b, m, back)
		}
	})
}

func someAlert() kemi.Alert {
	labels := kemi.LabelsOf("alertname", "DiskFull", "host", "web1")
	return kemi.Alert{
		Rule: "DiskFull", Labels: labels, Annotations: kemi.LabelsOf("summary", "disk 97% full"),
		State: kemi.StateFiring, Time: someTime, StartsAt: someTime.Add(-time.Minute), Value: 97.25,
		Fingerprint: kemi.Fingerprint(labels.Hash()),
		Evidence:    []kemi.Evidence{{Text: "disk_used_percent 97.25", Time: someTime, Origin: kemi.Origin{Topic: "metrics", Partition: 3, Offset: 1 << 40}}},
	}
}

func TestAlertsComeBackFromJSON(t *testing.T) {
	a := someAlert()
	if back := roundTrip(t, a); !reflect.DeepEqual(back, a) {
		t.Errorf("%+v came back as %+v", a, back)
	}
	a.State, a.EndsAt, a.Evidence, a.Value = kemi.StateResolved, someTime, nil, math.Inf(1)
	if back := roundTrip(t, a); !reflect.DeepEqual(back, a) {
		t.Errorf("%+v came back as %+v", a, back)
	}
	if back := roundTrip(t, kemi.Alert{}); !reflect.DeepEqual(back, kemi.Alert{}) {
		t.Errorf("the zero alert came back as %+v", back)
	}
	b, err := json.Marshal(someAlert())
	if err != nil || strings.Contains(string(b), "endsAt") || !strings.Contains(string(b), `"value":97.25`) ||
		!strings.Contains(string(b), `"state":"firing"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzAlertJSON(f *testing.F) {
	a := someAlert()
	for _, v := range []float64{0, 97.25, math.NaN(), math.Inf(1)} {
		a.Value = v
		b, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"value":1,"evidence":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a kemi.Alert
		if json.Unmarshal(b, &a) != nil {
			return
		}
		first, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		second, err := json.Marshal(roundTrip(t, a))
		if err != nil || string(second) != string(first) {
			t.Errorf("%s came back as %s, %v", first, second, err)
		}
	})
}

// TestTheIDOfAnAlertIsThatOfAChange is the same for the same change and another for
// any other.
func TestTheIDOfAnAlertIsThatOfAChange(t *testing.T) {
	a := someAlert()
	again := a
	again.Time, again.Value, again.Annotations = someTime.Add(time.Hour), 1, kemi.Labels{}
	if a.ID() != again.ID() {
		t.Errorf("a change told again has another ID: %s, %s", a.ID(), again.ID())
	}
	ids := map[string]bool{a.ID(): true}
	for _, change := range []func(*kemi.Alert){
		func(a *kemi.Alert) { a.State = kemi.StateResolved },
		func(a *kemi.Alert) { a.StartsAt = a.StartsAt.Add(time.Second) },
		func(a *kemi.Alert) { a.Fingerprint++ },
	} {
		b := a
		change(&b)
		if ids[b.ID()] {
			t.Errorf("another change has the ID %s too", b.ID())
		}
		ids[b.ID()] = true
	}
}

func TestStatesFingerprintsAndSeveritiesHaveNames(t *testing.T) {
	for s, name := range map[kemi.AlertState]string{
		kemi.StatePending: "pending", kemi.StateFiring: "firing", kemi.StateResolved: "resolved", kemi.StateNoData: "nodata",
	} {
		if s.String() != name || roundTrip(t, s) != s {
			t.Errorf("%d is %q", s, s)
		}
	}
	for s, name := range []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"} {
		if got := kemi.Severity(s); got.String() != name || roundTrip(t, got) != got {
			t.Errorf("severity %d is %q", s, got)
		}
	}
	if kemi.Severity(8).String() != "severity(8)" || kemi.AlertState(0).String() != "state(0)" {
		t.Error("a value without a name is not printed as a number")
	}
	if f := kemi.Fingerprint(0xabc); f.String() != "0000000000000abc" || roundTrip(t, f) != f {
		t.Errorf("fingerprint %s", f)
	}
	var (
		state    kemi.AlertState
		severity kemi.Severity
		print    kemi.Fingerprint
	)
	for _, err := range []error{state.UnmarshalText([]byte("fired")), severity.UnmarshalText([]byte("bad")), print.UnmarshalText([]byte("xyz"))} {
		if err == nil {
			t.Error("nonsense was read")
		}
	}
}

// TestALogKeepsItsFieldsInJSON is what its dead letters and its JSON topic are made of.
func TestALogKeepsItsFieldsInJSON(t *testing.T) {
	l := kemi.Log{
		Time: someTime, Observed: someTime.Add(time.Second), Host: "web1", App: "nginx", Severity: kemi.SeverityWarning, Facility: 16,
		Message: "upstream timed out", Tag: "nginx.error", ID: "logs-3-17",
		Fields: []slog.Attr{
			slog.Float64("avg", 0.5), slog.Uint64("big", math.MaxUint64), slog.Group("http", slog.Bool("tls", true), slog.String("verb", "GET")),
			slog.Int("status", 504), slog.String("url", "/a?b=<c>"),
		},
	}
	if back := roundTrip(t, l); !reflect.DeepEqual(back, l) {
		t.Errorf("\n%+v came back as\n%+v", l, back)
	}
	if back := roundTrip(t, kemi.Log{}); !reflect.DeepEqual(back, kemi.Log{}) {
		t.Errorf("the zero log came back as %+v", back)
	}
	b, err := json.Marshal(kemi.Log{Host: "h", Fields: []slog.Attr{
		slog.Duration("took", time.Second), slog.Time("at", someTime), slog.Any("err", errors.New("no")), slog.Float64("nan", math.NaN()),
		slog.Any("chan", make(chan int)), slog.Any("none", nil), slog.Any("list", []int{1}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"took":1000000000`, `"at":"2026-11-20T12:00:00.123456789Z"`, `"err":"no"`, `"nan":"NaN"`, `"chan":"0x`, `"none":null`, `"list":[1]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s\nis without %s", b, want)
		}
	}
}

func FuzzLogJSON(f *testing.F) {
	b, err := json.Marshal(kemi.Log{Time: someTime, Host: "h", Fields: []slog.Attr{slog.Int("a", 1), slog.Group("g", slog.Float64("b", 1e300))}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"severity":"err","fields":{"a":null,"b":[{"c":1e999}],"d":{},"":0.1,"x":-0}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l kemi.Log
		if json.Unmarshal(b, &l) != nil {
			return
		}
		first, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		second, err := json.Marshal(roundTrip(t, l))
		if err != nil || string(second) != string(first) {
			t.Errorf("%s came back as %s, %v", first, second, err)
		}
	})
}

func TestJobsAndDeadLettersComeBackFromJSON(t *testing.T) {
	j := kemi.Job{
		Target: "10.0.0.1:161", Resource: "sw1", Service: "net", Profiles: []string{"linux"}, Auth: "v3", Labels: kemi.LabelsOf("dc", "a"),
		Scheduled: someTime, Interval: time.Minute, Deadline: someTime.Add(time.Minute),
	}
	if back := roundTrip(t, j); !reflect.DeepEqual(back, j) {
		t.Errorf("%+v came back as %+v", j, back)
	}
	d := kemi.DeadLetter{
		Time: someTime, Flow: "f", Stage: "s", Error: "e", Stack: "at", Type: "kemi.Metric", Format: "json", Payload: []byte{0, 0xff, '"'},
		Origin: kemi.Origin{Topic: "t", Partition: 1, Offset: 2},
	}
	if back := roundTrip(t, d); !reflect.DeepEqual(back, d) {
		t.Errorf("%+v came back as %+v", d, back)
	}
}

// TestThePartitionKeyIsWhatOrderMatters for: the host, or the alert.
func TestThePartitionKeyIsWhatOrderMattersFor(t *testing.T) {
	a := someAlert()
	for want, got := range map[string]string{
		"web1": kemi.Gauge("g", kemi.LabelsOf("host", "web1"), someTime, 1).PartitionKey(),
		"web2": kemi.Log{Host: "web2"}.PartitionKey(),
		"web3": kemi.Job{Resource: "web3", Target: "10.0.0.3"}.PartitionKey(),
		"":     kemi.Gauge("g", kemi.Labels{}, someTime, 1).PartitionKey(),

		a.Fingerprint.String(): a.PartitionKey(),
	} {
		if got != want {
			t.Errorf("partition key %q, want %q", got, want)
		}
	}
}
