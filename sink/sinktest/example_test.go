package sinktest_test

import (
	"context"
	"fmt"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/sinktest"
)

// A sink that refuses batches, or some of their records, half of the time still gets everything,
// since the flow tries again.
func ExampleFaulty() {
	numbers := kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
		return out.Write(ctx, []int{1, 2, 3, 4})
	})
	var rec sinktest.Recorder[int]
	flow := kemi.Connect("numbers", numbers, sinktest.Faulty(1, &rec, sinktest.Faults{Refuse: .2, Partial: .3}))
	err := (&kemi.Pipeline{Flows: []*kemi.Flow{flow}}).Run(context.Background())
	fmt.Println(err, rec.Len(), flow.Stats().Written)
	// Output:
	// <nil> 4 4
}

func ExampleRecorder() {
	var rec sinktest.Recorder[string]
	ctx := context.Background()
	_ = rec.Write(ctx, []string{"a", "b"})
	_ = rec.Write(ctx, []string{"c"})
	fmt.Println(rec.Records(), len(rec.Batches()), rec.Wait(ctx, 3))
	// Output:
	// [a b c] 2 <nil>
}
