package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/otlp"
)

// blob is a record that is its own encoding; its key is in its first bytes.
type blob []byte

func (b blob) PartitionKey() string { return string(b[:8]) }

type blobs struct{}

func (blobs) Name() string { return "blob/1" }
func (blobs) AppendBatch(dst []byte, batch []blob) ([]byte, error) {
	for _, b := range batch {
		dst = append(dst, b...)
	}
	return dst, nil
}

func (blobs) DecodeBatch(dst []blob, src []byte) ([]blob, error) {
	return append(dst, append(blob(nil), src...)), nil
}

const benchPartitions = 16

// payloads are n blobs of a size, each of a key of its own.
func payloads(n, size int) []blob {
	all := make([]blob, n)
	for i := range all {
		all[i] = fmt.Appendf(nil, "%08d", i)
		for len(all[i]) < size {
			all[i] = append(all[i], byte('a'+(len(all[i])*7+i)%26))
		}
	}
	return all
}

// polls are polls of n hosts, 80 metrics each.
func polls(n int) [][]kemi.Metric {
	all := make([][]kemi.Metric, n)
	now := time.Unix(1_700_000_000, 0)
	for i := range all {
		host := fmt.Sprintf("host%05d", i)
		for j := range 80 {
			labels := kemi.LabelsOf(kemi.LabelHost, host, "ifName", fmt.Sprint("eth", j%8), "job", "snmp")
			all[i] = append(all[i], kemi.Counter(fmt.Sprint("if_octets_", j/8), labels, now, uint64(i*j*1000)))
		}
	}
	return all
}

// BenchmarkProduce writes the same payloads with the client alone and with a topic:
// each of 16 goroutines has 500 records acknowledged, and then the next.
func BenchmarkProduce(b *testing.B) {
	const batch, writers = 500, 16
	for _, size := range []int{200, 6000} {
		data := payloads(batch*writers, size)
		run := func(name string, write func(w int) error) {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for left.Add(-batch) > -batch {
							if err := write(w); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
			})
		}
		f := fake(b)
		config := quick(b, f)
		config.Logger = nil
		c := open(b, config)
		topic, err := NewTopic(c, "t", TopicConfig[blob]{Partitions: benchPartitions, Codecs: codec.Set[blob]{Write: blobs{}}})
		if err != nil {
			b.Fatal(err)
		}
		// The client with its own defaults, but for the linger.
		raw := stranger(b, f, kgo.ProducerLinger(config.Linger), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(1<<30))
		run("franz-go", func(w int) error {
			records := make([]kgo.Record, batch)
			var wg sync.WaitGroup
			var failed atomic.Pointer[error]
			wg.Add(batch)
			for i, d := range data[w*batch : (w+1)*batch] {
				r := &records[i]
				*r = kgo.Record{Topic: "t", Key: d[:8], Value: d, Partition: int32(bus.PartitionOf(string(d[:8]), benchPartitions))}
				raw.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
					if err != nil {
						failed.Store(&err)
					}
					wg.Done()
				})
			}
			wg.Wait()
			if err := failed.Load(); err != nil {
				return *err
			}
			return nil
		})
		run("kemi", func(w int) error { return topic.Write(context.Background(), data[w*batch:(w+1)*batch]) })
	}
}

// BenchmarkConsume reads the same topic with the client alone, in a group too, and
// with a group of kemi.
func BenchmarkConsume(b *testing.B) {
	for _, size := range []int{200, 6000} {
		f := fake(b)
		config := quick(b, f)
		config.Logger = nil
		config.CommitInterval = time.Second
		c := open(b, config)
		topic, err := NewTopic(c, "t", TopicConfig[blob]{Partitions: benchPartitions, Codecs: codec.Set[blob]{Write: blobs{}}})
		if err != nil {
			b.Fatal(err)
		}
		data, rounds := payloads(20_000, size), 30
		if size > 1000 {
			data, rounds = data[:4000], 10
		}
		n := rounds * len(data)
		for range rounds {
			if err := topic.Write(b.Context(), data); err != nil {
				b.Fatal(err)
			}
		}
		// From the first record to the last: how long it takes to join is another matter.
		var first time.Time
		var took time.Duration
		begin := func() {
			if first.IsZero() {
				first = time.Now()
			}
		}
		end := func() { took += time.Since(first); first = time.Time{} }
		report := func(b *testing.B) {
			b.ReportMetric(float64(n)*float64(b.N)/took.Seconds(), "rec/s")
			took = 0
		}
		b.Run(fmt.Sprintf("franz-go/%dB", size), func(b *testing.B) {
			for i := range b.N {
				raw := stranger(b, f, kgo.ConsumerGroup(fmt.Sprintf("raw-%d-%d-%d", size, b.N, i)), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(),
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(config.FetchMaxWait), kgo.FetchMaxBytes(16<<20))
				sum := 0
				for got := 0; got < n; {
					raw.PollFetches(b.Context()).EachRecord(func(r *kgo.Record) {
						begin()
						rec, _ := blobs{}.DecodeBatch(nil, r.Value)
						sum += len(rec[0])
						got++
					})
				}
				end()
				raw.Close()
			}
			report(b)
		})
		b.Run(fmt.Sprintf("kemi/%dB", size), func(b *testing.B) {
			for i := range b.N {
				var got atomic.Int64
				var once sync.Once
				ctx, cancel := context.WithCancel(b.Context())
				err := topic.Group(fmt.Sprintf("kemi-%d-%d-%d", size, b.N, i)).Run(ctx, kemi.SinkFunc[blob](func(_ context.Context, batch []blob) error {
					once.Do(begin)
					if got.Add(int64(len(batch))) == int64(n) {
						end()
						cancel()
					}
					return nil
				}))
				cancel()
				if err != nil {
					b.Fatal(err)
				}
			}
			report(b)
		})
	}
}

// BenchmarkPolls writes polls of 80 metrics of a host as OTLP, by the client alone and
// by a topic.
func BenchmarkPolls(b *testing.B) {
	const batch, writers = 100, 16
	hosts := polls(batch * writers)
	f := fake(b)
	config := quick(b, f)
	config.Logger = nil
	topic, err := NewTopic(open(b, config), "t", TopicConfig[kemi.Metric]{Partitions: benchPartitions})
	if err != nil {
		b.Fatal(err)
	}
	raw := stranger(b, f, kgo.ProducerLinger(config.Linger), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(1<<30))
	run := func(name string, write func(w int) error) {
		b.Run(name, func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for left.Add(-batch) > -batch {
						if err := write(w); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(80*float64(b.N)/b.Elapsed().Seconds(), "metrics/s")
		})
	}
	metrics := otlp.Metrics()
	run("franz-go", func(w int) error {
		records := make([]*kgo.Record, batch)
		for i, poll := range hosts[w*batch : (w+1)*batch] {
			value, err := metrics.AppendBatch(nil, poll)
			if err != nil {
				return err
			}
			key := poll[0].Host()
			records[i] = &kgo.Record{Topic: "t", Key: []byte(key), Value: value, Partition: int32(bus.PartitionOf(key, benchPartitions))}
		}
		return raw.ProduceSync(context.Background(), records...).FirstErr()
	})
	mixed := make([][]kemi.Metric, writers)
	for i, poll := range hosts {
		mixed[i/batch] = append(mixed[i/batch], poll...)
	}
	run("kemi", func(w int) error { return topic.Write(context.Background(), mixed[w]) })
}
