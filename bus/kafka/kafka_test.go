package kafka

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap/zaptest"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec"
)

// fake starts three brokers in this process.
func fake(tb testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	f, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(3),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "default.replication.factor": "3", "min.insync.replicas": "2"}),
	}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(f.Close)
	return f
}

// quick is a configuration for tests: nobody waits long for anything that comes about,
// and nobody is given up because the machine is busy.
func quick(tb testing.TB, f *kfake.Cluster) Config {
	c := Config{
		Brokers:        f.ListenAddrs(),
		Linger:         time.Millisecond,
		CommitInterval: 50 * time.Millisecond,
		FetchMaxWait:   50 * time.Millisecond,
		SessionTimeout: time.Minute, HeartbeatInterval: 50 * time.Millisecond,
		Tick:           200 * time.Millisecond,
		Timeout:        time.Minute,
		RequestTimeout: time.Minute,
	}
	if testing.Verbose() {
		c.Logger = zaptest.NewLogger(tb)
	}
	return c
}

func open(tb testing.TB, c Config) *Cluster {
	tb.Helper()
	cl, err := Open(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cl.Close() })
	return cl
}

func TestTopic(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(tb testing.TB) bustest.Bus {
		f := fake(tb)
		c := open(tb, quick(tb, f))
		return bustest.Bus{
			Open: func(tb testing.TB, name string, t bustest.Topic) bus.Topic[bustest.Record] {
				topic, err := NewTopic(c, name, TopicConfig[bustest.Record]{
					Partitions: t.Partitions, Codecs: codec.Set[bustest.Record]{Write: bustest.Codec()},
				})
				if err != nil {
					tb.Fatal(err)
				}
				return topic
			},
			Restart: func(tb testing.TB) {
				_ = c.Close()
				c = open(tb, quick(tb, f))
			},
			Rewinds: true, Recovers: true,
			Churn: 8,
		}
	})
}
