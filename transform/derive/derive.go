// Package derive calculates metrics from the other metrics of the same poll, by
// formulas such as
//
//	disk_used_percent = 100 * disk_used_bytes / disk_total_bytes
//
// Only metrics of one host label and one Time, in one batch, are combined: a poll.
// [Linux] has the formulas of the standard Linux profile.
//
// # Formulas
//
// An expression has numbers (100, 1.5, 1e6), names of metrics, + - * / with the
// usual precedence, parentheses, and these functions:
//
//	sum(x) avg(x) min(x) max(x) count(x)   of all series of x: one value for the host
//	min(x, y) max(x, y)                    the smaller, the larger
//	clamp(x, low, high)                    x, but at least low and at most high
//	above(x, y)                            x where it is above y, otherwise nothing
//
// A name stands for all series of that name. It may be followed by matchers,
// cpu_ticks_rate{mode="idle"}, also with !=. A label matched with = is removed from the
// series, because it is the same on all that are left.
//
// Two operands are joined series by series: those with the same labels belong
// together, and a series without a partner gives nothing. So the example above has
// one value for each mount. An operand that has only the labels that all metrics
// of the poll have in common is about the host as a whole; it goes with every
// series of the other side.
//
// # No answer rather than a wrong one
//
// Where an operand is missing, there is no result; a missing metric never counts
// as 0. Neither is there one where a result on the way is infinite or not a
// number, as after a division by 0.
package derive

import (
	"context"
	"fmt"
	"sync"

	"github.com/kemi-go/kemi"
)

// Formula makes one metric.
type Formula struct {
	// Name is the name of the result, a gauge. Several formulas may have the same: for
	// each label set the first that has a result counts, so the later ones are for
	// hosts that lack something. Where the input has that series already, it counts.
	Name string

	// Expr is the expression; see the package comment. It may use the results of the
	// formulas listed before.
	Expr string
}

// Config says what to calculate.
type Config struct {
	Formulas []Formula
}

// Values is the stage: it passes its input through and adds the results after the last
// metric of their poll, formula by formula. It has no state between batches, and
// any number of goroutines may use it at once.
type Values struct {
	formulas  []formula
	selectors []selector
	byName    map[string][]int // the selectors of a metric
	scratch   sync.Pool        // of *scratch; of no meaning, but Apply would allocate without
}

type formula struct {
	name string
	expr node
	own  int // the selector of name: what is there already
}

// New compiles the formulas. An error says which formula is wrong, where and why.
func New(c Config) (*Values, error) {
	if len(c.Formulas) == 0 {
		return nil, fmt.Errorf("derive: no formulas: give some, or derive.Linux()")
	}
	v := &Values{byName: map[string][]int{}}
	for i, f := range c.Formulas {
		if !isName(f.Name) {
			return nil, fmt.Errorf("derive: formula %d: %q is not a name for a metric: use letters, digits, colons, dots and underscores", i+1, f.Name)
		}
		p := parser{src: f.Expr, selector: v.selector}
		expr, err := p.parse()
		if err != nil {
			return nil, fmt.Errorf("derive: formula %q: %w", f.Name, err)
		}
		v.formulas = append(v.formulas, formula{f.Name, expr, v.selector(selector{name: f.Name})})
	}
	v.scratch.New = func() any { return newScratch(len(v.selectors)) }
	return v, nil
}

// selector returns the number of s; equal ones are found once.
func (v *Values) selector(s selector) int {
	for _, i := range v.byName[s.name] {
		if s.equal(&v.selectors[i]) {
			return i
		}
	}
	v.selectors = append(v.selectors, s)
	i := len(v.selectors) - 1
	v.byName[s.name] = append(v.byName[s.name], i)
	return i
}

// Apply appends src and the derived metrics to dst. It returns no error.
func (v *Values) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	s := v.scratch.Get().(*scratch)
	defer v.scratch.Put(s)
	s.split(src)
	for i := range src {
		dst = append(dst, src[i])
		if p := &s.polls[s.pollOf[i]]; p.last == i {
			dst = v.evaluate(s, p, src, dst)
		}
	}
	return dst, nil
}

// evaluate appends what the formulas make of one poll.
func (v *Values) evaluate(s *scratch, p *poll, src, dst []kemi.Metric) []kemi.Metric {
	s.begin(src[p.first].Labels)
	for i := p.first; i >= 0; i = s.next[i] {
		s.meet(src[i].Labels)
	}
	for i := p.first; i >= 0; i = s.next[i] {
		m := &src[i]
		for _, sel := range v.byName[m.Name] {
			s.take(sel, &v.selectors[sel], m.Labels, m.Float())
		}
	}
	t := src[p.first].Time
	for i := range v.formulas {
		f := &v.formulas[i]
		s.arena = s.arena[:0]
		for _, r := range f.expr.eval(s) {
			if s.found[f.own].find(r.labels) >= 0 {
				continue
			}
			dst = append(dst, kemi.Gauge(f.name, r.labels, t, r.v))
			for _, sel := range v.byName[f.name] {
				s.take(sel, &v.selectors[sel], r.labels, r.v)
			}
		}
	}
	return dst
}
