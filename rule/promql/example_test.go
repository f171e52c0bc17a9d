package promql_test

import (
	"context"
	"fmt"
	"testing/fstest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/rule/promql"
)

// Rules take metrics in with Apply and give alerts with Tick. In a pipeline both are
// called by the flow: kemi.Pipe("rules", metrics.All("rules"), rules, alerts).
func Example() {
	files := fstest.MapFS{"rules/hosts.yml": {Data: []byte(`
groups:
- name: hosts
  interval: 10s
  rules:
  - alert: DiskFull
    expr: disk_used_percent > 90
    for: 30s
    labels: {severity: page}
    annotations:
      summary: '{{ $labels.mount }} of {{ $labels.host }} is {{ $value | printf "%.0f" }} % full'
`)}}
	rules, err := promql.New(promql.Config{Files: []string{"rules/*.yml"}, FS: files})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	disk := kemi.LabelsOf("host", "web1", "mount", "/var")
	for range 6 {
		_, _ = rules.Apply(ctx, nil, []kemi.Metric{kemi.Gauge("disk_used_percent", disk, now, 93)})
		alerts, _ := rules.Tick(ctx, nil, now.Add(2*time.Second))
		for _, a := range alerts {
			fmt.Println(a.Time.Format(time.TimeOnly), a.State, a.Labels, a.Annotations.Get("summary"))
		}
		now = now.Add(10 * time.Second)
	}
	// Output:
	// 09:00:30 firing {alertname="DiskFull", host="web1", mount="/var", severity="page"} /var of web1 is 93 % full
}

// Active shows what is pending or firing, for a screen.
func ExampleRules_Active() {
	rules, err := promql.New(promql.Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(
		`{groups: [{name: g, rules: [{alert: Down, expr: up == 0, for: 5m}]}]}`)}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	for range 3 {
		_, _ = rules.Apply(ctx, nil, []kemi.Metric{kemi.Gauge("up", kemi.LabelsOf("host", "web1"), now, 0)})
		_, _ = rules.Tick(ctx, nil, now)
		now = now.Add(15 * time.Second)
	}
	for _, a := range rules.Active() {
		fmt.Println(a.State, a.Labels, "since", a.StartsAt.Format(time.TimeOnly))
	}
	// Output:
	// pending {alertname="Down", host="web1"} since 09:00:00
}

// A bad rule file is refused with file, line and reason.
func ExampleNew() {
	_, err := promql.New(promql.Config{Files: []string{"r.yml"}, FS: fstest.MapFS{"r.yml": {Data: []byte(`
groups:
- name: hosts
  rules:
  - alert: Hot
    expr: rate(cpu) > 90
    annotation: {summary: too hot}
`)}}})
	fmt.Println(err)
	// Output:
	// promql: the rules were not taken:
	// r.yml:6: group "hosts": alert "Hot": expr: character 6 of the expression: expected type range vector in call to function "rate", got instant vector
	// r.yml:7: group "hosts": unknown key "annotation": did you mean "annotations"?
}
