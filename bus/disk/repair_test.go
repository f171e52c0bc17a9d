package disk

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/kemi-go/kemi/internal/faults"
)

// makeLoss returns a library that a bit was flipped in, so that something is lost, and
// says where. Where a crash has left the tables that one is made of, no bit is the only
// one of its kind: then another library is tried.
func makeLoss(t *testing.T, rnd *rand.Rand) (*library, string) {
	for range 20 {
		l := makeLibrary(t, rnd, rnd.IntN(2) == 0)
		for range 30 {
			fs := l.clone()
			where := flip(t, fs, rnd)
			// As a program would write it, or else a power cut heals it.
			name, _, _ := strings.Cut(where, ",")
			text, err := readFile(fs, "data/"+name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeFile(fs, "data", name, text); err != nil {
				t.Fatal(err)
			}
			if report, err := check(fs, "data"); err == nil && len(report.Lost) > 0 {
				l.fs = fs
				return l, where
			}
		}
	}
	t.Fatal("no flipped bit loses anything")
	return nil, ""
}

// sameOffsets tells whether two lists of ranges are of the same offsets.
func sameOffsets(a, b []Range) bool {
	order := func(list []Range) []Range {
		return slices.SortedFunc(slices.Values(list), func(a, b Range) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From))
		})
	}
	return slices.Equal(order(a), order(b))
}

// A repair that a power cut ends is gone on with by the next one, wherever it was, and
// brings back what it would have.
func TestFaultCutRepairs(t *testing.T) {
	cuts, seed := max(6, faults.Count(t, 100)), faults.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	sum := map[string]int{}
	for done := 0; done < cuts && !t.Failed(); {
		l, where := makeLoss(t, rnd)
		whole, err := repair(l.clone(), "data", newYear)
		if err != nil {
			t.Fatal(err)
		}
		// changes runs a repair and calls at before each change of the disk.
		changes := func(fs vfs.FS, at func(n int)) {
			var mu sync.Mutex // the engine writes from several goroutines
			n := 0
			watch := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && !strings.Contains(op.Path, "LOCK") {
					mu.Lock()
					defer mu.Unlock()
					at(n)
					n++
				}
				return nil
			})
			if _, err := repair(errorfs.Wrap(fs, watch), "data", newYear); err != nil {
				t.Fatal(err)
			}
		}
		all := 0
		changes(l.clone(), func(int) { all++ })
		for range 6 {
			done++
			k := rnd.IntN(all)
			if rnd.IntN(2) == 0 {
				k = all - 1 - rnd.IntN(min(all, 40)) // files are moved at the end
			}
			old := l.clone()
			var fs *vfs.MemFS
			changes(old, func(n int) {
				if n == k {
					fs = old.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(101), RNG: rnd})
				}
			})
			if fs == nil {
				continue // it took a few steps less this time
			}
			fail := func(format string, args ...any) {
				t.Helper()
				t.Errorf("%s; cut off at change %d of %d: "+format, append([]any{where, k, all}, args...)...)
			}
			begun := false
			// A copy is opened, as that removes old tables, which may have what is lost.
			w := newWorld(t, fs.CrashClone(vfs.CrashCloneCfg{}), "data", 1)
			w.clock.Store(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixNano())
			if err := w.open(); err == nil {
				sum["could be opened"]++
				if err := w.db.Close(); err != nil {
					fail("Close: %v", err)
				}
			} else if !errors.Is(err, ErrDamaged) {
				fail("Open says %v", err)
			} else if strings.Contains(err.Error(), "was cut off") {
				sum["was under way"]++
				begun = true
			} else {
				sum["damaged as before"]++
			}
			w.fs = fs
			if begun {
				if r, err := check(fs, "data"); err != nil || r.OK() {
					fail("Check of a repair that was cut off: %v, %v", r, err)
				}
			}
			report, err := repair(fs, "data", newYear.Add(time.Hour))
			if err != nil {
				fail("Repair: %v", err)
				continue
			}
			if said := slices.Concat(report.Lost, report.Earlier); !sameOffsets(said, whole.Lost) {
				fail("Repair says that %v is lost, and %v when it was not cut off", said, whole.Lost)
			}
			if begun && (!report.OK() || report.Moved == "") {
				fail("Repair went on and says %v", report)
			}
			if err := w.open(); err != nil {
				fail("after Repair, which said %v: %v", report, err)
				continue
			}
			if got, damage := w.readAll("newer"); len(damage) > 0 || !equal(got, l.want(whole.Lost)) {
				fail("after Repair, which said %v, and %v when it was not cut off: damage %v, or something else is there", report, whole, damage)
			}
			if err := w.db.Close(); err != nil {
				fail("Close: %v", err)
			}
			if again, err := check(fs, "data"); err != nil || !again.OK() {
				fail("Check: %v, %v", again, err)
			}
			names, err := fs.List("data")
			if err != nil || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "damaged-") }) {
				fail("the old files are not there: %v, %v", names, err)
			}
		}
	}
	faults.Report(t, "seed %d: %d repairs cut off: %v", seed, cuts, sum)
}
