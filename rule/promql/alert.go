package promql

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"

	"github.com/kemi-go/kemi"
)

// instance is one alert of a rule: one set of labels for which its condition holds,
// or held until lately.
//
//	            holds                 held for "for"
//	(inactive) ───────▶ pending ─────────────────────▶ firing ──▶ told as firing
//	                       │ holds no more                │ holds no more, and has not
//	                       ▼                              ▼ for keep_firing_for
//	                  (forgotten)                     (forgotten) ──▶ told as resolved
type instance struct {
	labels      kemi.Labels
	annotations kemi.Labels
	value       float64
	firing      bool
	active      millis // since when the condition holds
	fired       millis
	gone        millis // since when it holds no more, while keep_firing_for lasts; 0: it holds
}

// alert tells what the instance is at time t.
func (x *instance) alert(rule string, t millis) kemi.Alert {
	a := kemi.Alert{
		Rule: rule, Labels: x.labels, Annotations: x.annotations, State: kemi.StatePending,
		Time: toUTC(t), StartsAt: toUTC(x.active), Value: x.value, Fingerprint: kemi.Fingerprint(x.labels.Hash()),
	}
	if x.firing {
		a.State, a.StartsAt = kemi.StateFiring, toUTC(x.fired)
	}
	return a
}

func (x *instance) resolved(rule string, t millis) kemi.Alert {
	a := x.alert(rule, t)
	a.State, a.EndsAt = kemi.StateResolved, a.Time
	return a
}

func toUTC(t millis) time.Time { return time.UnixMilli(t).UTC() }

var errSameLabels = errors.New("the expression gives several series that have the same labels once those of the rule are set")

// judge takes the result of an alert's expression at time t through the life cycle
// and returns the changes, in order of labels. It is that of Prometheus, but for
// the limit: there, too many alerts clear them all; here the ones that are there
// stay, new ones are admitted up to the limit, and left says how many were not. Those
// whose labels are too many or too long are none; large says how many there would be.
func (r *rule) judge(res prom.Vector, t millis) (changed []kemi.Alert, left, large int, err error) {
	now, large, err := r.instances(res, t)
	if err != nil {
		return nil, 0, 0, err
	}
	for key, x := range r.active {
		if n, holds := now[key]; holds {
			x.value, x.annotations, x.gone = n.value, n.annotations, 0
			delete(now, key)
		} else {
			if x.gone == 0 {
				x.gone = t
			}
			if !x.firing || t-x.gone >= r.keepFiring.Milliseconds() {
				delete(r.active, key)
				if x.firing {
					changed = append(changed, x.resolved(r.name, t))
				}
				continue
			}
		}
		// A reload may have made "for" longer.
		if x.firing && t-x.active < r.hold.Milliseconds() {
			x.firing, x.fired, x.gone = false, 0, 0
			changed = append(changed, x.resolved(r.name, t))
		}
	}
	left = r.admit(now)
	for _, x := range r.active {
		if !x.firing && t-x.active >= r.hold.Milliseconds() {
			x.firing, x.fired = true, t
			changed = append(changed, x.alert(r.name, t))
		}
	}
	slices.SortFunc(changed, func(a, b kemi.Alert) int { return a.Labels.Compare(b.Labels) })
	return changed, left, large, nil
}

// firing is an alert that was told as firing.
type firing struct {
	rules int       // for which it fires
	since time.Time // as told
}

// once drops from the changes of a rule what would tell one alert twice: rules of
// different groups or files may raise the same one. It is told as firing when it
// begins for the first of them, and as resolved when it ends for the last. The
// changes are overwritten.
func (r *Rules) once(changed []kemi.Alert) []kemi.Alert {
	kept := changed[:0]
	for _, a := range changed {
		f := r.firing[a.Labels]
		switch {
		case a.State == kemi.StateFiring && f == nil:
			r.firing[a.Labels] = &firing{1, a.StartsAt}
		case a.State == kemi.StateFiring:
			f.rules++
			continue
		case f.rules > 1:
			f.rules--
			continue
		default:
			delete(r.firing, a.Labels)
			a.StartsAt = f.since
			if a.EndsAt.Before(a.StartsAt) { // the clock of the ticks was wrong, and was put right
				a.EndsAt = a.StartsAt
			}
		}
		kept = append(kept, a)
	}
	return kept
}

// admit makes new instances active, the first ones by labels if there is a limit,
// and says how many it left out.
func (r *rule) admit(fresh map[kemi.Labels]*instance) int {
	room := len(fresh)
	if r.group.limit > 0 {
		room = max(0, min(room, r.group.limit-len(r.active)))
	}
	if room == len(fresh) {
		maps.Copy(r.active, fresh)
		return 0
	}
	for _, key := range slices.SortedFunc(maps.Keys(fresh), kemi.Labels.Compare)[:room] {
		r.active[key] = fresh[key]
	}
	return len(fresh) - room
}

// instances makes an instance of each series of a result, but for those with labels that
// do not fit, and says how many these are.
func (r *rule) instances(res prom.Vector, t millis) (now map[kemi.Labels]*instance, large int, err error) {
	now = make(map[kemi.Labels]*instance, len(res))
	var set []kemi.Label
	var d data
	for _, s := range res {
		if r.templates {
			d = data{Labels: s.Metric.Map(), ExternalLabels: r.scope.externalLabels, ExternalURL: r.scope.externalURL.String(), Value: s.F}
			if s.H != nil {
				d.Value = s.H
			}
		}
		set = set[:0]
		s.Metric.Range(func(l labels.Label) {
			if l.Name != nameLabel {
				set = append(set, kemi.Label{Name: l.Name, Value: l.Value})
			}
		})
		set = r.expand(set, r.labels, &d)
		if err := r.scope.over(); err != nil && slices.ContainsFunc(r.labels, func(t text) bool { return t.tmpl != nil }) {
			return nil, 0, err // the labels would be those of another alert
		}
		set = append(set, kemi.Label{Name: labels.AlertName, Value: r.name})
		if !fits(set) {
			large++
			continue
		}
		key := kemi.NewLabels(set...)
		if now[key] != nil {
			return nil, 0, errSameLabels
		}
		annotations := kemi.NewLabels(r.expand(set[:0], r.annotations, &d)...)
		now[key] = &instance{labels: key, annotations: annotations, value: s.F, active: t}
	}
	return now, large, nil
}

func (r *rule) expand(dst []kemi.Label, ts []text, d *data) []kemi.Label {
	for i := range ts {
		v, err := ts[i].expand(d)
		if err != nil {
			r.badText = err
		}
		dst = append(dst, kemi.Label{Name: ts[i].name, Value: v})
	}
	return dst
}

// Names that Prometheus gives to the series of alerts.
const (
	alertsName   = "ALERTS"
	forStateName = "ALERTS_FOR_STATE"
	stateLabel   = "alertstate"
)

// alertSeries returns what is to be written of the active alerts: ALERTS with the
// value 1, and ALERTS_FOR_STATE with the time since when in seconds.
func (r *rule) alertSeries(st *store, t millis) []prom.Sample {
	alerts, forState := st.selects(alertsName), st.selects(forStateName)
	if !alerts && !forState {
		return nil
	}
	out := make([]prom.Sample, 0, 2*len(r.active))
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, x := range r.active {
		b.Reset(labels.EmptyLabels())
		for n, v := range x.labels.All() {
			b.Set(n, v)
		}
		if forState {
			b.Set(nameLabel, forStateName)
			out = append(out, prom.Sample{Metric: b.Labels(), T: t, F: float64(x.active / 1000)})
		}
		if alerts {
			b.Set(nameLabel, alertsName)
			b.Set(stateLabel, x.alert(r.name, t).State.String())
			out = append(out, prom.Sample{Metric: b.Labels(), T: t, F: 1})
		}
	}
	return out
}
