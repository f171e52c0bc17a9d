package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// The roles in three processes over a broker, with two members that calculate and two
// that judge. One is killed in the middle, and another stopped and started again.
func TestKafkaProcesses(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	o := newOutside(t, "kafka: {topic_prefix: test., partitions: 4, replication_factor: 1}\n")
	bus := "-bus=kafka:" + strings.Join(broker.ListenAddrs(), ",")
	from := o.startProcess(bus, "-role=producer,poller,calculator")
	to := o.startProcess(bus, "-role=calculator,forwarder,alert,handler")
	reserve := o.startProcess(bus, "-role=alert")
	o.until(to, "firing", func() bool { return len(o.people()) > 0 && len(o.loads()) > 3 })
	o.until(reserve, "firing there too", reserve.says(`alert .* firing 1`))
	reserve.kill()
	<-reserve.ended
	o.settled(to)
	before := len(o.loads())
	o.end(to)
	to = o.startProcess(bus, "-role=calculator,forwarder,alert,handler")
	o.until(to, "going on", func() bool { return len(o.loads()) > before+3 })
	o.recovers(to)
	for _, p := range []*program{from, to} {
		o.until(p, "a status", p.says("lag 0"))
		o.end(p)
		if p.says("MISMATCHES")() {
			t.Errorf("a wrong replay:\n%s", p.said())
		}
	}
}
