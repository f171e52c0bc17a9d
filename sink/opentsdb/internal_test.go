package opentsdb

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

func sample(n int) []kemi.Metric {
	at := time.Unix(1795205855, 0).UTC()
	batch := make([]kemi.Metric, n)
	for i := range batch {
		l := kemi.LabelsOf("host", "web"+strconv.Itoa(i/60), "interface", "eth"+strconv.Itoa(i%60), "ifindex", strconv.Itoa(i%60))
		batch[i] = kemi.Gauge("if_in_bits_per_second", l, at, float64(i)*1234.5678)
	}
	return batch
}

// FuzzAnswer gives the sink any answer: it never takes more points for stored than
// the server says, and its memory is bounded.
func FuzzAnswer(f *testing.F) {
	dp := `{"metric":"if_in_bits_per_second","timestamp":1795205855,"value":"0.0","tags":{"host":"web0","interface":"eth0","ifindex":"0"}}`
	for _, s := range []string{
		"", "{}", "null", "[]", `{"success":3,"failed":0,"errors":[]}`,
		`{"success":2,"failed":1,"errors":[{"datapoint":` + dp + `,"error":"Missing tags"}]}`,
		`{"success":0,"timeouts":3,"failed":0,"errors":[{"datapoint":` + dp + `,"error":"Write timedout"}]}`,
		`{"error":{"code":400,"message":"No datapoints found in content","trace":"x"}}`,
		`{"success":1e400}`, `{"errors":{}}`, `{"success":3,"failed":0} x`, "Chunked request not supported",
	} {
		f.Add(200, []byte(s))
		f.Add(400, []byte(s))
	}
	s, err := New(Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		f.Fatal(err)
	}
	const n = 3
	batch := sample(n)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		p := s.plan(batch)
		resp := &http.Response{StatusCode: status, Status: strconv.Itoa(status), Request: &http.Request{}, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}
		a := s.read(resp, len(p.json), n)
		if a.err != nil {
			return
		}
		d := &delivery{plan: p, sink: s, ctx: t.Context()}
		stop := io.ErrClosedPipe // what would be sent again fails instead
		halved := error(stop)
		d.stop.Store(&halved)
		d.judge(&a, 0, n)
		if d.lost != len(p.failed) || d.lost > n {
			t.Fatalf("lost %d, failures %v", d.lost, p.failed)
		}
		if stored := n - d.lost; !a.empty && stored > 0 && stored != a.success {
			t.Fatalf("%d points taken for stored, the server says %d", stored, a.success)
		}
	})
}

// TestPlanAllocates nothing, once its buffers have grown.
func TestPlanAllocates(t *testing.T) {
	s, err := New(Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	batch := sample(500)
	per := testing.AllocsPerRun(50, func() { s.release(s.plan(batch)) }) / float64(len(batch))
	if per > 0.1 { // the race detector empties pools at random
		t.Errorf("%.3f allocations for a point", per)
	}
}
