package opentsdb_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

var t0 = time.Unix(1795205855, 0).UTC()

// serve starts a fake server that flushes quickly.
func serve(tb testing.TB, cfg faketsd.Config) *faketsd.Server {
	tb.Helper()
	if cfg.FlushInterval == 0 {
		cfg.FlushInterval = 2 * time.Millisecond
	}
	srv, err := faketsd.Start(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(srv.Close)
	return srv
}

func newSink(tb testing.TB, cfg opentsdb.Config) *opentsdb.Sink {
	tb.Helper()
	s, err := opentsdb.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// gauge is reading i of a gauge: another host for every other i.
func gauge(i int) kemi.Metric {
	return kemi.Gauge("cpu_used_percent", kemi.LabelsOf("host", "web"+strconv.Itoa(i)), t0, float64(i)+0.5)
}

func gauges(from, n int) []kemi.Metric {
	b := make([]kemi.Metric, n)
	for i := range b {
		b[i] = gauge(from + i)
	}
	return b
}

// stored is what the server has, as metrics.
func stored(srv *faketsd.Server) []kemi.Metric {
	var out []kemi.Metric
	for _, p := range srv.Stored() {
		var labels []kemi.Label
		for k, v := range p.Tags {
			labels = append(labels, kemi.Label{Name: opentsdb.Unescape(k), Value: opentsdb.Unescape(v)})
		}
		at := time.Unix(p.Timestamp, 0).UTC()
		name, l := opentsdb.Unescape(p.Metric), kemi.NewLabels(labels...)
		if p.Float {
			v, _ := strconv.ParseFloat(p.Value, 64)
			out = append(out, kemi.Gauge(name, l, at, v))
		} else {
			v, _ := strconv.ParseUint(p.Value, 10, 64)
			out = append(out, kemi.Counter(name, l, at, v))
		}
	}
	return out
}

// failures takes the error of a Write apart.
func failures(t *testing.T, err error, batch []kemi.Metric) map[int]error {
	t.Helper()
	if err == nil {
		return nil
	}
	fs, ok := kemi.Failures(err, batch)
	if !ok {
		t.Fatalf("the error is not about records of the batch: %v", err)
	}
	m := map[int]error{}
	for _, f := range fs {
		m[f.Index] = f.Err
	}
	return m
}

// hideEchoes is a proxy that takes from answers which points are meant.
func hideEchoes(t *testing.T, url string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, url+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		req.ContentLength, req.Header = r.ContentLength, r.Header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		in := io.Reader(resp.Body)
		if resp.Header.Get("Content-Encoding") == "gzip" {
			if in, err = gzip.NewReader(in); err != nil {
				t.Error(err)
				return
			}
		}
		body, _ := io.ReadAll(in)
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(bytes.ReplaceAll(body, []byte(`"metric":`), []byte(`"name":`)))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}
