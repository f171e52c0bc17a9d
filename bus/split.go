package bus

import "slices"

const knownMax = 1 << 12 // keys

// Part is the records of one key in one batch, in their order.
type Part[T any] struct {
	Key     string
	Records []T
	index   []int32 // where the records stand in the batch; nil: the part is the batch
}

// Index returns where record i of the part stands in the batch that was split, to
// name it in a kemi.Partial.
func (p Part[T]) Index(i int) int {
	if p.index == nil {
		return i
	}
	return int(p.index[i])
}

// Splitter splits batches into parts of one key each: what a topic stores. It keeps
// its memory from call to call, and serves one goroutine at a time.
type Splitter[T any] struct {
	key   Key[T]
	known map[string]int32 // key to its place in parts
	parts []Part[T]
	sizes []int   // of the parts
	of    []int32 // the part of each record
	moved []T     // the records, part after part
	index []int32
}

// NewSplitter returns a Splitter by key. With a nil key there is one part, of the
// empty key.
func NewSplitter[T any](key Key[T]) *Splitter[T] {
	return &Splitter[T]{key: key, known: map[string]int32{}}
}

// Split returns the parts of batch in the order of their first records. They are
// valid until the next call, and while the batch is: a batch of one key, the usual
// case, is not copied. batch must hold fewer than 2^31 records.
func (s *Splitter[T]) Split(batch []T) []Part[T] {
	s.parts = s.parts[:0]
	if len(batch) == 0 {
		return nil
	}
	if s.key == nil {
		s.parts = append(s.parts, Part[T]{Records: batch})
		return s.parts
	}
	first := s.key(batch[0])
	same := 1
	for same < len(batch) && s.key(batch[same]) == first {
		same++
	}
	if same == len(batch) {
		s.parts = append(s.parts, Part[T]{Key: first, Records: batch})
		return s.parts
	}
	s.mixed(batch, first, same)
	return s.parts
}

// mixed sorts a batch of several keys by counting. The first same records have the
// key first.
func (s *Splitter[T]) mixed(batch []T, first string, same int) {
	if len(s.known) > knownMax { // clearing it would cost every later batch
		s.known = map[string]int32{}
	}
	clear(s.known)
	s.parts, s.sizes, s.of = s.parts[:0], s.sizes[:0], s.of[:0]
	last, at := first, s.part(first)
	for i := range batch {
		// Records of one key often stand side by side, and a look at the last key is
		// cheaper than one into the map.
		if i >= same {
			if k := s.key(batch[i]); k != last {
				last, at = k, s.part(k)
			}
		}
		s.sizes[at]++
		s.of = append(s.of, at)
	}

	moved, index := slices.Grow(s.moved[:0], len(batch)), slices.Grow(s.index[:0], len(batch))
	s.moved, s.index = moved, index
	from := 0
	for i, n := range s.sizes {
		to := from + n
		s.parts[i].Records, s.parts[i].index = moved[from:from:to], index[from:from:to]
		from = to
	}
	for i, at := range s.of {
		p := &s.parts[at]
		p.Records, p.index = append(p.Records, batch[i]), append(p.index, int32(i))
	}
}

// part returns the place of a key in parts.
func (s *Splitter[T]) part(key string) int32 {
	at, ok := s.known[key]
	if !ok {
		at = int32(len(s.parts))
		s.known[key] = at
		s.parts, s.sizes = append(s.parts, Part[T]{Key: key}), append(s.sizes, 0)
	}
	return at
}
