package opentsdb_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/sink/sinktest"
)

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		sink opentsdb.Config
	}{
		{"gzip", opentsdb.Config{}},
		{"plain", opentsdb.Config{Plain: true}},
		{"small requests", opentsdb.Config{MaxPoints: 3, Connections: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sinktest.Run(t, func(tb testing.TB) sinktest.Harness[kemi.Metric] {
				srv := serve(tb, faketsd.Config{})
				srv.AssignMetric("cpu_used_percent")
				c.sink.URL = srv.URL()
				c.sink.SyncTimeout = time.Minute
				return sinktest.Harness[kemi.Metric]{
					Sink:   newSink(tb, c.sink),
					New:    gauge,
					Stored: func() []kemi.Metric { return stored(srv) },
					Crash: func() {
						srv.Kill()
						restart(tb, srv)
					},
					Bad: func(i int) kemi.Metric {
						l := kemi.LabelsOf("host", "bad"+strconv.Itoa(i))
						switch i % 3 {
						case 0: // known to the server alone
							return kemi.Gauge("unknown", l, t0, 1)
						case 1:
							return kemi.Gauge("cpu_used_percent", l, t0, math.NaN())
						}
						return kemi.Gauge("cpu_used_percent", kemi.Labels{}, t0, 1)
					},
					Down: func() (up func()) {
						srv.Kill()
						return func() { restart(tb, srv) }
					},
					Block: func() (release func()) {
						srv.HBaseDown(true)
						return func() { srv.HBaseDown(false) }
					},
				}
			})
		})
	}
}

func restart(tb testing.TB, srv *faketsd.Server) {
	tb.Helper()
	if err := srv.Restart(); err != nil {
		tb.Fatal(err)
	}
}
