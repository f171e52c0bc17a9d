package promql

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

func newReader(name string) *reader {
	return &reader{
		file: name, scope: &scope{}, parser: parser.NewParser(parser.Options{}),
		interval: 15 * time.Second, lookback: 5 * time.Minute, longest: 24 * time.Hour,
	}
}

// TestBadFiles compares what is said of each file in testdata/bad with the lines of
// comment at its end. Run with KEMI_GOLDEN=1 to write them anew.
func TestBadFiles(t *testing.T) {
	names, _ := filepath.Glob("testdata/bad/*.yml")
	if len(names) < 20 {
		t.Fatalf("only %d files", len(names))
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		text, want, _ := strings.Cut(string(content), "# error:\n")
		_, err = newReader(base).read([]byte(text))
		if err == nil {
			t.Errorf("%s: no error", base)
			continue
		}
		got := "# " + strings.ReplaceAll(err.Error(), "\n", "\n# ") + "\n"
		if os.Getenv("KEMI_GOLDEN") != "" {
			if err := os.WriteFile(name, []byte(text+"# error:\n"+got), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if got != want {
			t.Errorf("%s: got\n%swant\n%s", base, got, want)
		}
	}
}

// TestGoodFileIsReadAsPrometheusReadsIt compares all fields.
func TestGoodFileIsReadAsPrometheusReadsIt(t *testing.T) {
	content, err := os.ReadFile("testdata/good.yml")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := newReader("good.yml").read(content)
	if err != nil {
		t.Fatal(err)
	}
	const utf8Names = 2 // model.UTF8Validation of prometheus/common
	want, errs := rulefmt.Parse(content, false, utf8Names, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 || len(want.Groups) != len(groups) {
		t.Fatalf("Prometheus: %v", errs)
	}
	same := func(what string, ts []text, m map[string]string) {
		t.Helper()
		if len(ts) != len(m) {
			t.Errorf("%s: %d, want %v", what, len(ts), m)
		}
		for _, x := range ts {
			if m[x.name] != x.source {
				t.Errorf("%s: %s is %q, want %q", what, x.name, x.source, m[x.name])
			}
		}
	}
	for i, g := range groups {
		w := want.Groups[i]
		interval := time.Duration(w.Interval)
		if interval == 0 {
			interval = 15 * time.Second
		}
		var offset time.Duration
		if w.QueryOffset != nil {
			offset = time.Duration(*w.QueryOffset)
		}
		if g.name != w.Name || g.interval != interval || g.limit != w.Limit || g.queryOffset != offset || len(g.rules) != len(w.Rules) {
			t.Fatalf("group %+v, want %+v", g, w)
		}
		for j, r := range g.rules {
			x := w.Rules[j]
			if r.alert != (x.Alert != "") || r.name != x.Alert+x.Record || r.expr != x.Expr ||
				r.hold != time.Duration(x.For) || r.keepFiring != time.Duration(x.KeepFiringFor) {
				t.Errorf("rule %+v, want %+v", r, x)
			}
			all := map[string]string{}
			for k, v := range w.Labels {
				all[k] = v
			}
			for k, v := range x.Labels {
				all[k] = v
			}
			same(r.name+": labels", r.labels, all)
			same(r.name+": annotations", r.annotations, x.Annotations)
		}
	}
}

func TestPlanHoldsWhatRulesLookBackOn(t *testing.T) {
	const m = time.Minute
	for expr, want := range map[string]time.Duration{
		`x`:                                  5 * m,
		`x > 1 and y`:                        5 * m,
		`rate(x[10m])`:                       10 * m,
		`rate(x[1m] offset 1h)`:              61 * m,
		`x offset -3m`:                       2 * m,
		`max_over_time(rate(x[5m])[1h:1m])`:  65 * m,
		`max_over_time(x[1h:1m] offset 10m)`: 75 * m,
		`sum_over_time((max_over_time(x[5m:1m] offset 1m))[10m:1m])`: 21 * m,
		`rate(x[2m] @ end())`: 2 * m,
		`absent(x{a="b"})`:    5 * m,
	} {
		e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		needs, err := needsOf(e, 5*m)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
		} else if w := newPlan(needs).names["x"]; w.back != want {
			t.Errorf("%s looks back %v, want %v", expr, w.back, want)
		}
	}
}

// TestHostileFilesAreRefused reads files that are small and mean a lot of work.
func TestHostileFilesAreRefused(t *testing.T) {
	lines := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	expr := func(s string) string { return "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: '" + s + "'\n" }
	for want, content := range map[string]string{
		"more than 10000 rules": "groups:\n- name: a\n  rules: &r\n" + lines(6000, "  - {alert: A%d, expr: up}\n") + lines(20_000, "- {name: b%d, rules: *r}\n"),
		"2000 labels":           "groups:\n- name: a\n  labels:\n" + lines(2000, "    l%d: x\n") + "  rules:\n" + lines(2000, "  - {alert: A%d, expr: up}\n"),
		"2000 annotations":      "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: up\n    annotations:\n" + lines(2000, "      l%d: x\n"),
		"80 labels with those":  "groups:\n- name: a\n  labels:\n" + lines(40, "    l%d: x\n") + "  rules:\n  - alert: A\n    expr: up\n    labels:\n" + lines(40, "      m%d: x\n"),
		"written out":           "groups:\n- name: a\n  labels: {x: '" + strings.Repeat("x", 60_000) + "'}\n  rules:\n" + lines(9000, "  - {record: a%d, expr: up}\n"),
		"expressions, labels and annotations": "groups:\n- name: a\n  rules:\n  - {alert: A, expr: &e '" + strings.Repeat("up +", 900) + strings.Repeat(" ", 50_000) + "up'}\n" +
			lines(9000, "  - {alert: A%d, expr: *e}\n"),
		"and 980 errors more":             "groups:\n- &g {name: a, rules: []}\n" + lines(100_000, "- *g # %d\n"),
		"nested deeper than 200":          expr(strings.Repeat("(", 30_000) + "up" + strings.Repeat(")", 30_000)),
		"more than 1000 operators":        expr(strings.Repeat("-", 60_000) + "up"),
		"operators: record a part":        expr("up" + strings.Repeat("+up", 20_000)),
		"a string has":                    expr(`up{a=~"` + strings.Repeat("x", 2000) + `"}`),
		"regular expressions repeat more": expr(strings.Repeat(`up{a=~"`+strings.Repeat("x{1000}", 5)+`"} or `, 5) + "up"),
		"query \"------":                  "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    annotations: {s: '{{ query \"" + strings.Repeat("-", 60_000) + "up\" }}'}\n",
	} {
		begin := time.Now()
		_, err := newReader("r.yml").read([]byte(content))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.300v", want, err)
		}
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("%s: it took %v", want, took)
		}
	}
	// What people may well write is taken.
	for _, content := range []string{
		expr(strings.Repeat("(", 100) + "up" + strings.Repeat(")", 100)), expr("up" + strings.Repeat(" or up", 900)),
		expr(`up{host=~"` + strings.Repeat("web1234|", 100) + `"}`),
		"groups:\n- name: a\n  labels:\n" + lines(20, "    l%d: x\n") + "  rules:\n" + lines(int(rounds(maxRules)), "  - {alert: A%d, expr: up}\n"),
	} {
		if _, err := newReader("r.yml").read([]byte(content)); err != nil {
			t.Errorf("%.60q: %.300v", content, err)
		}
	}
}

func TestHorizonGoesThroughRecordedSeries(t *testing.T) {
	r, err := New(Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(`
groups:
- name: g
  interval: 1m
  query_offset: 2m
  rules:
  - {record: a, expr: 'rate(x[10m])'}
  - {record: self, expr: 'self + 1'}
- name: h
  interval: 1m
  rules:
  - {alert: B, expr: 'avg_over_time(a[20m]) > 1', for: 5m, keep_firing_for: 7m}
`)}}})
	if err != nil {
		t.Fatal(err)
	}
	// a: 10 + 2 + 1 of its interval. B: 20 + that + 5 + 7 + 1.
	if h := r.Horizon(); h != 46*time.Minute+r.conf.lead() {
		t.Fatalf("horizon %v", h)
	}
}

func TestDurations(t *testing.T) {
	for _, s := range []string{"0", "5m", "1h30m", "1d", "1w", "1y", "90s", "1500ms", "1y2w3d4h5m6s7ms", "", "5", "m", "-5m", "5 m", "1m1h",
		"1m1m", "5x", "99999999999999999999s", "300y", "1.5h", "1ms1s"} {
		got, err := parseDuration(s)
		var want rulefmt.Rule
		wantErr := yaml.Unmarshal([]byte(`for: "`+s+`"`), &want)
		if got != time.Duration(want.For) && wantErr == nil || (err == nil) != (wantErr == nil) {
			t.Errorf("%q: %v, %v; Prometheus: %v, %v", s, got, err, want.For, wantErr)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	file := fstest.MapFS{"r.yml": {Data: []byte(hotAndCold)}}
	for name, c := range map[string]Config{
		"Config.Files is empty":                      {},
		`no rule file matches "*.yaml"`:              {Files: []string{"*.yaml"}, FS: file},
		`"[" is not a pattern`:                       {Files: []string{"["}, FS: file},
		"Config.EvaluationInterval is 1ns":           {Files: []string{"*"}, FS: file, EvaluationInterval: 1},
		"Config.MaxSeries is -1":                     {Files: []string{"*"}, FS: file, MaxSeries: -1},
		"Config.ExternalURL is not a URL":            {Files: []string{"*"}, FS: file, ExternalURL: "http://[::1"},
		"more than the 4m0s that are held in memory": {Files: []string{"*"}, FS: file, MaxLookback: 4 * time.Minute},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
}

func FuzzRuleFile(f *testing.F) {
	names, _ := filepath.Glob("testdata/bad/*.yml")
	for _, name := range append(names, "testdata/good.yml") {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Add([]byte("a: &a [*a]\ngroups: *a\n"))
	f.Add([]byte("<<: {groups: [{<<: [{name: a}], rules: []}]}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		groups, err := newReader("f.yml").read(content)
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if strings.HasPrefix(line, "f.yml:") {
					return
				}
			}
			t.Fatalf("no place in %v", err)
		}
		// What is taken can be put into force.
		r, err := New(Config{Files: []string{"f.yml"}, FS: fstest.MapFS{"f.yml": {Data: content}}})
		if err != nil {
			t.Fatalf("read, but refused: %v", err)
		}
		if len(r.groups) != len(groups) || r.Horizon() < 0 {
			t.Fatalf("%d groups of %d, horizon %v", len(r.groups), len(groups), r.Horizon())
		}
		b := &bench{t: t, now: epoch, rules: r}
		b.run(2*time.Second, nil)
	})
}
