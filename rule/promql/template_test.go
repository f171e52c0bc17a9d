package promql

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"

	"github.com/kemi-go/kemi"
)

// TestTemplatesAreThoseOfPrometheus expands the same texts here and there.
func TestTemplatesAreThoseOfPrometheus(t *testing.T) {
	texts := []string{
		`plain`, `{{ $labels.host }} {{ .Labels.host }} {{ $labels.missing }}|{{ $value }}`,
		`{{ $externalLabels.region }} {{ $externalURL }} {{ externalURL }} {{ pathPrefix }}`,
		`{{ humanize $value }}`, `{{ $value | humanize1024 }}`, `{{ $value | humanizeDuration }}`, `{{ $value | humanizePercentage }}`,
		`{{ $value | humanizeTimestamp }}`, `{{ humanizeDuration "90061.5" }}`, `{{ humanize "x" }}`,
		`{{ "aa bb-cc dd_ee ff.gg it's éa 2nd x2y _c" | title }} {{ "aB" | toUpper }} {{ "aB" | toLower }}`,
		`{{ if match "web.*" $labels.host }}yes{{ end }} {{ reReplaceAll "(.)eb" "<$1>" $labels.host }} {{ reReplaceAll "(" "" "x" }}`,
		`{{ printf "%.2f" $value }} {{ $value | printf "%05.1f" }}`,
		`{{ with args 1 "two" }}{{ .arg0 }} {{ .arg1 }}{{ end }}`, `{{ safeHtml "<b>" }}`,
		`{{ range query "up" }}{{ .Labels.host }}={{ .Value }} {{ end }}`,
		`{{ with query "up" }}{{ . | first | value }} {{ . | first | label "host" }} {{ len . }} {{ . | first | strvalue }}{{ end }}`,
		`{{ range sortByLabel "host" (query "up") }}{{ label "host" . }} {{ end }}`,
		`{{ query "nothing" | first | value }}`,
		`{{ graphLink "up == 1" }} {{ tableLink "up == 1" }} {{ urlQueryEscape "a b&c" }}`,
		`{{ stripPort "a.b:80" }} {{ stripPort "a" }} {{ stripDomain "a.b.c:80" }} {{ stripDomain "1.2.3.4:5" }} {{ stripDomain "a.b" }}`,
		`{{ now }} {{ parseDuration "1h30m" }} {{ parseDuration "-5m" }} {{ toDuration 90 }} {{ (toTime 1500000000).Year }} {{ toTime $value }}`,
		`{{ template "x" . }}{{ define "x" }}[{{ .Value }}]{{ end }}`,
		`{{ $x := 5 }}{{ $x }} {{ index $labels "host" }} {{ len $labels }}`, `{{ call $value }}`, `{{ .Nope }}`,
	}
	values := []float64{0, 1, -1, 0.5, 95.1234, 1e-7, 12345.678, -98765432, 1.5e18, 1e30, 1700000000, math.NaN(), math.Inf(1), math.Inf(-1)}
	up := prom.Vector{
		{Metric: labels.FromStrings("__name__", "up", "host", "web2", "__value__", "7"), F: 1},
		{Metric: labels.FromStrings("__name__", "up", "host", "web1"), F: 0},
	}
	result := func(expr string) prom.Vector {
		if expr == "up" {
			return up
		}
		return nil
	}
	external, _ := url.Parse("https://kemi.example.com/base/")
	now := time.UnixMilli(1_700_000_123_456)
	sc := &scope{
		query: func(expr string) (vector, error) { return points(result(expr)), nil },
		now:   now.UnixMilli(), externalURL: external, externalLabels: map[string]string{"region": "kr"},
	}
	for _, source := range texts {
		x, _, err := newText(sc, "n", source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		for _, v := range values {
			s := prom.Sample{Metric: labels.FromStrings("__name__", "cpu", "host", "web1"), F: v}
			got, gotErr := x.expand(&data{Labels: s.Metric.Map(), ExternalLabels: sc.externalLabels, ExternalURL: external.String(), Value: v})
			want, wantErr := template.NewTemplateExpander(context.Background(), definitions+source, "n",
				template.AlertTemplateData(s.Metric.Map(), sc.externalLabels, external.String(), s), 1_700_000_123_456,
				func(_ context.Context, q string, _ time.Time) (prom.Vector, error) { return result(q), nil }, external, nil).Expand()
			if (gotErr == nil) != (wantErr == nil) || wantErr == nil && got != want {
				t.Errorf("%s with %v: %q, %v; Prometheus: %q, %v", source, v, got, gotErr, want, wantErr)
			}
			if wantErr != nil && !strings.HasPrefix(got, "<error expanding template: ") {
				t.Errorf("%s with %v: %q", source, v, got)
			}
		}
	}
}

func TestATemplateIsBounded(t *testing.T) {
	x, _, err := newText(&scope{}, "n", `{{ printf "%99999d" 1 }}`)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := x.expand(&data{}); err == nil || len(s) > 1000 || !strings.Contains(s, "longer than 65536 bytes") {
		t.Fatalf("%d bytes, %v", len(s), err)
	}
}

func TestATemplateWithoutAnEndIsRefused(t *testing.T) {
	for source, want := range map[string]string{
		`{{ range 3000000000 }}{{ end }}`:                                                                               "range over a number",
		`{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`:                                                 `template "a" calls itself`,
		`{{ define "a" }}{{ if true }}{{ template "b" }}{{ end }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}x`: "calls itself",
	} {
		_, err := newReader("r.yml").read([]byte("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    annotations:\n      s: '" + source + "'\n"))
		if err == nil || !strings.Contains(err.Error(), "r.yml:7: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// TestEveryTemplateEnds expands texts that would take hours or all memory.
func TestEveryTemplateEnds(t *testing.T) {
	calls := `{{ define "x0" }}{{ end }}`
	for i := range 40 {
		calls += fmt.Sprintf(`{{ define "x%d" }}{{ template "x%d" }}{{ template "x%d" }}{{ end }}`, i+1, i, i)
	}
	double := func(call string) string {
		return `{{ $x := "aaaaaaaa%&<" }}{{ range $i := len "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }}{{ $x = ` + call + ` }}{{ end }}{{ len $x }}`
	}
	texts := []string{
		`{{ $n := 3000000000 }}{{ range $n }}{{ end }}`, `{{ range (3000000000) }}{{ end }}`, `{{ range (toTime 1e9).UnixNano }}{{ end }}`,
		`{{ $n := 300000 }}{{ range $n }}{{ range $n }}{{ end }}{{ end }}`, calls + `{{ template "x40" }}`,
		double(`printf "%s%s" $x $x`), double(`print $x $x`), double(`println $x $x`), double(`html $x $x $x`), double(`js $x $x $x`), double(`urlquery $x $x`),
		double(`urlQueryEscape $x`) + strings.Repeat(`{{ $x = graphLink (printf "%s%s" $x $x) }}`, 40), double(`args $x $x`), double(`reReplaceAll ".*" "$0$0" $x`), double(`reReplaceAll "" "aaaaaaaaaaaaaa" $x`),
		strings.Repeat(`{{ $y := printf "%999999d%999999d" 1 1 }}`, 1000), `{{ printf "%*d" 1000000 1 }}`, `{{ printf "%[1]s%[1]s" "x" }}`, `{{ printf "%.999999f" 1.0 }}`,
		`{{ match "` + strings.Repeat("x{1000}", 100) + `" (printf "%60000d" 1) }}`, `{{ match "` + strings.Repeat("x", maxPattern+1) + `" "x" }}`,
	}
	for _, source := range texts {
		x, _, err := newText(&scope{}, "n", source)
		if err != nil {
			t.Errorf("%.80s: %v", source, err)
			continue
		}
		if s, err := x.expand(&data{}); err == nil || len(s) > 5000 {
			t.Errorf("%.80s: %d bytes, %.200v", source, len(s), err)
		}
	}
}

// endless is a text that does as much as it may, which takes minutes.
var endless = "'{{ $n := 300 }}{{ range $n }}{{ range $n }}" + strings.Repeat(`{{ $x := printf "%60000d" 1 }}`, 20) + "{{ end }}{{ end }}'"

// timeouts are ever longer ones: a rule is to get through with its expression, which on a
// machine that is busy with other things takes a while, and not with its templates.
func timeouts(yield func(time.Duration) bool) {
	for d := 20 * time.Millisecond; d < 20*time.Second; d *= 2 {
		if !yield(d) {
			return
		}
	}
}

// TestTemplatesShareTheTimeout has a thousand alerts with a text that does as much as
// it may: the alerts are told, and the flow is not held up.
func TestTemplatesShareTheTimeout(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		var told []kemi.Alert
		for timeout := range timeouts {
			b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, annotations: {s: `+endless+`}}
`, func(c *Config) {
				if !stopped {
					c.Timeout = timeout
				}
			})
			for i := range 1000 {
				b.feed(gauge("cpu", 100, "host", fmt.Sprintf("web%03d", i)))
			}
			ctx, cancel := context.WithCancel(context.Background())
			if stopped {
				time.AfterFunc(timeout, cancel)
			}
			begin := time.Now()
			b.now = b.now.Add(time.Second)
			var err error
			told, err = b.rules.Tick(ctx, nil, b.now)
			cancel()
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("a tick took %v", took)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(told) != 0 {
				break
			}
			// It was stopped before the rule was judged.
			if s := b.rules.Status().Groups[0].Rules[0]; !stopped && !strings.Contains(s.Error, "query timed out") {
				t.Fatalf("%+v", s)
			}
		}
		if len(told) != 1000 || !strings.Contains(told[999].Annotations.Get("s"), "take too long") {
			t.Fatalf("%d told", len(told))
		}
	}
}

func TestALabelThatTakesTooLongMakesNoOtherAlert(t *testing.T) {
	var s RuleStatus
	for timeout := range timeouts {
		b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, labels: {s: `+endless+`}}
`, func(c *Config) { c.Timeout = timeout })
		b.run(5*time.Second, every(5*time.Second, "cpu", between(0, time.Hour), "web1"))
		b.want()
		if s = b.rules.Status().Groups[0].Rules[0]; !strings.Contains(s.Error, "query timed out") {
			break
		}
	}
	if !strings.Contains(s.Error, "take too long") || s.Pending+s.Firing != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestAnAlertWithABadTemplateIsToldAllTheSame(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, annotations: {s: '{{ query "nothing" | first | value }}', t: fine}}
`)
	b.run(10*time.Second, every(5*time.Second, "cpu", between(0, time.Hour), "web1"))
	if len(b.told) != 1 || !strings.HasPrefix(b.told[0].Annotations.Get("s"), "<error expanding") || b.told[0].Annotations.Get("t") != "fine" {
		t.Fatalf("told %+v", b.told)
	}
	if s := b.rules.Status().Groups[0].Rules[0]; !strings.Contains(s.Error, "template of s") {
		t.Fatalf("status %+v", s)
	}
}

func TestTemplatesSeeTheStore(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - alert: Hot
    expr: cpu > 90
    annotations:
      s: '{{ with printf "disk{host=%q} > 50" $labels.host | query }}{{ (. | first).Labels.mount }} is at {{ . | first | value }}{{ end }}'
`)
	b.run(10*time.Second, func(time.Time) (ms []kemi.Metric) {
		for i, h := range []string{"web1", "web2"} {
			ms = append(ms, gauge("cpu", 95, "host", h), gauge("disk", float64(40+40*i), "host", h, "mount", fmt.Sprintf("/d%d", i)))
		}
		return ms
	})
	if s := b.told[0].Annotations.Get("s") + "|" + b.told[1].Annotations.Get("s"); s != "|/d1 is at 80" {
		t.Fatalf("%q", s)
	}
}

func TestALabelCannotMakeAQueryHuge(t *testing.T) {
	b := newBench(t, `
groups:
- name: g
  interval: 5s
  rules:
  - alert: Hot
    expr: cpu > 90
    annotations: {s: '{{ printf "disk{host=\"%s\"}" $labels.host | query }}'}
`)
	b.feed(gauge("cpu", 100, "host", `x"}`+strings.Repeat("+disk", 5000)+`+disk{a="`))
	b.now = b.now.Add(5 * time.Second)
	b.tick()
	if len(b.told) != 1 || !strings.Contains(b.told[0].Annotations.Get("s"), "more than 1000 operators") {
		t.Fatalf("told %.500v", b.told)
	}
}
