package counter_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
	"github.com/kemi-go/kemi/transform/counter"
)

// rounds is how many seeds are tried. With the race detector all is ten times as slow,
// and it finds little where one goroutine works.
func rounds(n uint64) uint64 {
	if conform.RaceDetector {
		return (n + 3) / 4
	}
	return n
}

// A bus reads, after a restart, from the first record that is not older than the
// horizon, muted up to where it had committed. From there on the output must be
// what it would have been without the restart.
func TestReplayOfTheHorizonEqualsLiving(t *testing.T) {
	for seed := range rounds(20) {
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

// A reading is remembered for MaxGap and a little more whenever it comes, and forgotten
// by the end of the horizon, also if the host has an old clock and nothing else comes.
func TestAReadingIsRememberedForMaxGapOfTheLanesTime(t *testing.T) {
	for _, skew := range []float64{0, 3600, -86400} {
		for phase := 0.0; phase < 330; phase += 7 {
			r := newRates(t, counter.Config{}).Fork().(*counter.Rates)
			tick(t, r, phase)
			feed(t, r, poll(c64(phase+skew, 0)))
			for s := phase + 1; s <= phase+310; s++ {
				tick(t, r, s)
			}
			want(t, feed(t, r, poll(c64(phase+skew+299, 299))), "c_rate", 1)

			for s := phase + 311; s <= phase+310+r.Horizon().Seconds(); s++ {
				tick(t, r, s)
			}
			if p := r.Proof(); p.Hash != 0 {
				t.Fatalf("skew %v, phase %v: %x is left", skew, phase, p.Hash)
			}
			want(t, feed(t, r, poll(c64(phase+skew+300, 300))), "c_rate")
		}
	}
}

func tick(t *testing.T, r *counter.Rates, s float64) {
	t.Helper()
	if out, err := r.Tick(t.Context(), nil, at(s)); err != nil || len(out) > 0 {
		t.Fatalf("Tick gave %v, %v", out, err)
	}
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
		11 * time.Minute:               {},
		6*time.Hour + 36*time.Minute:   {Interval: time.Hour},
		4*time.Minute + 24*time.Second: {MaxGap: 2 * time.Minute},
	} {
		if got := newRates(t, c).Horizon(); got != want {
			t.Errorf("%+v: horizon %v, want %v", c, got, want)
		}
	}
}
