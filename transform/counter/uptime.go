package counter

import "math"

// uptimeWrap is where sysUpTime, TimeTicks of 32 bits, begins again: 497.1 days.
const uptimeWrap = (1 << 32) / 100.0

// unknown is the uptime of a poll that did not tell it.
const unknown = -1

// elapsed returns the seconds between two readings dt apart by their Times, given
// the agent's uptime at both, or that the agent was started anew between them.
func elapsed(before, now, dt float64) (seconds float64, restarted bool) {
	if before == unknown || now == unknown {
		return dt, false
	}
	d := now - before
	switch {
	case d < 0:
		if d += uptimeWrap; d <= 0 || d > 2*dt {
			return 0, true
		}
	case 0 < d && d < 0.9*dt && now < dt:
		// The agent is younger than the reading before, although its uptime has grown: it
		// was young then too. An uptime that stands still is a broken agent, no restart.
		return 0, true
	}
	if math.Abs(d-dt) <= dt/10 {
		return d, false
	}
	return dt, false
}

// sawUptime takes the uptime of the poll at t.
func (r *Rates) sawUptime(h *host, t int64, v float64) {
	if !(v >= 0 && v <= math.MaxFloat64) {
		return
	}
	same := h.up == unknown || h.turn == r.turn
	if h.up == unknown || isNew(h.upAt, t, r.gap) {
		if since := t - h.upAt; h.up != unknown && since > 0 && since <= r.gap {
			_, h.restarted = elapsed(h.up, v, float64(since)/1e9)
		}
		r.sum -= h.sum()
		h.up, h.upAt = v, t
		r.sum += h.sum()
	}
	h.turn = r.turn
	if same {
		return
	}
	l := h.ownLate()
	if !l.hasUp || isNew(l.upAt, t, r.gap) {
		l.hasUp, l.up, l.upAt = true, v, t
	}
	if l.hasUp = l.up != h.up || l.upAt != h.upAt; l.hasUp {
		h.turn = r.turn - 1
	}
}

func (h *host) uptimeAt(t int64) float64 {
	if h.upAt != t {
		return unknown
	}
	return h.up
}
