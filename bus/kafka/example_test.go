package kafka_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/kafka"
)

// A topic is written and read. On the way back from Kafka to bus/disk two lines change.
func Example() {
	brokers := kfake.MustCluster() // a Kafka in this process, for the example
	defer brokers.Close()

	c, err := kafka.Open(kafka.Config{Brokers: brokers.ListenAddrs()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	raw, err := kafka.NewTopic(c, "raw", kafka.TopicConfig[kemi.Metric]{Partitions: 4, ReplicationFactor: 1})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	poll := []kemi.Metric{kemi.Gauge("load1", kemi.LabelsOf(kemi.LabelHost, "web1"), time.Unix(0, 0), 0.5)}
	if err := raw.Write(ctx, poll); err != nil {
		fmt.Println(err)
		return
	}

	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("print", raw.Group("print"), kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
			for _, m := range batch {
				fmt.Println(m.Host(), m.Name, m.Float())
			}
			cancel()
			return nil
		})),
	}}
	if err := p.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: web1 load1 0.5
}

// How to get into a cluster that is guarded.
func ExampleConfig() {
	c := kafka.Config{
		Brokers: []string{"kafka1:9093", "kafka2:9093", "kafka3:9093"},
		TLS:     &tls.Config{MinVersion: tls.VersionTLS12},
		SASL:    &kafka.SASL{Mechanism: "SCRAM-SHA-512", User: "kemi", Password: "from a file"},
		Linger:  5 * time.Millisecond, // of alerts
	}
	fmt.Println(c.SASL)
	// Output: SCRAM-SHA-512 as kemi
}
