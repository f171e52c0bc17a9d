//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/sink/sinktest"
)

// began is the time of the first point in a store.
var began = time.Unix(1795204800, 0).UTC()

// TestOpenTSDB has one HBase for all that is asked of OpenTSDB.
func TestOpenTSDB(t *testing.T) {
	h := startHBase(t)
	t.Run("the fake answers as the real one", func(t *testing.T) { fakeAnswersAsReal(t, h) })
	t.Run("conformance", func(t *testing.T) { sinkOnReal(t, h) })
	t.Run("what is written is read back", func(t *testing.T) { readBackEqual(t, h) })
	t.Run("a limit that is too high is found", func(t *testing.T) { limitIsFound(t, h) })
	t.Run("HBase is killed while points flow", func(t *testing.T) { nothingIsLostWithHBase(t, h) })
}

func point(metric, tags string, second int64, value string) string {
	return fmt.Sprintf(`{"metric":%q,"timestamp":%d,"value":%s,"tags":{%s}}`, metric, second, value, tags)
}

// fakeAnswersAsReal asks the fake and the real server the same, and wants the same
// status, type and body of both.
func fakeAnswersAsReal(t *testing.T, h *hbase) {
	flush := map[string]string{"hbase.rpcs.buffered_flush_interval": "20"}
	with := func(name, value string) map[string]string {
		m := maps.Clone(flush)
		m[name] = value
		return m
	}
	const at = 1795205855
	good := point("same.m", `"host":"a"`, at, "1")
	padded := func(n int) string { return good + strings.Repeat(" ", n-len(good)) }
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = z.Write([]byte(good))
	z.Close()
	one := func(timestamp, value, tags string) string {
		return fmt.Sprintf(`{"metric":"same.m","timestamp":%s,"value":%s,"tags":{%s}}`, timestamp, value, tags)
	}
	const tag = `"host":"a"`
	type request struct{ method, path, encoding, body string }
	details := func(body string) request {
		return request{"POST", "/api/put?details&sync&sync_timeout=10000", "", body}
	}
	plain := []request{
		{"POST", "/api/put", "", good},
		{"POST", "/api/put?details", "", "[" + good + "]"},
		{"POST", "/api/put?summary=false", "", good},
		{"POST", "/api/put?sync", "", good},
		{"POST", "/api/put?sync&sync_timeout=5000", "", good},
		{"POST", "/api/v1/put?summary&sync", "", good},
		{"POST", "/api/put", "gzip", gz.String()},
		{"POST", "/api/put", "gzip", good}, // it is not
		{"POST", "/api/put", "", one("1", `"x"`, tag)},
		{"POST", "/api/put?summary", "", one("1", `"x"`, tag)},
		{"POST", "/api/put", "", "[]"},
		{"POST", "/api/put", "", ""},
		{"POST", "/api/put", "", "x"},
		{"POST", "/api/put", "", "[{"},
		{"POST", "/api/put", "", one("1", "1", `"a":{}`)},
		{"POST", "/api/put?sync_timeout=x", "", good},
		{"GET", "/api/put", "", ""},
		{"PUT", "/api/put", "", good},
		{"GET", "/api/nope", "", ""},
		{"POST", "/api/put", "", padded(8192)},
		{"POST", "/api/put", "", padded(8193)},
		{"POST", "/api/put", "chunked", good},
		{"GET", "/api/query?start=1795200000&m=none:same.no", "", ""},
		{"GET", "/api/query?start=1795200000&m=none:same.m", "", ""},
		details("[" + strings.Join([]string{
			good,
			one("99999999999999", "2e0", tag), one("0", "1", tag), one("-5", "true", tag), one(`"1795205855"`, "1", tag),
			one("1795205855.7", "9223372036854775808", tag), one("1795205855", "9223372036854775807", tag),
			one("1", "1e400", tag), one("1", `"NaN"`, tag), one("1", `"abc"`, tag), one("1", "true", tag), one("1", "null", tag), one("1", `""`, tag),
			one("1", "1", ""), one("1", "1", `"a":""`), one("1", "1", `"":"q"`), one("1", "1", `"q":null`),
			one("1", "1", `"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1`),
			one("1", "1", `"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1`),
			point("", tag, at, "1"), point("same m!", tag, at, "1"), point("same:m", tag, at, "1"),
			one("1", "1", `"a b":"c"`), one("1", "1", `"a":"b=c"`), one("1", "1", `"a":"b%"`),
			`{"timestamp":1,"value":1,"tags":{"a":"b"}}`, `{"metric":"same.m","value":1,"tags":{"a":"b"}}`,
			"null",
		}, ",") + "]"),
		details("[" + point("same.m", `"host":"é"`, at, "1") + "]"),
		details("[" + point("same.m", `"host":"c中x"`, at, "1") + "]"),
		details("[" + point("same.m", `"host":"c文x"`, at, "1") + "]"),
		{"POST", "/api/put?sync", "", point("same.dup", tag, at, "2")},
		{"POST", "/api/put?sync", "", point("same.dup", tag, at, "3")}, // as wide: the last one stands
		{"GET", "/api/query?start=1795200000&m=none:same.dup", "", ""},
		{"POST", "/api/put?sync", "", point("same.dup", tag, at, "2.5")}, // otherwise: the series cannot be read
		{"GET", "/api/query?start=1795200000&m=none:same.dup", "", ""},
	}
	for _, c := range []struct {
		name       string
		properties map[string]string
		fake       faketsd.Config
		requests   []request
	}{
		{"as it comes", flush, faketsd.Config{AutoCreateMetrics: true}, plain},
		{"chunked", with("tsd.http.request.enable_chunked", "true"), faketsd.Config{AutoCreateMetrics: true, EnableChunked: true}, []request{
			{"POST", "/api/put", "chunked", good},
			{"POST", "/api/put", "", padded(8192)}, // though max_chunk is 4096
			{"POST", "/api/put", "", padded(8193)},
			{"POST", "/api/put", "chunked", padded(5000)},
		}},
		{"metrics are not made", with("tsd.core.auto_create_metrics", "false"), faketsd.Config{}, []request{
			details(point("same.never", tag, at, "1")),
		}},
		{"duplicates are mended", with("tsd.storage.fix_duplicates", "true"), faketsd.Config{AutoCreateMetrics: true, FixDuplicates: true}, []request{
			{"POST", "/api/put?sync", "", point("same.fix", tag, at, "2")},
			{"POST", "/api/put?sync", "", point("same.fix", tag, at, "2.5")},
			{"GET", "/api/query?start=1795200000&m=none:same.fix", "", ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			real := startOpenTSDB(t, h, c.properties)
			c.fake.FlushInterval = 20 * time.Millisecond
			fake, err := faketsd.Start(c.fake)
			if err != nil {
				t.Fatal(err)
			}
			defer fake.Close()
			for _, r := range c.requests {
				want, got := answerOf(t, r.method, real.URL+r.path, r.encoding, r.body), answerOf(t, r.method, fake.URL()+r.path, r.encoding, r.body)
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s %s %s %.100q (%d bytes)\nreal: %v\nfake: %v", r.method, r.path, r.encoding, r.body, len(r.body), want, got)
				}
			}
		})
	}
}

// answer is what a server says. Status 0 is a connection closed without an answer.
type answer struct {
	status int
	kind   string
	body   any
}

func answerOf(t *testing.T, method, url, encoding, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	switch encoding {
	case "":
	case "chunked":
		req.ContentLength = -1
		req.Body = io.NopCloser(strings.NewReader(body))
	default:
		req.Header.Set("Content-Encoding", encoding)
	}
	tr := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		if strings.Contains(err.Error(), "timeout") {
			return answer{body: "it hangs"}
		}
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	a := answer{resp.StatusCode, resp.Header.Get("Content-Type"), string(text)}
	if strings.HasPrefix(a.kind, "text/html") { // a page for people
		a.body = strings.Contains(string(text), "Chunked request not supported.")
		return a
	}
	if resp.StatusCode == http.StatusNoContent {
		a.kind = "" // of nothing
	}
	var parsed any
	if json.Unmarshal(text, &parsed) == nil {
		a.body = common(parsed)
	}
	return a
}

// common leaves out of an answer what the fake does not imitate: where in the Java
// an error was made, what its JSON library thinks, the bytes of a row, and empty tags.
func common(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = common(v[i])
		}
	case map[string]any:
		delete(v, "trace")
		delete(v, "details")
		if tags, ok := v["tags"].(map[string]any); ok && len(tags) == 0 {
			delete(v, "tags")
		}
		for k := range v {
			v[k] = common(v[k])
		}
	case string:
		if strings.HasPrefix(v, "Duplicate timestamp for key=[") {
			return "Duplicate timestamp" + v[strings.Index(v, ";"):]
		}
	}
	return v
}

func newTSDSink(t testing.TB, cfg opentsdb.Config) *opentsdb.Sink {
	t.Helper()
	s, err := opentsdb.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// stored reads back what is stored of a metric, as gauges.
func (s *openTSDB) stored(t testing.TB, metric string) []kemi.Metric {
	t.Helper()
	all, err := s.Query(metric, began.Add(-time.Hour))
	if err != nil && strings.Contains(err.Error(), "No such name") {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []kemi.Metric
	for _, series := range all {
		var labels []kemi.Label
		for k, v := range series.Tags {
			labels = append(labels, kemi.Label{Name: opentsdb.Unescape(k), Value: opentsdb.Unescape(v)})
		}
		for second, v := range series.Dps {
			f, err := v.Float64()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, kemi.Gauge(opentsdb.Unescape(series.Metric), kemi.NewLabels(labels...), time.Unix(second, 0).UTC(), f))
		}
	}
	return out
}

// sinkOnReal holds the sink to its contract on the real server, which crashes (kill -9),
// is away, and hangs (SIGSTOP). Another one tells what is stored meanwhile.
func sinkOnReal(t *testing.T, h *hbase) {
	tsd := startOpenTSDB(t, h, map[string]string{"tsd.core.auto_create_metrics": "false"})
	other := startOpenTSDB(t, h, nil)
	n := 0
	sinktest.Run(t, func(tb testing.TB) sinktest.Harness[kemi.Metric] {
		n++
		metric := fmt.Sprintf("conform.%d", n)
		if _, err := tsd.get("/api/uid/assign?metric=" + metric); err != nil {
			tb.Fatal(err)
		}
		return sinktest.Harness[kemi.Metric]{
			Sink: newTSDSink(tb, opentsdb.Config{URL: tsd.URL, SyncTimeout: 2 * time.Second}),
			New: func(i int) kemi.Metric { // one series of many seconds: each new tag value takes the server 10 ms
				return kemi.Gauge(metric, kemi.LabelsOf("host", "web"+strconv.Itoa(i%10)), began.Add(time.Duration(i)*time.Second), float64(i)+0.5)
			},
			Stored: func() []kemi.Metric { return other.stored(tb, metric) },
			Crash: func() {
				tsd.Kill()
				tsd.Restart()
			},
			Bad: func(i int) kemi.Metric {
				l := kemi.LabelsOf("host", "bad"+strconv.Itoa(i))
				switch i % 3 {
				case 0: // known to the server alone
					return kemi.Gauge("conform.unknown", l, began, 1)
				case 1:
					return kemi.Gauge(metric, l, began, math.NaN())
				}
				return kemi.Gauge(metric, kemi.Labels{}, began, 1)
			},
			Down: func() (up func()) {
				tsd.Kill()
				return tsd.Restart
			},
			Block: func() (release func()) {
				tsd.freeze()
				return tsd.thaw
			},
			Patience: time.Minute,
		}
	})
}

// letters keeps the dead letters.
type letters struct {
	mu  sync.Mutex
	all []kemi.DeadLetter
}

func (l *letters) Write(_ context.Context, batch []kemi.DeadLetter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, batch...)
	return nil
}

// readBackEqual writes awkward numbers and names through a pipeline and reads them
// back bit for bit; what the server refuses is in the dead letters, with the reason.
func readBackEqual(t *testing.T, h *hbase) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %v", plain), func(t *testing.T) {
			tsd := startOpenTSDB(t, h, nil)
			prefix := fmt.Sprintf("back.%v.", plain)
			host := kemi.LabelsOf("host", "web1", "rack", "r 7/서울", "odd", "a=b:c{}")
			var good, bad []kemi.Metric
			for i, v := range []float64{0, 1, -1, 0.1, 1.0 / 3, math.Pi * 1e200, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1e-5, 1 << 53, 9007199254740993} {
				good = append(good, kemi.Gauge(prefix+"gauge", host, began.Add(time.Duration(i)*time.Minute), v))
			}
			for i, v := range []uint64{0, 1, 127, 128, 1 << 15, 1 << 31, 1<<32 - 1, 1<<53 + 1, math.MaxInt64} {
				good = append(good, kemi.Counter(prefix+"counter", host, began.Add(time.Duration(i)*time.Minute), v))
			}
			for i := range 1500 { // several requests
				good = append(good, kemi.Gauge(prefix+"many 한글", kemi.LabelsOf("host", "web"+strconv.Itoa(i%10)), began.Add(time.Duration(i)*time.Second), float64(i)/7))
			}
			bad = append(bad,
				kemi.Gauge(prefix+"gauge", host, began, math.NaN()),
				kemi.Gauge(prefix+"gauge", kemi.Labels{}, began, 1),
				kemi.Counter(prefix+"counter", host, began, 1<<63),
				kemi.Gauge(prefix+"gauge", kemi.LabelsOf("a", "1", "b", "1", "c", "1", "d", "1", "e", "1", "f", "1", "g", "1", "h", "1", "i", "1"), began, 1),
			)
			batch := slices.Concat(good[:100], bad, good[100:])
			dead := &letters{}
			sink := newTSDSink(t, opentsdb.Config{URL: tsd.URL, Plain: plain})
			flow := kemi.Connect("store", kemi.Source[kemi.Metric](once(batch)), sink)
			p := kemi.Pipeline{Flows: []*kemi.Flow{flow}, DeadLetters: dead}
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := flow.Stats().Balance(); err != nil {
				t.Error(err)
			}
			if len(dead.all) != len(bad) {
				t.Errorf("%d dead letters, want %d: %+v", len(dead.all), len(bad), dead.all)
			}
			checkStored(t, tsd, good)
		})
	}
}

// once is a source that writes one batch.
type once []kemi.Metric

func (o once) Run(ctx context.Context, out kemi.Sink[kemi.Metric]) error { return out.Write(ctx, o) }

// checkStored holds that what is stored under the names of want is want: each point
// once, integers to the last digit and floats to the last bit.
func checkStored(t *testing.T, tsd *openTSDB, want []kemi.Metric) {
	t.Helper()
	values := map[string]string{} // by series and second
	from := want[0].Time
	metrics := map[string]bool{}
	key := func(metric string, tags map[string]string, second int64) string {
		return fmt.Sprint(metric, tags, second) // maps print sorted
	}
	for _, m := range want {
		tags := map[string]string{}
		for k, v := range m.Labels.All() {
			tags[opentsdb.Escape(k)] = opentsdb.Escape(v)
		}
		text := strconv.FormatFloat(m.Float(), 'g', -1, 64)
		if m.Kind != kemi.KindGauge {
			text = strconv.FormatUint(m.Uint(), 10)
		}
		name := opentsdb.Escape(m.Name)
		metrics[name] = true
		values[key(name, tags, m.Time.Unix())] = text
		if m.Time.Before(from) {
			from = m.Time
		}
	}
	found := 0
	for metric := range metrics {
		all, err := tsd.Query(metric, from.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			for second, v := range s.Dps {
				k := key(s.Metric, s.Tags, second)
				text, ok := values[k]
				if !ok {
					t.Errorf("%s is stored and was not written", k)
					continue
				}
				found++
				if text == v.String() {
					continue
				}
				if f, err := v.Float64(); err != nil || text != strconv.FormatFloat(f, 'g', -1, 64) {
					t.Errorf("%s: stored %s, written %s", k, v, text)
				}
			}
		}
	}
	if found != len(values) {
		t.Errorf("%d of %d points are stored", found, len(values))
	}
	t.Logf("%d points read back", found)
}

// limitIsFound gives the sink a limit of bytes that the server does not keep: it
// lowers it, and nothing is lost.
func limitIsFound(t *testing.T, h *hbase) {
	for name, properties := range map[string]map[string]string{
		"as it comes":     nil, // answers that chunks are not supported
		"small max_chunk": {"tsd.http.request.enable_chunked": "true"},
		"max_chunk":       {"tsd.http.request.enable_chunked": "true", "tsd.http.request.max_chunk": "20000"},
	} {
		t.Run(name, func(t *testing.T) {
			tsd := startOpenTSDB(t, h, properties)
			var batch []kemi.Metric
			for i := range 1000 {
				batch = append(batch, kemi.Gauge("limit."+opentsdb.Escape(name), kemi.LabelsOf("host", "web1"), began.Add(time.Duration(i)*time.Second), float64(i)/3))
			}
			s := newTSDSink(t, opentsdb.Config{URL: tsd.URL, Plain: true, MaxPoints: 1000, MaxBytes: 200_000})
			p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("store", kemi.Source[kemi.Metric](once(batch)), s)}}
			if err := p.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			checkStored(t, tsd, batch)
			if st := s.Stats(); st.MaxBytes >= 200_000 {
				t.Errorf("the limit is still %d", st.MaxBytes)
			} else {
				t.Logf("the limit is %d after %d requests", st.MaxBytes, st.Requests)
			}
		})
	}
}

// ticking is a source of points, and a new series now and then, until it is stopped.
type ticking struct {
	mu  sync.Mutex
	all []kemi.Metric
}

func (s *ticking) Run(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
	for n := 0; ctx.Err() == nil; n++ {
		var batch []kemi.Metric
		at := began.Add(time.Duration(n) * time.Second)
		for i := range 20 {
			batch = append(batch, kemi.Gauge("flow.m", kemi.LabelsOf("host", "web"+strconv.Itoa(i)), at, float64(n)+float64(i)/100))
		}
		if n%50 == 0 { // the server has to ask HBase for a name
			batch = append(batch, kemi.Gauge("flow.m", kemi.LabelsOf("host", "new"+strconv.Itoa(n)), at, 1))
		}
		if err := out.Write(ctx, batch); err != nil {
			return err
		}
		s.mu.Lock()
		s.all = append(s.all, batch...)
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (s *ticking) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// nothingIsLostWithHBase kills HBase while points flow. Its flow waits, another does
// not, and when HBase is back every point is stored.
func nothingIsLostWithHBase(t *testing.T, h *hbase) {
	tsd := startOpenTSDB(t, h, nil)
	raw := topic[kemi.Metric](t, "raw")
	source, seen := &ticking{}, &tally{}
	sink := newTSDSink(t, opentsdb.Config{URL: tsd.URL, SyncTimeout: 2 * time.Second, Timeout: 3 * time.Second})
	store := kemi.Connect("store", raw.Group("store"), sink, kemi.Backoff(50*time.Millisecond, time.Second))
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("make", kemi.Source[kemi.Metric](source), raw),
		store,
		kemi.Connect("count", raw.Group("count"), seen),
	}, DrainTimeout: 2 * time.Minute}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	more := func(what string, n int, count func() int) {
		t.Helper()
		from, since := count(), time.Now()
		eventually(t, hang, what, func() error {
			select {
			case err := <-ended:
				t.Fatalf("the pipeline has ended: %v", err)
			default:
			}
			if got := count() - from; got < n {
				return fmt.Errorf("%d of %d", got, n)
			}
			return nil
		})
		t.Logf("%s: %s", what, time.Since(since).Round(100*time.Millisecond))
	}
	written := func() int { return int(store.Stats().Written) }
	counted := func() int {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.all)
	}
	more("points are stored", 500, written)
	h.Kill()
	gone := written()
	more("the others go on without HBase", 4000, counted)
	if n := written() - gone; n > 1000 {
		t.Errorf("%d points were stored without HBase", n)
	}
	restart := time.Now()
	h.Restart()
	t.Logf("HBase is ready again after %s", time.Since(restart).Round(100*time.Millisecond))
	more("points are stored again", 5000, written)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Stats() {
		if err := s.Balance(); err != nil {
			t.Error(err)
		}
		if s.InFlight+s.Pending+s.Failed+s.Abandoned+s.Dead+s.Dropped != 0 {
			t.Errorf("%s: not all is delivered: %+v", s.Name, s)
		}
	}
	if counted() != source.count() {
		t.Errorf("%d points were counted, %d made", counted(), source.count())
	}
	t.Logf("%d retries", store.Stats().Retries)
	checkStored(t, tsd, source.all)
}
