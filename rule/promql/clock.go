package promql

import (
	"math"
	"slices"
	"time"

	"go.uber.org/zap"
)

// hole is a stretch of time, ends excluded, in which nobody looked: no ticks came.
// What was known before is too old then to be the latest. It takes new metrics, or a
// look-back without any, to see again.
type hole struct{ from, to, silent millis }

// clock takes the time of a tick and returns the one to go by.
//
// Time does not go back when a clock is set right by a little. Far back it does: the
// ticks before were wrong, and waiting until they come true would leave the rules
// blind.
//
// Ticks that fail to come, because the machine slept or the clock was put forward,
// leave a hole. That no metrics came in it does not mean that there are none.
func (r *Rules) clock(now millis) millis {
	last, wait := r.store.now.Load(), r.conf.MaxDelay.Milliseconds()
	if !r.started {
		r.started, r.moved, r.first = true, now, now
		r.store.watch(now)
		return now
	}
	if last-now >= wait {
		r.log.Warn("the clock of the ticks went back", zap.Duration("by", time.Duration(last-now)*time.Millisecond))
		r.rewind(now)
		r.lookAway(min(r.evaluated, now), now)
		return now
	}
	now = max(now, last)
	// Ticks that always are this far apart are the pace, not a gap.
	pace := r.pace
	r.pace = now - last
	if r.pace >= wait && r.pace > 2*pace {
		r.log.Warn("no tick came for a while", zap.Duration("while", time.Duration(r.pace)*time.Millisecond))
		from := last
		if r.blind.to != 0 {
			from = r.blind.from
		}
		r.lookAway(from, now)
	}
	return now
}

// lookAway begins a hole that ends now.
func (r *Rules) lookAway(from, now millis) {
	r.gaps++
	// What came between the last tick and the gap tells nothing of the gap.
	if r.store.low.Load() < now-r.conf.MaxDelay.Milliseconds() {
		r.store.low.Store(math.MaxInt64)
	}
	back := r.conf.Lookback.Milliseconds()
	r.blind = hole{from, now, now + back}
	r.moved = now + max(0, back-r.conf.MaxDelay.Milliseconds())
}

// look ends the hole if it has been passed, and has the store note what comes after
// this tick.
func (r *Rules) look(now millis) {
	past := r.blind.silent
	if r.store.newest.Load() >= r.blind.to {
		past = max(r.blind.to, min(past, r.store.low.Load()))
	}
	if r.evaluated >= past {
		r.blind = hole{}
		r.store.watch(now)
	}
}

// sight returns the first time from t on, t being due, at which an evaluation has
// something to go by. In a hole that is what metrics have told of it since.
func (r *Rules) sight(t, due millis) millis {
	if t <= r.blind.from || t >= r.blind.silent {
		return t
	}
	newest := r.store.newest.Load()
	if t > newest { // they stopped on the way: again nothing is known until they go on
		r.store.watch(newest)
	}
	if low := r.store.low.Load(); t < low {
		return min(low, r.blind.silent, due+1)
	}
	return t
}

// rewind makes everything forget the time after now. Alerts that began then began now.
func (r *Rules) rewind(now millis) {
	r.pace = 0
	r.unkept = true
	for _, t := range []*millis{&r.seen, &r.first, &r.swept, &r.evaluated} {
		*t = min(*t, now)
	}
	for _, g := range r.groups {
		g.last = min(g.last, now)
		g.next = min(g.next, align(now+1, g.interval))
		for _, x := range g.rules {
			for _, a := range x.active {
				a.active, a.fired, a.gone = min(a.active, now), min(a.fired, now), min(a.gone, now)
			}
		}
	}
	r.store.rewind(now)
}

// watch has the store note the oldest metric after now that comes from here on.
func (s *store) watch(now millis) {
	s.floor.Store(now)
	s.low.Store(math.MaxInt64)
}

// rewind forgets what is beyond now, but for what a metric may be ahead.
func (s *store) rewind(now millis) {
	s.plans.Lock()
	defer s.plans.Unlock()
	s.watch(now)
	lower(&s.newest, now)
	lower(&s.base, now)
	if s.oldest.Load() != math.MaxInt64 {
		lower(&s.oldest, now)
	}
	for _, m := range s.metrics(s.index.Load()) {
		m.mu.Lock()
		for _, x := range m.merge() {
			for x.ring.n > 0 && x.ring.last() > now+s.ahead {
				x.ring.n--
			}
		}
		m.mu.Unlock()
	}
}

// reach returns the end of the time that the samples put aside are about, when no
// tick has told. They are split where nothing comes for longer than gap, and the
// largest part counts.
func (s *store) reach(gap millis) millis {
	s.asideMu.Lock()
	defer s.asideMu.Unlock()
	var times []millis
	for _, x := range s.aside {
		x.metric.mu.Lock()
		for i := range x.ring.n {
			times = append(times, x.ring.at(i).t)
		}
		x.metric.mu.Unlock()
	}
	slices.Sort(times)
	end, most, n := never, 0, 0
	for i, t := range times {
		n++
		if i+1 == len(times) || times[i+1]-t > gap {
			if n >= most {
				end, most = t, n
			}
			n = 0
		}
	}
	return end
}
