// Ownstage is the answer to "how do I write a stage": a source, a transform and a
// sink of one's own in one file, over the root package alone. It counts the
// program's goroutines four times a second, smooths them, and prints the result.
//
//	go run ./examples/ownstage        (Ctrl-C ends it)
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/kemi-go/kemi"
)

// goroutines is a source: Run feeds out until ctx is done. When Write returns nil
// the records are safe; here there is nothing to acknowledge.
type goroutines struct{ every time.Duration }

func (g goroutines) Run(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
	host, _ := os.Hostname()
	labels := kemi.LabelsOf(kemi.LabelHost, host)
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-time.After(g.every):
			batch := []kemi.Metric{kemi.Gauge("goroutines", labels, now.UTC(), float64(runtime.NumGoroutine()))}
			if err := out.Write(ctx, batch); err != nil {
				return err
			}
		}
	}
}

// smooth is a transform with state: an exponential moving average of each series.
// Fork makes it a kemi.Forker, so every lane has one of its own and no locks.
type smooth struct{ last map[series]float64 }

type series struct {
	name   string
	labels kemi.Labels
}

func (smooth) Fork() kemi.Transform[kemi.Metric, kemi.Metric] { return smooth{map[series]float64{}} }

func (s smooth) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		key, v := series{m.Name, m.Labels}, m.Float()
		if last, seen := s.last[key]; seen {
			v = last + (v-last)/8
		}
		s.last[key] = v
		dst = append(dst, kemi.Gauge(m.Name+"_smoothed", m.Labels, m.Time, v))
	}
	return dst, nil
}

// print is a sink: nil from Write means the whole batch is safe.
func print(_ context.Context, batch []kemi.Metric) error {
	for _, m := range batch {
		fmt.Println(m)
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Pipe("watch", goroutines{250 * time.Millisecond}, smooth{}, kemi.SinkFunc[kemi.Metric](print)),
	}}
	if err := p.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
