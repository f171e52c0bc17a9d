package webhook

import (
	"time"

	"github.com/kemi-go/kemi"
)

// Message is the body of a POST: version 4 of Alertmanager's webhook.
type Message struct {
	Receiver          string      `json:"receiver"`
	Status            string      `json:"status"` // firing if any alert is, else resolved
	Alerts            []Alert     `json:"alerts"`
	GroupLabels       kemi.Labels `json:"groupLabels"`
	CommonLabels      kemi.Labels `json:"commonLabels"`
	CommonAnnotations kemi.Labels `json:"commonAnnotations"`
	ExternalURL       string      `json:"externalURL"`
	Version           string      `json:"version"`
	GroupKey          string      `json:"groupKey"`
	TruncatedAlerts   int         `json:"truncatedAlerts"`
}

// Alert is one alert of a [Message].
type Alert struct {
	Status       string           `json:"status"` // firing or resolved
	Labels       kemi.Labels      `json:"labels"`
	Annotations  kemi.Labels      `json:"annotations"`
	StartsAt     time.Time        `json:"startsAt"`
	EndsAt       time.Time        `json:"endsAt"` // year 1 while it fires
	GeneratorURL string           `json:"generatorURL"`
	Fingerprint  kemi.Fingerprint `json:"fingerprint"`
}

const (
	alertname = "alertname"
	firing    = "firing"
	resolved  = "resolved"
)

// post is what goes into one POST: alerts of one group, by index into the batch, no
// alert twice.
type post struct {
	group  kemi.Labels
	alerts []int
}

// split makes the POSTs of a batch, in the order in which they have to be sent.
func (s *Sink) split(batch []kemi.Alert) []post {
	type member struct {
		group kemi.Labels
		alert kemi.Labels
		round int
	}
	type place struct {
		group kemi.Labels
		round int
	}
	var posts []post
	at := map[place]int{}
	seen := map[member]bool{}
	rounds := map[kemi.Labels]int{}
	for i := range batch {
		a := &batch[i]
		if a.State == kemi.StatePending {
			s.pending.Add(1)
			continue
		}
		group := s.group(a)
		m := member{group, a.Labels, rounds[group]}
		if seen[m] { // it changed twice: the later change goes in the next POST
			rounds[group]++
			m.round++
		}
		seen[m] = true
		where := place{group, m.round}
		n, ok := at[where]
		if !ok {
			n = len(posts)
			at[where] = n
			posts = append(posts, post{group: group})
		}
		posts[n].alerts = append(posts[n].alerts, i)
	}
	return posts
}

// labels are those of the alert, with the name that receivers of Alertmanager's
// messages count on.
func labels(a *kemi.Alert) kemi.Labels {
	if a.Labels.Get(alertname) == "" {
		return a.Labels.With(alertname, a.Rule)
	}
	return a.Labels
}

func (s *Sink) group(a *kemi.Alert) kemi.Labels {
	all := labels(a)
	group := make([]kemi.Label, 0, len(s.cfg.GroupBy))
	for _, name := range s.cfg.GroupBy {
		group = append(group, kemi.Label{Name: name, Value: all.Get(name)})
	}
	return kemi.NewLabels(group...)
}

// message makes the body of a POST, and its id.
func (s *Sink) message(batch []kemi.Alert, p post) (Message, string) {
	told := p.alerts
	if s.cfg.MaxAlerts > 0 && len(told) > s.cfg.MaxAlerts {
		told = told[:s.cfg.MaxAlerts]
	}
	m := Message{
		Receiver: s.cfg.Receiver, Status: resolved, GroupLabels: p.group, ExternalURL: s.cfg.ExternalURL,
		Version: "4", GroupKey: "{}:" + p.group.String(), TruncatedAlerts: len(p.alerts) - len(told),
		Alerts: make([]Alert, 0, len(told)),
	}
	for _, i := range told {
		m.Alerts = append(m.Alerts, alertOf(&batch[i]))
	}
	for i, a := range m.Alerts {
		if a.Status == firing {
			m.Status = firing
		}
		if i == 0 {
			m.CommonLabels, m.CommonAnnotations = a.Labels, a.Annotations
			continue
		}
		m.CommonLabels = common(m.CommonLabels, a.Labels)
		m.CommonAnnotations = common(m.CommonAnnotations, a.Annotations)
	}
	return m, idOf(batch, told)
}

func alertOf(a *kemi.Alert) Alert {
	out := Alert{
		Status: firing, Labels: labels(a), Annotations: a.Annotations,
		StartsAt: a.StartsAt.UTC(), Fingerprint: a.Fingerprint,
	}
	if out.Fingerprint == 0 {
		out.Fingerprint = kemi.Fingerprint(a.Labels.Hash())
	}
	switch a.State {
	case kemi.StateResolved:
		out.Status, out.EndsAt = resolved, a.EndsAt.UTC()
	case kemi.StateNoData:
		out.Annotations = a.Annotations.With("kemi_state", a.State.String())
	}
	return out
}

// common is what both sets have.
func common(a, b kemi.Labels) kemi.Labels {
	if a == b {
		return a
	}
	var both []kemi.Label
	for name, v := range a.All() {
		if b.Get(name) == v {
			both = append(both, kemi.Label{Name: name, Value: v})
		}
	}
	return kemi.NewLabels(both...)
}
