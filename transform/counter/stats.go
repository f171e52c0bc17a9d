package counter

import "sync/atomic"

// Stats counts what became of the counters, in all forks together and with what a
// bus replayed. Every counter is in one of the counts:
//
//	Counters = Rates + Primed + Repeated + Restarted + Resets + Implausible + Invalid
type Stats struct {
	Counters    uint64 // readings of counters
	Rates       uint64 // made a rate
	Primed      uint64 // the first of their series, or the first after a gap longer than MaxGap
	Repeated    uint64 // of the same or an earlier Time: delivered before
	Restarted   uint64 // dropped: the agent was started anew
	Resets      uint64 // dropped: the counter went down
	Implausible uint64 // dropped: faster than its Limit
	Invalid     uint64 // dropped: not a number, or infinite

	Wraps    uint64 // of Rates: over a wrap of 32 bits
	Restarts uint64 // agents started anew
}

// totals is Stats, shared by the forks.
type totals [10]atomic.Uint64

func (s *Stats) fields() [10]*uint64 {
	return [10]*uint64{
		&s.Counters, &s.Rates, &s.Primed, &s.Repeated, &s.Restarted,
		&s.Resets, &s.Implausible, &s.Invalid, &s.Wraps, &s.Restarts,
	}
}

func (t *totals) add(s *Stats) {
	for i, n := range s.fields() {
		if *n > 0 {
			t[i].Add(*n)
		}
	}
}

// Stats returns the counts. It may be called at any time.
func (r *Rates) Stats() Stats {
	var s Stats
	for i, n := range s.fields() {
		*n = r.totals[i].Load()
	}
	return s
}
