package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/notify/webhook"
	"github.com/kemi-go/kemi/sink/sinktest"
)

var t0 = time.Date(2026, 11, 20, 22, 37, 38, 123e6, time.UTC)

func alertOf(rule, host string, state kemi.AlertState) kemi.Alert {
	l := kemi.LabelsOf("alertname", rule, "host", host, "severity", "page")
	a := kemi.Alert{
		Rule: rule, Labels: l, Annotations: kemi.LabelsOf("d", "x"), State: state,
		Time: t0.Add(time.Minute), StartsAt: t0, Value: 97.5, Fingerprint: kemi.Fingerprint(l.Hash()),
	}
	if state == kemi.StateResolved {
		a.EndsAt = t0.Add(time.Minute)
	}
	return a
}

// receiver is an endpoint that keeps what it accepts.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	got   []request
	fault func(w http.ResponseWriter, r *http.Request, body []byte) (answered bool) // before anything
}

type request struct {
	header http.Header
	body   []byte
	webhook.Message
}

func receive(tb testing.TB) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.mu.Lock()
		fault := r.fault
		r.mu.Unlock()
		if fault != nil && fault(w, req, body) {
			return
		}
		in := request{header: req.Header, body: body}
		if err := json.Unmarshal(body, &in.Message); err != nil {
			tb.Errorf("body %s: %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, in)
	}))
	tb.Cleanup(r.Server.Close)
	return r
}

func (r *receiver) setFault(f func(w http.ResponseWriter, r *http.Request, body []byte) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

func (r *receiver) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.got...)
}

func newSink(tb testing.TB, cfg webhook.Config) *webhook.Sink {
	tb.Helper()
	s, err := webhook.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(tb testing.TB) sinktest.Harness[kemi.Alert] {
		r := receive(tb)
		refuse := func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
			if strings.Contains(string(body), "Unwanted") {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return true
			}
			return false
		}
		r.setFault(refuse)
		return sinktest.Harness[kemi.Alert]{
			Sink: newSink(tb, webhook.Config{URL: r.URL, Timeout: time.Minute}),
			New: func(i int) kemi.Alert {
				return alertOf(fmt.Sprint("Rule", i%3), fmt.Sprint("web", i), kemi.StateFiring)
			},
			Bad: func(i int) kemi.Alert { return alertOf("Unwanted", fmt.Sprint("web", i), kemi.StateFiring) },
			Key: func(a kemi.Alert) string { return a.Fingerprint.String() + a.StartsAt.String() },
			Stored: func() []kemi.Alert {
				var all []kemi.Alert
				for _, in := range r.requests() {
					for _, a := range in.Alerts {
						all = append(all, kemi.Alert{Labels: a.Labels, StartsAt: a.StartsAt, Fingerprint: a.Fingerprint})
					}
				}
				return all
			},
			Down: func() (up func()) {
				r.setFault(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
					w.WriteHeader(http.StatusBadGateway)
					return true
				})
				return func() { r.setFault(refuse) }
			},
			Block: func() (release func()) {
				stop := make(chan struct{})
				r.setFault(func(_ http.ResponseWriter, req *http.Request, _ []byte) bool {
					select {
					case <-stop:
					case <-req.Context().Done():
					}
					panic(http.ErrAbortHandler)
				})
				return func() {
					close(stop)
					r.setFault(refuse)
				}
			},
		}
	})
}
