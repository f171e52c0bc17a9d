package opentsdb

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/kemi-go/kemi"
)

// plan is a batch made ready: the JSON of its points, and what cannot be sent.
type plan struct {
	json   []byte  // the points, each with a comma behind it
	points []point // in order of the batch
	failed []kemi.Failure

	slots []slot
	last  map[series]struct{}
}

// point is one point of a plan.
type point struct {
	index      int // in the batch
	start, end int // in plan.json, without the comma
}

// slot is what the first pass found out about a record.
type slot struct {
	labels kemi.Labels
	time   int64
	send   bool
}

// series is one second (or millisecond) of one series.
type series struct {
	name   string
	labels kemi.Labels
	time   int64
}

// plan encodes a batch. The first pass goes backwards, so that of several points of
// one series and time the last is the one it meets first.
func (s *Sink) plan(batch []kemi.Metric) *plan {
	p, _ := s.plans.Get().(*plan)
	if p == nil {
		p = &plan{last: map[series]struct{}{}}
	}
	p.slots = slices.Grow(p.slots, len(batch))[:len(batch)]
	superseded, trimmed := 0, 0
	for i := len(batch) - 1; i >= 0; i-- {
		m := &batch[i]
		slot := &p.slots[i]
		labels, err := s.tags(m)
		if err == nil {
			slot.time, err = s.check(m)
		}
		if err != nil {
			p.failed = append(p.failed, kemi.Failure{Index: i, Err: kemi.Permanent(err)})
			continue
		}
		if labels != m.Labels {
			trimmed++
		}
		slot.labels = labels
		key := series{m.Name, labels, slot.time}
		if _, later := p.last[key]; later {
			superseded++
			continue
		}
		p.last[key] = struct{}{}
		slot.send = true
	}
	s.superseded.Add(uint64(superseded))
	s.trimmed.Add(uint64(trimmed))
	for i := range batch {
		if slot := &p.slots[i]; slot.send {
			start := len(p.json)
			p.json = s.appendPoint(p.json, &batch[i], slot.labels, slot.time)
			p.points = append(p.points, point{i, start, len(p.json)})
			p.json = append(p.json, ',')
		}
	}
	return p
}

// keepJSON is how large a buffer may be to be kept for the next batch.
const keepJSON = 4 << 20

func (s *Sink) release(p *plan) {
	if cap(p.json) > keepJSON {
		return
	}
	clear(p.slots) // they and the map hold labels
	clear(p.last)
	clear(p.failed)
	p.json, p.points, p.failed, p.slots = p.json[:0], p.points[:0], p.failed[:0], p.slots[:0]
	s.plans.Put(p)
}

// tags returns the labels to be sent.
func (s *Sink) tags(m *kemi.Metric) (kemi.Labels, error) {
	l := m.Labels
	switch {
	case l.Len() == 0:
		return l, fmt.Errorf("%s: metric %q has no label: OpenTSDB wants one at least, such as %s", s.name, m.Name, kemi.LabelHost)
	case l.At(0).Name == "":
		return l, fmt.Errorf("%s: metric %q has a label without a name", s.name, m.Name)
	case l.Len() <= s.cfg.MaxTags:
		return l, nil
	case len(s.cfg.TagPriority) == 0:
		return l, fmt.Errorf("%s: metric %q has %d labels and the server takes %d: raise tsd.storage.max_tags there and Config.MaxTags, or set Config.TagPriority to drop some",
			s.name, m.Name, l.Len(), s.cfg.MaxTags)
	}
	keep := make([]kemi.Label, 0, s.cfg.MaxTags)
	add := func(name string) {
		v := l.Get(name)
		if v != "" && len(keep) < s.cfg.MaxTags && !slices.ContainsFunc(keep, func(k kemi.Label) bool { return k.Name == name }) {
			keep = append(keep, kemi.Label{Name: name, Value: v})
		}
	}
	add(kemi.LabelHost)
	for _, name := range s.cfg.TagPriority {
		add(name)
	}
	for name := range l.All() {
		add(name)
	}
	return kemi.NewLabels(keep...), nil
}

// check returns the time to be sent, or why the metric cannot be stored.
func (s *Sink) check(m *kemi.Metric) (int64, error) {
	if m.Name == "" {
		return 0, fmt.Errorf("%s: a metric of %s has no name", s.name, m.Labels)
	}
	if !s.integer(m) {
		if f := m.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, fmt.Errorf("%s: metric %q is %v: OpenTSDB stores finite numbers only", s.name, m.Name, f)
		}
	} else if m.Uint() > math.MaxInt64 {
		return 0, fmt.Errorf("%s: counter %q is %d, more than OpenTSDB's integers hold: set Config.FloatCounters, or store its rate", s.name, m.Name, m.Uint())
	}
	// OpenTSDB takes a time for milliseconds when it does not fit into 32 bits.
	t, min, max := m.Time.Unix(), int64(1), int64(math.MaxUint32)
	if s.cfg.Milliseconds {
		t, min, max = m.Time.UnixMilli(), math.MaxUint32+1, 9999999999999
	}
	if t < min || t > max {
		return 0, fmt.Errorf("%s: metric %q is of %s: OpenTSDB cannot store that time", s.name, m.Name, m.Time.UTC().Format("2006-01-02 15:04:05"))
	}
	return t, nil
}

// integer tells how the number is encoded. It depends on the kind alone, never on
// the value, so that a series has one encoding.
func (s *Sink) integer(m *kemi.Metric) bool {
	return !s.cfg.FloatCounters && (m.Kind == kemi.KindCounter || m.Kind == kemi.KindCounter32)
}

// appendPoint appends one point. No string needs quoting: Escape leaves nothing that
// JSON would mind.
func (s *Sink) appendPoint(dst []byte, m *kemi.Metric, labels kemi.Labels, t int64) []byte {
	dst = append(dst, `{"metric":"`...)
	dst = AppendEscape(dst, m.Name)
	dst = append(dst, `","timestamp":`...)
	dst = strconv.AppendInt(dst, t, 10)
	dst = append(dst, `,"value":`...)
	if s.integer(m) {
		dst = strconv.AppendUint(dst, m.Uint(), 10)
	} else {
		dst = appendFloat(dst, m.Float())
	}
	dst = append(dst, `,"tags":{`...)
	for i := range labels.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		l := labels.At(i)
		dst = append(dst, '"')
		dst = AppendEscape(dst, l.Name)
		dst = append(dst, `":"`...)
		dst = AppendEscape(dst, l.Value)
		dst = append(dst, '"')
	}
	return append(dst, `}}`...)
}

// appendFloat appends a number that OpenTSDB takes for a float: one with a point or
// an exponent.
func appendFloat(dst []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if slices.Contains(dst[start:], '.') {
		return dst
	}
	return append(dst, ".0"...)
}
