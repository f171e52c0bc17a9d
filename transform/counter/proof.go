package counter

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/kemi-go/kemi"
)

// Where ticks come, the state is made of the input of this span of time and of the one
// before, and of nothing else: a replay of that much gives the same state, to the bit.
//
// That is not so by itself. Whether a reading counts depends on the one before it, and
// this on the one before that: a late reading is ignored by who knows a newer one, and
// is the first of its series for who was started in between. So beside what is known,
// since the span before began, there is what would be known to one who was started when
// this span began; and when the next begins, it takes the place of the former. The two
// are the same as soon as a reading comes that both take, which is the first as a rule.
// An entry says by its turn that they are; where they differ, the younger one is in
// host.late.

// Tick takes the time of the lane. It appends nothing.
func (r *Rates) Tick(_ context.Context, dst []kemi.Metric, now time.Time) ([]kemi.Metric, error) {
	t := now.UnixNano()
	span := t / r.span
	if t < 0 {
		span--
	}
	ahead := span - r.at
	switch {
	case !r.ticked:
		r.ticked = true
		r.turn++ // what is there is of the span before
	case ahead == 0, ahead == -1: // a clock was set back a little
		return dst, nil
	case ahead == 1:
		r.rotate()
	case ahead > 1:
		r.hosts, r.sum = map[string]*host{}, 0
		clear(r.defs)
	}
	r.at = span
	return dst, nil
}

// rotate begins a span.
func (r *Rates) rotate() {
	for name, h := range r.hosts {
		h.rotate(r)
		if h.up == unknown && len(h.series) == 0 && len(h.references) == 0 {
			delete(r.hosts, name)
		}
	}
	clear(r.defs) // names come from outside too; those still in use are made again
	r.turn++
}

func (h *host) rotate(r *Rates) {
	var l late
	if h.late != nil {
		l, h.late = *h.late, nil
	}
	for k, s := range h.series {
		if s.turn == r.turn {
			continue
		}
		r.sum -= s.sum()
		if y, ok := l.series[k]; ok {
			s.t, s.v, s.up, s.def, s.id = y.t, y.v, y.up, y.def, y.id
			r.sum += s.sum()
		} else {
			h.forget(k, s)
		}
	}
	for k, ref := range h.references {
		if ref.turn == r.turn {
			continue
		}
		r.sum -= ref.sum()
		if y, ok := l.references[k]; ok {
			r.sum += y.sum()
			h.references[k] = y
		} else {
			delete(h.references, k)
		}
	}
	if h.turn != r.turn {
		r.sum -= h.sum()
		h.up, h.upAt = unknown, 0
		if l.hasUp {
			h.up, h.upAt = l.up, l.upAt
		}
		r.sum += h.sum()
	}
}

// late is what is known of a host since this span began, where that is something else
// than what is known since the one before.
type late struct {
	series     map[key]series
	references map[key]reference
	hasUp      bool
	up         float64
	upAt       int64
}

func (h *host) ownLate() *late {
	if h.late == nil {
		h.late = &late{series: map[key]series{}, references: map[key]reference{}}
	}
	return h.late
}

// follow takes a reading to what is known since this span began. s is what the longer
// memory made of it. If the two were the same before it, both take it: it was new to s.
func (r *Rates) follow(h *host, s *series, t int64, v uint64, up float64, def *def) {
	l := h.ownLate()
	k := key{def.name, s.labels}
	y, ok := l.series[k]
	if !ok || y.def.kind != def.kind || isNew(y.t, t, r.gap) {
		y = series{t: t, v: v, up: up, def: def, id: identity(def, k.labels)}
	}
	if y.t == s.t && y.v == s.v && y.up == s.up && y.id == s.id {
		s.turn = r.turn
		delete(l.series, k)
		return
	}
	s.turn = r.turn - 1
	l.series[k] = y
}

// isNew tells whether a reading at t is newer than one at last, or comes after a clock
// was set back.
func isNew(last, t, gap int64) bool { return t > last || last-t > gap }

// uptimeLately is uptimeAt for what is known since this span began.
func (h *host) uptimeLately(t int64, turn uint32) float64 {
	switch {
	case h.turn == turn:
		return h.uptimeAt(t)
	case h.late != nil && h.late.hasUp && h.late.upAt == t:
		return h.late.up
	}
	return unknown
}

// Proof is a sum over what is known of each series, host and reference. A reader of a
// log builds it again from Horizon of the input and the ticks in it.
func (r *Rates) Proof() kemi.Proof { return kemi.Proof{Version: r.version, Hash: r.sum} }

const stateVersion = 1 // of what is remembered and how

func versionOf(s *settings) uint64 {
	text := fmt.Appendf(nil, "counter %d %d %d %q", stateVersion, s.interval, s.maxGap, s.uptime)
	for _, name := range slices.Sorted(maps.Keys(s.limits)) {
		text = fmt.Appendf(text, " %q %v", name, s.limits[name])
	}
	return fnv(string(text))
}

// fnv is FNV-1a: the same on every machine.
func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

func identity(d *def, l kemi.Labels) uint64 { return bits.RotateLeft64(l.Hash(), 17) ^ d.id }

// digest makes a number of an entry. Numbers of entries are added, and that of a series
// changes with each reading, so it is no more than a product: the factor is as good as
// drawn at random for each series, and so differences do not cancel out.
func digest(id uint64, t int64, v, up uint64) uint64 {
	return (id | 1) * (v + uint64(t)*0x9e3779b97f4a7c15 + bits.RotateLeft64(up, 29))
}

func (s *series) sum() uint64 { return digest(s.id, s.t, s.v, math.Float64bits(s.up)) }

func (s *reference) sum() uint64 { return digest(s.id, s.t, math.Float64bits(s.v), 1) }

func (h *host) sum() uint64 {
	if h.up == unknown {
		return 0
	}
	return digest(h.id, h.upAt, math.Float64bits(h.up), 2)
}
