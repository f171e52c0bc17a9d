package otlp

import (
	"hash/maphash"

	"github.com/kemi-go/kemi"
)

const (
	minSlots = 128
	maxSlots = 1 << 15
	maxBytes = 4 << 20 // of attributes; the labels made of them take a few times as many
	maxRun   = 1 << 12 // of one set with its resource
)

// memory is what attributes gave when they were read before: the same bytes under the
// same resource give the same labels. It is made with newMemory.
//
// It is a table in which each run of attributes has two places side by side. It grows
// as long as many are pushed out of it, and it has a bound: what is not remembered is
// read again.
type memory struct {
	seed   maphash.Seed
	slots  []slot
	pushed int // out, since the table has this size
	bytes  int // the sum of the costs
}

type slot struct {
	raw    []byte // empty: free
	of     kemi.Labels
	labels kemi.Labels
	cost   int
}

func newMemory(slots int) memory {
	return memory{seed: maphash.MakeSeed(), slots: make([]slot, slots)}
}

// places returns the two places of a run.
func (m *memory) places(raw string, of kemi.Labels) *[2]slot {
	at := (maphash.String(m.seed, raw) ^ of.Hash()) & uint64(len(m.slots)-1) &^ 1
	return (*[2]slot)(m.slots[at:])
}

// get returns the labels that were put for raw under the resource with the labels of.
func (m *memory) get(raw string, of kemi.Labels) (labels kemi.Labels, ok bool) {
	two := m.places(raw, of)
	for i := range two {
		if s := &two[i]; s.of == of && string(s.raw) == raw {
			return s.labels, true
		}
	}
	return kemi.Labels{}, false
}

// put remembers labels, if there is room. It copies raw. more is what the set has to
// answer for besides: the bytes of the resource.
func (m *memory) put(raw string, of, labels kemi.Labels, more int) {
	cost := len(raw) + more
	if cost == 0 || cost > maxRun {
		return
	}
	if 4*m.pushed > len(m.slots) && len(m.slots) < maxSlots {
		*m = newMemory(4 * len(m.slots)) // by another hash, so that those that met do not meet again
	}
	if m.bytes+cost > maxBytes {
		*m = newMemory(len(m.slots)) // so that what nobody sends any more goes; the rest comes again
	}
	two := m.places(raw, of)
	s := &two[0]
	if len(s.raw) != 0 {
		// Where three and more share two places and come in turn, one stays for a while.
		if s = &two[1]; len(s.raw) != 0 {
			if m.pushed++; m.pushed%4 == 0 {
				s = &two[0]
			}
		}
	}
	m.bytes += cost - s.cost
	*s = slot{append(s.raw[:0], raw...), of, labels, cost}
}
