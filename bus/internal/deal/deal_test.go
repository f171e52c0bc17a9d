package deal

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Partitions are dealt out evenly, and no more of them move than have to.
func TestOutIsEvenAndSticky(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		owner := make([]*int, 1+rnd.IntN(70))
		var members []*int
		for range 20 {
			before, had := slices.Clone(owner), len(members)
			if had == 0 || rnd.IntN(2) == 0 {
				members = append(members, new(int))
			} else {
				i := rnd.IntN(had)
				members = slices.Delete(members, i, i+1)
			}
			Out(owner, members)
			has := map[*int]int{}
			for _, m := range owner {
				has[m]++
			}
			if len(members) == 0 {
				if has[nil] != len(owner) {
					t.Fatalf("nobody is there, and %d of %d partitions are somebody's", len(owner)-has[nil], len(owner))
				}
				continue
			}
			least, most := len(owner), 0
			for _, m := range members {
				least, most = min(least, has[m]), max(most, has[m])
			}
			if has[nil] > 0 || most-least > 1 {
				t.Fatalf("%d partitions, %d members: %d to %d each, %d nobody's", len(owner), len(members), least, most, has[nil])
			}
			moved := 0
			for p, m := range before {
				if m != owner[p] && slices.Contains(members, m) {
					moved++ // taken from one that stays
				}
			}
			if limit := (len(owner) + len(members) - 1) / len(members); had > 0 && moved > limit {
				t.Fatalf("%d partitions, %d members: %d moved", len(owner), len(members), moved)
			}
		}
	}
}
