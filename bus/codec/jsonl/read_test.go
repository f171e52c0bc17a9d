package jsonl

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// likeStd checks that what the quick way takes, encoding/json reads as the same.
func likeStd(t *testing.T, line []byte) (quick bool) {
	t.Helper()
	got, ok := readMetric(line)
	if !ok {
		return false
	}
	var want kemi.Metric
	if err := json.Unmarshal(line, &want); err != nil {
		t.Fatalf("%q was read as %v, and encoding/json says %v", line, got, err)
	}
	// A zone that has no name is made for each time.
	if !got.Time.Equal(want.Time) || got.Time.Format(time.RFC3339Nano) != want.Time.Format(time.RFC3339Nano) {
		t.Fatalf("%q was read with the time %v, and by encoding/json with %v", line, got.Time, want.Time)
	}
	if got.Time = want.Time; got != want && math.Float64bits(got.Float()) != math.Float64bits(want.Float()) {
		t.Fatalf("%q was read as %v, and by encoding/json as %v", line, got, want)
	}
	return true
}

// lines are written as appendMetric does, and nearly so. The quick ones are first.
var (
	quick = []string{
		`{"name":"cpu","labels":{},"time":"2026-11-20T12:00:00.123456789Z","kind":"gauge","value":0.25}`,
		`{"name":"","labels":{"host":"web1","if":"eth0"},"time":"0001-01-01T00:00:00Z","kind":"floatcounter","value":-1e-7}`,
		`{"name":"in","labels":{"host":"web1"},"time":"2026-11-20T12:00:00+09:00","kind":"counter","value":18446744073709551615}`,
		`{"name":"in","labels":{"host":"web1"},"time":"2026-11-20T12:00:00Z","kind":"counter32","value":4294967295}`,
		`{"name":"in","labels":{"b":"1","a":"2","b":"3","c":"","a":"4"},"time":"2026-11-20T12:00:00Z","kind":"gauge","value":-0}`,
		`{"name":"in","labels":{"a":""},"time":"2026-11-20T12:00:00Z","kind":"gauge","value":1.5e+300}`,
	}
	others = []string{
		``, `{}`, `null`, `{"name":"cpu"`, quick[0] + " ", quick[0] + "}", " " + quick[0],
		strings.Replace(quick[0], "cpu", `a\"b`, 1), strings.Replace(quick[0], "cpu", "\xc3\xa4", 1), strings.Replace(quick[0], "cpu", "\x00", 1),
		strings.Replace(quick[0], "0.25", `"NaN"`, 1), strings.Replace(quick[0], "0.25", "00.25", 1), strings.Replace(quick[0], "0.25", ".25", 1),
		strings.Replace(quick[0], "0.25", "1.", 1), strings.Replace(quick[0], "0.25", "1e", 1), strings.Replace(quick[0], "0.25", "-", 1),
		strings.Replace(quick[0], "0.25", "+1", 1), strings.Replace(quick[0], "0.25", "0x1p-2", 1), strings.Replace(quick[0], "0.25", "1_0", 1),
		strings.Replace(quick[0], "0.25", "1e999", 1), strings.Replace(quick[0], "gauge", "summary", 1), strings.Replace(quick[0], "2026", "20260", 1),
		strings.Replace(quick[2], "18446744073709551615", "18446744073709551616", 1), strings.Replace(quick[2], "18446744073709551615", "1.0", 1),
		strings.Replace(quick[2], "18446744073709551615", "-1", 1), strings.Replace(quick[3], "4294967295", "4294967296", 1),
		strings.Replace(quick[0], "{}", `{"a":"b",}`, 1), strings.Replace(quick[0], "{}", `{,}`, 1), strings.Replace(quick[0], "{}", `{"a":1}`, 1),
	}
)

func TestTheQuickWayReadsAsEncodingJSON(t *testing.T) {
	for _, line := range quick {
		if !likeStd(t, []byte(line)) {
			t.Errorf("%s was not read the quick way", line)
		}
	}
	for _, line := range others {
		if likeStd(t, []byte(line)) {
			t.Errorf("%q was read the quick way", line)
		}
	}
}

func FuzzTheQuickWay(f *testing.F) {
	for _, line := range append(quick, others...) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) { likeStd(t, line) })
}
