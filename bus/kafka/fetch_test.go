package kafka

import (
	"testing"

	"github.com/kemi-go/kemi/bus"
)

// TestNoRecordWaitsForASilentBroker: each of three brokers has one partition, and holds
// a fetch for longer than the test may take when that has nothing new.
func TestNoRecordWaitsForASilentBroker(t *testing.T) {
	t.Parallel()
	const brokers = 3
	f := fake(t)
	config := quick(t, f)
	config.FetchMaxWait = 4 * hang
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: brokers})
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, brokers)
	for p := range brokers {
		if err := f.MoveTopicPartition("in", int32(p), int32(p)); err != nil {
			t.Fatal(err)
		}
		for c := byte('a'); keys[p] == ""; c++ {
			if bus.PartitionOf(string(c), brokers) == p {
				keys[p] = string(c)
			}
		}
	}
	r := collect(t, topic.Group("g"))
	sent := 0
	// Twice each: after the first one of a broker, its place may be another's.
	for _, key := range keys {
		for range 2 {
			sent++
			put(t, topic, sample{Key: key, Seq: sent})
			eventually(t, "a record waits for brokers that have none", func() bool { got, _ := r.counts(); return got == sent })
		}
	}
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
}
