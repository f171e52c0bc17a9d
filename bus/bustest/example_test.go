package bustest_test

import (
	"testing"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/memory"
)

// A bus runs the suite in a test of its own, and says what it promises beyond the
// contract.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestTopic(t *testing.T)
		bustest.Run(t, func(testing.TB) bustest.Bus {
			return bustest.Bus{
				Open: func(tb testing.TB, name string, want bustest.Topic) bus.Topic[bustest.Record] {
					topic, err := memory.NewTopic(name, memory.Config[bustest.Record]{
						Partitions: want.Partitions, Capacity: want.Capacity, Retain: want.Retain,
					})
					if err != nil {
						tb.Fatal(err)
					}
					return topic
				},
				Drains: true, Bounded: true, Rewinds: true,
			}
		})
	}
}
