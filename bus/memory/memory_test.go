package memory_test

import (
	"testing"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/memory"
)

func TestTopic(t *testing.T) {
	bustest.Run(t, func(testing.TB) bustest.Bus {
		return bustest.Bus{Open: open, Drains: true, Bounded: true, Rewinds: true}
	})
}

func open(tb testing.TB, name string, t bustest.Topic) bus.Topic[bustest.Record] {
	topic, err := memory.NewTopic(name, memory.Config[bustest.Record]{Partitions: t.Partitions, Capacity: t.Capacity, Retain: t.Retain})
	if err != nil {
		tb.Fatal(err)
	}
	return topic
}
