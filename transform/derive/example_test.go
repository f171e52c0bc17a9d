package derive_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

func Example() {
	values, err := derive.New(derive.Config{Formulas: append(derive.Linux(),
		derive.Formula{Name: "sessions_per_cpu", Expr: `sum(sessions{state!="idle"}) / cpu_count`},
	)})
	if err != nil {
		fmt.Println(err)
		return
	}
	web1 := kemi.LabelsOf("host", "web1")
	t := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	poll := []kemi.Metric{
		kemi.Gauge("cpu_count", web1, t, 4),
		kemi.Gauge("disk_total_bytes", web1.With("mount", "/"), t, 80e9),
		kemi.Gauge("disk_used_bytes", web1.With("mount", "/"), t, 60e9),
		kemi.Gauge("sessions", web1.With("state", "idle"), t, 900),
		kemi.Gauge("sessions", web1.With("state", "active"), t, 70),
		kemi.Gauge("sessions", web1.With("state", "closing"), t, 10),
	}
	out, _ := values.Apply(context.Background(), nil, poll)
	for _, m := range out[len(poll):] {
		fmt.Println(m)
	}
	// Output:
	// disk_used_percent{host="web1", mount="/"} 75 @2026-03-01T12:00:00Z
	// sessions_per_cpu{host="web1"} 20 @2026-03-01T12:00:00Z
}

// A wrong formula is refused at once.
func ExampleNew() {
	_, err := derive.New(derive.Config{Formulas: []derive.Formula{
		{Name: "disk_free_percent", Expr: `100 * (1 - disk_used_bytes / disk_total_bytes`},
	}})
	fmt.Println(err)
	// Output:
	// derive: formula "disk_free_percent": column 46: want ')', but the expression ends
}
