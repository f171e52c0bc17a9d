package promql

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/kemi-go/kemi"
)

// store holds in memory the series that some rule selects, for as long as some
// rule looks back, and is what the engine queries. Many goroutines may ingest and
// query at once.
//
// A metric that no rule selects costs one look-up by its name. A known series
// costs that, a look-up by the identity of its label set, and 16 bytes in a ring.
// Labels are turned into those of Prometheus once in the life of a series.
//
// A query reads a series at the moment its iterator is made. Metrics ingested while
// a query runs are seen by it or not; in a flow that does not happen, as Apply and
// Tick take turns there.
type store struct {
	maxSeries int
	lookback  millis               // of instant selectors
	limit     func(keep int64) int // samples that a series may hold, given its retention

	index  atomic.Pointer[index] // replaced as a whole by a new plan
	plans  sync.Mutex            // one new plan or sweep at a time
	intake sync.RWMutex          // held to read by ingest, so that no metric it has found is dropped under it
	series atomic.Int64

	base   atomic.Int64 // the next evaluation: retention counts back from here
	now    atomic.Int64 // of the last tick; 0 before the first
	ahead  millis       // how far a metric may be in the future of a tick
	newest atomic.Int64 // time of the newest metric seen that was not in the future
	oldest atomic.Int64 // time of the oldest; MaxInt64: none
	floor  atomic.Int64 // the tick before which somebody looked
	low    atomic.Int64 // time of the oldest metric after floor; MaxInt64: none

	asideMu sync.Mutex
	aside   []*series // with samples that were ahead of the last tick when they came

	seen, missed, late, replaced, displaced, clamped, refused, invalid atomic.Uint64
}

// never is before every time, and can be subtracted from.
const never = millis(math.MinInt64 / 2)

// index finds a metric by name. It is immutable but for the cache.
type index struct {
	names map[string]*metric
	loose []*want // selectors that do not say one name

	misses  atomic.Int64
	byLoose sync.Map // name → *metric or nil, of what loose selectors choose
}

// maxMisses bounds the names remembered that no loose selector chooses. Further
// names are matched each time. A sweep forgets them all when they are that many.
const maxMisses = 1 << 17

// metric is the series of one name.
type metric struct {
	name string
	keep atomic.Int64         // milliseconds
	want atomic.Pointer[want] // which series; the sets are never empty sets

	mu     sync.Mutex
	byKey  map[kemi.Labels]*series
	byHash map[uint64][]*series // labels.Labels.Hash
	sorted []*series            // by labels; replaced, never changed
	fresh  []*series            // not in sorted yet
}

// series belongs to the lock of its metric, but for its labels.
type series struct {
	metric *metric
	labels labels.Labels
	ring   ring
	aside  bool // in store.aside
}

func newStore(maxSeries int, lookback, ahead millis, limit func(keep millis) int) *store {
	s := &store{maxSeries: maxSeries, lookback: lookback, ahead: ahead, limit: limit}
	s.base.Store(never)
	s.oldest.Store(math.MaxInt64)
	s.low.Store(math.MaxInt64)
	s.newest.Store(never)
	s.index.Store(&index{})
	return s
}

// find returns the metric of a name, or nil if no rule selects it.
func (s *store) find(ix *index, name string) *metric {
	if m, ok := ix.names[name]; ok {
		return m
	}
	if len(ix.loose) == 0 {
		return nil
	}
	if m, ok := ix.byLoose.Load(name); ok {
		return m.(*metric)
	}
	m := newMetric(name)
	if !m.choose(ix.loose) {
		if ix.misses.Load() < maxMisses {
			if _, loaded := ix.byLoose.LoadOrStore(name, (*metric)(nil)); !loaded {
				ix.misses.Add(1)
			}
		}
		return nil
	}
	if s.series.Load() >= int64(s.maxSeries) { // it could not hold any
		s.refused.Add(1)
		return nil
	}
	got, _ := ix.byLoose.LoadOrStore(name, m)
	return got.(*metric)
}

func newMetric(name string) *metric {
	return &metric{name: name, byKey: map[kemi.Labels]*series{}, byHash: map[uint64][]*series{}}
}

// choose takes over what the wants say of this name. It is false if none of them
// wants it.
func (m *metric) choose(wants []*want) bool {
	var sum *want
	for _, w := range wants {
		if w.names(m.name) {
			sum = sum.join(w)
		}
	}
	if sum == nil {
		return false
	}
	m.want.Store(sum)
	m.keep.Store(sum.back.Milliseconds())
	return true
}

// plan makes the store hold what p selects. Series that are still selected stay
// with their samples, the others are forgotten.
func (s *store) plan(p *plan) {
	s.plans.Lock()
	defer s.plans.Unlock()
	s.intake.Lock()
	defer s.intake.Unlock()
	old := s.index.Load()
	ix := &index{names: make(map[string]*metric, len(p.names)), loose: p.loose}
	carry := func(m *metric) {
		var wants []*want
		if w := p.names[m.name]; w != nil {
			wants = append(wants, w)
		}
		if !m.choose(append(wants, p.loose...)) {
			s.series.Add(-int64(m.drop(func(*series) bool { return true })))
			return
		}
		w := m.want.Load()
		s.series.Add(-int64(m.drop(func(x *series) bool { return !w.matches(x.labels.Get) })))
		if p.names[m.name] != nil {
			ix.names[m.name] = m
		} else {
			ix.byLoose.Store(m.name, m)
		}
	}
	for _, m := range s.metrics(old) {
		carry(m)
	}
	for name, w := range p.names {
		if ix.names[name] == nil {
			m := newMetric(name)
			m.choose(append([]*want{w}, p.loose...))
			ix.names[name] = m
		}
	}
	s.index.Store(ix)
}

// metrics returns the metrics of an index, in order of names.
func (s *store) metrics(ix *index) []*metric {
	ms := slices.Collect(maps.Values(ix.names))
	ix.byLoose.Range(func(_, v any) bool {
		if m := v.(*metric); m != nil {
			ms = append(ms, m)
		}
		return true
	})
	slices.SortFunc(ms, func(a, b *metric) int { return cmp.Compare(a.name, b.name) })
	return ms
}

// drop forgets series and says how many.
func (m *metric) drop(which func(*series) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.merge()
	dead := map[*series]bool{}
	left := make([]*series, 0, len(m.sorted))
	for _, x := range m.sorted {
		if which(x) {
			dead[x] = true
		} else {
			left = append(left, x)
		}
	}
	if len(dead) == 0 {
		return 0
	}
	m.sorted = left
	maps.DeleteFunc(m.byKey, func(_ kemi.Labels, x *series) bool { return dead[x] })
	for x := range dead {
		h := x.labels.Hash()
		bucket := slices.DeleteFunc(m.byHash[h], func(y *series) bool { return y == x })
		if len(bucket) == 0 {
			delete(m.byHash, h)
		} else {
			m.byHash[h] = bucket
		}
	}
	return len(dead)
}

// from is the oldest time that an evaluation to come may ask for.
func (s *store) from(m *metric) int64 { return s.base.Load() - m.keep.Load() }

// sweep drops what no evaluation to come can see: old samples, and series without
// any others.
func (s *store) sweep() {
	s.plans.Lock()
	defer s.plans.Unlock()
	ix := s.index.Load()
	for _, m := range s.metrics(ix) {
		from := s.from(m)
		s.series.Add(-int64(m.drop(func(x *series) bool {
			x.ring.trim(from)
			x.ring.shrink()
			return x.ring.n == 0
		})))
	}
	s.intake.Lock()
	defer s.intake.Unlock()
	full := ix.misses.Load() >= maxMisses
	ix.byLoose.Range(func(name, v any) bool {
		if m := v.(*metric); m == nil && full || m != nil && len(m.byHash) == 0 {
			ix.byLoose.Delete(name)
		}
		return true
	})
	if full {
		ix.misses.Store(0)
	}
}

// ingest takes in metrics. It never fails: what cannot be used is counted.
func (s *store) ingest(batch []kemi.Metric) {
	s.intake.RLock()
	defer s.intake.RUnlock()
	ix := s.index.Load()
	limit := s.now.Load() + s.ahead
	floor := s.floor.Load()
	newest, oldest, low := never, millis(math.MaxInt64), millis(math.MaxInt64)
	var missed, invalid uint64
	for i := range batch {
		x := &batch[i]
		t := x.Time.UnixMilli()
		if t <= 0 || x.Name == "" {
			invalid++
			continue
		}
		if t <= limit {
			newest, oldest = max(newest, t), min(oldest, t)
			if t > floor {
				low = min(low, t)
			}
		}
		m := s.find(ix, x.Name)
		if m == nil {
			missed++
			continue
		}
		s.append(m, x.Labels, sample{t, x.Float()}, t > limit)
	}
	s.seen.Add(uint64(len(batch)))
	s.missed.Add(missed)
	if invalid > 0 {
		s.invalid.Add(invalid)
	}
	raise(&s.newest, newest)
	lower(&s.oldest, oldest)
	lower(&s.low, low)
}

func raise(a *atomic.Int64, v int64) {
	for {
		if old := a.Load(); v <= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

func lower(a *atomic.Int64, v int64) {
	for {
		if old := a.Load(); v >= old || a.CompareAndSwap(old, v) {
			return
		}
	}
}

// append puts a sample into the series of a label set, which it makes if some rule
// selects it. One that may be from the future has the series put aside for the next
// tick.
func (s *store) append(m *metric, key kemi.Labels, v sample, ahead bool) {
	m.mu.Lock()
	x := m.byKey[key]
	if x == nil {
		if !m.want.Load().matches(getter(m.name, key)) {
			m.mu.Unlock()
			s.missed.Add(1)
			return
		}
		if x = s.adopt(m, promLabels(m.name, key)); x == nil {
			m.mu.Unlock()
			return
		}
		m.byKey[key] = x
	}
	f := s.put(x, v, extra{})
	if ahead && !x.aside {
		x.aside = true
		s.asideMu.Lock()
		s.aside = append(s.aside, x)
		s.asideMu.Unlock()
	}
	m.mu.Unlock()
	s.count(f)
}

func (s *store) put(x *series, v sample, e extra) fate {
	keep := x.metric.keep.Load()
	return x.ring.put(v, e, s.base.Load()-keep, s.limit(keep))
}

func (s *store) count(f fate) {
	switch f {
	case late:
		s.late.Add(1)
	case replaced:
		s.replaced.Add(1)
	case displaced:
		s.displaced.Add(1)
	}
}

// write puts a sample of the labels of Prometheus, __name__ among them: the result
// of a rule. A histogram becomes the store's.
func (s *store) write(ls labels.Labels, v sample, e extra) {
	m := s.find(s.index.Load(), ls.Get(nameLabel))
	if m == nil || !m.want.Load().matches(ls.Get) {
		return
	}
	m.mu.Lock()
	x := s.adopt(m, ls)
	f := stored
	if x != nil {
		if n := x.ring.n; n > 0 && (e.h != nil || e.fh != nil) && x.ring.last() < v.t {
			e.compare(x.ring.extra(n - 1))
		}
		f = s.put(x, v, e)
	}
	m.mu.Unlock()
	s.count(f)
}

// selects says whether some rule looks at the metric of this name.
func (s *store) selects(name string) bool { return s.find(s.index.Load(), name) != nil }

// adopt returns the series of ls, which it makes if there is none and there is
// room. The metric is locked.
func (s *store) adopt(m *metric, ls labels.Labels) *series {
	h := ls.Hash()
	for _, x := range m.byHash[h] {
		if labels.Equal(x.labels, ls) {
			return x
		}
	}
	if s.series.Add(1) > int64(s.maxSeries) {
		s.series.Add(-1)
		s.refused.Add(1)
		return nil
	}
	x := &series{metric: m, labels: ls}
	m.byHash[h] = append(m.byHash[h], x)
	m.fresh = append(m.fresh, x)
	return x
}

// promLabels turns a name and labels into the labels of Prometheus.
func promLabels(name string, l kemi.Labels) labels.Labels {
	b := labels.NewScratchBuilder(l.Len() + 1)
	b.Add(nameLabel, name)
	for n, v := range l.All() {
		if n != nameLabel {
			b.Add(n, v)
		}
	}
	b.Sort()
	return b.Labels()
}

func getter(name string, l kemi.Labels) func(string) string {
	return func(n string) string {
		if n == nameLabel {
			return name
		}
		return l.Get(n)
	}
}

// merge makes sorted hold all series. The metric is locked.
//
// The order matters beyond looks: a sum of floats depends on it, and the series
// come in any order.
func (m *metric) merge() []*series {
	if len(m.fresh) == 0 {
		return m.sorted
	}
	byLabels := func(a, b *series) int { return labels.Compare(a.labels, b.labels) }
	slices.SortFunc(m.fresh, byLabels)
	all := make([]*series, 0, len(m.sorted)+len(m.fresh))
	a, b := m.sorted, m.fresh
	for len(a) > 0 && len(b) > 0 {
		if byLabels(a[0], b[0]) < 0 {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	m.sorted = append(append(all, a...), b...)
	m.fresh = nil
	return m.sorted
}

// tick says what time it is, and settles the samples that were put aside: only now
// is it known which of them are from the future. Of those of one series the last
// value is kept, as of now.
//
// Judging them as they come, by the tick before, would be wrong when ticks were
// held up for a while and metrics were not.
func (s *store) tick(now millis) {
	s.now.Store(now)
	s.settle(now+s.ahead, now)
}

// settle takes the samples put aside as they are up to limit, and beyond it as of now.
func (s *store) settle(limit, now millis) {
	s.asideMu.Lock()
	aside := s.aside
	s.aside = nil
	s.asideMu.Unlock()
	for _, x := range aside {
		x.metric.mu.Lock()
		x.aside = false
		r := &x.ring
		var last sample
		var e extra
		n := r.n
		for r.n > 0 && r.last() > limit {
			if r.n == n {
				last, e = r.at(r.n-1), r.extra(r.n-1)
			}
			r.n--
		}
		if r.n > 0 {
			raise(&s.newest, r.last())
			lower(&s.oldest, r.at(0).t)
		}
		if i := r.search(s.floor.Load() + 1); i < r.n {
			lower(&s.low, r.at(i).t)
		}
		if n > r.n {
			s.clamped.Add(uint64(n - r.n))
			last.t = now
			s.put(x, last, e)
		}
		x.metric.mu.Unlock()
	}
}
