package sink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
)

// printer is a sink that prints what it is given.
func printer(name string) kemi.Sink[string] {
	return kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		if len(batch) > 0 {
			fmt.Printf("%s: %s\n", name, strings.Join(batch, " "))
		}
		return nil
	})
}

func ExampleTee() {
	full := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		return kemi.Partial(batch, kemi.Failure{Index: 1, Err: errors.New("no room for it")})
	})
	both := sink.Tee(printer("store"), full)

	batch := []string{"a", "b", "c"}
	err := both.Write(context.Background(), batch)
	fmt.Println(err)
	failed, _ := kemi.Failures(err, batch)
	fmt.Println("to be tried again:", batch[failed[0].Index])
	// Output:
	// store: a b c
	// 1 of 3 records failed: no room for it
	// to be tried again: b
}

func ExampleCoalesce() {
	calls, records := 0, 0
	bulk := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		calls, records = calls+1, records+len(batch)
		return nil
	})
	// Many small writers, such as HTTP requests, meet a sink that likes large batches.
	s := sink.Coalesce[string](bulk, 200, time.Minute)
	var writers sync.WaitGroup
	for i := range 200 {
		writers.Go(func() {
			if err := s.Write(context.Background(), []string{fmt.Sprint("record ", i)}); err != nil {
				fmt.Println(err)
			}
		})
	}
	writers.Wait()
	fmt.Println(records, "records in", calls, "call")
	// Output:
	// 200 records in 1 call
}

func ExampleRoute() {
	severity := func(line string) string { return strings.Fields(line)[0] }
	s := sink.Route(severity, map[string]kemi.Sink[string]{
		"err":   printer("on call"),
		"debug": sink.Discard[string](),
	}, printer("archive"))

	for _, batch := range [][]string{{"err disk-full"}, {"info started", "debug x=1"}} {
		if err := s.Write(context.Background(), batch); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// on call: err disk-full
	// archive: info started
}

func ExampleTimeout() {
	hangs := kemi.SinkFunc[string](func(ctx context.Context, _ []string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	err := sink.Timeout[string](hangs, time.Millisecond).Write(context.Background(), []string{"a"})
	fmt.Println(errors.Is(err, context.DeadlineExceeded), kemi.IsPermanent(err))
	// Output:
	// true false
}

func ExampleDiscard() {
	fmt.Println(sink.Discard[kemi.Metric]().Write(context.Background(), make([]kemi.Metric, 3)))
	// Output:
	// <nil>
}
