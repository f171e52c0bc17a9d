package promql

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kemi-go/kemi"
)

var epoch = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// bench runs rules over a made-up time: one tick a second.
type bench struct {
	t     testing.TB
	rules *Rules
	fsys  fstest.MapFS
	now   time.Time
	told  []kemi.Alert
}

func newBench(t testing.TB, yaml string, tune ...func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, now: epoch, fsys: fstest.MapFS{"r.yml": {Data: []byte(yaml)}}}
	c := Config{Files: []string{"*.yml"}, FS: b.fsys, Delay: -1}
	for _, f := range tune {
		f(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.rules = r
	return b
}

// feed takes metrics in, as of now if they have no time.
func (b *bench) feed(ms ...kemi.Metric) {
	b.t.Helper()
	for i := range ms {
		if ms[i].Time.IsZero() {
			ms[i].Time = b.now
		}
	}
	if out, err := b.rules.Apply(context.Background(), nil, ms); err != nil || len(out) != 0 {
		b.t.Fatalf("Apply gave %v, %v", out, err)
	}
}

// run lets d pass, with source called every second before the tick.
func (b *bench) run(d time.Duration, source func(t time.Time) []kemi.Metric) {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(time.Second)
		if source != nil {
			b.feed(source(b.now)...)
		}
		b.tick()
	}
}

func (b *bench) tick() {
	b.t.Helper()
	out, err := b.rules.Tick(context.Background(), nil, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.told = append(b.told, out...)
}

// want compares what was told since the last call, one line for an alert: seconds
// since the epoch of the test, name, state.
func (b *bench) want(lines ...string) {
	b.t.Helper()
	got := make([]string, 0, len(b.told))
	for _, a := range b.told {
		s := fmt.Sprintf("%.0f %s %s", a.Time.Sub(epoch).Seconds(), a.Labels.Get("alertname"), a.State)
		if h := a.Labels.Get("host"); h != "" {
			s += " " + h
		}
		got = append(got, s)
	}
	b.told = nil
	if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
		b.t.Fatalf("told:\n%s\nwant:\n%s", g, w)
	}
}

func gauge(name string, v float64, labels ...string) kemi.Metric {
	return kemi.Gauge(name, kemi.LabelsOf(labels...), time.Time{}, v)
}

// every gives a metric of each host every step, with its value by time.
func every(step time.Duration, name string, value func(host string, t time.Duration) float64, hosts ...string) func(time.Time) []kemi.Metric {
	return func(t time.Time) (ms []kemi.Metric) {
		if t.Sub(epoch)%step != 0 {
			return nil
		}
		for _, h := range hosts {
			ms = append(ms, gauge(name, value(h, t.Sub(epoch)), "host", h))
		}
		return ms
	}
}

func between(from, to time.Duration) func(string, time.Duration) float64 {
	return func(_ string, t time.Duration) float64 {
		if from <= t && t < to {
			return 100
		}
		return 0
	}
}

func TestAlertFiresAtOnceWithoutFor(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - alert: Hot
    expr: cpu > 90
    labels: {severity: page}
    annotations: {summary: "{{ $labels.host }} is at {{ $value | humanize }}"}
`)
	b.run(2*time.Minute, every(5*time.Second, "cpu", between(20*time.Second, 40*time.Second), "web1"))
	if len(b.told) != 2 {
		t.Fatalf("told %v", b.told)
	}
	a := b.told[0]
	labels := kemi.LabelsOf("alertname", "Hot", "host", "web1", "severity", "page")
	if a.Rule != "Hot" || a.Labels != labels || a.State != kemi.StateFiring || a.Value != 100 ||
		a.Fingerprint != kemi.Fingerprint(labels.Hash()) || a.Annotations.Get("summary") != "web1 is at 100" ||
		!a.Time.Equal(epoch.Add(20*time.Second)) || !a.StartsAt.Equal(a.Time) || !a.EndsAt.IsZero() {
		t.Fatalf("firing: %+v", a)
	}
	z := b.told[1]
	if z.State != kemi.StateResolved || !z.Time.Equal(epoch.Add(40*time.Second)) || !z.EndsAt.Equal(z.Time) ||
		!z.StartsAt.Equal(a.StartsAt) || z.Fingerprint != a.Fingerprint || z.Labels != labels {
		t.Fatalf("resolved: %+v", z)
	}
}

func TestForHoldsAnAlertBack(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, for: 15s}
`)
	// Too short, then long enough.
	b.run(20*time.Second, every(5*time.Second, "cpu", between(5*time.Second, 15*time.Second), "web1"))
	b.want()
	b.run(40*time.Second, every(5*time.Second, "cpu", between(30*time.Second, 50*time.Second), "web1"))
	if a := b.told[0]; !a.StartsAt.Equal(epoch.Add(45 * time.Second)) {
		t.Fatalf("StartsAt is %v, want when it began to fire", a.StartsAt)
	}
	b.want("45 Hot firing web1", "50 Hot resolved web1")
}

func TestActiveShowsPendingAlerts(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, for: 15s}
`)
	hot := every(5*time.Second, "cpu", between(10*time.Second, time.Hour), "web2", "web1")
	b.run(20*time.Second, hot)
	as := b.rules.Active()
	if len(as) != 2 || as[0].Labels.Get("host") != "web1" || as[0].State != kemi.StatePending || !as[0].StartsAt.Equal(epoch.Add(10*time.Second)) {
		t.Fatalf("active: %+v", as)
	}
	if s := b.rules.Status().Groups[0].Rules[0]; s.Pending != 2 || s.Firing != 0 || s.Evaluations == 0 {
		t.Fatalf("status: %+v", s)
	}
	b.run(20*time.Second, hot)
	if as = b.rules.Active(); len(as) != 2 || as[0].State != kemi.StateFiring || !as[0].StartsAt.Equal(epoch.Add(25*time.Second)) {
		t.Fatalf("active: %+v", as)
	}
}

func TestKeepFiringFor(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, keep_firing_for: 15s}
`)
	// A dip of ten seconds is not told, and starts the count again.
	b.run(90*time.Second, every(5*time.Second, "cpu", func(_ string, t time.Duration) float64 {
		return between(10*time.Second, 20*time.Second)("", t) + between(30*time.Second, 40*time.Second)("", t)
	}, "web1"))
	b.want("10 Hot firing web1", "55 Hot resolved web1")
}

func TestAnAlertThatComesBackIsAnotherOne(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
	b.run(60*time.Second, every(5*time.Second, "cpu", func(_ string, t time.Duration) float64 {
		return float64(int(t/(10*time.Second))%2) * 100
	}, "web1"))
	ids := map[string]bool{}
	for _, a := range b.told {
		ids[a.ID()] = true
	}
	if len(b.told) != 6 || len(ids) != 6 {
		t.Fatalf("%d alerts with %d different IDs, want 6: %v", len(b.told), len(ids), b.told)
	}
}

func TestSilenceIsNoticed(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: NoMetrics, expr: absent(up)}
  - {alert: Lost, expr: 'up offset 1m unless up'}
`, func(c *Config) { c.Lookback, c.MaxDelay = 30*time.Second, 10*time.Second })
	b.run(time.Minute, every(5*time.Second, "up", func(string, time.Duration) float64 { return 1 }, "web1"))
	b.want()
	b.run(2*time.Minute, nil) // the last one came at 60 s and counts until 90 s
	b.want("90 NoMetrics firing", "90 Lost firing web1", "150 Lost resolved web1")
	b.run(20*time.Second, every(5*time.Second, "up", func(string, time.Duration) float64 { return 1 }, "web1"))
	b.want("185 NoMetrics resolved")
}

func TestSilenceFromTheStart(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: NoMetrics, expr: absent(up), for: 10s}
`, func(c *Config) { c.MaxDelay = 10 * time.Second })
	b.run(40*time.Second, nil)
	b.want("15 NoMetrics firing")
}

func TestABacklogIsNotSilence(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: NoMetrics, expr: absent(up)}
`, func(c *Config) { c.Lookback = 30 * time.Second })
	// The ticks are an hour ahead of the metrics, which come ten times as fast as time.
	b.now = epoch.Add(time.Hour)
	at := epoch
	for range 60 {
		at = at.Add(10 * time.Second)
		m := gauge("up", 1, "host", "web1")
		m.Time = at
		b.feed(m)
		b.now = b.now.Add(time.Second)
		b.tick()
	}
	b.want()
	if e := b.rules.Status().Evaluated; !e.Equal(at) {
		t.Fatalf("evaluated up to %v, want %v", e, at)
	}
}

func TestAMetricFromTheFutureDoesNotMoveTime(t *testing.T) {
	for _, first := range []bool{false, true} { // before the first tick it is not known what time it is
		b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
		if !first {
			b.run(10*time.Second, every(5*time.Second, "cpu", between(0, 0), "web1"))
		}
		bad := gauge("cpu", 100, "host", "mad")
		bad.Time = b.now.Add(48 * time.Hour)
		b.feed(bad)
		b.run(20*time.Second, every(5*time.Second, "cpu", between(0, 0), "web1"))
		s := b.rules.Status()
		if s.Evaluated.After(b.now) || s.Store.Ahead != 1 {
			t.Fatalf("evaluated up to %v at %v, %d ahead", s.Evaluated, b.now, s.Store.Ahead)
		}
		if first { // its value counts, its time does not
			b.want("5 Hot firing mad")
		} else {
			b.want("15 Hot firing mad")
		}
	}
}

func TestLateMetricsAreSeenByWhatComes(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Peak, expr: 'max_over_time(cpu[30s]) > 90'}
`)
	b.run(30*time.Second, every(5*time.Second, "cpu", between(0, 0), "web1"))
	m := gauge("cpu", 100, "host", "web1")
	m.Time = epoch.Add(12 * time.Second)
	b.feed(m)
	m.Time = epoch.Add(-time.Hour) // older than any rule looks back
	b.feed(m)
	b.run(30*time.Second, every(5*time.Second, "cpu", between(0, 0), "web1"))
	b.want("35 Peak firing web1", "45 Peak resolved web1")
	if s := b.rules.Status().Store; s.Late != 1 {
		t.Fatalf("%d late", s.Late)
	}
}

func TestLimitKeepsTheFirst(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  limit: 2
  rules:
  - {alert: Hot, expr: cpu > 90}
  - {record: hot, expr: cpu > 90}
  - {alert: Recorded, expr: count(hot) > 2}
`)
	hosts := []string{"b", "c", "a", "d"}
	hot := every(5*time.Second, "cpu", func(h string, t time.Duration) float64 {
		if h == "c" || h == "d" && t >= 15*time.Second || t >= 25*time.Second {
			return 100
		}
		return 0
	}, hosts...)
	b.run(30*time.Second, hot)
	b.want("5 Hot firing c", "15 Hot firing d") // those that fire stay, however early in the order others come
	s := b.rules.Status().Groups[0].Rules
	if !strings.Contains(s[0].Error, "2 were left out") || !strings.Contains(s[1].Error, "2 were left out") || s[2].Error != "" {
		t.Fatalf("status: %+v", s)
	}
}

func TestSameLabelsAreAnErrorOfTheRule(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, labels: {host: all}}
  - {record: hot, expr: cpu > 90, labels: {host: all}}
  - {alert: Other, expr: sum(cpu) > 90}
`)
	b.run(20*time.Second, every(5*time.Second, "cpu", between(5*time.Second, 10*time.Second), "web1", "web2"))
	b.want("5 Other firing", "10 Other resolved")
	for _, s := range b.rules.Status().Groups[0].Rules[:2] {
		if s.Failures != 1 || s.Error != "" {
			t.Fatalf("%s: %+v", s.Name, s)
		}
	}
}

func TestAFailingRuleKeepsItsAlerts(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Busy, expr: cpu > on (host) limit}
`)
	source := func(t time.Time) []kemi.Metric {
		d := t.Sub(epoch)
		if d%(5*time.Second) != 0 {
			return nil
		}
		ms := []kemi.Metric{gauge("cpu", 100, "host", "web1"), gauge("limit", 90, "host", "web1", "zone", "a")}
		if d == 15*time.Second { // many-to-many for one evaluation
			ms = append(ms, gauge("limit", 90, "host", "web1", "zone", "b"))
		}
		return ms
	}
	b.run(15*time.Second, source)
	b.want("5 Busy firing web1")
	s := b.rules.Status().Groups[0].Rules[0]
	if s.Failures != 1 || !strings.Contains(s.Error, "many-to-many") || s.Firing != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestRecordedSeriesAreSeenInTheSameEvaluation(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  labels: {team: ops}
  rules:
  - {record: service:cpu:avg, expr: avg by (service) (cpu), labels: {from: rule}}
  - {alert: Busy, expr: 'service:cpu:avg{team="ops", from="rule"} > 40'}
- name: later
  interval: 5s
  rules:
  - {alert: Page, expr: 'ALERTS{alertname="Busy", alertstate="firing"} and on () (vector(1))'}
  - {alert: Long, expr: 'time() - ALERTS_FOR_STATE{alertname="Busy"} >= 10'}
`)
	b.run(40*time.Second, func(now time.Time) []kemi.Metric {
		d := now.Sub(epoch)
		if d%(5*time.Second) != 0 {
			return nil
		}
		return []kemi.Metric{
			gauge("cpu", between(10*time.Second, 25*time.Second)("", d), "host", "web1", "service", "pay"),
			gauge("cpu", 0, "host", "web2", "service", "pay"),
		}
	})
	b.want("10 Busy firing", "10 Page firing", "20 Long firing", "25 Busy resolved", "25 Page resolved", "25 Long resolved")
}

func TestAlertsForStateIsSinceWhenTheConditionHolds(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, for: 10s}
  - {alert: Early, expr: 'time() - ALERTS_FOR_STATE{alertname="Hot"} == 5'}
  - {alert: Later, expr: 'time() - ALERTS_FOR_STATE{alertname="Hot"} == 15'}
`)
	b.run(30*time.Second, every(5*time.Second, "cpu", between(10*time.Second, time.Hour), "web1"))
	b.want("15 Early firing web1", "20 Hot firing web1", "20 Early resolved web1", "25 Later firing web1", "30 Later resolved web1")
}

func TestRecordedSeriesEnd(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {record: hot, expr: cpu > 90}
  - {alert: Hot, expr: hot}
`)
	b.run(30*time.Second, every(5*time.Second, "cpu", between(10*time.Second, 15*time.Second), "web1"))
	b.want("10 Hot firing web1", "15 Hot resolved web1") // not five minutes later
}

func TestQueryOffset(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  query_offset: 20s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
	b.run(60*time.Second, every(5*time.Second, "cpu", between(10*time.Second, 20*time.Second), "web1"))
	b.want("30 Hot firing web1", "40 Hot resolved web1")
}

func TestGroupsHaveTheirOwnInterval(t *testing.T) {
	b := newBench(t, `
groups:
- {name: slow, interval: 20s, rules: [{alert: Slow, expr: cpu > 90}]}
- {name: fast, interval: 5s, rules: [{alert: Fast, expr: cpu > 90}]}
`)
	b.run(60*time.Second, every(time.Second, "cpu", between(6*time.Second, 41*time.Second), "web1"))
	b.want("10 Fast firing web1", "20 Slow firing web1", "45 Fast resolved web1", "60 Slow resolved web1")
}

func TestCatchUpIsBounded(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`, func(c *Config) { c.MaxCatchUp = 4 })
	hot := every(5*time.Second, "cpu", between(0, time.Hour), "web1")
	b.run(10*time.Second, hot)
	b.want("5 Hot firing web1")
	for b.now.Before(epoch.Add(100 * time.Second)) { // metrics, but no ticks
		b.now = b.now.Add(5 * time.Second)
		b.feed(hot(b.now)...)
	}
	b.tick()
	s := b.rules.Status()
	if s.Skipped != 14 || s.Groups[0].Rules[0].Evaluations != 6 || !s.Evaluated.Equal(b.now) {
		t.Fatalf("skipped %d, evaluated %d", s.Skipped, s.Groups[0].Rules[0].Evaluations)
	}
}

func TestFinishEvaluatesTheRest(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
	hot := every(5*time.Second, "cpu", between(20*time.Second, 40*time.Second), "web1")
	for b.now.Before(epoch.Add(time.Minute)) {
		b.now = b.now.Add(5 * time.Second)
		b.feed(hot(b.now)...)
	}
	out, err := b.rules.Finish(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.told = out
	b.want("20 Hot firing web1", "40 Hot resolved web1")
}

func TestNamesOfAnyKind(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Dotted, expr: '{"disk.used", "마운트"="/"} > 90'}
  - {alert: Loose, expr: '{__name__=~"net_.*", host="web1"} > 90'}
  - {alert: Any, expr: 'count({host="web9"}) > 1'}
`)
	b.run(10*time.Second, func(time.Time) []kemi.Metric {
		return []kemi.Metric{
			gauge("disk.used", 95, "host", "web1", "마운트", "/"), gauge("disk.used", 95, "host", "web1", "마운트", "/var"),
			gauge("net_in", 95, "host", "web1"), gauge("net_in", 95, "host", "web2"), gauge("other", 95, "host", "web1"),
			gauge("a", 1, "host", "web9"), gauge("b", 1, "host", "web9"),
		}
	})
	b.want("5 Dotted firing web1", "5 Loose firing web1", "5 Any firing")
	if s := b.rules.Status().Store; s.Series != 4 {
		t.Fatalf("%d series are held, want the 4 that rules select", s.Series)
	}
}

func TestSeriesAreForgottenWhenNoRuleCanSeeThem(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
	one := func(string, time.Duration) float64 { return 1 }
	b.run(time.Minute, every(5*time.Second, "cpu", one, "web1", "web2"))
	b.run(7*time.Minute, every(5*time.Second, "cpu", one, "web1"))
	if s := b.rules.Status().Store; s.Series != 1 {
		t.Fatalf("%d series are held, want 1", s.Series)
	}
}

func TestSeriesAreLimited(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Many, expr: count(cpu) > 3}
`, func(c *Config) { c.MaxSeries = 3 })
	one := func(string, time.Duration) float64 { return 1 }
	b.run(10*time.Second, every(5*time.Second, "cpu", one, "a", "b", "c", "d"))
	b.want()
	if s := b.rules.Status().Store; s.Series != 3 || s.Refused != 2 {
		t.Fatalf("%d series, %d refused", s.Series, s.Refused)
	}
}

func TestAValueMayBeGivenTwice(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90}
`)
	b.run(10*time.Second, func(time.Time) []kemi.Metric {
		return []kemi.Metric{gauge("cpu", 100, "host", "web1"), gauge("cpu", 1, "host", "web1")}
	})
	b.want() // the last one counts
	if s := b.rules.Status().Store; s.Replaced != 10 {
		t.Fatalf("%d replaced", s.Replaced)
	}
}
