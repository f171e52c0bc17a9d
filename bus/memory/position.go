package memory

import (
	"slices"

	"github.com/kemi-go/kemi/bus/internal/deal"
)

// position is how far the readers of one name have come, and who they are. It is
// used under the topic's lock.
type position[T any] struct {
	name    name
	next    []int64 // by partition: the first unit not yet acknowledged
	waiting int     // records from there on, of all partitions

	members []*member[T] // the Runs under way
	owner   []*member[T] // by partition: who is to read it
	lanes   []*lane[T]   // by partition: who reads it, be it on its way out

	// kept is set for one Run of an All, and is the position of the name.
	kept *position[T]
}

// position returns that of a name, which begins with the oldest record that is there.
func (t *Topic[T]) position(n name) *position[T] {
	pos := t.names[n]
	if pos == nil {
		pos = t.place(n)
		for p := range t.parts {
			l := &t.parts[p]
			pos.next[p] = l.first
			for o := l.first; o < l.end(); o++ {
				pos.waiting += len(l.at(o).records)
			}
		}
		t.names[n] = pos
	}
	return pos
}

func (t *Topic[T]) place(n name) *position[T] {
	pos := &position[T]{
		name:  n,
		next:  make([]int64, len(t.parts)),
		owner: make([]*member[T], len(t.parts)),
		lanes: make([]*lane[T], len(t.parts)),
	}
	t.places = append(t.places, pos)
	return pos
}

// pass moves a position over what was acknowledged.
func (t *Topic[T]) pass(pos *position[T], p int, to int64) {
	for ; pos.next[p] < to; pos.next[p]++ {
		pos.waiting -= len(t.parts[p].at(pos.next[p]).records)
	}
	if pos.kept != nil {
		t.pass(pos.kept, p, to)
		return // which has trimmed
	}
	t.trim(p)
	t.roomy()
}

// trim drops what everybody has passed and nobody is to be warmed up with.
func (t *Topic[T]) trim(p int) {
	if len(t.places) == 0 {
		return
	}
	l := &t.parts[p]
	low := l.end()
	for _, pos := range t.places {
		low = min(low, pos.next[p])
	}
	if low == l.first {
		return
	}
	keep := low
	if t.retain > 0 {
		keep = l.since(l.at(low-1).time.Add(-t.retain), low)
	}
	for l.first < keep {
		t.held -= l.drop()
	}
}

// deal gives every partition to a member. Members on their way out get none, unless
// there are no others.
func (pos *position[T]) deal() {
	live := slices.DeleteFunc(slices.Clone(pos.members), func(m *member[T]) bool { return m.until != nil })
	if len(live) == 0 {
		live = pos.members
	}
	deal.Out(pos.owner, live)
	pos.callMembers()
}

// callMembers makes every member look at what is its own.
func (pos *position[T]) callMembers() {
	for _, m := range pos.members {
		select {
		case m.call <- struct{}{}:
		default: // is called already
		}
	}
}
