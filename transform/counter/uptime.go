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
func (h *host) sawUptime(t int64, v float64, gap int64) {
	if !(v >= 0 && v <= math.MaxFloat64) {
		return
	}
	if h.up != unknown {
		since := t - h.upAt
		if since <= 0 && since >= -gap {
			return
		}
		if since > 0 && since <= gap {
			_, h.restarted = elapsed(h.up, v, float64(since)/1e9)
		}
	}
	h.up, h.upAt = v, t
}

func (h *host) uptimeAt(t int64) float64 {
	if h.upAt != t {
		return unknown
	}
	return h.up
}
