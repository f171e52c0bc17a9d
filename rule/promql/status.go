package promql

import (
	"cmp"
	"slices"
	"time"

	"github.com/kemi-go/kemi"
)

// Status is how the rules are doing, for screens and for metrics.
type Status struct {
	Groups     []GroupStatus `json:"groups"`
	Evaluated  time.Time     `json:"evaluated,omitzero"` // event time that evaluations have reached
	Skipped    uint64        `json:"skipped"`            // evaluations left out because the rules had fallen too far behind, or in a gap
	Gaps       uint64        `json:"gaps"`               // times that no tick came for longer than MaxDelay, or that ticks went back as far
	Unreadable uint64        `json:"unreadable"`         // entries of what was kept for restarts that were damaged or of a newer kemi, and were dropped
	Refused    string        `json:"refused,omitempty"`  // why a file was not taken at the last reload; the old one is in force
	Store      StoreStatus   `json:"store"`
}

// GroupStatus is how one group is doing.
type GroupStatus struct {
	File     string        `json:"file"`
	Name     string        `json:"name"`
	Interval time.Duration `json:"interval"`
	Last     time.Time     `json:"last,omitzero"` // event time of the last evaluation
	Rules    []RuleStatus  `json:"rules"`
}

// RuleStatus is how one rule is doing.
type RuleStatus struct {
	Name        string `json:"name"`
	Alert       bool   `json:"alert"` // else it records
	Expr        string `json:"expr"`
	Line        int    `json:"line"`
	Pending     int    `json:"pending"`
	Firing      int    `json:"firing"`
	Evaluations uint64 `json:"evaluations"`
	Failures    uint64 `json:"failures"`        // of Evaluations
	Error       string `json:"error,omitempty"` // of the last evaluation
}

// StoreStatus counts the metrics that were taken in, and what is held of them.
type StoreStatus struct {
	Series     int    `json:"series"`     // held now
	MaxSeries  int    `json:"maxSeries"`  // the limit
	Seen       uint64 `json:"seen"`       // metrics taken in
	Unselected uint64 `json:"unselected"` // of Seen: no rule looks at them
	Late       uint64 `json:"late"`       // older than any rule looks back
	Replaced   uint64 `json:"replaced"`   // there was one of the same series and time; the last one counts
	Displaced  uint64 `json:"displaced"`  // samples pushed out early: a series had more than one a second
	Ahead      uint64 `json:"ahead"`      // from the future
	Invalid    uint64 `json:"invalid"`    // without a name or a time
	Refused    uint64 `json:"refused"`    // samples of series above MaxSeries
}

// snapshot is what Active and Status show. It is made after an evaluation, so that they
// never wait for one.
type snapshot struct {
	active []kemi.Alert
	status Status
}

// publish makes a new snapshot. The rules are locked.
func (r *Rules) publish() {
	v := &snapshot{status: Status{Skipped: r.skipped, Gaps: r.gaps, Unreadable: r.unreadable}}
	if r.evaluated > 0 {
		v.status.Evaluated = toUTC(r.evaluated)
	}
	for _, g := range r.groups {
		gs := GroupStatus{File: g.file, Name: g.name, Interval: g.interval}
		if g.last > 0 {
			gs.Last = toUTC(g.last)
		}
		for _, x := range g.rules {
			rs := RuleStatus{Name: x.name, Alert: x.alert, Expr: x.expr, Line: x.line, Evaluations: x.evaluations, Failures: x.failures}
			if x.err != nil {
				rs.Error = x.err.Error()
			}
			for _, a := range x.active {
				if a.firing {
					rs.Firing++
				} else {
					rs.Pending++
				}
				shown := a.alert(x.name, g.last)
				if a.firing {
					shown.StartsAt = r.firing[a.labels].since
				}
				v.active = append(v.active, shown)
			}
			gs.Rules = append(gs.Rules, rs)
		}
		v.status.Groups = append(v.status.Groups, gs)
	}
	// Several rules may raise one alert: it is shown once, firing if it fires for one.
	slices.SortFunc(v.active, func(a, b kemi.Alert) int {
		return cmp.Or(a.Labels.Compare(b.Labels), -cmp.Compare(a.State, b.State), a.StartsAt.Compare(b.StartsAt))
	})
	v.active = slices.CompactFunc(v.active, func(a, b kemi.Alert) bool { return a.Labels == b.Labels })
	r.shown.Store(v)
}

// Active returns the alerts that are pending or firing, in order of labels, as of the
// last evaluation. Time is that of the evaluation; StartsAt of a pending one is since
// when its condition holds. The slice is the caller's.
func (r *Rules) Active() []kemi.Alert { return slices.Clone(r.shown.Load().active) }

// Status returns how the rules are doing, as of the last evaluation; the counts of
// the store are those of now.
func (r *Rules) Status() Status {
	st := r.shown.Load().status
	s := r.store
	st.Refused = *r.files.refused.Load()
	st.Store = StoreStatus{
		Series: int(s.series.Load()), MaxSeries: s.maxSeries,
		Seen: s.seen.Load(), Unselected: s.missed.Load(), Late: s.late.Load(), Replaced: s.replaced.Load(),
		Displaced: s.displaced.Load(), Ahead: s.clamped.Load(), Invalid: s.invalid.Load(), Refused: s.refused.Load(),
	}
	return st
}
