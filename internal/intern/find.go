package intern

import "hash/maphash"

// Raw is one label in the bytes of an encoded batch. It is made once for each
// distinct label of the batch, so that the sets which have it share its hashing.
type Raw struct {
	name, value []byte
	share       uint64
}

// MakeRaw returns the label of the given bytes, which it keeps.
func MakeRaw(name, value []byte) Raw {
	return Raw{name: name, value: value, share: share(maphash.Bytes(seed, name), maphash.Bytes(seed, value))}
}

// Find returns the set of the labels in all that refs names, if there is one now:
// the labels are in order of names, each name once, no value empty. It allocates
// nothing.
func Find(all []Raw, refs []uint32) *Set {
	var h uint64
	for _, r := range refs {
		h = grow(h, all[r].share)
	}
	s := &table[h%shards]
	s.Lock()
	defer s.Unlock()
next:
	for _, w := range s.sets[h] {
		set := w.Value()
		if set == nil || len(set.Pairs) != len(refs) {
			continue
		}
		for i, r := range refs {
			raw, p := &all[r], &set.Pairs[i]
			if p.Name != string(raw.name) || p.Value != string(raw.value) {
				continue next
			}
		}
		return set
	}
	return nil
}
