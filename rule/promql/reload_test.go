package promql

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
)

const hotAndCold = `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, for: 10s, labels: {severity: page}}
  - {alert: Cold, expr: cpu < 10}
`

// reload changes a file and reloads.
func (b *bench) reload(name, yaml string) error {
	if yaml == "" {
		delete(b.fsys, name)
	} else {
		b.fsys[name] = &fstest.MapFile{Data: []byte(yaml)}
	}
	return b.rules.Reload()
}

func TestAReloadKeepsWhatHasNotChanged(t *testing.T) {
	b := newBench(t, hotAndCold)
	hot := every(5*time.Second, "cpu", between(0, 65*time.Second), "web1")
	b.run(10*time.Second, hot) // Hot is pending since 5 s
	err := b.reload("r.yml", `
groups:
- name: other
  interval: 5s
  rules: [{alert: Any, expr: 'max_over_time(cpu[1m]) > 0'}]
- name: g
  interval: 5s
  rules:
  - {alert: Cold, expr: cpu < 5}
  - {alert: Hot, expr: cpu > 95, for: 10s, labels: {severity: page}, annotations: {new: text}}
`)
	if err != nil {
		t.Fatal(err)
	}
	b.run(10*time.Second, hot)
	b.want("15 Any firing web1", "15 Hot firing web1")
	if a := b.rules.Active()[1]; a.Annotations.Get("new") != "text" {
		t.Fatalf("active %+v", a)
	}
	// Another label makes it another alert.
	if err := b.reload("r.yml", strings.ReplaceAll(hotAndCold, "page", "mail")); err != nil {
		t.Fatal(err)
	}
	b.run(20*time.Second, hot)
	b.want("20 Any resolved web1", "20 Hot resolved web1", "35 Hot firing web1")
	if s := b.rules.Status(); s.Refused != "" || len(s.Groups) != 1 {
		t.Fatalf("status %+v", s)
	}
}

func TestAReloadKeepsSamples(t *testing.T) {
	b := newBench(t, `{groups: [{name: a, interval: 5s, rules: [{alert: A, expr: 'sum_over_time(cpu[1m]) > 1000'}]}]}`)
	b.run(30*time.Second, every(5*time.Second, "cpu", between(0, time.Hour), "web1")) // six times 100
	if err := b.reload("r.yml", `{groups: [{name: b, interval: 5s, rules: [{alert: B, expr: 'sum_over_time(cpu[40s]) > 500'}]}]}`); err != nil {
		t.Fatal(err)
	}
	b.run(5*time.Second, nil)
	b.run(20*time.Second, nil)
	b.want("35 B firing web1")
	if err := b.reload("r.yml", `{groups: [{name: b, interval: 5s, rules: [{alert: B, expr: 'other > 0'}]}]}`); err != nil {
		t.Fatal(err)
	}
	if s := b.rules.Status().Store; s.Series != 0 {
		t.Fatalf("%d series are held that no rule selects", s.Series)
	}
}

func TestABadFileIsRefusedAndTheOldOneStays(t *testing.T) {
	b := newBench(t, hotAndCold)
	hot := every(5*time.Second, "cpu", between(0, time.Minute), "web1")
	b.run(20*time.Second, hot)
	b.want("15 Hot firing web1")
	err := b.reload("r.yml", "groups:\n- name: g\n  rules:\n  - alert: Hot\n    expr: cpu > > 90\n")
	if err == nil || !strings.Contains(err.Error(), "r.yml:5: ") {
		t.Fatalf("error %v, want one with file and line", err)
	}
	if s := b.rules.Status().Refused; s != err.Error() {
		t.Fatalf("status says %q", s)
	}
	// Another file is taken meanwhile.
	if err = b.reload("s.yml", `{groups: [{name: s, interval: 5s, rules: [{alert: New, expr: cpu > 50}]}]}`); err == nil || !strings.Contains(err.Error(), "r.yml:5: ") {
		t.Fatalf("error %v", err)
	}
	b.run(50*time.Second, hot)
	b.want("25 New firing web1", "60 Hot resolved web1", "60 Cold firing web1", "60 New resolved web1")
	if err = b.reload("r.yml", hotAndCold); err != nil || b.rules.Status().Refused != "" {
		t.Fatalf("%v, %q", err, b.rules.Status().Refused)
	}
	// The files are gone for a moment: nothing changes.
	keep := b.fsys["r.yml"]
	delete(b.fsys, "s.yml")
	if err = b.reload("r.yml", ""); err == nil || !strings.Contains(err.Error(), "no rule file matches") {
		t.Fatalf("error %v", err)
	}
	if n := len(b.rules.Status().Groups); n != 2 {
		t.Fatalf("%d groups, want 2", n)
	}
	b.fsys["r.yml"] = keep
	if err = b.rules.Reload(); err != nil || len(b.rules.Status().Groups) != 1 {
		t.Fatalf("%v", err)
	}
}

func TestALongerForMakesAlertsPendingAgain(t *testing.T) {
	b := newBench(t, hotAndCold)
	hot := every(5*time.Second, "cpu", between(0, time.Hour), "web1")
	b.run(20*time.Second, hot)
	if err := b.reload("r.yml", strings.ReplaceAll(hotAndCold, "10s", "40s")); err != nil {
		t.Fatal(err)
	}
	b.run(40*time.Second, hot)
	b.want("15 Hot firing web1", "25 Hot resolved web1", "45 Hot firing web1")
}

// TestACopiedFileTellsNothingTwice copies a file and removes the first one, in all
// the ways that a reload may find that done.
func TestACopiedFileTellsNothingTwice(t *testing.T) {
	const hot = `{groups: [{name: g, interval: 5s, rules: [{alert: Hot, expr: cpu > 90}]}]}`
	source := every(5*time.Second, "cpu", between(0, 60*time.Second), "web1")
	b := newBench(t, hot)
	change := func(name, yaml string) {
		t.Helper()
		if err := b.reload(name, yaml); err != nil {
			t.Fatal(err)
		}
	}
	b.run(10*time.Second, source)
	change("z.yml", hot)
	b.run(10*time.Second, source)
	if as := b.rules.Active(); len(as) != 1 || !as[0].StartsAt.Equal(epoch.Add(5*time.Second)) {
		t.Fatalf("active %+v", as)
	}
	change("a.yml", hot)
	b.run(10*time.Second, source)
	change("z.yml", "")
	b.run(10*time.Second, source)
	change("r.yml", "") // the first one, which has told of it
	b.run(10*time.Second, source)
	b.fsys["b.yml"] = b.fsys["a.yml"]
	change("a.yml", "") // moved between two looks
	if as := b.rules.Active(); len(as) != 1 || as[0].State != kemi.StateFiring {
		t.Fatalf("active %+v", as)
	}
	b.run(30*time.Second, source)
	if z := b.told[1]; !z.StartsAt.Equal(b.told[0].StartsAt) {
		t.Fatalf("resolved %+v, want it to say since when it was told as firing", z)
	}
	b.want("5 Hot firing web1", "60 Hot resolved web1")
}

func TestAFileTakesOverFromItself(t *testing.T) {
	rule := func(name, expr string) string {
		return `{groups: [{name: g, interval: 5s, rules: [{alert: ` + name + `, expr: ` + expr + `, for: 20s}]}]}`
	}
	b := newBench(t, rule("Hot", "cpu > 90"))
	source := every(5*time.Second, "cpu", between(0, time.Hour), "web1")
	b.run(15*time.Second, source)
	// A rule like it, in a file that comes before it in order, has a state of its own.
	if err := b.reload("a.yml", rule("Hot", "cpu > 200")); err != nil {
		t.Fatal(err)
	}
	b.run(5*time.Second, source)
	if err := b.reload("a.yml", ""); err != nil {
		t.Fatal(err)
	}
	b.run(10*time.Second, source)
	b.want("25 Hot firing web1")
}

func TestOneAlertOfSeveralGroupsIsToldOnce(t *testing.T) {
	b := newBench(t, `
groups:
- {name: a, interval: 5s, rules: [{alert: Sick, expr: cpu > 90}]}
- {name: b, interval: 5s, rules: [{alert: Sick, expr: heat > 90}]}
`)
	cpu := every(5*time.Second, "cpu", between(10*time.Second, 30*time.Second), "web1")
	heat := every(5*time.Second, "heat", between(20*time.Second, 40*time.Second), "web1")
	both := func(t time.Time) []kemi.Metric { return append(cpu(t), heat(t)...) }
	b.run(25*time.Second, both)
	if as := b.rules.Active(); len(as) != 1 || !as[0].StartsAt.Equal(epoch.Add(10*time.Second)) {
		t.Fatalf("active %+v", as)
	}
	b.run(25*time.Second, both)
	if b.told[0].StartsAt != b.told[1].StartsAt {
		t.Fatalf("told %+v", b.told)
	}
	b.want("10 Sick firing web1", "40 Sick resolved web1")
}

// TestSeriesOfARuleThatWasReloadedEnd holds that a rule still knows after a reload
// what it had written before.
func TestSeriesOfARuleThatWasReloadedEnd(t *testing.T) {
	const rules = `{groups: [{name: g, interval: 5s, rules: [{record: hot, expr: cpu > 90}, {alert: Hot, expr: hot}]}]}`
	b := newBench(t, rules)
	source := every(5*time.Second, "cpu", between(0, 15*time.Second), "web1")
	b.run(10*time.Second, source)
	if err := b.reload("r.yml", rules+"\n"); err != nil {
		t.Fatal(err)
	}
	b.run(20*time.Second, source)
	b.want("5 Hot firing web1", "15 Hot resolved web1") // not when the look-back is over
}

func TestWatchTakesAChangeWithinASecondOrTwo(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(hotAndCold)
	core, logs := observer.New(zap.InfoLevel)
	r, err := New(Config{Files: []string{filepath.Join(dir, "*.yml")}, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.Watch(ctx, 0); close(done) }()
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		pass(5 * time.Second)
		write(strings.ReplaceAll(hotAndCold, "Cold", "Chilly"))
		pass(2 * time.Second)
		if s := r.Status(); s.Groups[0].Rules[1].Name != "Chilly" {
			t.Fatalf("rules %+v", s.Groups[0].Rules)
		}
		write("groups: [")
		pass(10 * time.Second)
		if s := r.Status(); s.Groups[0].Rules[1].Name != "Chilly" || !strings.Contains(s.Refused, "a.yml:1: not YAML") {
			t.Fatalf("status %+v", s)
		}
		stop()
		<-done
	})
	if n := logs.FilterMessage("metric rules were refused").Len(); n != 1 {
		t.Errorf("the bad file was logged %d times, want once", n)
	}
	if n := logs.FilterMessage("metric rules were reloaded").Len(); n != 1 {
		t.Errorf("the reload was logged %d times, want once", n)
	}
}
