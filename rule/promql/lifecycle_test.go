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
	var got []string
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
