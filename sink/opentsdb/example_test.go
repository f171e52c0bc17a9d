package opentsdb_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

func Example() {
	server, err := faketsd.Start(faketsd.Config{AutoCreateMetrics: true, FlushInterval: time.Millisecond})
	if err != nil {
		panic(err)
	}
	defer server.Close()

	store, err := opentsdb.New(opentsdb.Config{URL: server.URL()})
	if err != nil {
		panic(err)
	}
	defer store.Close()

	at := time.Date(2026, 11, 20, 21, 57, 0, 0, time.UTC)
	err = store.Write(context.Background(), []kemi.Metric{
		kemi.Gauge("cpu_used_percent", kemi.LabelsOf("host", "web1"), at, 12.5),
		kemi.Gauge("if_in_bits_per_second", kemi.LabelsOf("host", "web1", "interface", "eth0:1"), at, 9600),
	})
	fmt.Println(err)
	for _, p := range server.Stored() {
		fmt.Println(p.Metric, p.Tags, p.Value)
	}
	// Output:
	// <nil>
	// cpu_used_percent map[host:web1] 12.5
	// if_in_bits_per_second map[host:web1 interface:eth0_x3a_1] 9600.0
}

func ExampleEscape() {
	e := opentsdb.Escape("서울 eth0:1")
	fmt.Println(e)
	fmt.Println(opentsdb.Unescape(e))
	// Output:
	// _xec849cec9ab820_eth0_x3a_1
	// 서울 eth0:1
}
