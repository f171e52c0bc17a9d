package disk_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/disk"
)

// Two flows with a topic between them. What the first has written is there when the
// program comes back, and the second goes on where it was.
func Example() {
	dir, err := os.MkdirTemp("", "kemi")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for day := range 2 {
		db, err := disk.Open(disk.Config{Dir: dir})
		if err != nil {
			fmt.Println(err)
			return
		}
		raw, err := disk.NewTopic(db, "raw", disk.TopicConfig[kemi.Metric]{Retain: 24 * time.Hour})
		if err != nil {
			fmt.Println(err)
			return
		}
		ctx, stop := context.WithCancel(context.Background())
		poll := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
			at := time.Date(2026, 1, 1+day, 0, 0, 0, 0, time.UTC)
			return out.Write(ctx, []kemi.Metric{kemi.Gauge("load1", kemi.LabelsOf("host", "web1"), at, 0.5)})
		})
		show := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
			for _, m := range batch {
				fmt.Println(m)
			}
			stop() // one is enough for today
			return nil
		})
		p := kemi.Pipeline{Flows: []*kemi.Flow{
			kemi.Connect("poll", poll, kemi.Sink[kemi.Metric](raw)),
			kemi.Connect("show", raw.Group("show"), show),
		}}
		if err := p.Run(ctx); err != nil {
			fmt.Println(err)
		}
		if err := db.Close(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// load1{host="web1"} 0.5 @2026-01-01T00:00:00Z
	// load1{host="web1"} 0.5 @2026-01-02T00:00:00Z
}

// After a disk has told lies: what is damaged, and what a repair could not bring back.
func ExampleCheck() {
	dir, err := os.MkdirTemp("", "kemi")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := disk.Open(disk.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := db.Close(); err != nil { // it has to be closed
		fmt.Println(err)
		return
	}
	report, err := disk.Check(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	if !report.OK() {
		report, err = disk.Repair(dir)
		fmt.Println(report, err)
	}
	fmt.Print(report)
	// Output: 0 good records
}
