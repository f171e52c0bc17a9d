package faketsd_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi/internal/faketsd"
)

const now = 1795205855

func start(t *testing.T, cfg faketsd.Config) *faketsd.Server {
	t.Helper()
	s, err := faketsd.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// hung is how long a test waits for an answer that does not come.
const hung = 300 * time.Millisecond

// ask returns status, content type and body; a closed connection is status 0.
func ask(t *testing.T, method, url, encoding, body string) (int, string, string) {
	t.Helper()
	return askFor(t, time.Minute, method, url, encoding, body)
}

// askFor is ask with a limit to the wait for an answer.
func askFor(t *testing.T, limit time.Duration, method, url, encoding, body string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if encoding == "chunked" {
		req.ContentLength = -1
		req.Body = io.NopCloser(strings.NewReader(body))
	} else if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	tr := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: limit}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

func point(metric, host string, value any) string {
	v, _ := json.Marshal(value)
	return fmt.Sprintf(`{"metric":%q,"timestamp":%d,"value":%s,"tags":{"host":%q}}`, metric, now, v, host)
}

// TestErrorTexts holds the answer that a real server gave to the same request.
func TestErrorTexts(t *testing.T) {
	s := start(t, faketsd.Config{AutoCreateMetrics: true, FlushInterval: time.Millisecond})
	const body = `[` +
		`{"metric":"m.a","timestamp":1795205855,"value":2e0,"tags":{"host":"ok"}},` +
		`{"metric":"m.a","timestamp":99999999999999,"value":2e0,"tags":{"host":"ok"}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":1e400,"tags":{"host":"ok","b":"x"}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":1e5,"tags":{"a":""}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":1e5,"tags":{"":"q"}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":1e5,"tags":{"q":null}},` +
		`{"metric":7,"timestamp":"1795205855","value":true,"tags":{"q":5}},` +
		`{"metric":"m.a","timestamp":-5,"value":true,"tags":{"q":5}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":null,"tags":{"q":5}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":5,"tags":{}},` +
		`{"metric":"m.a","timestamp":1795205855.7,"value":9223372036854775808,"tags":{"q":5}},` +
		`{"timestamp":1795205855,"value":9223372036854775807,"tags":{"q":5}},` +
		`{"metric":"m.a","timestamp":1795205855,"value":1,"tags":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1}},` +
		`{"metric":"m!x","timestamp":1795205855,"value":1,"tags":{"a":1}},` +
		`null]`
	code, ctype, answer := ask(t, "POST", s.URL()+"/api/put?details&sync&sync_timeout=10000", "", body)
	if code != 400 || ctype != "application/json; charset=UTF-8" {
		t.Errorf("%d %s", code, ctype)
	}
	var got struct {
		Success, Failed, Timeouts int
		Errors                    []struct {
			Datapoint json.RawMessage
			Error     string
		}
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bad timestamp=99999999999999 when trying to add value=[64, 0, 0, 0, 0, 0, 0, 0]/15 to metric=m.a, tags={host=ok}",
		"value is NaN or Infinite: Infinity for metric=m.a timestamp=1795205855",
		"Invalid tag value with key [a]: empty string",
		"Invalid tag name with value [q]: empty string",
		"Invalid tag value with key [q]: null",
		"Unable to parse value to a number",
		"Invalid timestamp",
		"Empty value",
		"Missing tags",
		"Unable to parse value to a number",
		"Metric name was empty",
		"Too many tags: 9 maximum allowed: 8, tags: {a=1, b=1, c=1, d=1, e=1, f=1, g=1, h=1, i=1}",
		`Invalid metric name ("m!x"): illegal character: !`,
		"Unexpected null datapoint encountered in set.",
	}
	if got.Success != 1 || got.Failed != len(want) || got.Timeouts != 0 || len(got.Errors) != len(want) {
		t.Fatalf("%s", answer)
	}
	for i, w := range want {
		if got.Errors[i].Error != w {
			t.Errorf("%d: %q, want %q", i, got.Errors[i].Error, w)
		}
	}
	if e := string(got.Errors[5].Datapoint); e != `{"metric":"7","timestamp":1795205855,"value":"true","tags":{"q":"5"}}` {
		t.Errorf("echo: %s", e)
	}
	if n := len(s.Stored()); n != 1 {
		t.Errorf("the good one is stored: %d", n)
	}
}

func TestWholeBodies(t *testing.T) {
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	_, _ = z.Write([]byte(point("m", "a", 1)))
	z.Close()
	s := start(t, faketsd.Config{AutoCreateMetrics: true})
	chunks := start(t, faketsd.Config{AutoCreateMetrics: true, EnableChunked: true})
	large := func(n int) string { p := point("m", "a", 1); return p + strings.Repeat(" ", n-len(p)) }
	for _, c := range []struct {
		srv                           *faketsd.Server
		method, query, encoding, body string
		code                          int
		want                          string
	}{
		{s, "POST", "", "", point("m", "a", 1), 204, ""},
		{s, "POST", "?details", "", "[" + point("m", "a", 1) + "]", 200, `{"success":1,"failed":0,"errors":[]}`},
		{s, "POST", "?summary=false", "", point("m", "a", "1"), 200, `{"success":1,"failed":0}`},
		{s, "POST", "", "gzip", gz.String(), 204, ""},
		{s, "POST", "", "gzip", point("m", "a", 1), 0, ""},
		{s, "POST", "", "", point("m", "a", "x"), 400, "One or more data points had errors"},
		{s, "POST", "?summary", "", point("m", "a", "x"), 400, `{"success":0,"failed":1}`},
		{s, "POST", "", "", "[]", 400, "No datapoints found in content"},
		{s, "POST", "", "", "", 400, "Missing request content"},
		{s, "POST", "", "", "x", 400, "The JSON must start as an object or an array"},
		{s, "POST", "", "", "[{", 400, "Unable to parse the given JSON"},
		{s, "POST", "", "", `{"metric":"m","timestamp":1,"value":1,"tags":{"a":{}}}`, 400, "Unable to parse the given JSON"},
		{s, "POST", "?sync_timeout=x", "", point("m", "a", 1), 500, "For input string"},
		{s, "GET", "", "", "", 405, "Method not allowed"},
		{s, "POST", "", "", large(8192), 204, ""},
		{s, "POST", "", "", large(8193), 400, "Chunked request not supported."},
		{s, "POST", "", "chunked", point("m", "a", 1), 400, "Chunked request not supported."},
		{chunks, "POST", "", "chunked", point("m", "a", 1), 204, ""},
		{chunks, "POST", "", "", large(8192), 204, ""}, // though max_chunk is 4096
		{chunks, "POST", "", "", large(8193), 0, ""},
		{chunks, "POST", "", "chunked", large(5000), 0, ""},
	} {
		code, ctype, body := ask(t, c.method, c.srv.URL()+"/api/put"+c.query, c.encoding, c.body)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %s %.60q: %d %.300s", c.method, c.query, c.encoding, c.body, code, body)
		}
		if html := strings.Contains(body, "Chunked"); html != strings.HasPrefix(ctype, "text/html") {
			t.Errorf("%.60q is %s", body, ctype)
		}
	}
	if code, _, body := ask(t, "GET", s.URL()+"/api/nope", "", ""); code != 404 || body != `{"error":{"code":404,"message":"Endpoint not found"}}` {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := ask(t, "GET", s.URL()+"/api/version", "", ""); code != 200 || !strings.Contains(body, `"version":"BuildData"`) {
		t.Errorf("%d %s", code, body)
	}
}

// TestKill holds what a crash takes: what no synchronous put has waited for.
func TestKill(t *testing.T) {
	s := start(t, faketsd.Config{AutoCreateMetrics: true, FlushInterval: 100 * time.Millisecond})
	put := func(query, host string, value int) {
		if code, _, body := ask(t, "POST", s.URL()+"/api/put"+query, "", point("m", host, value)); code/100 != 2 {
			t.Errorf("%d %s", code, body)
		}
	}
	put("?sync", "synced", 1)
	s.HBaseDown(true) // so that the flush does not come before the Kill
	put("", "synced", 2)
	s.Kill()
	s.HBaseDown(false)
	if code, _, _ := ask(t, "POST", s.URL()+"/api/put", "", point("m", "dead", 1)); code != 0 {
		t.Errorf("a killed server answers %d", code)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	put("", "ended", 3)
	s.Close()
	var got []string
	for _, p := range s.Stored() {
		got = append(got, p.Tags["host"]+" "+p.Value)
	}
	if !slices.Equal(got, []string{"synced 1", "ended 3"}) {
		t.Errorf("stored: %q", got)
	}
}

// TestHBaseAway holds the four ways in which the real server waits, and that a point
// that timed out is stored later.
func TestHBaseAway(t *testing.T) {
	s := start(t, faketsd.Config{AutoCreateMetrics: true, FlushInterval: time.Millisecond})
	put := func(query, body string) (int, string) {
		code, _, answer := ask(t, "POST", s.URL()+"/api/put"+query, "", body)
		return code, answer
	}
	hangs := func(query, body string) (int, string) {
		code, _, answer := askFor(t, hung, "POST", s.URL()+"/api/put"+query, "", body)
		return code, answer
	}
	put("?sync", point("m", "a", 1))
	s.HBaseDown(true)
	if code, _ := put("", point("m", "a", 2)); code != 204 {
		t.Errorf("a known name without sync: %d", code)
	}
	if code, text := hangs("?sync", point("m", "a", 2)); code != 0 || !strings.Contains(text, "timeout") {
		t.Errorf("sync without a limit: %d %s", code, text)
	}
	// Refused, late, late: the entries of the late ones are off by one.
	code, answer := put("?details&sync&sync_timeout=20", "["+point("m!", "bad", 1)+","+point("m", "a", 3)+","+point("m", "a", 4)+"]")
	const want = `{"success":0,"timeouts":2,"failed":1,"errors":[` +
		`{"datapoint":{"metric":"m!","timestamp":1795205855,"value":"1","tags":{"host":"bad"}},"error":"Invalid metric name (\"m!\"): illegal character: !"},` +
		`{"datapoint":{"metric":"m!","timestamp":1795205855,"value":"1","tags":{"host":"bad"}},"error":"Write timedout"},` +
		`{"datapoint":{"metric":"m","timestamp":1795205855,"value":"3","tags":{"host":"a"}},"error":"Write timedout"}]}`
	if code != 400 || answer != want {
		t.Errorf("%d %s", code, answer)
	}
	if code, _ := hangs("?sync&sync_timeout=20", point("new", "a", 2)); code != 0 {
		t.Errorf("a new name: %d", code)
	}
	s.HBaseDown(false)
	if p := s.Stored(); len(p) != 1 || p[0].Value != "4" {
		t.Errorf("stored: %+v", p)
	}
}

// TestThreads holds that a new name takes an I/O thread with it while HBase is away,
// and gives it back.
func TestThreads(t *testing.T) {
	s := start(t, faketsd.Config{AutoCreateMetrics: true, FlushInterval: time.Millisecond})
	s.HBaseDown(true)
	answer := make(chan int, 1)
	go func() {
		code, _, _ := ask(t, "POST", s.URL()+"/api/put", "", point("new", "a", 1)) // on thread 0
		answer <- code
	}()
	for len(s.Requests()) == 0 {
		time.Sleep(time.Millisecond)
	}
	version := func(limit time.Duration) int {
		code, _, _ := askFor(t, limit, "GET", s.URL()+"/api/version", "", "")
		return code
	}
	for end := time.Now().Add(time.Minute); ; {
		for thread := range 3 {
			if code := version(time.Minute); code != 200 {
				t.Fatalf("thread %d answers %d", thread+1, code)
			}
		}
		if version(hung) == 0 {
			break
		}
		// The put is read and not on its thread yet.
		if time.Now().After(end) {
			t.Fatal("the thread of the put that hangs answers others")
		}
	}
	s.HBaseDown(false)
	if code := <-answer; code != 204 {
		t.Errorf("the put is answered with %d", code)
	}
}

func TestReadBack(t *testing.T) {
	for _, fix := range []bool{false, true} {
		s := start(t, faketsd.Config{AutoCreateMetrics: true, FixDuplicates: fix, FlushInterval: time.Millisecond})
		query := func(m string) (int, string) {
			code, _, body := ask(t, "GET", s.URL()+"/api/query?start=1795200000&m="+url.QueryEscape(m), "", "")
			return code, body
		}
		put := func(p string) { ask(t, "POST", s.URL()+"/api/put?sync", "", p) }
		put("[" + point("m", "a", 1) + "," + point("m", "b", 2) + "]")
		if code, body := query("none:m{host=b}"); code != 200 || body != `[{"metric":"m","tags":{"host":"b"},"aggregateTags":[],"dps":{"1795205855":2}}]` {
			t.Errorf("%d %s", code, body)
		}
		if code, body := query("none:no.such"); code != 400 || !strings.Contains(body, "No such name for 'metrics': 'no.such'") {
			t.Errorf("%d %s", code, body)
		}
		put(point("m", "b", 3)) // of the same width: the last one stands
		if code, body := query("none:m{host=b}"); code != 200 || !strings.Contains(body, `{"1795205855":3}`) {
			t.Errorf("%d %s", code, body)
		}
		put(point("m", "b", 2.5))
		code, body := query("none:m{host=b}")
		if fix && (code != 200 || !strings.Contains(body, `{"1795205855":2.5}`)) || !fix && (code != 400 || !strings.Contains(body, "Duplicate timestamp")) {
			t.Errorf("fix %v: %d %s", fix, code, body)
		}
	}
}

// TestLatin1 holds the trap of names outside ISO-8859-1.
func TestLatin1(t *testing.T) {
	s := start(t, faketsd.Config{AutoCreateMetrics: true, FlushInterval: time.Millisecond})
	put := func(host string) string {
		_, _, body := ask(t, "POST", s.URL()+"/api/put?details&sync", "", point("m", host, 1))
		return body
	}
	for _, host := range []string{"é", "c中x", "c中x"} {
		if body := put(host); !strings.Contains(body, `"success":1`) {
			t.Errorf("%s: %s", host, body)
		}
	}
	if body := put("c文x"); !strings.Contains(body, "Unexpected exception") {
		t.Errorf("%s", body)
	}
}
