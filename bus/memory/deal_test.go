package memory

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Partitions are dealt out evenly, and no more of them move than have to.
func TestDealIsEvenAndSticky(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		n := 1 + rnd.IntN(70)
		pos := &position[int]{owner: make([]*member[int], n)}
		for range 20 {
			before := slices.Clone(pos.owner)
			had := slices.Clone(pos.members)
			if len(pos.members) == 0 || rnd.IntN(2) == 0 {
				pos.members = append(pos.members, &member[int]{call: make(chan struct{}, 1)})
			} else {
				i := rnd.IntN(len(pos.members))
				pos.members = slices.Delete(pos.members, i, i+1)
			}
			pos.deal()
			if len(pos.members) == 0 {
				continue
			}
			has := map[*member[int]]int{}
			for _, m := range pos.owner {
				has[m]++
			}
			least, most := n, 0
			for _, m := range pos.members {
				least, most = min(least, has[m]), max(most, has[m])
			}
			if has[nil] > 0 || most-least > 1 {
				t.Fatalf("%d partitions, %d members: %d to %d each, %d nobody's", n, len(pos.members), least, most, has[nil])
			}
			moved := 0
			for p, m := range before {
				if m != pos.owner[p] && slices.Contains(pos.members, m) {
					moved++ // taken from one that stays
				}
			}
			if limit := (n + len(pos.members) - 1) / len(pos.members); len(had) > 0 && moved > limit {
				t.Fatalf("%d partitions, %d members: %d moved", n, len(pos.members), moved)
			}
		}
	}
}
