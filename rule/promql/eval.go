package promql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	prom "github.com/prometheus/prometheus/promql"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// group is a list of rules that are evaluated together, one after the other.
type group struct {
	*groupSpec
	rules []*rule
	next  millis // the next evaluation; 0: not known yet
	last  millis // the one before; 0: none
}

// rule is a rule with its state.
type rule struct {
	*ruleSpec
	group     *group
	scope     *scope
	templates bool // some label or annotation is one

	id, moved uint64 // what it is known by, and without its file
	bounded   bool   // its horizon is all it depends on

	active  map[kemi.Labels]*instance
	written map[uint64]labels.Labels // series written by the last evaluation, by hash
	result  uint64                   // of the last evaluation
	unsure  bool                     // the last evaluation failed

	evaluations, failures uint64
	err, badText          error
	logged                string
}

func newRule(spec *ruleSpec, g *group, sc *scope) *rule {
	r := &rule{ruleSpec: spec, group: g, scope: sc, active: map[kemi.Labels]*instance{}}
	r.id, r.moved = hashOf(g.file, g.name, spec.key()), hashOf(g.name, spec.key())
	for _, ts := range [][]text{spec.labels, spec.annotations} {
		for _, t := range ts {
			r.templates = r.templates || t.tmpl != nil
		}
	}
	return r
}

// due says up to which time rules may be evaluated, given the time of a tick. It is
// what the metrics say, less the delay. When they have said nothing new for the
// greatest delay, the tick says it.
//
// The silence has to be real. A stage that works off a backlog gets metrics that
// are old by the clock of its ticks, but they bring event time forward, and
// evaluating ahead of them would miss what they say.
func (r *Rules) due(now millis) millis {
	newest := r.store.newest.Load()
	if newest > r.seen {
		r.seen, r.moved = newest, now
	}
	due := min(newest, now) - r.conf.Delay.Milliseconds()
	if wait := r.conf.MaxDelay.Milliseconds(); now-r.moved >= wait {
		due = max(due, now-wait)
	}
	return due
}

// align returns the first multiple of step that is not before t.
func align(t millis, step time.Duration) millis {
	s := max(1, step.Milliseconds())
	if m := t % s; m > 0 {
		return t - m + s
	}
	return t
}

// advance evaluates everything up to due, in order of time and then of groups.
func (r *Rules) advance(ctx context.Context, dst []kemi.Alert, due millis) []kemi.Alert {
	if due <= r.evaluated {
		return dst
	}
	for _, g := range r.groups {
		r.schedule(g, due)
	}
	for {
		var g *group
		for _, o := range r.groups {
			if o.next != 0 && o.next <= due && (g == nil || o.next < g.next) {
				g = o
			}
		}
		if g == nil {
			break
		}
		if t := r.sight(g.next, due); t > g.next {
			step := g.interval.Milliseconds()
			n := (t - g.next + step - 1) / step
			g.next += n * step
			r.skipped += uint64(n)
			continue
		}
		var whole bool
		if dst, whole = r.evaluate(ctx, dst, g, g.next); !whole {
			return dst // the hard stop: what is half done will be done again from the input
		}
		g.last = g.next
		g.next += g.interval.Milliseconds()
	}
	r.evaluated = due
	base := due + 1
	for _, g := range r.groups {
		if g.next != 0 {
			base = min(base, g.next)
		}
	}
	r.store.base.Store(base)
	if due-r.swept >= sweepEvery.Milliseconds() {
		r.swept = due
		r.store.sweep()
	}
	return dst
}

// sweepEvery is how often, in event time, old series are looked for.
const sweepEvery = time.Minute

// schedule finds the first evaluation of a group, and lets a group that has fallen
// too far behind skip some.
func (r *Rules) schedule(g *group, due millis) {
	step := g.interval.Milliseconds()
	far := due - int64(r.conf.MaxCatchUp-1)*step
	if g.next == 0 {
		begin := r.first // nothing seen: silence counts from the first tick
		if oldest := r.store.oldest.Load(); oldest != math.MaxInt64 {
			// What was read again to warm up counts. Anything older is a buffer that somebody
			// flushed late: evaluated on its own, it would make everything else look absent.
			begin = max(oldest, due-r.Horizon().Milliseconds())
		}
		if r.evaluated != 0 { // the group is new: its series are only being collected now
			begin = r.evaluated + 1
		}
		if t := align(max(begin, far), g.interval); t <= due {
			g.next = t
		}
		return
	}
	if g.next < far {
		n := (far - g.next + step - 1) / step
		g.next += n * step
		r.skipped += uint64(n)
		r.log.Warn("metric rules fell behind and skip evaluations", zap.String("group", g.name),
			zap.Int64("skipped", n), zap.Time("next", toUTC(g.next)))
	}
}

// evaluate runs the rules of a group at time t. It is false if ctx ended on the way.
func (r *Rules) evaluate(ctx context.Context, dst []kemi.Alert, g *group, t millis) ([]kemi.Alert, bool) {
	at := t - g.queryOffset.Milliseconds()
	r.scope.now = t
	for _, x := range g.rules {
		// The expression and the templates share one Timeout.
		limited, cancel := context.WithTimeout(ctx, r.conf.Timeout)
		r.scope.begin(limited.Err)
		r.scope.query = func(expr string) (vector, error) {
			if err := feasible(expr); err != nil {
				return nil, err
			}
			v, err := r.query(limited, expr, t)
			return points(v), err
		}
		res, err := r.query(limited, x.expr, at)
		if ctx.Err() != nil {
			cancel()
			return dst, false
		}
		x.evaluations++
		x.badText = nil
		if x.unsure = err != nil; err == nil && x.bounded {
			x.result = resultOf(res, t)
		}
		var out []prom.Sample
		left, large := 0, 0
		switch {
		case err != nil:
		case x.alert:
			var changed []kemi.Alert
			if changed, left, large, err = x.judge(res, t); err == nil {
				dst = append(dst, r.once(changed)...)
				out = x.alertSeries(r.store, at)
			}
		default:
			out, left, err = x.record(res, at)
		}
		if err == nil { // a rule that failed leaves its series as they were
			x.write(r.store, out, at)
			err = x.badText
		}
		if left > 0 {
			err = errors.Join(err, fmt.Errorf("more than %d alerts or series, the limit of the group: %d were left out", g.limit, left))
		}
		if large > 0 {
			err = errors.Join(err, fmt.Errorf("more than %d labels or %d bytes of them: %d alerts were left out", maxSet, maxLabelBytes, large))
		}
		r.note(x, err)
		cancel()
	}
	return dst, true
}

// record turns the result of a recording rule into the samples of its metric. Over
// the limit, the first ones in the order of the result are kept.
func (r *rule) record(res prom.Vector, at millis) (out []prom.Sample, left int, err error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range res {
		b.Reset(s.Metric)
		b.Set(nameLabel, r.name)
		for _, l := range r.labels {
			b.Set(l.name, l.source)
		}
		out = append(out, prom.Sample{Metric: b.Labels(), T: at, F: s.F, H: s.H})
	}
	if prom.Vector(out).ContainsSameLabelset() {
		return nil, 0, errSameLabels
	}
	if limit := r.group.limit; limit > 0 && len(out) > limit {
		out, left = out[:limit], len(out)-limit
	}
	return out, left, nil
}

// write stores what a rule gave, and ends the series that it gave last time and
// gives no more.
func (r *rule) write(st *store, out []prom.Sample, at millis) {
	written := make(map[uint64]labels.Labels, len(out))
	for _, s := range out {
		written[s.Metric.Hash()] = s.Metric
		st.write(s.Metric, sample{at, s.F}, extra{fh: s.H})
	}
	r.end(st, at, written)
	r.written = written
}

// end writes stale markers for the series that are not in but.
func (r *rule) end(st *store, at millis, but map[uint64]labels.Labels) {
	for h, ls := range r.written {
		if _, ok := but[h]; !ok {
			st.write(ls, sample{at, math.Float64frombits(value.StaleNaN)}, extra{})
		}
	}
}

// note counts what became of an evaluation, and logs an error when it is a new one.
func (r *Rules) note(x *rule, err error) {
	x.err = err
	if err == nil {
		if x.logged != "" {
			x.logged = ""
			r.log.Info("the metric rule works again", x.fields()...)
		}
		return
	}
	x.failures++
	if text := err.Error(); text != x.logged {
		x.logged = text
		r.log.Warn("the metric rule failed", append(x.fields(), zap.Error(err))...)
	}
}

func (r *rule) fields() []zap.Field {
	return []zap.Field{zap.String("file", r.group.file), zap.Int("line", r.line), zap.String("group", r.group.name), zap.String("rule", r.name)}
}

// query evaluates an expression at time t. A scalar becomes a series without labels.
func (r *Rules) query(ctx context.Context, expr string, t millis) (prom.Vector, error) {
	q, err := r.engine.NewInstantQuery(ctx, r.store, nil, expr, toUTC(t))
	if err != nil {
		return nil, err
	}
	defer q.Close() // takes its slices back, but neither labels nor numbers
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, res.Err
	}
	switch v := res.Value.(type) {
	case prom.Vector:
		for i := range v {
			if v[i].H != nil {
				v[i].H = v[i].H.Copy()
			}
		}
		return v, nil
	case prom.Scalar:
		return prom.Vector{{T: v.T, F: v.V}}, nil
	}
	return nil, fmt.Errorf("the expression gives a %s: want an instant vector or a scalar", res.Value.Type())
}
