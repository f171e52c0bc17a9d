package columnar_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec/columnar"
)

// std is encoding/json without further ado, the peer.
type std[T any] struct{}

func (std[T]) Name() string { return "std/1" }

func (std[T]) AppendBatch(dst []byte, batch []T) ([]byte, error) {
	b, err := json.Marshal(batch)
	return append(dst, b...), err
}

func (std[T]) DecodeBatch(dst []T, src []byte) ([]T, error) {
	var batch []T
	err := json.Unmarshal(src, &batch)
	return append(dst, batch...), err
}

func benchmark[T any](b *testing.B, batch []T, codecs ...bus.Codec[T]) {
	for _, c := range codecs {
		src := encode(b, c, batch)
		per := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/record")
			b.ReportMetric(float64(len(src))/float64(len(batch)), "B/record")
		}
		b.Run(fmt.Sprint(c.Name(), "/encode"), func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst, _ = c.AppendBatch(dst[:0], batch)
			}
			per(b)
		})
		b.Run(fmt.Sprint(c.Name(), "/decode"), func(b *testing.B) {
			b.ReportAllocs()
			var dst []T
			for b.Loop() {
				dst, _ = c.DecodeBatch(dst[:0], src)
			}
			per(b)
		})
	}
}

// BenchmarkMetrics measures a batch of many hosts, and a poll of one, which is what is
// on a topic.
func BenchmarkMetrics(b *testing.B) {
	for _, c := range [][3]int{{20, 50, 5}, {20, 50, 1}, {1, 80, 5}} {
		b.Run(fmt.Sprintf("hosts=%d/each=%d/per set=%d", c[0], c[1], c[2]), func(b *testing.B) {
			benchmark(b, pollsOf(c[0], c[1], c[2]), columnar.Metrics(), bus.Codec[kemi.Metric](std[kemi.Metric]{}))
		})
	}
}

// BenchmarkFleet reads polls of 2000 hosts by turns, so that no label is in a cache of
// the processor. A stage with state holds their sets.
func BenchmarkFleet(b *testing.B) {
	const hosts, each = 2000, 50
	all := polls(hosts, each)
	c := columnar.Metrics()
	var src [][]byte
	for h := range hosts {
		src = append(src, encode(b, c, all[h*each:(h+1)*each]))
	}
	var dst []kemi.Metric
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		dst, _ = c.DecodeBatch(dst[:0], src[n%hosts])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*each), "ns/record")
	runtime.KeepAlive(all)
}

// BenchmarkNewSets reads label sets that nobody has, as after a start.
func BenchmarkNewSets(b *testing.B) {
	src := encode(b, columnar.Metrics(), pollsOf(20, 50, 1))
	host := []byte("web0")
	var at []int
	for i := range src {
		if bytes.HasPrefix(src[i:], host) {
			at = append(at, i)
		}
	}
	c := columnar.Metrics()
	var dst []kemi.Metric
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		for _, i := range at { // another 20 hosts
			src[i], src[i+1], src[i+2] = 'a'+byte(n%26), 'a'+byte(n/26%26), 'a'+byte(n/26/26%26)
		}
		dst, _ = c.DecodeBatch(dst[:0], src)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(dst)), "ns/record")
}

func BenchmarkLogs(b *testing.B) {
	benchmark(b, lines(1000), columnar.Logs(), bus.Codec[kemi.Log](std[kemi.Log]{}))
}
