//go:build linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec"
	kafkabus "github.com/kemi-go/kemi/bus/kafka"
)

// busConfig is that of a topic of kemi on k, for a test.
func busConfig(t testing.TB, brokers []string) kafkabus.Config {
	return kafkabus.Config{
		Brokers: brokers, Linger: time.Millisecond, CommitInterval: 50 * time.Millisecond, FetchMaxWait: 50 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 200 * time.Millisecond, Tick: 200 * time.Millisecond,
		Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
	}
}

func openBus(t testing.TB, c kafkabus.Config) *kafkabus.Cluster {
	t.Helper()
	cl, err := kafkabus.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// TestKafkaTopic holds the topics of kemi against the contract, on one real broker and
// on three.
func TestKafkaTopic(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			k := startKafka(t, kafkaOptions{Nodes: nodes})
			n := 0
			t.Run("conformance", func(t *testing.T) {
				bustest.Run(t, func(tb testing.TB) bustest.Bus {
					n++
					prefix := fmt.Sprintf("check%d-", n)
					config := busConfig(t, k.Brokers())
					c := openBus(tb, config)
					return bustest.Bus{
						Open: func(tb testing.TB, name string, t bustest.Topic) bus.Topic[bustest.Record] {
							topic, err := kafkabus.NewTopic(c, prefix+name, kafkabus.TopicConfig[bustest.Record]{
								Partitions: t.Partitions, Codecs: codec.Set[bustest.Record]{Write: bustest.Codec()},
							})
							if err != nil {
								tb.Fatal(err)
							}
							return topic
						},
						Restart: func(tb testing.TB) {
							_ = c.Close()
							c = openBus(tb, config)
						},
						Rewinds: true, Recovers: true,
						Churn: 6, Patience: 90 * time.Second,
					}
				})
			})
		})
	}
}
