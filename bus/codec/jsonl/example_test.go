package jsonl_test

import (
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
)

// A message on a topic is a batch of lines.
func ExampleCodec() {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	labels := kemi.LabelsOf("host", "web1")
	src, err := jsonl.Codec[kemi.Metric]().AppendBatch(nil, []kemi.Metric{
		kemi.Gauge("load1", labels, at, 0.25),
		kemi.Counter("requests", labels, at, 1234),
	})
	fmt.Printf("%s%v\n", src, err)
	// Output:
	// {"name":"load1","labels":{"host":"web1"},"time":"2026-11-20T12:00:00Z","kind":"gauge","value":0.25}
	// {"name":"requests","labels":{"host":"web1"},"time":"2026-11-20T12:00:00Z","kind":"counter","value":1234}
	// <nil>
}
