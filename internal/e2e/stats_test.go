//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/transform"
	"github.com/kemi-go/kemi/transform/counter"
	"github.com/kemi-go/kemi/transform/derive"
)

func topic[T any](t *testing.T, name string) *memory.Topic[T] {
	t.Helper()
	tp, err := memory.NewTopic(name, memory.Config[T]{})
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

// tally keeps what passes.
type tally struct {
	mu  sync.Mutex
	all []kemi.Metric
}

func (y *tally) Write(_ context.Context, batch []kemi.Metric) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.all = append(y.all, batch...)
	return nil
}

func (y *tally) has(name string) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	_, ok := find(y.all, name)
	return ok
}

// The STATS pipeline from a real agent into a real store: what is read back is what
// was calculated, value for value, and the ledger of each flow closes with nothing
// left.
func TestPolledCalculatedStoredAndReadBack(t *testing.T) {
	agent, store := startSnmpd(t), startVictoriaMetrics(t)
	schedule, err := inventory.New(
		inventory.Static(inventory.Target{Address: agent.addr, Resource: "box", Auth: "sha256-aes", Labels: kemi.LabelsOf("rack", "r 7/서울")}),
		inventory.Config{Interval: 2 * time.Second, FirstInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rates, err := counter.New(counter.Config{Interval: 2 * time.Second, KeepCounters: true})
	if err != nil {
		t.Fatal(err)
	}
	formulas, err := derive.New(derive.Config{Formulas: derive.Linux()})
	if err != nil {
		t.Fatal(err)
	}
	tsd, err := opentsdb.New(opentsdb.Config{URL: store.put})
	if err != nil {
		t.Fatal(err)
	}
	defer tsd.Close()
	jobs, raw, metrics := topic[kemi.Job](t, "jobs"), topic[kemi.Metric](t, "raw"), topic[kemi.Metric](t, "metrics")
	seen := &tally{}
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Connect("schedule", schedule, jobs),
		kemi.Pipe("poll", jobs.Group("poll"), newPoller(t), raw),
		kemi.Pipe("calculate", raw.Group("calculate"), transform.Then(rates, formulas), metrics),
		kemi.Connect("store", metrics.Group("store"), tsd),
		kemi.Connect("count", metrics.Group("count"), seen),
	}}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	eventually(t, hang, "two polls with CPU", func() error {
		if !seen.has("cpu_used_percent") {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Stats() {
		if err := s.Balance(); err != nil {
			t.Error(err)
		}
		if s.InFlight+s.Pending+s.Failed+s.Abandoned+s.Dead+s.Dropped != 0 {
			t.Errorf("%s: not all is delivered: %+v", s.Name, s)
		}
	}

	type key struct {
		series string
		second int64
	}
	name := func(metric string, tags map[string]string) string {
		var b strings.Builder
		b.WriteString(metric)
		for _, k := range slices.Sorted(maps.Keys(tags)) {
			fmt.Fprintf(&b, " %s=%s", k, tags[k])
		}
		return b.String()
	}
	want := map[key]float64{}
	for _, m := range seen.all {
		tags := map[string]string{}
		for k, v := range m.Labels.All() {
			tags[opentsdb.Escape(k)] = opentsdb.Escape(v)
		}
		want[key{name(opentsdb.Escape(m.Name), tags), m.Time.Unix()}] = m.Float()
	}
	eventually(t, hang, "reading back", func() error {
		stored, err := store.export(`{host="box"}`)
		if err != nil {
			return err
		}
		got := map[key]float64{}
		for _, s := range stored {
			metric := s.Metric["__name__"]
			delete(s.Metric, "__name__")
			for i, v := range s.Values {
				got[key{name(metric, s.Metric), s.Timestamps[i] / 1000}] = v
			}
		}
		for k, v := range want {
			g, ok := got[k]
			if !ok {
				return fmt.Errorf("%v is not stored (%d of %d are)", k, len(got), len(want))
			}
			if diff := g - v; diff > 1e-9*max(v, -v) || -diff > 1e-9*max(v, -v) {
				return fmt.Errorf("%v: stored %v, calculated %v", k, g, v)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("%d values are stored, %d were calculated", len(got), len(want))
		}
		t.Logf("%d values read back", len(got))
		return nil
	})
	for _, derived := range []string{"cpu_used_percent", "memory_used_percent", "disk_used_percent", "if_in_bits_per_second", "load1_per_cpu"} {
		if _, ok := find(seen.all, derived); !ok {
			t.Errorf("no %s was calculated", derived)
		}
	}
}
