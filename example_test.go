package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/kemi-go/kemi"
)

// noon is the time of the readings in the examples.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// readings is a source that brings one batch and ends.
func readings(batch ...kemi.Metric) kemi.Source[kemi.Metric] {
	return kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		return out.Write(ctx, batch)
	})
}

// printer is a sink that prints what it is given.
var printer = kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
	for _, m := range batch {
		fmt.Println(m)
	}
	return nil
})

// A flow without a transform hands records on.
func ExampleConnect() {
	web1 := kemi.LabelsOf("host", "web1")
	store := kemi.Connect("store", readings(kemi.Gauge("load1", web1, noon, 0.25)), printer)

	p := kemi.Pipeline{Flows: []*kemi.Flow{store}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// load1{host="web1"} 0.25 @2026-11-20T12:00:00Z
}

// A flow with a transform changes them on the way. The types are inferred.
func ExamplePipe() {
	web1 := kemi.LabelsOf("host", "web1")
	percent := kemi.TransformFunc[kemi.Metric, kemi.Metric](func(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
		for _, m := range src {
			dst = append(dst, kemi.Gauge(m.Name+"_percent", m.Labels, m.Time, 100*m.Float()))
		}
		return dst, nil
	})
	calculate := kemi.Pipe("calculate", readings(kemi.Gauge("memory_used", web1, noon, 0.5)), percent, printer)

	p := kemi.Pipeline{Flows: []*kemi.Flow{calculate}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// memory_used_percent{host="web1"} 50 @2026-11-20T12:00:00Z
}

// A program lists its flows, upstream first. Here a channel stands between two of
// them; in earnest it would be a topic of a bus. The first flow ends by itself, the
// second when the channel is empty.
func ExamplePipeline() {
	raw := make(chan kemi.Metric, 100)
	toRaw := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
		for _, m := range batch {
			raw <- m
		}
		return nil
	})
	fromRaw := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		for range 2 {
			if err := out.Write(ctx, []kemi.Metric{<-raw}); err != nil {
				return err
			}
		}
		return nil
	})
	web1, web2 := kemi.LabelsOf("host", "web1"), kemi.LabelsOf("host", "web2")

	p := kemi.Pipeline{
		Name: "stats",
		Flows: []*kemi.Flow{
			kemi.Connect("poll", readings(kemi.Gauge("load1", web1, noon, 0.25), kemi.Gauge("load1", web2, noon, 4)), toRaw),
			kemi.Connect("store", fromRaw, printer),
		},
		Logger: kemi.FromSlog(slog.Default()),
	}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	for _, s := range p.Stats() {
		fmt.Printf("%s: %d in, %d written, balance: %v\n", s.Name, s.In, s.Written, s.Balance())
	}
	// Output:
	// load1{host="web1"} 0.25 @2026-11-20T12:00:00Z
	// load1{host="web2"} 4 @2026-11-20T12:00:00Z
	// poll: 2 in, 2 written, balance: <nil>
	// store: 2 in, 2 written, balance: <nil>
}

// The list of flows is the diagram, in a form that Mermaid draws.
func ExamplePipeline_String() {
	metrics := topicOf("topic metrics")
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("poll", topicOf("snmp"), metrics),
		kemi.Connect("store", metrics, topicOf("opentsdb")),
	}}
	fmt.Print(p.String())
	// Output:
	// flowchart LR
	//     n0["snmp"]
	//     n1["topic metrics"]
	//     n0 -->|"poll"| n1
	//     n2["opentsdb"]
	//     n1 -->|"store"| n2
}

// topicOf has a name and two sides, as a topic has.
type topicOf string

func (t topicOf) String() string                                    { return string(t) }
func (t topicOf) Run(context.Context, kemi.Sink[kemi.Metric]) error { return nil }
func (t topicOf) Write(context.Context, []kemi.Metric) error        { return nil }

// A sink that knows which records failed says so. The flow keeps those that were
// written, tries again what may pass, and buries the rest.
func ExamplePartial() {
	tries := 0
	bulk := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		tries++
		var failed []kemi.Failure
		for i, s := range batch {
			switch {
			case s == "bad":
				failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(errors.New("not a date"))})
			case s == "busy" && tries == 1:
				failed = append(failed, kemi.Failure{Index: i, Err: errors.New("429 too many requests")})
			default:
				fmt.Println("written:", s)
			}
		}
		return kemi.Partial(batch, failed...)
	})
	lines := kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
		return out.Write(ctx, []string{"one", "bad", "busy", "two"})
	})
	dead := kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
		for _, d := range batch {
			fmt.Printf("dead: %s: %s\n", d.Payload, d.Error)
		}
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("index", lines, bulk)}, DeadLetters: dead}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// written: one
	// written: two
	// dead: "bad": not a date
	// written: busy
}

// Failures is for those who wrap a sink and have to translate its answer.
func ExampleFailures() {
	batch := []string{"one", "two", "three"}
	err := fmt.Errorf("bulk: %w", kemi.Partial(batch, kemi.Failure{Index: 1, Err: errors.New("too long")}))

	failed, ok := kemi.Failures(err, batch)
	fmt.Println(ok, batch[failed[0].Index], failed[0].Err)

	_, ok = kemi.Failures(err, []string{"one", "two", "three"})
	fmt.Println(ok, "for another batch, even an equal one")
	// Output:
	// true two too long
	// false for another batch, even an equal one
}

// A sink that only knows that the batch is bad says Permanent. The flow looks for
// the guilty record by halving.
func ExamplePermanent() {
	calls := 0
	picky := kemi.SinkFunc[int](func(_ context.Context, batch []int) error {
		calls++
		for _, n := range batch {
			if n == 666 {
				return kemi.Permanent(errors.New("constraint violated"))
			}
		}
		return nil
	})
	numbers := kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error {
		batch := make([]int, 1000)
		for i := range batch {
			batch[i] = i
		}
		return out.Write(ctx, batch)
	})
	f := kemi.Connect("insert", numbers, picky)
	p := kemi.Pipeline{Flows: []*kemi.Flow{f}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	s := f.Stats()
	fmt.Println(s.Written, "written,", s.Dropped, "dropped,", calls <= 21)
	// Output:
	// 999 written, 1 dropped, true
}

// A far side that says when to come back is not asked before.
func ExampleRetryAfter() {
	began := time.Now()
	asked := 0
	limited := kemi.SinkFunc[int](func(context.Context, []int) error {
		if asked++; asked == 1 {
			return kemi.RetryAfter(errors.New("429 too many requests"), 50*time.Millisecond)
		}
		fmt.Println("written:", time.Since(began) >= 50*time.Millisecond)
		return nil
	})
	one := kemi.SourceFunc[int](func(ctx context.Context, out kemi.Sink[int]) error { return out.Write(ctx, []int{1}) })
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("push", one, limited)}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// written: true
}

// Equal sets are equal values, whoever made them.
func ExampleLabels() {
	a := kemi.NewLabels(kemi.Label{Name: "host", Value: "web1"}, kemi.Label{Name: "disk", Value: "/"})
	b := kemi.LabelsOf("disk", "/").With("host", "web1")
	fmt.Println(a == b, a)

	series := map[kemi.Labels]float64{a: 1}
	series[b]++
	fmt.Println(series[a], a.Get("host"), a.Without("disk"))
	// Output:
	// true {disk="/", host="web1"}
	// 2 web1 {host="web1"}
}

// A counter keeps all of its bits: subtract first, convert after.
func ExampleCounter() {
	web1 := kemi.LabelsOf("host", "web1")
	a := kemi.Counter("if_in_octets", web1, noon, 1<<63+1)
	b := kemi.Counter("if_in_octets", web1, noon.Add(time.Minute), 1<<63+601)
	fmt.Println(float64(b.Uint()-a.Uint())/b.Time.Sub(a.Time).Seconds(), "per second")
	fmt.Println(b.Float()-a.Float(), "would be left of it as floats")
	// Output:
	// 10 per second
	// 0 would be left of it as floats
}

// A program that logs with log/slog gives its logger to a pipeline.
func ExampleFromSlog() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	broken := kemi.SourceFunc[int](func(context.Context, kemi.Sink[int]) error { return errors.New("cannot bind :161") })
	nowhere := kemi.SinkFunc[int](func(context.Context, []int) error { return nil })
	p := kemi.Pipeline{
		Name:   "stats",
		Flows:  []*kemi.Flow{kemi.Connect("traps", broken, nowhere)},
		Logger: kemi.FromSlog(logger),
	}
	_ = p.Run(context.Background())
	// Output:
	// level=ERROR msg="flow failed" pipeline=stats flow=traps error="cannot bind :161"
}

// An HTTP handler gives its Write a deadline and answers by its error: nil is 204, as
// the records are safe, anything else 503, and the sender keeps them.
func ExampleSource() {
	receive := kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
		handle := func(body string) int { // of a request
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := out.Write(ctx, []string{body}); err != nil {
				return 503
			}
			return 204
		}
		fmt.Println(handle("good"), handle("unlucky"))
		return nil
	})
	store := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		if batch[0] == "unlucky" {
			return kemi.RetryAfter(errors.New("busy"), time.Hour) // later than the deadline: it is over at once
		}
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect("receive", receive, store)}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 204 503
}
