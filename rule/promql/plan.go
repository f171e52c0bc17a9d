package promql

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// nameLabel holds the name of a metric among the labels of Prometheus.
const nameLabel = "__name__"

// plan is what the store has to hold, by the selectors of all rules.
type plan struct {
	names map[string]*want
	loose []*want // of selectors that do not say one name: {__name__=~"cpu_.*"}, {host="web1"}
}

// want is a choice of series, and how far back before an evaluation their samples
// are needed.
type want struct {
	sets [][]*labels.Matcher // a series is wanted if it matches one of the sets
	back time.Duration
}

// need is one selector of an expression.
type need struct {
	name     string // empty: a loose one
	matchers []*labels.Matcher
	back     time.Duration
}

// names says whether a metric of this name may be wanted. It is asked of loose
// wants, which have one set.
func (w *want) names(name string) bool {
	return slices.ContainsFunc(w.sets, func(set []*labels.Matcher) bool {
		for _, m := range set {
			if m.Name == nameLabel && !m.Matches(name) {
				return false
			}
		}
		return true
	})
}

// matches says whether the series with these labels is wanted.
func (w *want) matches(get func(string) string) bool {
	for _, set := range w.sets {
		if matchAll(set, get) {
			return true
		}
	}
	return false
}

// join returns the union of w, which may be nil, and o.
func (w *want) join(o *want) *want {
	if w == nil {
		return o
	}
	u := &want{sets: slices.Clone(w.sets), back: max(w.back, o.back)}
	for _, set := range o.sets {
		if !slices.ContainsFunc(u.sets, func(s []*labels.Matcher) bool { return sameMatchers(s, set) }) {
			u.sets = append(u.sets, set)
		}
	}
	// A set without conditions takes every series: the others say nothing more.
	if i := slices.IndexFunc(u.sets, func(s []*labels.Matcher) bool { return len(s) == 0 }); i >= 0 {
		u.sets = u.sets[i : i+1]
	}
	return u
}

func sameMatchers(a, b []*labels.Matcher) bool {
	return slices.EqualFunc(a, b, func(x, y *labels.Matcher) bool {
		return x.Type == y.Type && x.Name == y.Name && x.Value == y.Value
	})
}

func newWant(n need) *want {
	return &want{sets: [][]*labels.Matcher{n.matchers}, back: n.back}
}

// newPlan joins needs.
func newPlan(needs []need) *plan {
	p := &plan{names: map[string]*want{}}
	for _, n := range needs {
		w := newWant(n)
		if n.name == "" {
			p.loose = append(p.loose, w)
		} else {
			p.names[n.name] = p.names[n.name].join(w)
		}
	}
	return p
}

// needsOf walks an expression and returns what its selectors need, given the
// look-back of instant selectors.
func needsOf(expr parser.Expr, lookback time.Duration) ([]need, error) {
	var needs []need
	var bad error
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		if sub, ok := node.(*parser.SubqueryExpr); ok && sub.Timestamp != nil {
			bad = errFixedTime(sub.String())
			return bad
		}
		sel, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		if sel.Timestamp != nil {
			bad = errFixedTime(sel.String())
			return bad
		}
		// An instant selector sees the newest sample of the look-back, a range selector
		// those of its range; offsets and subqueries around it move that further back.
		back, around := lookback, sel.OriginalOffset
		for _, outer := range path {
			switch o := outer.(type) {
			case *parser.MatrixSelector:
				back = o.Range
			case *parser.SubqueryExpr:
				around += o.Range + o.OriginalOffset
			}
		}
		n := need{back: max(back+around, 0)}
		for _, m := range sel.LabelMatchers {
			if n.name == "" && m.Name == nameLabel && m.Type == labels.MatchEqual {
				n.name = m.Value
				continue
			}
			n.matchers = append(n.matchers, m)
		}
		slices.SortFunc(n.matchers, func(a, b *labels.Matcher) int { return strings.Compare(a.String(), b.String()) })
		needs = append(needs, n)
		return nil
	})
	return needs, bad
}

func errFixedTime(text string) error {
	return fmt.Errorf("%s asks for a fixed time: rules hold only the recent past; use offset, or @ end()", text)
}
