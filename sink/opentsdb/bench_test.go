package opentsdb_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

// storesAll is a server that takes everything and answers as OpenTSDB does.
func storesAll(tb testing.TB) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	tb.Cleanup(srv.Close)
	return srv.URL
}

func polls(n int) []kemi.Metric {
	batch := make([]kemi.Metric, n)
	for i := range batch {
		l := kemi.LabelsOf("host", "web"+strconv.Itoa(i/60), "interface", "eth"+strconv.Itoa(i%60), "ifindex", strconv.Itoa(i%60))
		batch[i] = kemi.Gauge("if_in_bits_per_second", l, t0, float64(i)*1234.5678)
	}
	return batch
}

// TestWriteAllocates bounds the allocations of a whole Write: those of the requests,
// whatever the number of points.
func TestWriteAllocates(t *testing.T) {
	s := newSink(t, opentsdb.Config{URL: storesAll(t)})
	batch := polls(500)
	per := testing.AllocsPerRun(20, func() {
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}) / float64(len(batch))
	t.Logf("%.2f allocations for a point, the test's server included", per)
	if per > 1 {
		t.Errorf("%.2f allocations for a point", per)
	}
}

// BenchmarkWrite writes batches of 2000 points over loopback, with the sink and with
// what one would write by hand: encoding/json, net/http, 50 points a request.
func BenchmarkWrite(b *testing.B) {
	batch := polls(2000)
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.N)*float64(len(batch))/b.Elapsed().Seconds(), "points/s")
	}
	for _, c := range []struct {
		name string
		cfg  opentsdb.Config
	}{{"kemi", opentsdb.Config{}}, {"kemi plain", opentsdb.Config{Plain: true}}} {
		b.Run(c.name, func(b *testing.B) {
			c.cfg.URL = storesAll(b)
			s := newSink(b, c.cfg)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			report(b)
		})
	}
	b.Run("by hand", func(b *testing.B) {
		url := storesAll(b) + "/api/put?details&sync&sync_timeout=10000"
		b.ReportAllocs()
		for b.Loop() {
			for i := 0; i < len(batch); i += 50 {
				if err := putByHand(url, batch[i:i+50]); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b)
	})
}

func putByHand(url string, batch []kemi.Metric) error {
	type dp struct {
		Metric    string            `json:"metric"`
		Timestamp int64             `json:"timestamp"`
		Value     float64           `json:"value"`
		Tags      map[string]string `json:"tags"`
	}
	points := make([]dp, 0, len(batch))
	for _, m := range batch {
		tags := map[string]string{}
		for k, v := range m.Labels.All() {
			tags[k] = v
		}
		points = append(points, dp{m.Name, m.Time.Unix(), m.Float(), tags})
	}
	body, err := json.Marshal(points)
	if err != nil {
		return err
	}
	resp, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

func BenchmarkEscape(b *testing.B) {
	for _, s := range []string{"if_in_bits_per_second", "eth0:1", "서울"} {
		b.Run(s, func(b *testing.B) {
			buf := make([]byte, 0, 64)
			b.ReportAllocs()
			for b.Loop() {
				buf = opentsdb.AppendEscape(buf[:0], s)
			}
		})
	}
}
