package bus_test

import (
	"fmt"
	"testing"

	"github.com/kemi-go/kemi/bus"
)

// The hashes are those in the tests of Kafka's own Java client
// (org.apache.kafka.common.utils.UtilsTest, testMurmur2).
func TestPartitionOfIsThatOfKafka(t *testing.T) {
	hashes := map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	}
	for key, hash := range hashes {
		for _, n := range []int{1, 2, 7, 64, 1000, 1<<31 - 1} {
			want := int(hash&0x7fffffff) % n
			if got := bus.PartitionOf(key, n); got != want {
				t.Errorf("%q of %d partitions is in %d, and on Kafka in %d", key, n, got, want)
			}
		}
	}
}

func TestPartitionsAreUsedEvenly(t *testing.T) {
	const keys, partitions = 64_000, 64
	var n [partitions]int
	for i := range keys {
		n[bus.PartitionOf(fmt.Sprintf("web%d.example.net", i), partitions)]++
	}
	for p, got := range n {
		if got < keys/partitions*8/10 || got > keys/partitions*12/10 {
			t.Errorf("partition %d has %d of %d keys", p, got, keys)
		}
	}
}

func TestNoPartitionsPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("PartitionOf with 0 partitions did not panic")
		}
	}()
	bus.PartitionOf("web1", 0)
}
