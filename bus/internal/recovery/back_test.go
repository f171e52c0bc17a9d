package recovery

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// TestGoingBackShowsNowhere: a log is said to have lost its end, and has not. What is
// read again comes out as it did before, and once.
func TestGoingBackShowsNowhere(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		in := input(rnd, 1000)
		state := rnd.IntN(3) > 0
		var via kemi.Transform[reading, reading] = kemi.TransformFunc[reading, reading](func(_ context.Context, dst, src []reading) ([]reading, error) {
			return append(dst, src...), nil
		})
		if state {
			via = &differences{keep: []time.Duration{time.Nanosecond, 5 * time.Second, time.Minute}[rnd.IntN(3)]}
		}
		calm := &world{in: in}
		calm.life(t, rnd, via, new(Counts), false)
		want := calm.read(t)

		w := &world{in: in, lost: 20}
		counts := new(Counts)
		for range 8 {
			w.life(t, rnd, via, counts, true)
			if w.pos != nil && rnd.IntN(2) == 0 {
				w.pos.Back(in[0].Offset+rnd.Int64N(w.pos.Next-in[0].Offset+1), state)
				w.pos = reread(t, w.pos)
			}
		}
		w.life(t, rnd, via, counts, false)
		if got := w.read(t); !slices.Equal(got, want) {
			t.Fatalf("seed %d: state %v: %d records came out, want %d", seed, state, len(got), len(want))
		}
		if counts.Mismatched.Load() != 0 {
			t.Fatalf("seed %d: %d replays of %d gave another state", seed, counts.Mismatched.Load(), counts.Rewinds.Load())
		}
	}
}
