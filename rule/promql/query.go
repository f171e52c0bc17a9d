package promql

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Querier implements storage.Queryable.
func (s *store) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{s, mint, maxt}, nil
}

type querier struct {
	store      *store
	mint, maxt int64
}

func (*querier) Close() error { return nil }

// Select gives the series in order of labels, whether asked to or not, so that the
// same data gives the same sums to the last bit.
func (q *querier) Select(_ context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	w := &window{from: q.mint, to: q.maxt}
	if hints != nil {
		w.from, w.to = max(w.from, hints.Start), min(w.to, hints.End)
		w.latest = hints.Range == 0 && hints.Step == 0 && w.to-w.from < q.store.lookback
	}
	set := &seriesSet{at: -1}
	for _, x := range q.find(ms) {
		set.views = append(set.views, view{x, w})
	}
	return set
}

// find returns the series that match, in order of labels.
func (q *querier) find(ms []*labels.Matcher) []*series {
	ix := q.store.index.Load()
	var metrics []*metric
	for _, m := range ms {
		if m.Name == nameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			if x := q.store.find(ix, m.Value); x != nil {
				metrics = append(metrics, x)
			}
			ms = slices.DeleteFunc(slices.Clone(ms), func(o *labels.Matcher) bool { return o == m })
			goto named
		}
	}
	metrics = q.store.metrics(ix)
named:
	var found []*series
	for _, m := range metrics {
		m.mu.Lock()
		all := m.merge()
		m.mu.Unlock()
		if len(ms) == 0 && len(metrics) == 1 {
			return all
		}
		for _, x := range all {
			if matchAll(ms, x.labels.Get) {
				found = append(found, x)
			}
		}
	}
	if len(metrics) > 1 {
		slices.SortFunc(found, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
	}
	return found
}

func matchAll(ms []*labels.Matcher, get func(string) string) bool {
	for _, m := range ms {
		if !m.Matches(get(m.Name)) {
			return false
		}
	}
	return true
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(_ context.Context, name string, _ *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	set := map[string]bool{}
	for _, x := range q.find(ms) {
		if v := x.labels.Get(name); v != "" {
			set[v] = true
		}
	}
	return slices.Sorted(maps.Keys(set)), nil, nil
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(_ context.Context, _ *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	set := map[string]bool{}
	for _, x := range q.find(ms) {
		x.labels.Range(func(l labels.Label) { set[l.Name] = true })
	}
	return slices.Sorted(maps.Keys(set)), nil, nil
}

// window is the stretch of time, both ends included, that a selector asks for.
type window struct {
	from, to int64
	latest   bool // a plain instant selector: only the newest sample matters, if it is a float
}

// view is a series seen through a window.
type view struct {
	*series
	w *window
}

func (v view) Labels() labels.Labels { return v.labels }

// Iterator copies the samples of the window, so that it needs no lock later.
func (v view) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.i = -1
	v.metric.mu.Lock()
	defer v.metric.mu.Unlock()
	if v.w.latest && v.ring.more == nil { // those of histograms are compared with each other
		it.samples, it.more = v.ring.latest(it.samples[:0], v.w.from, v.w.to), it.more[:0]
	} else {
		it.samples, it.more = v.ring.window(it.samples[:0], it.more[:0], v.w.from, v.w.to)
	}
	return it
}

type seriesSet struct {
	views []view
	at    int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.views) }
func (s *seriesSet) At() storage.Series                { return &s.views[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// iterator goes through a copy of samples.
type iterator struct {
	samples []sample
	more    []extra // as long as samples, or empty
	i       int
}

func (it *iterator) Next() chunkenc.ValueType {
	it.i++
	return it.kind()
}

func (it *iterator) kind() chunkenc.ValueType {
	switch {
	case it.i >= len(it.samples):
		return chunkenc.ValNone
	case len(it.more) == 0:
		return chunkenc.ValFloat
	case it.more[it.i].h != nil:
		return chunkenc.ValHistogram
	case it.more[it.i].fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (it *iterator) Seek(t millis) chunkenc.ValueType {
	it.i = max(it.i, 0)
	if it.i < len(it.samples) && it.samples[it.i].t < t {
		n, _ := slices.BinarySearchFunc(it.samples[it.i:], t, func(s sample, t int64) int { return cmp.Compare(s.t, t) })
		it.i += n
	}
	return it.kind()
}

func (it *iterator) At() (int64, float64) { return it.samples[it.i].t, it.samples[it.i].v }
func (it *iterator) AtT() int64           { return it.samples[it.i].t }
func (it *iterator) Err() error           { return nil }

func (it *iterator) AtST() int64 {
	if len(it.more) == 0 {
		return 0
	}
	return it.more[it.i].st
}

// AtHistogram gives a copy: the engine computes in place.
func (it *iterator) AtHistogram(dst *histogram.Histogram) (int64, *histogram.Histogram) {
	h := it.more[it.i].h
	if dst == nil {
		return it.AtT(), h.Copy()
	}
	h.CopyTo(dst)
	return it.AtT(), dst
}

// AtFloatHistogram gives a copy: the engine computes in place.
func (it *iterator) AtFloatHistogram(dst *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	x := it.more[it.i]
	switch {
	case x.h != nil:
		return it.AtT(), x.h.ToFloat(dst)
	case dst == nil:
		return it.AtT(), x.fh.Copy()
	}
	x.fh.CopyTo(dst)
	return it.AtT(), dst
}
