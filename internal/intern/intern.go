// Package intern keeps one copy of each label set, so that equal sets are equal
// pointers. A set nobody holds any more is forgotten.
package intern

import (
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"
	"weak"
)

// Pair is one label.
type Pair struct {
	Name  string
	Value string
}

// Set is an interned set: read-only, sorted by name, no empty values.
type Set struct {
	Pairs []Pair
	Hash  uint64 // FNV-1a of the pairs
}

// EmptyHash is the hash of the empty set.
const EmptyHash uint64 = fnvOffset

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
	shards    = 64
)

type shard struct {
	sync.Mutex
	sets map[uint64][]weak.Pointer[Set]
}

// The table has to be one for the whole program: that equal sets are one pointer
// is a promise across packages. It holds weak pointers only.
var (
	seed  = maphash.MakeSeed()
	table [shards]shard
)

// Of returns the set of pairs, nil for the empty one. It sorts pairs in place and
// keeps no reference to the slice; strings are kept by the set it may make.
func Of(pairs []Pair) *Set {
	pairs = normalize(pairs)
	if len(pairs) == 0 {
		return nil
	}
	h := place(pairs)
	s := &table[h%shards]
	s.Lock()
	defer s.Unlock()
	set := s.get(h, pairs)
	if set != nil {
		return set
	}
	set = &Set{Pairs: slices.Clone(pairs), Hash: fnv(pairs)}
	if s.sets == nil {
		s.sets = make(map[uint64][]weak.Pointer[Set])
	}
	s.sets[h] = append(s.sets[h], weak.Make(set))
	runtime.AddCleanup(set, forget, h)
	return set
}

// Lookup returns the set of pairs if there is one now. It sorts pairs in place and keeps
// nothing of them. The empty set is nil and always there.
func Lookup(pairs []Pair) (set *Set, ok bool) {
	pairs = normalize(pairs)
	if len(pairs) == 0 {
		return nil, true
	}
	h := place(pairs)
	s := &table[h%shards]
	s.Lock()
	defer s.Unlock()
	set = s.get(h, pairs)
	return set, set != nil
}

func (s *shard) get(h uint64, pairs []Pair) *Set {
	for _, w := range s.sets[h] {
		if set := w.Value(); set != nil && slices.Equal(set.Pairs, pairs) {
			return set
		}
	}
	return nil
}

// place is where in the table a set belongs. Other sets may belong there too.
func place(pairs []Pair) uint64 {
	var h uint64
	for i := range pairs {
		h = grow(h, share(maphash.String(seed, pairs[i].Name), maphash.String(seed, pairs[i].Value)))
	}
	return h
}

// share is what a label adds to the place of its set, from the hashes of its halves.
func share(name, value uint64) uint64 { return name*31 + value }

// grow is the place of a set with one more label.
func grow(place, share uint64) uint64 { return place*(31*31) + share }

// forget drops the dead entries of one bucket. A set equal to a dead one may have
// been made between its death and this call: it has an entry of its own, which is
// alive and stays.
func forget(h uint64) {
	s := &table[h%shards]
	s.Lock()
	defer s.Unlock()
	bucket := slices.DeleteFunc(s.sets[h], func(w weak.Pointer[Set]) bool { return w.Value() == nil })
	if len(bucket) == 0 {
		delete(s.sets, h)
	} else {
		s.sets[h] = bucket
	}
}

// normalize sorts by name and lets the last of several pairs with one name stand,
// then drops empty values.
func normalize(pairs []Pair) []Pair {
	sorted := true
	for i := range pairs {
		if pairs[i].Value == "" || i > 0 && pairs[i-1].Name >= pairs[i].Name {
			sorted = false
			break
		}
	}
	if sorted {
		return pairs
	}
	slices.SortStableFunc(pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
	out := pairs[:0]
	for i, p := range pairs {
		if i+1 < len(pairs) && pairs[i+1].Name == p.Name || p.Value == "" {
			continue
		}
		out = append(out, p)
	}
	return out
}

func fnv(pairs []Pair) uint64 {
	h := uint64(fnvOffset)
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * fnvPrime
		}
		h = (h ^ 0xff) * fnvPrime
	}
	for _, p := range pairs {
		add(p.Name)
		add(p.Value)
	}
	return h
}
