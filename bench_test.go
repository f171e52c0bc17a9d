package kemi_test

import (
	"context"
	"fmt"
	"strconv"
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

// BenchmarkFlow measures a Write through a flow. "bare" is the same transform and sink
// called by hand: what the engine costs is the difference.
func BenchmarkFlow(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("bare/batch=%d", n), func(b *testing.B) {
			var (
				via     kemi.Transform[kemi.Metric, kemi.Metric] = double{}
				to                                               = discard()
				batch                                            = metrics(n)
				scratch []kemi.Metric
			)
			b.ReportAllocs()
			for b.Loop() {
				scratch, _ = via.Apply(b.Context(), scratch[:0], batch)
				if err := to.Write(b.Context(), scratch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
		})
	}
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

// allocs is how many allocations f makes. The whole program is counted, also what a
// goroutine of a test before does that is on its way out: that only adds, so the least
// of a few counts is f's own.
func allocs(f func()) float64 {
	least := testing.AllocsPerRun(100, f)
	for range 4 {
		least = min(least, testing.AllocsPerRun(100, f))
	}
	return least
}

// TestFlowAllocations holds the budget of a hundredth of an allocation per record, and
// more: a flow whose source hands on one context makes none at all, and a deadline
// costs what the context package takes for it.
func TestFlowAllocations(t *testing.T) {
	for _, s := range shapes {
		for _, n := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s/batch=%d", s.name, n), func(t *testing.T) {
				batch := metrics(n)
				chain(t, s.flow, func(ctx context.Context, in kemi.Sink[kemi.Metric]) {
					write := func(ctx context.Context) func() {
						return func() {
							if err := in.Write(ctx, batch); err != nil {
								t.Fatal(err)
							}
						}
					}
					if got := allocs(write(ctx)); got > 0 {
						t.Errorf("%v allocations for a batch of %d, want none", got, n)
					}
					c, cancel := context.WithTimeout(ctx, time.Hour)
					defer cancel()
					if got := allocs(write(c)); got > 5 {
						t.Errorf("%v allocations for a batch of %d with a deadline, want at most 5", got, n)
					}
				})
			})
		}
	}
}

// TestLabelsAllocations: to make a set that exists costs nothing.
func TestLabelsAllocations(t *testing.T) {
	base := kemi.LabelsOf("host", "web1", "disk", "/")
	with := base.With("mode", "idle")
	for name, f := range map[string]func() kemi.Labels{
		"LabelsOf": func() kemi.Labels { return kemi.LabelsOf("disk", "/", "mode", "idle", "host", "web1") },
		"NewLabels": func() kemi.Labels {
			return kemi.NewLabels(kemi.Label{Name: "mode", Value: "idle"}, kemi.Label{Name: "host", Value: "web1"}, kemi.Label{Name: "disk", Value: "/"})
		},
		"With":    func() kemi.Labels { return base.With("mode", "idle") },
		"Without": func() kemi.Labels { return with.With("x", "").Without("y") },
	} {
		if got := allocs(func() {
			if f() != with {
				t.Fatal("another set")
			}
		}); got > 0 {
			t.Errorf("%s: %v allocations, want none", name, got)
		}
	}
	if got := allocs(func() { _, _ = with.Get("host"), with.Hash() }); got > 0 {
		t.Errorf("reading: %v allocations", got)
	}
}

func BenchmarkLabels(b *testing.B) {
	pairs := []string{"host", "web1", "interface", "eth0", "ifindex", "2", "dc", "a", "service", "www", "role", "front"}
	held := kemi.LabelsOf(pairs...)
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if kemi.LabelsOf(pairs...) != held {
				b.Fatal("another set")
			}
		}
	})
	b.Run("known/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				kemi.LabelsOf(pairs...)
			}
		})
	})
	b.Run("with", func(b *testing.B) {
		b.ReportAllocs()
		with := held.With("mode", "idle")
		for b.Loop() {
			if held.With("mode", "idle") != with {
				b.Fatal("another set")
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			kemi.LabelsOf("host", strconv.Itoa(i), "disk", "/")
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			held.Get("service")
		}
	})
}
