package memory_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// Two flows with a topic between them. The pipeline stops the first flow first, and
// the second hands over what is still on the topic before it ends.
func ExampleNewTopic() {
	raw, err := memory.NewTopic("raw", memory.Config[kemi.Metric]{Retain: 5 * time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	poll := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		defer stop() // one poll is enough here
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		return out.Write(ctx, []kemi.Metric{
			kemi.Gauge("load1", kemi.LabelsOf("host", "web1"), at, 0.5),
			kemi.Gauge("load5", kemi.LabelsOf("host", "web1"), at, 0.25),
		})
	})
	show := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
		for _, m := range batch {
			fmt.Println(m)
		}
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("poll", poll, kemi.Sink[kemi.Metric](raw)),
		kemi.Connect("show", raw.Group("show"), show),
	}}
	if err := p.Run(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%+v\n", raw.Stats())
	// Output:
	// load1{host="web1"} 0.5 @2026-01-01T00:00:00Z
	// load5{host="web1"} 0.25 @2026-01-01T00:00:00Z
	// {Written:2 Dropped:0 Held:2 Blocked:0 Readers:[{Name:show All:false Running:0 Waiting:0}]}
}
