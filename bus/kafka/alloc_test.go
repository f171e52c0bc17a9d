//go:build !race

package kafka

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/internal/origin"
)

// fewest is how many allocations f makes: those of goroutines that others have left
// behind are counted too, but not every time.
func fewest(f func()) float64 {
	least := testing.AllocsPerRun(10, f)
	for range 20 {
		least = min(least, testing.AllocsPerRun(10, f))
	}
	return least
}

// TestARecordCostsNoMemory, to be made or to be read, when others have gone before it.
func TestARecordCostsNoMemory(t *testing.T) {
	const n = 1000
	topic := &Topic[blob]{
		c: &Cluster{config: Config{BatchMaxBytes: 1_000_000}}, name: "t", partitions: 16,
		config: TopicConfig[blob]{Key: blob.PartitionKey, Codecs: codec.Set[blob]{Write: blobs{}}},
	}
	w := newWrite(topic)
	batch := payloads(n, 200)
	from := &origin.Batch{Source: origin.Source{Reader: "up@r", Partition: 3}}
	for i := range n {
		from.Marks = append(from.Marks, origin.Mark{End: i + 1, Seq: origin.Seq(i + 1)})
	}
	var records []kgo.Record
	if per := fewest(func() {
		from.Begin()
		w.fill(batch, from)
		records = append(records[:0], w.records...)
		w.release()
	}) / n; per > 1.1 { // the key, which blob makes
		t.Errorf("%.2f allocations for each record that is made", per)
	}

	w.fill(batch, from)
	p := parser{codec: "blob/1"}
	if len(w.records) != n || p.entry(&w.records[0]).Stamp != (origin.Stamp{Source: origin.Source{Reader: "up@r@1", Partition: 3}, Seq: 1}) {
		t.Fatal(fmt.Sprint(len(w.records), p.entry(&w.records[0])))
	}
	if all := fewest(func() {
		for i := range w.records {
			p.entry(&w.records[i])
		}
	}); all > 0 {
		t.Errorf("%v allocations for %d records that are read", all, n)
	}
}
