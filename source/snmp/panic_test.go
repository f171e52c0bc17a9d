package snmp_test

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// A function of a profile that panics costs what it makes. The poll is delivered all the
// same, says so, and so do all that follow.
func TestAProfileThatPanics(t *testing.T) {
	const column = "1.3.6.1.4.1.99999.2.1"
	good := snmp.Table{
		Columns: []snmp.Column{{OID: column}}, Label: "pool",
		Identity: func(r *snmp.Row) string { return r.Index() },
		Metrics:  func(r *snmp.Row) { r.Gauge("size", r.At(0).Float()) },
	}
	for name, c := range map[string]struct {
		change func(*snmp.Profile)
		lost   string // the metric that is missing
	}{
		"Gauge": {func(f *snmp.Profile) { f.Scalars[1].Gauge = func([]snmp.Value) (float64, bool) { panic("boom") } }, "ticks"},
		"Metrics": {func(f *snmp.Profile) {
			bad := good
			bad.Metrics = func(r *snmp.Row) { r.Gauge("lost", 1); panic("boom") }
			f.Tables = append([]snmp.Table{bad}, f.Tables...)
		}, "lost"},
		"Identity": {func(f *snmp.Profile) { f.Tables[0].Identity = func(*snmp.Row) string { panic("boom") } }, "size"},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.ErrorLevel)
			a := newAgent(t)
			a.set("1.3.6.1.2.1.1.3.0", ticks(100), column+".1", 7)
			f := snmp.Profile{
				Name: "ours",
				Scalars: []snmp.Scalar{
					{Name: "ticks", OIDs: []string{"1.3.6.1.2.1.1.3.0"}},
					{Name: "more", OIDs: []string{"1.3.6.1.2.1.1.3.0"}},
				},
				Tables: []snmp.Table{good},
			}
			c.change(&f)
			p := newPoller(t, func(cfg *snmp.Config) {
				cfg.Profiles, cfg.Logger = []snmp.Profile{f}, zap.New(core)
			})
			for cycle := range 3 {
				start := time.Now()
				ms, err := p.Apply(t.Context(), nil, []kemi.Job{jobFor(a)})
				if err != nil || time.Since(start) > time.Minute {
					t.Fatalf("cycle %d: %v, after %v: the poll did not end", cycle, err, time.Since(start))
				}
				got := metrics(ms)
				if got.value(t, "up") != 1 || got.reason() != "panic" || len(got.named(c.lost)) != 0 {
					t.Errorf("cycle %d: want up, the reason panic, and no %s: %s", cycle, c.lost, got)
				}
				if c.lost != "size" && got.value(t, "size", "pool", "1") != 7 {
					t.Errorf("cycle %d: another table is lost: %s", cycle, got)
				}
				for _, m := range got {
					if m.Host() != "web1" {
						t.Errorf("cycle %d: %s has no host", cycle, m)
					}
				}
			}
			if s := p.Stats(); s.Panics != 3 || s.Up != 3 || s.Incomplete != 3 {
				t.Errorf("%+v", s)
			}
			told := logs.All()
			if len(told) != 1 || !strings.Contains(told[0].ContextMap()["stack"].(string), "panic_test.go") {
				t.Errorf("logged %v, want one entry with the stack", told)
			}
		})
	}
}

// That jobs come too late is told, but not for each of them.
func TestStaleJobsAreTold(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	p := newPoller(t, func(c *snmp.Config) { c.Logger = zap.New(core) })
	a := newAgent(t)
	job := jobFor(a)
	job.Deadline = time.Now().Add(-time.Minute)
	for range 10 {
		if _, err := p.Apply(t.Context(), nil, []kemi.Job{job, job}); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.Stale != 20 || logs.Len() != 1 || logs.All()[0].ContextMap()["host"] != "web1" {
		t.Errorf("%d stale jobs, logged %v", s.Stale, logs.All())
	}
}
