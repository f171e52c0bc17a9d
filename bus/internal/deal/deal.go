// Package deal says which member of a group reads which partition.
package deal

import "slices"

// Out gives every partition to one of the members: as many to each as to any other,
// and as few to another one as before as that allows. owner is by partition, the zero
// M standing for nobody, and is changed in place. Without members all are nobody's.
func Out[M comparable](owner, members []M) {
	if len(members) == 0 {
		clear(owner)
		return
	}
	var nobody M
	quota, extra := len(owner)/len(members), len(owner)%len(members)
	has := make(map[M]int, len(members))
	for p, m := range owner {
		switch {
		case !slices.Contains(members, m) || has[m] > quota || has[m] == quota && extra == 0:
			owner[p] = nobody
			continue
		case has[m] == quota:
			extra--
		}
		has[m]++
	}
	for p, m := range owner {
		if m == nobody {
			m = slices.MinFunc(members, func(a, b M) int { return has[a] - has[b] })
			owner[p] = m
			has[m]++
		}
	}
}
