package opentsdb_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

// sent writes a batch to a server that takes everything, and returns the body.
func sent(t *testing.T, cfg opentsdb.Config, batch ...kemi.Metric) (string, error) {
	t.Helper()
	var body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			in, _ = gzip.NewReader(r.Body)
		}
		b, _ := io.ReadAll(in)
		body += string(b)
		if r.ContentLength <= 0 || r.Header.Get("Expect") != "" {
			t.Errorf("a body of length %d with Expect %q: a server as it comes refuses it", r.ContentLength, r.Header.Get("Expect"))
		}
		if q := r.URL.Query(); !q.Has("details") || !q.Has("sync") || q.Get("sync_timeout") != "10000" {
			t.Errorf("query %q", r.URL.RawQuery)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	cfg.URL = srv.URL
	err := newSink(t, cfg).Write(t.Context(), batch)
	return body, err
}

func TestEncoding(t *testing.T) {
	l := kemi.LabelsOf("host", "web1")
	for _, c := range []struct {
		cfg  opentsdb.Config
		m    kemi.Metric
		want string
	}{
		{opentsdb.Config{}, kemi.Gauge("load1", l, t0, 2), `{"metric":"load1","timestamp":1795205855,"value":2.0,"tags":{"host":"web1"}}`},
		{opentsdb.Config{Plain: true}, kemi.Gauge("load1", l, t0.Add(999*time.Millisecond), -0.25), `{"metric":"load1","timestamp":1795205855,"value":-0.25,"tags":{"host":"web1"}}`},
		{opentsdb.Config{Milliseconds: true}, kemi.Gauge("load1", l, t0.Add(7*time.Millisecond), 0), `{"metric":"load1","timestamp":1795205855007,"value":0.0,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.Gauge("x", l, t0, 1e21), `{"metric":"x","timestamp":1795205855,"value":1e+21,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.Gauge("x", l, t0, 5e-324), `{"metric":"x","timestamp":1795205855,"value":5e-324,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.FloatCounter("x", l, t0, 3), `{"metric":"x","timestamp":1795205855,"value":3.0,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.Counter("if_in_octets", l, t0, math.MaxInt64), `{"metric":"if_in_octets","timestamp":1795205855,"value":9223372036854775807,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.Counter32("x", l, t0, 7), `{"metric":"x","timestamp":1795205855,"value":7,"tags":{"host":"web1"}}`},
		{opentsdb.Config{FloatCounters: true}, kemi.Counter32("x", l, t0, 7), `{"metric":"x","timestamp":1795205855,"value":7.0,"tags":{"host":"web1"}}`},
		{opentsdb.Config{FloatCounters: true}, kemi.Counter("x", l, t0, math.MaxUint64), `{"metric":"x","timestamp":1795205855,"value":18446744073709552000.0,"tags":{"host":"web1"}}`},
		{opentsdb.Config{}, kemi.Gauge("disk %", kemi.LabelsOf("host", "서울", "mount", "/"), t0, 1), `{"metric":"disk_x2025_","timestamp":1795205855,"value":1.0,"tags":{"host":"_xec849cec9ab8_","mount":"/"}}`},
	} {
		got, err := sent(t, c.cfg, c.m)
		if err != nil || got != "["+c.want+"]" {
			t.Errorf("%v:\n got %s, %v\nwant [%s]", c.m, got, err, c.want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%v: not JSON: %s", c.m, got)
		}
	}
}

// TestRefused holds that what OpenTSDB cannot hold is refused for good, with a reason,
// and does not hold up the rest.
func TestRefused(t *testing.T) {
	l := kemi.LabelsOf("host", "web1")
	nine := kemi.LabelsOf("host", "h", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1", "f", "1", "g", "1", "i", "1")
	for _, c := range []struct {
		cfg  opentsdb.Config
		m    kemi.Metric
		want string
	}{
		{opentsdb.Config{}, kemi.Gauge("x", l, t0, math.NaN()), "finite"},
		{opentsdb.Config{}, kemi.FloatCounter("x", l, t0, math.Inf(1)), "finite"},
		{opentsdb.Config{}, kemi.Counter("x", l, t0, math.MaxInt64+1), "FloatCounters"},
		{opentsdb.Config{}, kemi.Gauge("", l, t0, 1), "no name"},
		{opentsdb.Config{}, kemi.Gauge("x", kemi.Labels{}, t0, 1), "no label"},
		{opentsdb.Config{}, kemi.Gauge("x", kemi.LabelsOf("", "v"), t0, 1), "without a name"},
		{opentsdb.Config{}, kemi.Gauge("x", nine, t0, 1), "TagPriority"},
		{opentsdb.Config{}, kemi.Gauge("x", l, time.Time{}, 1), "time"},
		{opentsdb.Config{}, kemi.Gauge("x", l, time.Unix(0, 0), 1), "time"},
		{opentsdb.Config{}, kemi.Gauge("x", l, time.Unix(math.MaxUint32+1, 0), 1), "time"},
		{opentsdb.Config{Milliseconds: true}, kemi.Gauge("x", l, time.UnixMilli(math.MaxUint32), 1), "time"}, // would be read as seconds
		{opentsdb.Config{Plain: true}, kemi.Gauge("x", l.With("long", strings.Repeat("a", 9000)), t0, 1), "bytes"},
	} {
		batch := []kemi.Metric{kemi.Gauge("good", l, t0, 1), c.m}
		body, err := sent(t, c.cfg, batch...)
		fs := failures(t, err, batch)
		if len(fs) != 1 || !kemi.IsPermanent(fs[1]) || !strings.Contains(fs[1].Error(), c.want) {
			t.Errorf("%.80v: want a permanent failure about %s: %.200v", c.m, c.want, fs)
		}
		if !strings.HasPrefix(body, `[{"metric":"good",`) || strings.Contains(body, `"x"`) {
			t.Errorf("%.80v: sent %.200s", c.m, body)
		}
	}
}

// TestOneEncodingPerSeries writes each kind with values of every size and reads the
// series back: with two encodings the query would fail.
func TestOneEncodingPerSeries(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
	s := newSink(t, opentsdb.Config{URL: srv.URL()})
	l := kemi.LabelsOf("host", "a")
	for i, v := range []float64{0, 1, 2.5, 1e10, -3, 1e300, 1 << 53} {
		at := t0.Add(time.Duration(i) * time.Second)
		if err := s.Write(t.Context(), []kemi.Metric{
			kemi.Gauge("gauge", l, at, v),
			kemi.FloatCounter("seconds", l, at, math.Abs(v)),
			kemi.Counter("octets", l, at, uint64(i)<<(8*i)),
		}); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]map[bool]int{}
	for _, p := range srv.Stored() {
		if kinds[p.Metric] == nil {
			kinds[p.Metric] = map[bool]int{}
		}
		kinds[p.Metric][p.Float]++
	}
	for name, float := range map[string]bool{"gauge": true, "seconds": true, "octets": false} {
		if kinds[name][float] != 7 || kinds[name][!float] != 0 {
			t.Errorf("%s: float and integer points: %v", name, kinds[name])
		}
	}
}

// TestLastOfASecondWins holds that several points of one series in one second become
// the last of the batch, however they are spread over requests.
func TestLastOfASecondWins(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
	s := newSink(t, opentsdb.Config{URL: srv.URL(), MaxPoints: 2})
	l := kemi.LabelsOf("host", "a")
	var batch []kemi.Metric
	for i := range 20 {
		batch = append(batch, kemi.Gauge("m", l, t0.Add(time.Duration(i)*10*time.Millisecond), float64(i)))
		batch = append(batch, kemi.Gauge("m", kemi.LabelsOf("host", "b"), t0.Add(time.Duration(i)*time.Second), float64(i)))
	}
	batch = append(batch, kemi.Gauge("m", l, t0, math.NaN())) // refused, so it takes nothing's place
	err := s.Write(t.Context(), batch)
	if fs := failures(t, err, batch); len(fs) != 1 || fs[40] == nil {
		t.Errorf("failures: %v", fs)
	}
	got := map[string][]string{}
	for _, p := range srv.Stored() {
		got[p.Tags["host"]] = append(got[p.Tags["host"]], p.Value)
	}
	if len(got["a"]) != 1 || got["a"][0] != "19.0" || len(got["b"]) != 20 {
		t.Errorf("stored: %v", got)
	}
	if st := s.Stats(); st.Superseded != 19 || st.Points != 21 {
		t.Errorf("stats: %+v", st)
	}
}

func TestTagPriority(t *testing.T) {
	l := kemi.LabelsOf("host", "h", "a", "1", "b", "2", "interface", "eth0", "ifindex", "3", "z", "9")
	got, err := sent(t, opentsdb.Config{MaxTags: 4, TagPriority: []string{"interface", "z", "none"}}, kemi.Gauge("m", l, t0, 1))
	const want = `[{"metric":"m","timestamp":1795205855,"value":1.0,"tags":{"a":"1","host":"h","interface":"eth0","z":"9"}}]`
	if err != nil || got != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]opentsdb.Config{
		"want http://host:4242":   {URL: "tsd:4242"},
		"URL \"\"":                {},
		"cannot be parsed":        {URL: "http://user:secret@[::1"},
		"MaxBytes is 10":          {URL: "http://tsd", MaxBytes: 10},
		"Connections is -1":       {URL: "http://tsd", Connections: -1},
		"longer than SyncTimeout": {URL: "http://tsd", SyncTimeout: time.Minute, Timeout: time.Second},
		"must be positive":        {URL: "http://tsd", SyncTimeout: -1},
	} {
		_, err := opentsdb.New(cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("New: %v, want %s", err, want)
		}
	}
}
