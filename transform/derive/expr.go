package derive

import (
	"math"
	"slices"

	"github.com/kemi-go/kemi"
)

// selector is the name of a metric with matchers.
type selector struct {
	name     string
	matchers []matcher
	removed  []string // labels that = has made the same on all series
}

type matcher struct {
	label, value string
	not          bool
}

func (s *selector) equal(o *selector) bool {
	return s.name == o.name && slices.Equal(s.matchers, o.matchers)
}

func (s *selector) matches(l kemi.Labels) bool {
	for _, m := range s.matchers {
		if (l.Get(m.label) == m.value) == m.not {
			return false
		}
	}
	return true
}

// node is a part of an expression. eval returns its series; they are read-only and
// good until the next formula.
type node interface {
	eval(s *scratch) []sample
}

// number only stands beside something else: two numbers are calculated when the
// formula is compiled.
type number float64

func (number) eval(*scratch) []sample { panic("derive: a number has no series") }

// operand is what a selector has found, by its number.
type operand int

func (o operand) eval(s *scratch) []sample { return s.found[o].samples }

type binary struct {
	op   op
	l, r node
}

func (b *binary) eval(s *scratch) []sample {
	if x, ok := b.l.(number); ok {
		r := b.r.eval(s)
		n := len(s.arena)
		for _, y := range r {
			s.emit(y.labels, b.op.of(float64(x), y.v))
		}
		return s.results(n)
	}
	l := b.l.eval(s)
	if y, ok := b.r.(number); ok {
		n := len(s.arena)
		for _, x := range l {
			s.emit(x.labels, b.op.of(x.v, float64(y)))
		}
		return s.results(n)
	}
	r := b.r.eval(s)
	n := len(s.arena)
	switch {
	case len(l) == 0 || len(r) == 0:
	case s.isCommon(l):
		for _, y := range r {
			s.emit(y.labels, b.op.of(l[0].v, y.v))
		}
	case s.isCommon(r):
		for _, x := range l {
			s.emit(x.labels, b.op.of(x.v, r[0].v))
		}
	default:
		s.join(b.op, l, r)
	}
	return s.results(n)
}

// isCommon tells whether a value is about the host as a whole.
func (s *scratch) isCommon(x []sample) bool { return len(x) == 1 && x[0].labels == s.common }

// join combines the series with the same labels. Both sides most often come in
// the same order; the index is made where they do not.
func (s *scratch) join(op op, l, r []sample) {
	indexed := false
	next := 0
	for _, x := range l {
		if next >= len(r) || r[next].labels != x.labels {
			if !indexed {
				indexed = true
				clear(s.index)
				for i := range r {
					s.index[r[i].labels] = i
				}
			}
			i, ok := s.index[x.labels]
			if !ok {
				continue
			}
			next = i
		}
		s.emit(x.labels, op.of(x.v, r[next].v))
		next++
	}
}

// emit keeps a result, if there is one.
func (s *scratch) emit(l kemi.Labels, v float64) {
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		s.arena = append(s.arena, sample{l, v})
	}
}

func (s *scratch) results(from int) []sample { return s.arena[from:len(s.arena):len(s.arena)] }

// op is an operation on two numbers. What is infinite or not a number is no result.
type op byte

const (
	add op = iota
	sub
	mul
	div
	minOf
	maxOf
	aboveOf
)

func (o op) of(x, y float64) float64 {
	switch o {
	case add:
		return x + y
	case sub:
		return x - y
	case mul:
		return x * y
	case div:
		return x / y
	case minOf:
		return min(x, y)
	case maxOf:
		return max(x, y)
	default:
		if x > y {
			return x
		}
		return math.NaN()
	}
}

// aggregate makes one value of all series.
type aggregate struct {
	fn string
	x  node
}

func (a *aggregate) eval(s *scratch) []sample {
	x := a.x.eval(s)
	n := len(s.arena)
	if len(x) == 0 {
		return nil
	}
	v := x[0].v
	for _, y := range x[1:] {
		switch a.fn {
		case "sum", "avg":
			v += y.v
		case "min":
			v = min(v, y.v)
		case "max":
			v = max(v, y.v)
		}
	}
	switch a.fn {
	case "avg":
		v /= float64(len(x))
	case "count":
		v = float64(len(x))
	}
	s.emit(s.common, v)
	return s.results(n)
}
