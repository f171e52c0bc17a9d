package transform_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
	"github.com/kemi-go/kemi/transform"
)

// plus is a stateless transform by hand, to compare Map with.
type plus struct{}

func (plus) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	for _, r := range src {
		dst = append(dst, reading{r.at, r.n + 1})
	}
	return dst, nil
}

func inc(r reading) reading { return reading{r.at, r.n + 1} }
func all(reading) bool      { return true }

var chains = []struct {
	name string
	made func() kemi.Transform[reading, reading]
}{
	{"by hand", func() tf { return plus{} }},
	{"Map", func() tf { return transform.Map(inc) }},
	{"Filter", func() tf { return transform.Filter(all) }},
	{"FlatMap", func() tf {
		return transform.FlatMap(func(dst []reading, r reading) []reading { return append(dst, r) })
	}},
	{"Chain of 3, shared", func() tf { return transform.Chain[reading](plus{}, plus{}, plus{}) }},
	{"Chain of 3, forked", func() tf { return lane(transform.Chain[reading](plus{}, &pair{}, plus{})) }},
}

func batchOf(n int) []reading {
	src := make([]reading, n)
	for i := range src {
		src[i] = reading{i, i}
	}
	return src
}

func BenchmarkApply(b *testing.B) {
	for _, c := range chains {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/batch=%d", c.name, n), func(b *testing.B) {
				t, src := c.made(), batchOf(n)
				var dst []reading
				b.ReportAllocs()
				for b.Loop() {
					var err error
					if dst, err = t.Apply(b.Context(), dst[:0], src); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
			})
		}
	}
}

// TestNoAllocations: once its buffers have grown, a chain allocates nothing, also for
// batches of changing size.
func TestNoAllocations(t *testing.T) {
	for _, c := range chains {
		if conform.RaceDetector && c.name == "Chain of 3, shared" {
			continue // its pool
		}
		tr, large, small := c.made(), batchOf(1000), batchOf(10)
		var dst []reading
		got := testing.AllocsPerRun(100, func() {
			for _, src := range [][]reading{large, small} {
				var err error
				if dst, err = tr.Apply(context.Background(), dst[:0], src); err != nil {
					t.Fatal(err)
				}
			}
		})
		// The garbage collector empties the pool of a shared chain now and then.
		if got >= 1 {
			t.Errorf("%s: %v allocations for two batches", c.name, got)
		}
	}
}
