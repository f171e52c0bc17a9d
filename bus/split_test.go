package bus_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

func metrics(n, hosts int) []kemi.Metric {
	at := time.Unix(1_700_000_000, 0).UTC()
	batch := make([]kemi.Metric, n)
	for i := range batch {
		batch[i] = kemi.Gauge("load1", kemi.LabelsOf(kemi.LabelHost, fmt.Sprint("web", i%hosts)), at, float64(i))
	}
	return batch
}

type item struct {
	key string
	n   int
}

// A split loses nothing, keeps each key's order and says where each record stood.
func TestSplitKeepsOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := bus.NewSplitter(func(i item) string { return i.key })
	for range 2000 {
		keys := 1 + rnd.IntN(5)
		batch := make([]item, rnd.IntN(40))
		for i := range batch {
			batch[i] = item{fmt.Sprint("k", rnd.IntN(keys)), i}
		}
		parts := s.Split(batch)
		var total int
		firsts := -1
		seen := map[string]bool{}
		for _, p := range parts {
			if len(p.Records) == 0 || seen[p.Key] {
				t.Fatalf("%v: the part of %q is empty or comes twice", batch, p.Key)
			}
			seen[p.Key] = true
			if p.Records[0].n <= firsts {
				t.Fatalf("%v: the parts are not in the order of their first records", batch)
			}
			firsts = p.Records[0].n
			last := -1
			for i, r := range p.Records {
				if r.key != p.Key || r.n <= last || p.Index(i) != r.n {
					t.Fatalf("%v: part %q has %v at %d, said to be %d of the batch", batch, p.Key, r, i, p.Index(i))
				}
				last = r.n
			}
			total += len(p.Records)
		}
		if total != len(batch) {
			t.Fatalf("%v: %d records in parts", batch, total)
		}
	}
}

func TestSplitWithoutKeyIsOnePart(t *testing.T) {
	batch := []item{{"a", 0}, {"b", 1}}
	parts := bus.NewSplitter[item](nil).Split(batch)
	if len(parts) != 1 || parts[0].Key != "" || &parts[0].Records[0] != &batch[0] || parts[0].Index(1) != 1 {
		t.Errorf("got %v", parts)
	}
}

type pointed struct{ key string }

func (p *pointed) PartitionKey() string { return p.key }

type embedded struct {
	kemi.Log
	more int
}

func TestKeyOf(t *testing.T) {
	if got := bus.KeyOf[kemi.Job]()(kemi.Job{Resource: "web1"}); got != "web1" {
		t.Errorf("a Job has the key %q", got)
	}
	if got := bus.KeyOf[embedded]()(embedded{kemi.Log{Host: "web2"}, 1}); got != "web2" {
		t.Errorf("a record that embeds a Log has the key %q", got)
	}
	if got := bus.KeyOf[*pointed]()(&pointed{"web3"}); got != "web3" {
		t.Errorf("a pointer has the key %q", got)
	}
	if got := bus.KeyOf[bus.Keyed]()(kemi.Log{Host: "web4"}); got != "web4" {
		t.Errorf("a record in an interface has the key %q", got)
	}
	if bus.KeyOf[kemi.DeadLetter]() != nil || bus.KeyOf[pointed]() != nil || bus.KeyOf[any]() != nil {
		t.Error("a type without PartitionKey has a key function")
	}
}

func TestSplitAllocatesNothing(t *testing.T) {
	for _, hosts := range []int{1, 20} {
		batch := metrics(1000, hosts)
		s := bus.NewSplitter(bus.KeyOf[kemi.Metric]())
		if n := testing.AllocsPerRun(100, func() { s.Split(batch) }); n != 0 {
			t.Errorf("%d hosts: %v allocations for a batch of 1000", hosts, n)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, hosts := range []int{1, 20, 1000} {
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			batch := metrics(1000, hosts)
			s := bus.NewSplitter(bus.KeyOf[kemi.Metric]())
			b.ReportAllocs()
			for b.Loop() {
				s.Split(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/record")
		})
	}
}

func ExampleSplitter() {
	s := bus.NewSplitter(bus.KeyOf[kemi.Log]())
	for _, part := range s.Split([]kemi.Log{{Host: "web1", Message: "a"}, {Host: "web2", Message: "b"}, {Host: "web1", Message: "c"}}) {
		fmt.Println(part.Key, len(part.Records), "in partition", bus.PartitionOf(part.Key, 64))
	}
	// Output:
	// web1 2 in partition 22
	// web2 1 in partition 12
}
