package memory

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"weak"
)

// A log gives back what was put into it, unit by unit, whatever their sizes do to the
// chunks they lie in.
func TestLogKeepsUnits(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	type record struct {
		n int
		_ [30]int // so that a chunk has some 130
	}
	for range 200 {
		var l log[record]
		var want [][]record // units, from offset first on
		var first int64
		n := 0
		for range 300 {
			switch rnd.IntN(3) {
			case 0, 1:
				size := 1 + rnd.IntN(3)
				if rnd.IntN(4) == 0 {
					size = 1 + rnd.IntN(200)
				}
				u := make([]record, size)
				for i := range u {
					u[i].n = n
					n++
				}
				want = append(want, slices.Clone(u))
				l.append(unit[record]{records: u})
				clear(u)
			case 2:
				for range min(rnd.IntN(10), len(want)) {
					if got := l.drop(); got != len(want[0]) {
						t.Fatalf("a unit of %d was dropped as one of %d", len(want[0]), got)
					}
					want, first = want[1:], first+1
				}
			}
			if l.first != first || l.len() != len(want) {
				t.Fatalf("the log has units %d to %d, want %d to %d", l.first, l.end(), first, first+int64(len(want)))
			}
			if len(want) == 0 {
				continue
			}
			from := first + rnd.Int64N(int64(len(want)))
			got, next := l.read(from, l.end())
			if expect := slices.Concat(want[from-first : next-first]...); next <= from || !slices.Equal(got, expect) {
				t.Fatalf("read of units %d to %d gives %d records, want %d", from, next, len(got), len(expect))
			}
			if cap(got) != len(got) {
				t.Fatal("an append to what was read would overwrite what follows it")
			}
		}
	}
}

// What is dropped is free for the collector, beside a log that is never empty.
func TestDroppedUnitsAreForgotten(t *testing.T) {
	type record struct{ _ [chunkBytes]byte } // each in a chunk of its own
	var l log[*record]
	var weaks []weak.Pointer[record]
	for range 60 {
		r := new(record)
		weaks = append(weaks, weak.Make(r))
		many := slices.Repeat([]*record{r}, chunkBytes/8)
		l.append(unit[*record]{records: many})
	}
	for range 30 {
		l.drop()
	}
	runtime.GC()
	for i, w := range weaks {
		if there := w.Value() != nil; there != (i >= 30) {
			t.Errorf("unit %d of 60, of which 30 were dropped, is in memory: %v", i, there)
		}
	}
	runtime.KeepAlive(&l)
}
