package counter_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
	"github.com/kemi-go/kemi/transform/transformtest"
)

func TestConformance(t *testing.T) {
	polls := walk(rand.New(rand.NewPCG(7, 7)), 40, false)
	for _, p := range polls { // NaN differs from itself; the cut batches need uptime and speeds first
		for i, m := range p {
			if m.Float() != m.Float() {
				p[i] = kemi.FloatCounter(m.Name, m.Labels, m.Time, 1)
			}
		}
		slices.SortStableFunc(p, func(a, b kemi.Metric) int { return int(min(a.Kind, 1)) - int(min(b.Kind, 1)) })
	}
	transformtest.Run(t, func(tb testing.TB) transformtest.Harness[kemi.Metric, kemi.Metric] {
		return transformtest.Harness[kemi.Metric, kemi.Metric]{
			New: func() kemi.Transform[kemi.Metric, kemi.Metric] {
				return newRates(tb, counter.Config{KeepCounters: true, Deltas: true, Drops: true})
			},
			Batches:        polls,
			BatchInvariant: true,
			TickAt:         func(i int) time.Time { return start.Add(time.Duration(i) * 20 * time.Second) }, // as many polls as hosts a minute
			Time:           func(m kemi.Metric) time.Time { return m.Time },
		}
	})
}
