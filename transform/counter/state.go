package counter

import "github.com/kemi-go/kemi"

// host is what is remembered of one host.
type host struct {
	series     map[key]*series
	last       *series // that was found
	references map[key]reference

	id        uint64
	up        float64 // the newest uptime, or unknown
	upAt      int64
	turn      uint32 // of the uptime; see proof.go
	restarted bool   // the newest uptime tells of a restart that was not told yet

	swept int64 // when old series were last looked for
	round int   // of age, when the host was last heard

	late *late // see proof.go; nil: nothing
}

type key struct {
	name   string
	labels kemi.Labels
}

// series is the last reading of a counter. It is one cache line.
type series struct {
	t      int64   // Unix nanoseconds
	v      uint64  // the number, or the bits of a FloatCounter
	up     float64 // the agent's uptime in the same poll, or unknown
	def    *def    // nil: forgotten
	labels kemi.Labels
	id     uint64
	next   *series // the one that was found after it

	turn uint32 // see proof.go
}

// find returns the series of m, or nil. A host is polled in one order, so it is mostly
// the one that came next in the poll before. A look-up in the map costs much more:
// the hash of a key that was just put on the stack waits for it.
func (h *host) find(m *kemi.Metric) *series {
	last := h.last
	if last != nil {
		if s := last.next; s != nil && s.labels == m.Labels && s.def != nil && s.def.name == m.Name {
			h.last = s
			return s
		}
	}
	s := h.series[key{m.Name, m.Labels}]
	if s != nil {
		h.link(s)
	}
	return s
}

// add makes a series for m.
func (h *host) add(m *kemi.Metric) *series {
	if h.series == nil {
		h.series = map[key]*series{}
	}
	s := new(series)
	h.series[key{m.Name, m.Labels}] = s
	h.link(s)
	return s
}

func (h *host) link(s *series) {
	if h.last != nil {
		h.last.next = s
	}
	h.last = s
}

// forget drops a series. What came before it may still point at it.
func (h *host) forget(k key, s *series) {
	delete(h.series, k)
	*s = series{}
}

// reference is the last reading of a gauge that a limit refers to.
type reference struct {
	t  int64
	v  float64
	id uint64

	turn uint32 // see proof.go
}

// def is what the series of one name share.
type def struct {
	kind              kemi.Kind
	id                uint64
	name, rate, delta string
	limit             Limit
}

type defKey struct {
	name string
	kind kemi.Kind
}

func (r *Rates) def(m *kemi.Metric) *def {
	k := defKey{m.Name, m.Kind}
	d := r.defs[k]
	if d == nil {
		d = &def{m.Kind, fnv(m.Name) + uint64(m.Kind), m.Name, m.Name + "_rate", m.Name + "_delta", r.limits[m.Name]}
		r.defs[k] = d
	}
	return d
}

// age is a lane's idea of how time goes by, made from the Times of its input alone, as
// long as nobody ticks it.
// It only decides when the state of silent hosts is forgotten.
//
// One host with a wrong clock, or one that sends what it has kept for a day, must
// not make the lane forget the others. So now follows small steps only, and a
// larger one if nothing but such has come for long.
type age struct {
	set    bool
	now    int64
	began  int64 // the round
	round  int   // of at least MaxGap each
	strays int   // records since now was moved that are far from it
}

const manyStrays = 100_000

// expire forgets what is too old to be compared with anything, be it with a reading
// that comes late by MaxGap. It is for lanes that nobody ticks.
func (r *Rates) expire(h *host, t int64, records int) {
	if r.ticked {
		return
	}
	h.round = r.age.round
	if since := t - h.swept; since > r.gap || since < -r.gap {
		h.swept = t
		for k, s := range h.series {
			if t-s.t > 2*r.gap {
				r.sum -= s.sum()
				h.forget(k, s)
			}
		}
		for k, ref := range h.references {
			if t-ref.t > 2*r.gap {
				r.sum -= ref.sum()
				delete(h.references, k)
			}
		}
	}

	a := &r.age
	switch ahead := t - a.now; {
	case !a.set:
		*a = age{set: true, now: t, began: t}
	case ahead > r.gap || ahead < -r.gap:
		if a.strays += records; a.strays > manyStrays {
			a.now, a.strays = t, 0
		}
	case ahead > 0:
		a.now, a.strays = t, 0
	}
	if since := a.now - a.began; since >= 0 && since < r.gap {
		return
	}
	a.began = a.now
	a.round++
	// A host that was heard in the two rounds before this one may still be in time.
	for name, h := range r.hosts {
		if h.round < a.round-2 {
			for _, s := range h.series {
				r.sum -= s.sum()
			}
			for _, ref := range h.references {
				r.sum -= ref.sum()
			}
			r.sum -= h.sum()
			delete(r.hosts, name)
		}
	}
	clear(r.defs) // names come from outside too; those still in use are made again
}
