package source_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source"
)

// printer is a sink that prints each batch.
var printer = kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
	fmt.Println(batch)
	return nil
})

func ExampleEvery() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	n := 0
	heartbeat := source.Every(time.Millisecond, func(_ context.Context, now time.Time) ([]string, error) {
		if n++; n == 3 {
			stop()
		}
		return []string{fmt.Sprint("beat ", n)}, nil
	})
	fmt.Println(heartbeat.Run(ctx, printer))
	// Output:
	// [beat 1]
	// [beat 2]
	// [beat 3]
	// <nil>
}

func ExampleMerge() {
	both := source.Merge(source.FromSlice([]string{"a", "b"}), source.FromSlice([]string{"c"}))
	flow := kemi.Connect("print", both, printer)
	err := (&kemi.Pipeline{Flows: []*kemi.Flow{flow}}).Run(context.Background())
	fmt.Println(err)
	// Unordered output:
	// [a b]
	// [c]
	// <nil>
}

func ExampleFromSlice() {
	fmt.Println(source.FromSlice([]string{"a", "b", "c"}).Run(context.Background(), printer))
	// Output:
	// [a b c]
	// <nil>
}
