package derive_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

func BenchmarkLinux(b *testing.B) {
	v := newValues(b, derive.Linux()...)
	p := linuxPoll(rand.New(rand.NewPCG(1, 1)), false)
	dst := make([]kemi.Metric, 0, 4*len(p))
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = v.Apply(context.Background(), dst[:0], p)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(p)), "ns/record")
	b.ReportMetric(float64(len(dst)-len(p)), "derived")
}
