package kemi_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// chain runs write, given the inlet of a flow, inside a running pipeline.
func chain(tb testing.TB, flow func(src kemi.Source[kemi.Metric]) *kemi.Flow, write func(ctx context.Context, in kemi.Sink[kemi.Metric])) {
	tb.Helper()
	src := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		write(ctx, out)
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{flow(src)}}
	if err := p.Run(context.Background()); err != nil {
		tb.Fatal(err)
	}
	if err := p.Stats()[0].Balance(); err != nil {
		tb.Fatal(err)
	}
}

func discard() kemi.Sink[kemi.Metric] {
	return kemi.SinkFunc[kemi.Metric](func(context.Context, []kemi.Metric) error { return nil })
}

// double is a stateless transform; sum has state and forks.
type double struct{}

func (double) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		dst = append(dst, kemi.Gauge(m.Name, m.Labels, m.Time, 2*m.Float()))
	}
	return dst, nil
}

type sum struct{ total float64 }

func (*sum) Fork() kemi.Transform[kemi.Metric, kemi.Metric] { return &sum{} }
func (s *sum) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		s.total += m.Float()
		dst = append(dst, kemi.Gauge(m.Name, m.Labels, m.Time, s.total))
	}
	return dst, nil
}

// shapes are the flows the budgets are about.
var shapes = []struct {
	name string
	flow func(src kemi.Source[kemi.Metric]) *kemi.Flow
}{
	{"connect", func(src kemi.Source[kemi.Metric]) *kemi.Flow { return kemi.Connect("f", src, discard()) }},
	{"pipe", func(src kemi.Source[kemi.Metric]) *kemi.Flow { return kemi.Pipe("f", src, double{}, discard()) }},
	{"pipe-state", func(src kemi.Source[kemi.Metric]) *kemi.Flow { return kemi.Pipe("f", src, &sum{}, discard()) }},
}

func metrics(n int) []kemi.Metric {
	now := time.Unix(1_700_000_000, 0).UTC()
	batch := make([]kemi.Metric, n)
	for i := range batch {
		batch[i] = kemi.Gauge("cpu_used", kemi.LabelsOf("host", fmt.Sprint("h", i%20)), now, float64(i))
	}
	return batch
}

func BenchmarkFlow(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/batch=%d", s.name, n), func(b *testing.B) {
				batch := metrics(n)
				chain(b, s.flow, func(ctx context.Context, in kemi.Sink[kemi.Metric]) {
					b.ReportAllocs()
					for b.Loop() {
						if err := in.Write(ctx, batch); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
			})
		}
	}
}

// TestFlowAllocations holds the budget: a hundredth of an allocation per record at
// batches of a hundred, which is the context of a Write.
func TestFlowAllocations(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			batch := metrics(100)
			chain(t, s.flow, func(ctx context.Context, in kemi.Sink[kemi.Metric]) {
				got := testing.AllocsPerRun(100, func() {
					if err := in.Write(ctx, batch); err != nil {
						t.Fatal(err)
					}
				})
				if got > 1 {
					t.Errorf("%v allocations for a batch of 100, want at most 1", got)
				}
			})
		})
	}
}
