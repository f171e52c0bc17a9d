package promql

import (
	"context"
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/kemi-go/kemi"
)

func benchRules(t testing.TB, exprs ...string) *Rules {
	t.Helper()
	text := []byte("groups:\n- name: g\n  rules:\n")
	for i, e := range exprs {
		text = fmt.Appendf(text, "  - {alert: A%d, expr: '%s'}\n", i, e)
	}
	r, err := New(Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: text}}, Delay: -1})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func hostLabels(i int) []string {
	return []string{"host", fmt.Sprintf("host-%05d.example.com", i), "service", fmt.Sprintf("service-%03d", i%200), "zone", fmt.Sprintf("z%d", i%4), "cpu", "all"}
}

func hostsBatch(n int, name string) []kemi.Metric {
	batch := make([]kemi.Metric, n)
	for i := range batch {
		batch[i] = kemi.Gauge(name, kemi.LabelsOf(hostLabels(i)...), epoch, float64(i%100))
	}
	return batch
}

// BenchmarkIngest tells the time of one metric, in batches of 100.
func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct{ name, metric, expr string }{
		{"known", "cpu", `cpu > 90`},
		{"unselected_name", "other", `cpu > 90`},
		{"unselected_series", "cpu", `cpu{host="no"} > 90`},
		{"unselected_name_beside_loose", "other", `cpu > 90 and {__name__=~"net_.*"} > 1`},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := benchRules(b, c.expr)
			const series = 50_000
			all := hostsBatch(series, c.metric)
			ctx := context.Background()
			at, next := epoch, series
			b.ReportAllocs()
			for done := 0; done < b.N; done += 100 {
				if next == series {
					next, at = 0, at.Add(15*time.Second)
					b.StopTimer()
					for i := range all {
						all[i].Time = at
					}
					r.store.base.Store(at.UnixMilli())
					r.store.now.Store(at.UnixMilli())
					b.StartTimer()
				}
				_, _ = r.Apply(ctx, nil, all[next:next+100])
				next += 100
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/metric")
		})
	}
}

// BenchmarkQuery evaluates an expression over 50 000 series of ten samples, on the
// hot store and on the storage of Prometheus.
func BenchmarkQuery(b *testing.B) {
	const series, samples, step = 50_000, 10, 30 * time.Second
	exprs := []string{
		`avg by (service)(cpu) > 90`, `cpu > 99`, `cpu{host="host-00042.example.com"} > 90`,
		`sum by (service)(rate(cpu[5m])) > 1e9`, `cpu < 0.5 * (cpu offset 5m)`,
	}
	r := benchRules(b, exprs...)
	all := hostsBatch(series, "cpu")
	end := epoch
	tsdb := teststorage.New(b)
	app := tsdb.AppenderV2(context.Background())
	refs := make([]storage.SeriesRef, series)
	for i := range samples {
		end = epoch.Add(time.Duration(i) * step)
		for j := range all {
			all[j] = kemi.Gauge("cpu", all[j].Labels, end, float64((i*7+j)%100))
			var err error
			refs[j], err = app.Append(refs[j], labels.FromStrings(append(hostLabels(j), "__name__", "cpu")...), 0, end.UnixMilli(), all[j].Float(), nil, nil, storage.AOptions{})
			if err != nil {
				b.Fatal(err)
			}
		}
		_, _ = r.Apply(context.Background(), nil, all)
	}
	if err := app.Commit(); err != nil {
		b.Fatal(err)
	}
	for _, expr := range exprs {
		for _, c := range []struct {
			name string
			q    storage.Queryable
		}{{"hot", r.store}, {"tsdb", tsdb}} {
			b.Run(c.name+"/"+expr, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					q, err := r.engine.NewInstantQuery(context.Background(), c.q, prom.NewPrometheusQueryOpts(false, 0), expr, end)
					if err != nil {
						b.Fatal(err)
					}
					if res := q.Exec(context.Background()); res.Err != nil {
						b.Fatal(res.Err)
					}
					q.Close()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/series")
			})
		}
	}
}

// BenchmarkTick evaluates a rule with a thousand firing alerts.
func BenchmarkTick(b *testing.B) {
	r := benchRules(b, `cpu >= 0`)
	for _, g := range r.groups {
		for _, x := range g.rules {
			x.annotations = append(x.annotations, text{name: "s", source: "fixed"})
		}
	}
	batch := hostsBatch(1000, "cpu")
	at := epoch
	var told []kemi.Alert
	for b.Loop() {
		at = at.Add(15 * time.Second)
		for i := range batch {
			batch[i].Time = at
		}
		_, _ = r.Apply(context.Background(), nil, batch)
		told, _ = r.Tick(context.Background(), told[:0], at)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/alert")
}
