package transform

import (
	"strings"

	"github.com/kemi-go/kemi"
)

// Proof tells of both. A part that says nothing makes another version, so that what is
// compared was always told by the same parts. What the forks of a chain share says
// nothing there: it is made of the input of all of them.
func (t *then[A, B, C]) Proof() kemi.Proof {
	var a, b kemi.Proof
	if !t.lentA {
		a = proof(t.ab)
	}
	if !t.lentB {
		b = proof(t.bc)
	}
	if a == (kemi.Proof{}) && b == (kemi.Proof{}) {
		return kemi.Proof{}
	}
	p := kemi.Proof{Version: blend(a.Version, b.Version), Hash: blend(a.Hash, b.Hash)}
	if p == (kemi.Proof{}) {
		p.Version = 1
	}
	return p
}

// blend makes one number of two, whose order counts.
func blend(a, b uint64) uint64 {
	a = (a ^ a>>32) * 0x9e3779b97f4a7c15
	a = (a ^ a>>29 ^ b) * 0xbf58476d1ce4e5b9
	return a ^ a>>32
}

// Places in a chain of two that both keep. Where only one does its keys stay as they
// are, so that a stage put before the rules does not make them forget.
const placeA, placeB = "1/", "2/"

func (t *then[A, B, C]) keeps() bool { return keeps(t.ab) || keeps(t.bc) }

// Keep appends what the parts keep. What the forks of a chain share is kept with the
// first of them.
func (t *then[A, B, C]) Keep(dst []kemi.Kept) []kemi.Kept {
	dst = append(dst, t.orphans...)
	t.orphans = nil
	a, b := keeps(t.ab), keeps(t.bc)
	if a && (!t.lentA || !t.follows) {
		dst = keep(dst, t.ab, place(placeA, a && b))
	}
	if b && (!t.lentB || !t.follows) {
		dst = keep(dst, t.bc, place(placeB, a && b))
	}
	return dst
}

func place(p string, both bool) string {
	if both {
		return p
	}
	return ""
}

// Restore gives each part what it kept. What was kept by a stage that is not in the
// chain any more is forgotten with the next Keep.
func (t *then[A, B, C]) Restore(kept []kemi.Kept) error {
	var a, b []kemi.Kept
	switch keepsA, keepsB := keeps(t.ab), keeps(t.bc); {
	case keepsA && keepsB:
		for _, e := range kept {
			if key, ok := strings.CutPrefix(e.Key, placeA); ok {
				a = append(a, kemi.Kept{Key: key, Value: e.Value})
			} else if key, ok := strings.CutPrefix(e.Key, placeB); ok {
				b = append(b, kemi.Kept{Key: key, Value: e.Value})
			} else {
				t.orphans = append(t.orphans, kemi.Kept{Key: e.Key})
			}
		}
	case keepsA:
		a = kept
	case keepsB:
		b = kept
	default:
		for _, e := range kept {
			t.orphans = append(t.orphans, kemi.Kept{Key: e.Key})
		}
	}
	if err := restore(t.ab, a); err != nil {
		return err
	}
	return restore(t.bc, b)
}

func proof(t any) kemi.Proof {
	if p, ok := t.(kemi.Prover); ok {
		return p.Proof()
	}
	return kemi.Proof{}
}

// keeps tells whether t, or a part of it, has something to keep.
func keeps(t any) bool {
	if c, ok := t.(interface{ keeps() bool }); ok {
		return c.keeps()
	}
	_, ok := t.(kemi.Keeper)
	return ok
}

func keep(dst []kemi.Kept, t any, prefix string) []kemi.Kept {
	k, ok := t.(kemi.Keeper)
	if !ok {
		return dst
	}
	n := len(dst)
	dst = k.Keep(dst)
	if prefix != "" {
		for i := n; i < len(dst); i++ {
			dst[i].Key = prefix + dst[i].Key
		}
	}
	return dst
}

func restore(t any, kept []kemi.Kept) error {
	if k, ok := t.(kemi.Keeper); ok && len(kept) > 0 {
		return k.Restore(kept)
	}
	return nil
}
