package memory_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// polls are batches of n metrics, each of one host, as a poller makes them.
func polls(n, hosts int) [][]kemi.Metric {
	at := time.Unix(1_700_000_000, 0).UTC()
	batches := make([][]kemi.Metric, hosts)
	for h := range batches {
		labels := kemi.LabelsOf(kemi.LabelHost, fmt.Sprint("web", h))
		for i := range n {
			batches[h] = append(batches[h], kemi.Gauge("load1", labels, at, float64(i)))
		}
	}
	return batches
}

// through is a topic with a group that reads it, and counts what it was given.
func through(tb testing.TB, partitions int) (topic *memory.Topic[kemi.Metric], got *atomic.Int64, stop func()) {
	topic, err := memory.NewTopic("metrics", memory.Config[kemi.Metric]{Partitions: partitions})
	if err != nil {
		tb.Fatal(err)
	}
	got = new(atomic.Int64)
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("count", topic.Group("g"),
		kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error { got.Add(int64(len(batch))); return nil }))}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	return topic, got, func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkTopic measures a record through a topic, from Write to the sink of a flow
// behind it, next to what a program without kemi would do: a copy of each batch on a
// channel. The channel has no keys, positions, groups or bound in records.
func BenchmarkTopic(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		batches := polls(n, 64)
		perRecord := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		}
		for _, partitions := range []int{1, 64} {
			b.Run(fmt.Sprintf("batch=%d/partitions=%d", n, partitions), func(b *testing.B) {
				topic, got, stop := through(b, partitions)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if err := topic.Write(b.Context(), batches[i%64]); err != nil {
						b.Fatal(err)
					}
					i++
				}
				stop()
				perRecord(b)
				if got.Load() != int64(i*n) {
					b.Fatalf("%d of %d records came through", got.Load(), i*n)
				}
			})
		}
		b.Run(fmt.Sprintf("batch=%d/channel", n), func(b *testing.B) {
			var got atomic.Int64
			ch := make(chan []kemi.Metric, max(1<<16/n, 1)) // as many records as a topic takes
			done := make(chan struct{})
			go func() {
				defer close(done)
				for batch := range ch {
					got.Add(int64(len(batch)))
				}
			}()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				ch <- append([]kemi.Metric(nil), batches[i%64]...)
				i++
			}
			close(ch)
			<-done
			perRecord(b)
			if got.Load() != int64(i*n) {
				b.Fatalf("%d of %d records came through", got.Load(), i*n)
			}
		})
	}
}

func TestAllocationsPerRecord(t *testing.T) {
	for _, c := range []struct {
		n, partitions int
		limit         float64
	}{
		{1, 1, 1.2}, // most of it the context of the reader's Write
		{100, 8, 0.05},
		{1000, 64, 0.01},
	} {
		topic, _, stop := through(t, c.partitions)
		batches := polls(c.n, 64)
		writes := 20_000 / c.n * 10
		got := testing.AllocsPerRun(5, func() {
			for i := range writes {
				if err := topic.Write(t.Context(), batches[i%64]); err != nil {
					t.Fatal(err)
				}
			}
		}) / float64(writes*c.n)
		stop()
		t.Logf("batch %d, %d partitions: %.4f allocations a record", c.n, c.partitions, got)
		if got > c.limit {
			t.Errorf("batch %d, %d partitions: %.4f allocations a record, want at most %v", c.n, c.partitions, got, c.limit)
		}
	}
}
