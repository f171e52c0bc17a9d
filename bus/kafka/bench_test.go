//go:build unix

package kafka

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

// versus runs the client alone and kemi by turns, as the machine has other things to do
// too, and compares them: records per second, and CPU per record of this process, with
// the brokers where they are in it. Each returns how long it took. The percentages are medians of all turns.
func versus(b *testing.B, records int, alone, kemi func() time.Duration) {
	b.Helper()
	var took [2]time.Duration
	var wall, cpu []float64
	for i := range b.N {
		var t, c [2]time.Duration
		for j := range 2 {
			which := (i + j) % 2 // neither is always the first
			runtime.GC()
			before := cpuTime()
			t[which] = []func() time.Duration{alone, kemi}[which]()
			c[which] = cpuTime() - before
			took[which] += t[which]
		}
		wall = append(wall, 100*t[0].Seconds()/t[1].Seconds())
		cpu = append(cpu, 100*c[0].Seconds()/c[1].Seconds())
	}
	median := func(x []float64) float64 {
		slices.Sort(x)
		return (x[len(x)/2] + x[(len(x)-1)/2]) / 2
	}
	n := float64(records) * float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/took[0].Seconds(), "franz-rec/s")
	b.ReportMetric(n/took[1].Seconds(), "kemi-rec/s")
	b.ReportMetric(median(wall), "%ofFranz")
	b.ReportMetric(median(cpu), "%ofFranzByCPU")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// brokers starts the brokers in a process of their own, so that the CPU time of this one
// is that of clients alone, and returns their addresses.
func brokers(b *testing.B) []string {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBrokersOfBenchmarks$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), brokersEnv+"=1")
	cmd.Stderr = os.Stderr
	alive, err := cmd.StdinPipe() // until it is closed
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(line), ",")
}

const brokersEnv = "KEMI_BENCH_BROKERS"

// TestBrokersOfBenchmarks is the other process.
func TestBrokersOfBenchmarks(t *testing.T) {
	if os.Getenv(brokersEnv) == "" {
		t.Skip("only benchmarks run it")
	}
	fmt.Println(strings.Join(fake(t).ListenAddrs(), ","))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func benchConfig(addrs []string) Config {
	return Config{
		Brokers:        addrs,
		Linger:         time.Millisecond,
		CommitInterval: 50 * time.Millisecond,
		FetchMaxWait:   50 * time.Millisecond,
		SessionTimeout: 3 * time.Second, HeartbeatInterval: 50 * time.Millisecond,
		Tick:    200 * time.Millisecond,
		Timeout: 10 * time.Second,
	}
}

// rawClient is the client alone.
func rawClient(b *testing.B, addrs []string, opts ...kgo.Opt) *kgo.Client {
	b.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// BenchmarkProduce writes the same payloads with the client alone and with a topic:
// each of 16 goroutines has 500 records acknowledged, and then the next.
func BenchmarkProduce(b *testing.B) {
	const batch, writers = 500, 16
	for _, size := range []int{200, 6000} {
		data := payloads(batch*writers, size)
		const rounds = 10
		all := func(write func(w int) error) func() time.Duration {
			return func() time.Duration {
				began := time.Now()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for range rounds {
							if err := write(w); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				return time.Since(began)
			}
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
		alone := all(func(w int) error {
			records := make([]kgo.Record, batch)
			var wg sync.WaitGroup
			var failed atomic.Pointer[error]
			wg.Add(batch)
			for i, d := range data[w*batch : (w+1)*batch] {
				r := &records[i]
				value, _ := blobs{}.AppendBatch(nil, []blob{d}) // the codec is no part of what is compared
				*r = kgo.Record{Topic: "t", Key: d[:8], Value: value, Partition: int32(bus.PartitionOf(string(d[:8]), benchPartitions))}
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
		kemi := all(func(w int) error { return topic.Write(context.Background(), data[w*batch:(w+1)*batch]) })
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { versus(b, writers*rounds*batch, alone, kemi) })
	}
}

// BenchmarkConsume reads the same topic with the client alone, in a group too, and
// with a group of kemi.
func BenchmarkConsume(b *testing.B) {
	for _, size := range []int{200, 6000} {
		addrs := brokers(b)
		config := benchConfig(addrs)
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
		group := 0
		alone := func() (took time.Duration) {
			group++
			raw := rawClient(b, addrs, kgo.ConsumerGroup(fmt.Sprint("raw-", group)), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(config.FetchMaxWait), kgo.FetchMaxBytes(16<<20))
			defer raw.Close()
			var first time.Time
			sum := 0
			for got := 0; got < n; {
				fetches := raw.PollFetches(b.Context())
				if first.IsZero() && !fetches.Empty() {
					first = time.Now()
				}
				fetches.EachRecord(func(r *kgo.Record) {
					rec, _ := blobs{}.DecodeBatch(nil, r.Value)
					sum += len(rec[0])
					got++
				})
			}
			return time.Since(first)
		}
		ours := func() (took time.Duration) {
			group++
			var got atomic.Int64
			var once sync.Once
			var first time.Time
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			err := topic.Group(fmt.Sprint("kemi-", group)).Run(ctx, kemi.SinkFunc[blob](func(_ context.Context, batch []blob) error {
				once.Do(func() { first = time.Now() })
				if got.Add(int64(len(batch))) == int64(n) {
					took = time.Since(first)
					cancel()
				}
				return nil
			}))
			if err != nil {
				b.Fatal(err)
			}
			return took
		}
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) { versus(b, n, alone, ours) })
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
	const rounds = 4
	all := func(write func(w int) error) func() time.Duration {
		return func() time.Duration {
			began := time.Now()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for range rounds {
						if err := write(w); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			return time.Since(began)
		}
	}
	metrics := otlp.Metrics()
	alone := all(func(w int) error {
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
	kemi := all(func(w int) error { return topic.Write(context.Background(), mixed[w]) })
	versus(b, 80*writers*rounds*batch, alone, kemi)
}
