package promql

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/bits"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"

	"github.com/kemi-go/kemi"
)

// Proof tells what the expressions gave when they were last evaluated, and how far
// evaluations have come. It is the same after a replay of the horizon. It says nothing
// before the first evaluation, while a rule fails, and for a horizon after a reload,
// as the new rules have not seen the past that a replay would show them.
//
// Rules that depend on all the past are left out: those that look at what they
// themselves or ALERTS_FOR_STATE said, and at alerts that go on from one short time to
// the next (for with keep_firing_for) or were chosen by the limit of a group.
func (r *Rules) Proof() kemi.Proof {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.evaluated == 0 || r.changed != 0 && r.store.now.Load() < r.changed+r.Horizon().Milliseconds() {
		return kemi.Proof{}
	}
	sum := mixed(1, uint64(r.evaluated))
	for _, g := range r.groups {
		for _, x := range g.rules {
			if !x.bounded {
				continue
			}
			if x.unsure {
				return kemi.Proof{}
			}
			sum += mixed(x.id, x.result)
		}
	}
	return kemi.Proof{Version: r.version, Hash: sum}
}

func mixed(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd6e8feb86659fd93)
	return hi ^ lo
}

func hashOf(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum64()
}

// resultOf makes a number of what an expression gave at a time.
func resultOf(res prom.Vector, t millis) uint64 {
	sum := uint64(t)
	for _, s := range res {
		h := uint64(14695981039346656037)
		add := func(text string) {
			for i := range len(text) {
				h = (h ^ uint64(text[i])) * 1099511628211
			}
			h = (h ^ 0xff) * 1099511628211
		}
		s.Metric.Range(func(l labels.Label) {
			add(l.Name)
			add(l.Value)
		})
		v := math.Float64bits(s.F)
		if s.F != s.F {
			v = 1 // one NaN is as good as another
		}
		if s.H != nil {
			v = hashOf(s.H.String())
		}
		sum += mixed(h, v)
	}
	return mixed(sum, uint64(len(res)))
}

const proofVersion = 1 // of how rules are evaluated

// versionOf says which rules and what of the configuration make the state.
func versionOf(c *Config, groups []*group) uint64 {
	text := []string{fmt.Sprint(proofVersion, c.EvaluationInterval, c.Lookback, c.MaxLookback, c.Delay, c.MaxDelay, c.MaxAhead, c.MaxCatchUp, c.MaxSeries, c.MaxSamples)}
	for _, g := range groups {
		text = append(text, g.file, g.name, fmt.Sprint(g.interval, g.queryOffset, g.limit, len(g.rules)))
		for _, x := range g.rules {
			text = append(text, x.key(), x.expr, fmt.Sprint(x.hold, x.keepFiring))
		}
	}
	return hashOf(text...)
}

// lead is how much earlier than the time it is about a metric may come, and how much
// later it is looked at.
func (c *Config) lead() time.Duration { return c.MaxAhead + c.MaxDelay + c.Delay + 2*time.Second }
