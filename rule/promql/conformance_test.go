package promql_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/rule/promql"
	"github.com/kemi-go/kemi/transform/transformtest"
)

var (
	_ kemi.Rule[kemi.Metric]    = (*promql.Rules)(nil)
	_ kemi.Ticker[kemi.Alert]   = (*promql.Rules)(nil)
	_ kemi.Finisher[kemi.Alert] = (*promql.Rules)(nil)
	_ kemi.Warmer               = (*promql.Rules)(nil)
	_ kemi.Prover               = (*promql.Rules)(nil)
	_ kemi.Keeper               = (*promql.Rules)(nil)
	_ kemi.Aggregator           = (*promql.Rules)(nil)
)

const rules = `
groups:
- name: g
  interval: 2s
  rules:
  - {record: 'service:cpu:avg', expr: 'avg by (service) (cpu)'}
  - {alert: Hot, expr: 'cpu > 80', for: 4s, annotations: {s: '{{ $value }}'}}
  - {alert: Busy, expr: 'service:cpu:avg > 60'}
`

func newRules(tb testing.TB) *promql.Rules {
	r, err := promql.New(promql.Config{
		Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(rules)}},
		Lookback: 10 * time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestConformance holds the rules to the contract of a Transform. Alerts here last for
// a few seconds, so that those of the horizon are all there is.
func TestConformance(t *testing.T) {
	transformtest.Run(t, func(tb testing.TB) transformtest.Harness[kemi.Metric, kemi.Alert] { return harness(tb, 90) })
}

// TestAReplayIsProved is a check of the suite, over several horizons.
func TestAReplayIsProved(t *testing.T) {
	if h := newRules(t).Horizon(); h > 2*time.Minute {
		t.Fatalf("the horizon is %v: the input is too short", h)
	}
	transformtest.Prove(t, harness(t, 400))
}

func harness(tb testing.TB, batches int) transformtest.Harness[kemi.Metric, kemi.Alert] {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	h := transformtest.Harness[kemi.Metric, kemi.Alert]{
		New:            func() kemi.Transform[kemi.Metric, kemi.Alert] { return newRules(tb) },
		BatchInvariant: true,
		TickAt:         func(i int) time.Time { return start.Add(time.Duration(i+1) * time.Second) },
		Time:           func(m kemi.Metric) time.Time { return m.Time },
	}
	for i := range batches {
		var b []kemi.Metric
		for host := range 3 {
			v := 10.0
			if (i/8+host)%3 == 0 {
				v = 90
			}
			ls := kemi.LabelsOf("host", fmt.Sprintf("web%d", host), "service", fmt.Sprintf("s%d", host%2))
			b = append(b, kemi.Gauge("cpu", ls, start.Add(time.Duration(i)*time.Second), v))
		}
		h.Batches = append(h.Batches, b)
	}
	return h
}

type group struct{ kemi.Source[kemi.Metric] }

func (group) Shares() bool { return true }

// TestInAPipeline runs the rules as a program would: ticked by the flow, fed by a
// source that goes silent.
func TestInAPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Second):
				}
				v := 10.0
				if i >= 20 && i < 40 {
					v = 95
				}
				m := kemi.Gauge("cpu", kemi.LabelsOf("host", "web1", "service", "s"), time.Now().UTC(), v)
				if err := out.Write(ctx, []kemi.Metric{m}); err != nil {
					return err
				}
			}
		})
		var mu sync.Mutex
		var told []string
		sink := kemi.SinkFunc[kemi.Alert](func(_ context.Context, batch []kemi.Alert) error {
			mu.Lock()
			defer mu.Unlock()
			for _, a := range batch {
				told = append(told, a.Rule+" "+a.State.String())
			}
			return nil
		})
		r := newRules(t)
		ctx, stop := context.WithTimeout(t.Context(), 70*time.Second)
		defer stop()
		p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("rules", source, r, sink)}}
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(told); got != "[Busy firing Hot firing Hot resolved Busy resolved]" {
			t.Fatalf("told %v", told)
		}
		if err := p.Flows[0].Stats().Balance(); err != nil {
			t.Fatal(err)
		}
		part := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe[kemi.Metric, kemi.Alert]("rules", group{source}, newRules(t), sink)}}
		if err := part.Run(ctx); err == nil {
			t.Fatal("rules that combine hosts were given a part of the topic")
		}
	})
}
