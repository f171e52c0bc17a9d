package agent

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
)

// Tree is where a host has its objects. View is called once for each request, by
// many goroutines at once, so it must be cheap.
type Tree interface {
	View() *View
}

// TreeFunc is a function used as a [Tree].
type TreeFunc func() *View

// View calls f.
func (f TreeFunc) View() *View { return f() }

// View is the objects of a host at one instant, in the order of their OIDs. It is
// immutable, and the answer to a request is made of one View alone. A View is also
// a Tree that never changes. The zero View has no objects.
type View struct {
	objects []object

	mu    sync.Mutex
	known map[question]reply // given before
}

type object struct {
	oid     []uint32
	varbind []byte // SEQUENCE { OID, value }, ready to be sent
}

// NewView returns a View of these objects, by OID in dotted numbers. It panics if
// an OID is none: the tables of a test are written by hand.
func NewView(objects map[string]Value) *View {
	v := &View{objects: make([]object, 0, len(objects))}
	for s, val := range objects {
		oid, err := parseOID(s)
		if err != nil {
			panic(err)
		}
		v.objects = append(v.objects, object{oid, appendVarbind(nil, oid, val.ber)})
	}
	slices.SortFunc(v.objects, func(a, b object) int { return slices.Compare(a.oid, b.oid) })
	for i := 1; i < len(v.objects); i++ { // ".1.3" and "1.3" are two keys of the map
		if slices.Equal(v.objects[i-1].oid, v.objects[i].oid) {
			panic(fmt.Sprintf("agent: object id %s is there twice", formatOID(v.objects[i].oid)))
		}
	}
	return v
}

// View returns v.
func (v *View) View() *View { return v }

// Len returns the number of objects.
func (v *View) Len() int { return len(v.objects) }

// find returns the index of the first object at or after oid.
func (v *View) find(oid []uint32) (i int, exact bool) {
	i = sort.Search(len(v.objects), func(i int) bool { return slices.Compare(v.objects[i].oid, oid) >= 0 })
	return i, i < len(v.objects) && slices.Equal(v.objects[i].oid, oid)
}

// sibling tells whether an object differs from oid in nothing but the last number:
// another row of the same column, or the one instance of a scalar.
func (v *View) sibling(i int, oid []uint32) bool {
	if len(oid) == 0 {
		return false
	}
	like := func(o []uint32) bool {
		return len(o) == len(oid) && slices.Equal(o[:len(o)-1], oid[:len(oid)-1])
	}
	return i < len(v.objects) && like(v.objects[i].oid) || i > 0 && like(v.objects[i-1].oid)
}

// appendVarbind appends one variable binding.
func appendVarbind(b []byte, oid []uint32, value []byte) []byte {
	if value == nil {
		value = []byte{tagNull, 0}
	}
	name := appendOID(make([]byte, 0, 64), oid)
	b = appendLength(append(b, tagSequence), len(name)+len(value))
	return append(append(b, name...), value...)
}

// Static is a Tree of values that a test sets. Its methods may be called by many
// goroutines at once.
type Static struct {
	mu     sync.Mutex
	values map[string]Value
	view   *View // nil: to be made
}

// NewStatic returns a tree of these objects, by OID in dotted numbers. It panics if
// an OID is none.
func NewStatic(objects map[string]Value) *Static {
	return &Static{values: maps.Clone(objects), view: NewView(objects)}
}

// Set adds or changes objects.
func (s *Static) Set(objects map[string]Value) {
	for oid := range objects {
		if _, err := parseOID(oid); err != nil {
			panic(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string]Value{}
	}
	maps.Copy(s.values, objects)
	s.view = nil
}

// Delete removes objects, named as they were when set.
func (s *Static) Delete(oids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, oid := range oids {
		delete(s.values, oid)
	}
	s.view = nil
}

// View returns the objects as they are now.
func (s *Static) View() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		s.view = NewView(s.values)
	}
	return s.view
}
