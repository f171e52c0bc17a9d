package columnar_test

import (
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/columnar"
)

// A poll of one host goes over a topic: a counter above 2^53 keeps its bits, and the
// labels are the same pointer on the other side.
func ExampleMetrics() {
	codec := columnar.Metrics()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	labels := kemi.LabelsOf("host", "sw1", "if", "eth0")
	src, err := codec.AppendBatch(nil, []kemi.Metric{
		kemi.Counter("if_in_octets", labels, at, 1<<60+1),
		kemi.Gauge("if_speed", labels, at, 1e9),
	})
	if err != nil {
		fmt.Println(err)
	}
	batch, err := codec.DecodeBatch(nil, src)
	for _, m := range batch {
		fmt.Println(m, m.Labels == labels)
	}
	fmt.Println(codec.Name(), err)

	_, err = codec.DecodeBatch(nil, []byte(`{"name":"if_speed"}`))
	fmt.Println(err)
	// Output:
	// if_in_octets{host="sw1", if="eth0"} 1152921504606846977 @2026-11-20T12:00:00Z true
	// if_speed{host="sw1", if="eth0"} 1e+09 @2026-11-20T12:00:00Z true
	// kcol-metrics/1 <nil>
	// columnar: these 19 bytes are not of kcol-metrics/1: they begin with "{\"na", want "kcm\x01"
}
