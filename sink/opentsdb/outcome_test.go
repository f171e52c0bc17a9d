package opentsdb_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

// entry is a detail about gauge i, with the tags in another order of keys and the
// value changed, as a server might.
func entry(i int, text string) string {
	return fmt.Sprintf(`{"error":%q,"datapoint":{"tags":{"host":"web%d"},"value":"1","timestamp":%d,"metric":"cpu_used_percent"}}`, text, i, t0.Unix())
}

// TestOutcome gives the first request one answer and holds what a Write of three
// points makes of it: for each point, stored, again or refused.
func TestOutcome(t *testing.T) {
	const bad = `Invalid tag value with key [host] (\"a b\"): illegal character:  `
	html := "<html>Chunked request not supported.</html>"
	errs := func(success, failed, timeouts int, entries ...string) string {
		return fmt.Sprintf(`{"success":%d,"timeouts":%d,"failed":%d,"errors":[%s]}`, success, timeouts, failed, strings.Join(entries, ","))
	}
	const stored, again, refused = "stored", "again", "refused"
	all := func(s string) [3]string { return [3]string{s, s, s} }
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   [3]string
		text   string // in the errors
	}{
		{"204", 204, "", all(stored), ""},
		{"200 and nothing", 200, " \n", all(stored), ""},
		{"all stored", 200, errs(3, 0, 0), all(stored), ""},
		{"no details", 200, `{"success":3,"failed":0}`, all(stored), ""},
		{"errors before counts", 200, `{"errors":[` + entry(1, "Storage exception: x") + `],"failed":1,"more":{"a":[1]},"success":2}`, [3]string{stored, again, stored}, "Storage exception"},
		{"200 with failures of the storage", 200, errs(2, 1, 0, entry(1, "Storage exception: x")), [3]string{stored, again, stored}, "Storage exception"},
		{"a bad point", 400, errs(2, 1, 0, entry(0, bad)), [3]string{refused, stored, stored}, "illegal character"},
		{"bad and unlucky", 400, errs(1, 2, 0, entry(2, bad), entry(0, "Unexpected exception")), [3]string{again, stored, refused}, ""},
		{"unknown metric", 400, errs(2, 1, 0, entry(1, "Unknown metric")), [3]string{stored, refused, stored}, "tsd.core.auto_create_metrics = true"},
		{"throttled", 400, errs(1, 2, 0, entry(0, "Please throttle"), entry(2, "Please throttle")), [3]string{again, stored, again}, "throttle"},
		{"timeouts name the wrong points", 400, errs(1, 0, 2, entry(0, "Write timedout"), entry(1, "Write timedout")), all(again), "not stored within"},
		{"bad and timed out", 400, errs(0, 1, 2, entry(0, bad), entry(0, "Write timedout"), entry(1, "Write timedout")), [3]string{refused, again, again}, ""},
		{"timeouts beside counts that add up", 400, errs(2, 1, 2, entry(0, bad)), [3]string{refused, again, again}, "which"},
		{"timeouts without entries", 400, errs(2, 0, 1), all(again), "which"},
		{"counts do not add up", 200, errs(1, 0, 0), all(again), "which"},
		{"more stored than sent", 200, errs(4, 0, 0), all(again), "which"},
		{"failed, and the one that is named is not ours", 200, errs(2, 1, 0, entry(9, "Storage exception: x")), all(again), "Storage exception"},
		{"negative counts", 200, errs(3, -1, 1), all(again), "counts"},
		{"no counts", 200, `{}`, all(again), "counts"},
		{"cut off", 200, `{"success":3,"failed":0,"err`, all(again), "breaks off"},
		{"not JSON", 200, "hello", all(again), "no answer of an OpenTSDB"},
		{"a list", 200, "[]", all(again), "no answer of an OpenTSDB"},
		{"the whole body refused", 400, `{"error":{"code":400,"message":"Unable to parse the given JSON","trace":"x"}}`, all(again), "Unable to parse"},
		{"server exception", 500, `{"error":{"code":500,"message":"boom"}}`, all(again), "boom"},
		{"proxy", 502, "<html>Bad Gateway</html>", all(again), "502"},
		{"who are you", 401, "", all(again), "Authorize"},
		{"forbidden", 403, "", all(again), "Authorize"},
		{"not there", 404, "", all(again), "tsd.mode"},
		{"redirect", 302, "", all(again), "redirects"},
		{"endless", 200, `{"success":3,"failed":0,"errors":[` + strings.Repeat(entry(0, "x")+",", 3000), all(again), "longer than"},
		// The answers to the halves come from the server itself, which takes all.
		{"refused, but which", 400, errs(2, 1, 0), all(stored), ""},
		{"refused, but not ours", 400, errs(2, 1, 0, entry(9, bad)), all(stored), ""},
		{"refused, of another shape", 400, errs(2, 1, 0, `{"datapoint":[],"error":"Missing tags"}`), all(stored), ""},
		{"no chunks", 400, html, all(stored), ""},
		{"413", 413, "", all(stored), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
			s := newSink(t, opentsdb.Config{URL: srv.URL()})
			srv.Faults(func(n int) faketsd.Fault {
				if n == 0 {
					return faketsd.Fault{Status: c.status, Body: c.body}
				}
				return faketsd.Fault{}
			})
			batch := gauges(0, 3)
			err := s.Write(t.Context(), batch)
			fs := failures(t, err, batch)
			var got [3]string
			for i := range got {
				switch e := fs[i]; {
				case e == nil:
					got[i] = stored
				case kemi.IsPermanent(e):
					got[i] = refused
				default:
					got[i] = again
				}
			}
			if got != c.want {
				t.Errorf("got %v, want %v; error %v", got, c.want, err)
			}
			if err != nil && !strings.Contains(err.Error(), srv.URL()) {
				t.Errorf("the error does not say where: %v", err)
			}
			if text := fmt.Sprint(fs); c.text != "" && !strings.Contains(text, c.text) {
				t.Errorf("want %q in %s", c.text, text)
			}
			if n := int(s.Stats().Points); n != 3-len(fs) {
				t.Errorf("%d points counted as stored, of %v", n, got)
			}
		})
	}
}

// TestPoisonIsFound holds that a bad point is found though the server never says
// which it is, and that nothing else is refused with it.
func TestPoisonIsFound(t *testing.T) {
	srv := serve(t, faketsd.Config{})
	srv.AssignMetric("cpu_used_percent")
	s := newSink(t, opentsdb.Config{URL: hideEchoes(t, srv.URL())})
	batch := gauges(0, 100)
	batch[17] = kemi.Gauge("no_such", kemi.LabelsOf("host", "a"), t0, 1)
	batch[93] = kemi.Gauge("no_such", kemi.LabelsOf("host", "b"), t0, 1)
	fs := failures(t, s.Write(t.Context(), batch), batch)
	if len(fs) != 2 || !kemi.IsPermanent(fs[17]) || !kemi.IsPermanent(fs[93]) {
		t.Errorf("failures: %v", fs)
	}
	if n := len(srv.Stored()); n != 98 {
		t.Errorf("%d of 98 good points stored", n)
	}
}

// TestRefusedForSize holds that the sink finds the size that the server takes, stores
// everything on the way, remembers it, and says once what to set.
func TestRefusedForSize(t *testing.T) {
	for _, c := range []struct {
		name   string
		server faketsd.Config
		most   int
	}{
		{"no chunks", faketsd.Config{AutoCreateMetrics: true}, 8192},
		{"small max_chunk", faketsd.Config{AutoCreateMetrics: true, EnableChunked: true}, 8192},
		{"max_chunk", faketsd.Config{AutoCreateMetrics: true, EnableChunked: true, MaxChunk: 20000}, 20000},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, c.server)
			var log bytes.Buffer
			logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}), zapcore.Lock(zapcore.AddSync(&log)), zap.InfoLevel))
			s := newSink(t, opentsdb.Config{URL: srv.URL(), Plain: true, MaxBytes: 100000, MaxPoints: 1000, Connections: 1, Logger: logger})
			batch := gauges(0, 1000)
			if err := s.Write(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if n := len(srv.Stored()); n != 1000 {
				t.Errorf("%d of 1000 points stored", n)
			}
			limit := s.Stats().MaxBytes
			if limit > c.most || limit < c.most/4 {
				t.Errorf("the limit became %d, and the server takes %d", limit, c.most)
			}
			before := len(srv.Requests())
			if err := s.Write(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			for _, n := range srv.Requests()[before:] {
				if n > limit {
					t.Errorf("a body of %d bytes though %d had been learned", n, limit)
				}
			}
			if n := strings.Count(log.String(), "tsd.http.request.max_chunk"); n != 1 {
				t.Errorf("what to set was said %d times:\n%s", n, log.String())
			}
		})
	}
}

// TestOnePointTooLarge holds that a point that is too large by itself is refused for
// good, and that the others are not.
func TestOnePointTooLarge(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "web1") {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	defer srv.Close()
	s := newSink(t, opentsdb.Config{URL: srv.URL, Plain: true})
	for _, n := range []int{3, 2, 5} {
		batch := gauges(0, n)
		fs := failures(t, s.Write(t.Context(), batch), batch)
		if len(fs) != 1 || !kemi.IsPermanent(fs[1]) || !strings.Contains(fs[1].Error(), "one metric takes") {
			t.Errorf("of %d points: %v", n, fs)
		}
	}
}

// TestServerThatLowersItsLimit holds that a size that was answered before is not above
// suspicion for ever: the server may have been set up anew. Each try learns something.
func TestServerThatLowersItsLimit(t *testing.T) {
	var limit atomic.Int64
	limit.Store(1 << 20)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); int64(len(body)) > limit.Load() {
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	s := newSink(t, opentsdb.Config{URL: srv.URL, Plain: true, MaxBytes: 1 << 20, MaxPoints: 1000})
	batch := gauges(0, 1000)
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	limit.Store(20000)
	for try := 1; ; try++ {
		err := s.Write(t.Context(), batch)
		if err == nil {
			break
		}
		for _, e := range failures(t, err, batch) {
			if kemi.IsPermanent(e) || try == 10 {
				t.Fatalf("try %d: %v", try, e)
			}
		}
	}
	if got := s.Stats().MaxBytes; got > 20000 {
		t.Errorf("the limit became %d", got)
	}
}

// TestServerGoingAwayIsNotSize holds that a closed connection does not lower the
// limit when the size is not to blame.
func TestServerGoingAwayIsNotSize(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true, EnableChunked: true, MaxChunk: 1 << 20})
	s := newSink(t, opentsdb.Config{URL: srv.URL(), Plain: true, MaxBytes: 1 << 20, MaxPoints: 1000})
	batch := gauges(0, 1000)
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	from := len(srv.Requests())
	srv.Faults(func(n int) faketsd.Fault { return faketsd.Fault{Drop: n < from+4} })
	for range 8 { // the HTTP client itself tries twice
		err := s.Write(t.Context(), batch)
		if err == nil {
			break
		}
		for _, e := range failures(t, err, batch) {
			if kemi.IsPermanent(e) {
				t.Fatalf("refused for good: %v", e)
			}
		}
	}
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().MaxBytes; got < 100000/2 {
		t.Errorf("the limit became %d", got)
	}
}

// TestStuckServer holds that a server whose HBase is gone is given up on in time, and
// that the next try does not wait behind the connection that hangs.
func TestStuckServer(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
	s := newSink(t, opentsdb.Config{URL: srv.URL(), Connections: 2, SyncTimeout: time.Second, Timeout: 2500 * time.Millisecond})
	known := gauges(0, 1)
	var both sync.WaitGroup // leaves two connections
	srv.Faults(func(int) faketsd.Fault { return faketsd.Fault{Delay: 50 * time.Millisecond} })
	for range 2 {
		both.Go(func() {
			if err := s.Write(t.Context(), known); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	srv.Faults(nil)
	srv.HBaseDown(true)
	start := time.Now()
	err := s.Write(t.Context(), gauges(1, 1)) // a new name: the server hangs
	if err == nil || !strings.Contains(err.Error(), "no answer within 2.5s") {
		t.Errorf("a server that hangs: %v", err)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("it took %v", d)
	}
	before := srv.Connections()
	err = s.Write(t.Context(), known)
	if err == nil || !strings.Contains(err.Error(), "not stored within 1s") {
		t.Errorf("a known name was not answered on another connection: %v", err)
	}
	if srv.Connections() == before {
		t.Error("the next try went over an old connection, which may hang on the same thread of the server")
	}
	srv.HBaseDown(false)
	if err := s.Write(t.Context(), append(known, gauge(1))); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

// TestStuckServerIsLeftAlone holds that a large batch does not try a dead server once
// for each request.
func TestStuckServerIsLeftAlone(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
	s := newSink(t, opentsdb.Config{URL: srv.URL(), MaxPoints: 1, Connections: 2, SyncTimeout: 20 * time.Millisecond, Timeout: 100 * time.Millisecond})
	srv.HBaseDown(true)
	batch := gauges(0, 200)
	if fs := failures(t, s.Write(t.Context(), batch), batch); len(fs) != 200 {
		t.Errorf("%d of 200 points failed", len(fs))
	}
	if n := len(srv.Requests()); n > 4 {
		t.Errorf("%d requests to a server that hangs", n)
	}
	srv.HBaseDown(false)
}

// TestRetryAfter runs the sink in a pipeline, which alone knows how long to wait.
func TestRetryAfter(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true})
	srv.Faults(func(n int) faketsd.Fault {
		if n == 0 {
			return faketsd.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}}
		}
		return faketsd.Fault{}
	})
	source := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error { return out.Write(ctx, gauges(0, 5)) })
	flow := kemi.Connect("store", source, newSink(t, opentsdb.Config{URL: srv.URL()}), kemi.Backoff(time.Millisecond, time.Millisecond))
	start := time.Now()
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{flow}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < time.Second {
		t.Errorf("tried again after %v", d)
	}
	if len(srv.Stored()) != 5 {
		t.Errorf("%d of 5 stored", len(srv.Stored()))
	}
}

// TestSecretsStaySecret looks for a password and a token in everything the sink says.
func TestSecretsStaySecret(t *testing.T) {
	srv := serve(t, faketsd.Config{AutoCreateMetrics: true, Header: func(h http.Header) bool {
		u, p, _ := (&http.Request{Header: h}).BasicAuth()
		return u == "kemi" && p == "hunter2" && h.Get("X-Token") == "hunter2"
	}})
	host := strings.TrimPrefix(srv.URL(), "http://")
	cfg := opentsdb.Config{URL: "http://kemi:hunter2@" + host + "/?key=hunter2", Authorize: func(r *http.Request) error {
		r.Header.Set("X-Token", "hunter2")
		return nil
	}}
	s := newSink(t, cfg)
	if err := s.Write(t.Context(), gauges(0, 2)); err != nil {
		t.Fatal(err)
	}
	said := []string{fmt.Sprint(s), fmt.Sprint(cfg), fmt.Sprintf("%+v %#v %d %q", cfg, cfg, cfg, &cfg), fmt.Sprintf("%+v %#v %d", s, s, s)}
	srv.Close()
	said = append(said, s.Write(t.Context(), gauges(0, 2)).Error())
	cfg.Authorize = func(*http.Request) error { return errors.New("the vault is shut") }
	err := newSink(t, cfg).Write(t.Context(), gauges(0, 2))
	said = append(said, err.Error())
	if !strings.Contains(err.Error(), "the vault is shut") {
		t.Errorf("the reason is lost: %v", err)
	}
	for _, text := range said {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, host) {
			t.Errorf("it says %q", text)
		}
	}
}

// TestEchoesStaySecret writes through proxies that say again what they were sent.
func TestEchoesStaySecret(t *testing.T) {
	head := func(r *http.Request) string {
		var b strings.Builder
		_ = r.Header.Write(&b)
		return r.RequestURI + "\n" + b.String()
	}
	for _, c := range []struct {
		name string
		say  func(w http.ResponseWriter, r *http.Request)
		want string
	}{
		{"a page", func(w http.ResponseWriter, r *http.Request) { http.Error(w, head(r), http.StatusBadGateway) }, "/api/put?(redacted)"},
		{"a message", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"message": "bad request: " + head(r)}})
		}, "bad request: "},
		{"a refused point", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"success":0,"failed":1,"errors":[`+entry(0, "not for "+r.Header.Get("X-Token"))+`]}`)
		}, "not for (redacted)"},
		{"a point of the storage", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"success":0,"failed":1,"errors":[`+entry(0, "Storage exception: "+r.Header.Get("X-Token"))+`]}`)
		}, "Storage exception: (redacted)"},
		{"a redirect to nowhere", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[::1"+r.RequestURI)
			w.WriteHeader(http.StatusMovedPermanently)
		}, "redirects are not followed"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "POST "+r.RequestURI+"\r\n\r\n")
		}, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				c.say(w, r)
			}))
			defer srv.Close()
			s := newSink(t, opentsdb.Config{
				URL:       strings.Replace(srv.URL, "://", "://kemi:hunter2@", 1) + "/?key=hunter2",
				Authorize: func(r *http.Request) error { r.Header.Set("X-Token", "hunter2"); return nil },
			})
			batch := gauges(0, 1)
			err := failures(t, s.Write(t.Context(), batch), batch)[0]
			basic := base64.StdEncoding.EncodeToString([]byte("kemi:hunter2"))
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "hunter2") || strings.Contains(text, basic) {
				t.Errorf("it says %s", text)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
