package derive

import (
	"math"

	"github.com/kemi-go/kemi"
)

// poll is the metrics of one host at one time: a chain of indexes into the batch.
type poll struct{ first, last int }

type pollKey struct {
	host string
	time int64
}

// sample is one series of an operand.
type sample struct {
	labels kemi.Labels
	v      float64
}

// set holds the series that a selector has found, each label set once.
type set struct {
	samples []sample
	index   map[kemi.Labels]int // of samples, once there are more than a few
}

const few = 8

func (s *set) find(l kemi.Labels) int {
	if len(s.samples) > few {
		if i, ok := s.index[l]; ok {
			return i
		}
		return -1
	}
	for i := range s.samples {
		if s.samples[i].labels == l {
			return i
		}
	}
	return -1
}

// add takes a series. A series that is there already was delivered twice.
func (s *set) add(l kemi.Labels, v float64) {
	if s.find(l) >= 0 {
		return
	}
	s.samples = append(s.samples, sample{l, v})
	switch n := len(s.samples); {
	case n == few+1:
		if s.index == nil {
			s.index = map[kemi.Labels]int{}
		}
		clear(s.index)
		for i := range s.samples {
			s.index[s.samples[i].labels] = i
		}
	case n > few:
		s.index[l] = n - 1
	}
}

// scratch is what one Apply works with.
type scratch struct {
	// Of the batch.
	polls  []poll
	pollOf []int // of each record
	next   []int // record of the same poll, or -1
	seen   map[pollKey]int

	// Of a poll.
	common kemi.Labels // what all its metrics have
	found  []set       // by selector
	arena  []sample    // the results of expressions
	index  map[kemi.Labels]int
}

func newScratch(selectors int) *scratch {
	return &scratch{seen: map[pollKey]int{}, found: make([]set, selectors), index: map[kemi.Labels]int{}}
}

// split finds the polls in a batch.
func (s *scratch) split(src []kemi.Metric) {
	s.polls, s.pollOf, s.next = s.polls[:0], s.pollOf[:0], s.next[:0]
	clear(s.seen)
	var last pollKey
	n := -1
	for i := range src {
		m := &src[i]
		k := pollKey{last.host, m.Time.UnixNano()}
		if i == 0 || m.Labels != src[i-1].Labels {
			k.host = m.Host()
		}
		if n < 0 || k != last {
			at, ok := s.seen[k]
			if !ok {
				at = len(s.polls)
				s.seen[k] = at
				s.polls = append(s.polls, poll{first: i, last: i})
			}
			n, last = at, k
		}
		s.pollOf = append(s.pollOf, n)
		s.next = append(s.next, -1)
		if p := &s.polls[n]; p.last != i {
			s.next[p.last] = i
			p.last = i
		}
	}
}

func (s *scratch) begin(first kemi.Labels) {
	s.common = first
	for i := range s.found {
		s.found[i].samples = s.found[i].samples[:0]
	}
}

// meet leaves in common what is also in l.
func (s *scratch) meet(l kemi.Labels) {
	c := s.common
	if l == c {
		return
	}
	for i := range c.Len() {
		if x := c.At(i); l.Get(x.Name) != x.Value {
			s.common = s.common.Without(x.Name)
		}
	}
}

// take hands a series to the selector that may want it.
func (s *scratch) take(n int, sel *selector, l kemi.Labels, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) || !sel.matches(l) {
		return
	}
	s.found[n].add(s.strip(sel, l), v)
}

// strip takes the labels matched with = off l. What remains are most often the common
// labels, which are at hand.
func (s *scratch) strip(sel *selector, l kemi.Labels) kemi.Labels {
	if len(sel.removed) == 0 {
		return l
	}
	if l.Len()-len(sel.removed) == s.common.Len() {
		shared := false
		for _, name := range sel.removed {
			shared = shared || s.common.Get(name) != ""
		}
		if !shared {
			return s.common
		}
	}
	return l.Without(sel.removed...)
}
