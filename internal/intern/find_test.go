package intern

import (
	"fmt"
	"runtime"
	"testing"
)

// raws is a table of n labels, and the refs of all of them.
func raws(n int) (table []Raw, refs []uint32, pairs []Pair) {
	for i := range n {
		p := Pair{fmt.Sprintf("n%02d", i), fmt.Sprint("v", i)}
		table = append(table, MakeRaw([]byte(p.Name), []byte(p.Value)))
		refs = append(refs, uint32(i))
		pairs = append(pairs, p)
	}
	return table, refs, pairs
}

func TestFindGivesTheSetThatIsThere(t *testing.T) {
	collected(t, 0) // other tests make the same sets
	table, refs, pairs := raws(6)
	for n := 1; n <= len(refs); n++ {
		if got := Find(table, refs[:n]); got != nil {
			t.Fatalf("found %v, which nobody made", got)
		}
		set := Of(pairs[:n:n])
		if got := Find(table, refs[:n]); got != set {
			t.Errorf("%d labels: found %p, want %p", n, got, set)
		}
		if got := Find(table, refs[1:n]); n > 1 && got != nil {
			t.Errorf("found %v for a part of it", got)
		}
		runtime.KeepAlive(set)
	}
}

// TestFindTellsSetsInOnePlace gives a label the hash of another, as chance would do
// once in 2^64.
func TestFindTellsSetsInOnePlace(t *testing.T) {
	table, refs, pairs := raws(2)
	set := Of(pairs)
	for _, other := range []Raw{MakeRaw([]byte("n00"), []byte("x")), MakeRaw([]byte("n0x"), []byte("v0"))} {
		other.share = table[0].share
		if got := Find([]Raw{other, table[1]}, refs); got != nil {
			t.Errorf("found %v for other labels", got)
		}
	}
	runtime.KeepAlive(set)
}

func TestFindAllocatesNothing(t *testing.T) {
	table, refs, pairs := raws(6)
	set := Of(pairs)
	collected(t, 1) // so that no clean-up allocates meanwhile
	if n := testing.AllocsPerRun(100, func() {
		if Find(table, refs) != set {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestLookupGivesTheSetThatIsThereAndMakesNone(t *testing.T) {
	_, _, pairs := raws(7)
	pairs = append(pairs, Pair{"empty", ""})
	for range 2 {
		if got, ok := Lookup(pairs); ok || got != nil {
			t.Fatalf("found %v, which nobody made", got)
		}
	}
	if got, ok := Lookup(nil); !ok || got != nil {
		t.Errorf("no labels: %v, %v", got, ok)
	}
	set := Of(pairs)
	if n := testing.AllocsPerRun(100, func() {
		if got, ok := Lookup(set.Pairs); !ok || got != set {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got, ok := Lookup(set.Pairs[1:]); ok {
		t.Errorf("found %v for a part of it", got)
	}
	runtime.KeepAlive(set)
}

func BenchmarkFind(b *testing.B) {
	table, refs, pairs := raws(6)
	set := Of(pairs)
	for b.Loop() {
		Find(table, refs)
	}
	runtime.KeepAlive(set)
}
