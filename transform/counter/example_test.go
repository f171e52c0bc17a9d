package counter_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

func Example() {
	rates, err := counter.New(counter.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	eth0 := kemi.LabelsOf("host", "web1", "interface", "eth0", "ifindex", "2")
	t := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ctx := context.Background()

	// The first poll has nothing to be compared with.
	out, _ := rates.Apply(ctx, nil, []kemi.Metric{kemi.Counter("if_in_octets", eth0, t, 18446744073709551000)})
	out, _ = rates.Apply(ctx, out, []kemi.Metric{kemi.Counter("if_in_octets", eth0, t.Add(time.Minute), 18446744073709551600)})
	// A 64-bit counter that goes down was reset; that makes no rate.
	out, _ = rates.Apply(ctx, out, []kemi.Metric{kemi.Counter("if_in_octets", eth0, t.Add(2*time.Minute), 50)})
	for _, m := range out {
		fmt.Println(m)
	}
	s := rates.Stats()
	fmt.Printf("%d counters, %d rate, %d first, %d reset\n", s.Counters, s.Rates, s.Primed, s.Resets)
	// Output:
	// if_in_octets_rate{host="web1", ifindex="2", interface="eth0"} 10 @2026-03-01T12:01:00Z
	// 3 counters, 1 rate, 1 first, 1 reset
}

// A limit of one's own tells a wrap of 32 bits from a reset, and a rate from a
// value out of its mind.
func ExampleLimit() {
	rates, err := counter.New(counter.Config{Limits: map[string]counter.Limit{
		"haproxy_sessions": {Max: 50_000},
		"san_octets":       {Of: "san_speed_bits", Times: 1.1 / 8, Max: 4e9},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	lb := kemi.LabelsOf("host", "lb1")
	t := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var out []kemi.Metric
	for i, v := range []uint32{4294967290, 5990, 9000, 10} {
		out, _ = rates.Apply(context.Background(), out, []kemi.Metric{
			kemi.Counter32("haproxy_sessions", lb, t.Add(time.Duration(i)*time.Minute), v)})
	}
	for _, m := range out {
		fmt.Println(m.Name, m.Float())
	}
	s := rates.Stats()
	fmt.Println(s.Wraps, "wrap,", s.Resets, "reset")
	// Output:
	// haproxy_sessions_rate 99.93333333333334
	// haproxy_sessions_rate 50.166666666666664
	// 1 wrap, 1 reset
}
