package disk

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The runs whose numbers are published are longer than those of every day:
// KEMI_FAULTS=all, or the flags.
var (
	powercuts = flag.Int("disk.powercuts", faults(300, 10_000), "simulated power cuts")
	seedFlag  = flag.Uint64("disk.seed", 0, "seed of the fault tests; 0: another one each time")
)

func faults(few, all int) int {
	if os.Getenv("KEMI_FAULTS") == "all" {
		return all
	}
	return few
}

func seedOf(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return seed
}

// At a power cut what was not synced is there, or not, or in part. After each: nothing
// that was acknowledged is lost, nothing is twice, the output is what one run without a
// crash gives, and so is the state.
func TestPowerCuts(t *testing.T) {
	seed := seedOf(t)
	const perWorld = 10
	sum := map[string]uint64{}
	records, cuts := 0, 0
	for world := uint64(0); cuts < *powercuts && !t.Failed(); world++ {
		mem := vfs.NewCrashableMem()
		w := newWorld(t, mem, "data", seed+world)
		for range perWorld {
			if err := w.open(); err != nil {
				t.Fatalf("world %d: after a power cut: %v", world, err)
			}
			w.verify(w.ackedNow(), false)
			w.run(2)
			time.Sleep(time.Duration(w.rnd.IntN(20_000)) * time.Microsecond)
			if w.rnd.IntN(5) == 0 {
				w.stop() // sometimes nothing runs
			}
			acked := w.ackedNow() // all of this is safe by the time of the cut
			after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: w.rnd.IntN(101), RNG: rand.New(rand.NewPCG(w.rnd.Uint64(), 3))})
			w.stop()
			w.note()
			if err := w.db.Close(); err != nil {
				t.Fatal(err)
			}
			mem, w.fs = after, after
			w.mu.Lock()
			w.acked = acked
			w.mu.Unlock()
			cuts++
		}
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		w.verify(w.acked, false)
		w.run(0)
		w.settle()
		w.stop()
		w.verify(w.acked, true)
		w.note()
		records += len(w.acked)
		for k, n := range w.sum {
			sum[k] += n
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts, %d records acknowledged: 0 lost, 0 twice; %v", cuts, records, sum)
	if sum["mismatched"] > 0 || sum["lost"] > 0 || sum["proved"] == 0 {
		t.Errorf("%v", sum)
	}
}
