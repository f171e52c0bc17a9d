//go:build !race

package derive_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

// The race detector makes a sync.Pool forget at random, hence the build tag.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	v := newValues(t, derive.Linux()...)
	p := linuxPoll(rand.New(rand.NewPCG(1, 1)), false)
	dst := make([]kemi.Metric, 0, 4*len(p))
	allocs := testing.AllocsPerRun(200, func() { dst, _ = v.Apply(context.Background(), dst[:0], p) })
	if allocs >= 1 { // a collection may take the scratch away, but not each time
		t.Errorf("%v allocations per poll of %d metrics", allocs, len(p))
	}
	if len(dst) < len(p)+40 {
		t.Errorf("only %d metrics are derived", len(dst)-len(p))
	}
}
