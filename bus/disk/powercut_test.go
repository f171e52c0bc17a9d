package disk

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi/internal/faults"
)

// At a power cut what was not synced is there, or not, or in part. After each: nothing
// that was acknowledged is lost, nothing is twice, the output is what one run without a
// crash gives, and so is the state.
func TestFaultPowerCuts(t *testing.T) {
	powercuts, seed := max(300, faults.Count(t, 10_000)), faults.Seed(t)
	const perWorld = 10
	sum := map[string]uint64{}
	records, cuts := 0, 0
	for world := uint64(0); (cuts < powercuts || sum["proved"] == 0 && cuts < 10*powercuts) && !t.Failed(); world++ {
		mem := vfs.NewCrashableMem()
		w := newWorld(t, mem, "var/lib/kemi", seed+world)
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
	faults.Report(t, "seed %d: %d power cuts, %d records acknowledged: 0 lost, 0 twice; %v", seed, cuts, records, sum)
	if sum["mismatched"] > 0 || sum["lost"] > 0 || sum["proved"] == 0 {
		t.Errorf("%v", sum)
	}
}
