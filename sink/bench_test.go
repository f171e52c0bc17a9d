package sink_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
)

func metrics(n int) []kemi.Metric {
	now := time.Unix(1_700_000_000, 0).UTC()
	batch := make([]kemi.Metric, n)
	for i := range batch {
		batch[i] = kemi.Gauge("cpu_used_percent", kemi.LabelsOf("host", fmt.Sprint("h", i%20)), now, float64(i))
	}
	return batch
}

func perRecord(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
}

func BenchmarkTee(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("batch=", n), func(b *testing.B) {
			s := sink.Tee(sink.Discard[kemi.Metric](), sink.Discard[kemi.Metric]())
			batch := metrics(n)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			perRecord(b, n)
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	host := func(m kemi.Metric) string { return m.Host() }
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("batch=", n), func(b *testing.B) {
			s := sink.Route(host, map[string]kemi.Sink[kemi.Metric]{"h0": sink.Discard[kemi.Metric]()}, sink.Discard[kemi.Metric]())
			batch := metrics(n)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			perRecord(b, n)
		})
	}
}

// BenchmarkCoalesce has 64 writers of 10 records on a sink that takes 100 µs for a
// call of any size, with a group commit and without.
func BenchmarkCoalesce(b *testing.B) {
	const n = 10
	var calls atomic.Int64
	var turn = make(chan struct{}, 1)
	to := kemi.SinkFunc[kemi.Metric](func(context.Context, []kemi.Metric) error {
		turn <- struct{}{}
		for began := time.Now(); time.Since(began) < 100*time.Microsecond; {
		}
		<-turn
		calls.Add(1)
		return nil
	})
	for _, c := range []struct {
		name string
		sink kemi.Sink[kemi.Metric]
	}{
		{"alone", to},
		{"coalesced", sink.Coalesce[kemi.Metric](to, 1000, 0)},
		{"free", sink.Coalesce(sink.Discard[kemi.Metric](), 1000, 0)}, // what it costs itself
	} {
		b.Run(c.name, func(b *testing.B) {
			calls.Store(0)
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				batch := metrics(n)
				for pb.Next() {
					if err := c.sink.Write(b.Context(), batch); err != nil {
						b.Error(err)
					}
				}
			})
			perRecord(b, n)
			if made := calls.Load(); made > 0 {
				b.ReportMetric(float64(b.N)/float64(made), "writes/call")
			}
		})
	}
}

// TestAllocations holds the budget of a batch of a hundred records, whatever its
// fate: a twentieth of an allocation for a record.
func TestAllocations(t *testing.T) {
	d := sink.Discard[kemi.Metric]()
	host := func(m kemi.Metric) string { return m.Host() }
	batch := metrics(100)
	for name, c := range map[string]struct {
		sink kemi.Sink[kemi.Metric]
		max  float64
	}{
		"Tee":                      {sink.Tee(d, d), 5},
		"Route to one":             {sink.Route(host, nil, d), 1},
		"Coalesce of a lone Write": {sink.Coalesce(d, 1000, 0), 14},
		"Coalesce of a full batch": {sink.Coalesce(d, 100, 0), 0},
		"Timeout":                  {sink.Timeout(d, time.Hour), 6},
	} {
		got := testing.AllocsPerRun(200, func() {
			if err := c.sink.Write(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		})
		if got > c.max {
			t.Errorf("%s: %v allocations for a batch of 100, want at most %v", name, got, c.max)
		}
	}
}
