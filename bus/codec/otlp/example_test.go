package otlp_test

import (
	"fmt"
	"time"

	metricspb "go.opentelemetry.io/proto/slim/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

// What a codec writes is read by whatever knows OTLP.
func ExampleMetrics() {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	value, err := otlp.Metrics().AppendBatch(nil, []kemi.Metric{
		kemi.Counter("if_hc_in_octets", kemi.LabelsOf("host", "sw1", "ifname", "eth0"), at, 9007199254740993),
	})
	if err != nil {
		panic(err)
	}

	var data metricspb.MetricsData
	if err := proto.Unmarshal(value, &data); err != nil {
		panic(err)
	}
	for _, r := range data.ResourceMetrics {
		m := r.ScopeMetrics[0].Metrics[0]
		p := m.GetSum().DataPoints[0]
		fmt.Println(r.Resource.Attributes[0].Value.GetStringValue(), m.Name, p.Attributes[0].Key, p.GetAsInt())
	}
	// Output: sw1 if_hc_in_octets ifname 9007199254740993
}

func ExampleLogs() {
	codec := otlp.Logs()
	value, err := codec.AppendBatch(nil, []kemi.Log{{Host: "web1", App: "sshd", Severity: kemi.SeverityWarning, Message: "no such user"}})
	if err != nil {
		panic(err)
	}
	logs, err := codec.DecodeBatch(nil, value)
	fmt.Println(logs[0].Host, logs[0].App, logs[0].Severity, logs[0].Message, err)
	// Output: web1 sshd warning no such user <nil>
}
