package intern

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"
)

// entries counts what the table holds.
func entries() int {
	n := 0
	for i := range table {
		s := &table[i]
		s.Lock()
		for _, bucket := range s.sets {
			n += len(bucket)
		}
		s.Unlock()
	}
	return n
}

// collected runs the collector until the table holds at most want, since clean-up
// runs some time after it.
func collected(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		runtime.GC()
		if entries() <= want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("the table still holds %d sets, want at most %d", entries(), want)
}

func TestSetsThatNobodyHoldsAreForgotten(t *testing.T) {
	collected(t, 0)
	const n = 20_000
	held := make([]*Set, n)
	for i := range held {
		held[i] = Of([]Pair{{"host", fmt.Sprint("h", i)}})
	}
	if got := entries(); got != n {
		t.Fatalf("the table holds %d sets, want %d", got, n)
	}
	half := held[:n/2]
	clear(held[n/2:])
	collected(t, n/2)
	for i, s := range half {
		if Of([]Pair{{"host", fmt.Sprint("h", i)}}) != s {
			t.Fatalf("set %d was forgotten while it was held", i)
		}
	}
	clear(half)
	collected(t, 0)
	runtime.KeepAlive(held)
}

// TestASetThatComesBackIsOne lets a set die and be made again at once, over and over:
// the clean-up of the dead one must not take the new one away.
func TestASetThatComesBackIsOne(t *testing.T) {
	make1 := func() *Set { return Of([]Pair{{"host", "phoenix"}, {"disk", "/"}}) }
	for range 300 {
		make1()
		runtime.GC()
		a := make1()
		b := make1()
		if a != b {
			t.Fatal("two sets of one content")
		}
		runtime.KeepAlive(a)
	}
	collected(t, 0)
}

// TestSetsInOnePlaceAreTold puts a set where another belongs, as chance would do once
// in 2^64.
func TestSetsInOnePlaceAreTold(t *testing.T) {
	a := Of([]Pair{{"host", "a"}})
	b := []Pair{{"host", "b"}}
	h := place(b)
	s := &table[h%shards]
	s.Lock()
	if s.sets == nil {
		s.sets = map[uint64][]weak.Pointer[Set]{}
	}
	s.sets[h] = append(s.sets[h], weak.Make(a))
	s.Unlock()
	if got := Of(b); got == a || got.Pairs[0] != b[0] || Of(b) != got {
		t.Errorf("got %v", got)
	}
	runtime.KeepAlive(a)
}

func TestNormalize(t *testing.T) {
	for _, c := range []struct{ in, want []Pair }{
		{nil, nil},
		{[]Pair{{"a", ""}}, nil},
		{[]Pair{{"b", "2"}, {"a", "1"}}, []Pair{{"a", "1"}, {"b", "2"}}},
		{[]Pair{{"a", "1"}, {"a", "2"}}, []Pair{{"a", "2"}}},
		{[]Pair{{"a", "1"}, {"b", "1"}, {"a", ""}}, []Pair{{"b", "1"}}},
		{[]Pair{{"a", ""}, {"a", "1"}}, []Pair{{"a", "1"}}},
	} {
		in := fmt.Sprint(c.in)
		var got []Pair
		if s := Of(c.in); s != nil {
			got = s.Pairs
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s gives %v, want %v", in, got, c.want)
		}
	}
}
