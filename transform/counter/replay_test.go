package counter_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

// A bus reads, after a restart, from the first record that is not older than the
// horizon, muted up to where it had committed. From there on the output must be
// what it would have been without the restart.
func TestReplayOfTheHorizonEqualsLiving(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		config := counter.Config{Drops: true, Deltas: true, KeepCounters: true}
		if seed%2 == 0 {
			config.MaxGap = 150 * time.Second
		}
		polls := walk(rng, 120, false)
		lived := newRates(t, config)
		outs := make([][]kemi.Metric, len(polls))
		for i, p := range polls {
			outs[i] = feed(t, lived, p)
		}
		for range 10 {
			committed := 1 + rng.IntN(len(polls)-1)
			oldest := polls[committed][0].Time.Add(-lived.Horizon())
			from := slices.IndexFunc(polls, func(p []kemi.Metric) bool { return !p[0].Time.Before(oldest) })
			fresh := lived.Fork()
			feed(t, fresh, polls[from:committed]...)
			for i := committed; i < len(polls); i++ {
				if got := feed(t, fresh, polls[i]); !slices.EqualFunc(got, outs[i], same) {
					t.Fatalf("seed %d: committed at %d, replayed from %d: poll %d\n got %v\nwant %v", seed, committed, from, i, got, outs[i])
				}
			}
		}
	}
}

// The horizon is not longer than it has to be: a reading at its far end counts.
func TestHalfTheHorizonIsNotEnough(t *testing.T) {
	r := newRates(t, counter.Config{})
	first, second := poll(c64(0, 0)), poll(c64(299, 299))
	if r.Horizon()/2 > 299*time.Second {
		t.Fatalf("the horizon is %v", r.Horizon())
	}
	want(t, feed(t, r.Fork(), first, second), "c_rate", 1)
	want(t, feed(t, r.Fork(), second), "c_rate")
}

func TestForksShareNoState(t *testing.T) {
	r := newRates(t, counter.Config{})
	a, b := r.Fork(), r.Fork()
	want(t, feed(t, a, poll(c64(0, 0))), "c_rate")
	want(t, feed(t, b, poll(c64(60, 60))), "c_rate")
	want(t, feed(t, a, poll(c64(60, 600))), "c_rate", 10)
	want(t, feed(t, b, poll(c64(120, 120))), "c_rate", 1)
	if s := balanced(t, r); s.Counters != 4 || s.Rates != 2 {
		t.Errorf("the counts are of all forks together: %+v", s)
	}
}

func TestHorizonFollowsTheConfig(t *testing.T) {
	for want, c := range map[time.Duration]counter.Config{
		6 * time.Minute:                {},
		5*time.Minute + 10*time.Second: {Interval: 10 * time.Second},
		4 * time.Hour:                  {Interval: time.Hour},
		3 * time.Minute:                {MaxGap: 2 * time.Minute},
	} {
		if got := newRates(t, c).Horizon(); got != want {
			t.Errorf("%+v: horizon %v, want %v", c, got, want)
		}
	}
}
