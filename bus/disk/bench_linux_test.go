package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/s2"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/internal/origin"
)

// line is a record of 200 bytes, such as a line of a log.
type line struct{ text []byte }

// flat stores lines as they are: what is measured is the bus.
type flat struct{}

func (flat) Name() string { return "flat/1" }

func (flat) AppendBatch(dst []byte, batch []line) ([]byte, error) {
	for _, l := range batch {
		dst = append(binary.AppendUvarint(dst, uint64(len(l.text))), l.text...)
	}
	return dst, nil
}

func (flat) DecodeBatch(dst []line, src []byte) ([]line, error) {
	src = slices.Clone(src)
	for len(src) > 0 {
		n, k := binary.Uvarint(src)
		if k <= 0 || uint64(len(src)-k) < n {
			return dst, errValue
		}
		dst = append(dst, line{src[k : k+int(n)]})
		src = src[k+int(n):]
	}
	return dst, nil
}

func lineBatch(rnd *rand.Rand, n int) []line {
	batch := make([]line, n)
	for i := range batch {
		text := fmt.Appendf(nil, "2026-01-01T00:%02d:%02d.%09dZ web%d nginx[%d]: %d.%d.%d.%d GET /api/v1/items/%d HTTP/1.1 200 %d ",
			rnd.IntN(60), rnd.IntN(60), rnd.IntN(1e9), rnd.IntN(50), rnd.IntN(1e5), rnd.IntN(256), rnd.IntN(256), rnd.IntN(256), rnd.IntN(256), rnd.IntN(1e6), rnd.IntN(1e5))
		for len(text) < 200 {
			text = fmt.Appendf(text, "%x ", rnd.Uint32())
		}
		batch[i] = line{text[:200]}
	}
	return batch
}

func benchDB(b *testing.B) *DB {
	db, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	return db
}

func benchTopic(b *testing.B, db *DB, name string) *Topic[line] {
	// The key of a batch is that of its first record, so that a batch is one record.
	t, err := NewTopic(db, name, TopicConfig[line]{Partitions: 8, Codecs: codec.Set[line]{Write: flat{}}})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

const writers = 8

// BenchmarkAppend writes batches of 1000 records of 200 bytes from 8 goroutines, each
// synced before the next, and as its peer the same bytes to a plain file, for which the
// writers meet as they do here, with a checksum and fdatasync.
func BenchmarkAppend(b *testing.B) {
	batches := make([][]line, 64)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range batches {
		batches[i] = lineBatch(rnd, 1000)
	}
	each := func(b *testing.B, write func(batch []line) error) {
		b.SetBytes(200_000)
		var n atomic.Int64
		var all sync.WaitGroup
		b.ResetTimer()
		for range writers {
			all.Go(func() {
				for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
					if err := write(batches[i%64]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "records/s")
	}
	b.Run("disk", func(b *testing.B) {
		db := benchDB(b)
		t := benchTopic(b, db, "t")
		each(b, func(batch []line) error { return t.Write(context.Background(), batch) })
	})
	b.Run("file", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "segment"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		type part struct {
			body []byte
			done chan error
		}
		parts := make(chan part, writers)
		go func() {
			var buf []byte
			var waiting []part
			for p := range parts {
				waiting = append(waiting[:0], p)
				for len(parts) > 0 {
					waiting = append(waiting, <-parts)
				}
				buf = buf[:0]
				for _, p := range waiting {
					buf = binary.LittleEndian.AppendUint32(buf, checksum(p.body))
					buf = append(binary.LittleEndian.AppendUint32(buf, uint32(len(p.body))), p.body...)
				}
				_, err := f.Write(buf)
				if err == nil {
					err = syscall.Fdatasync(int(f.Fd()))
				}
				for _, p := range waiting {
					p.done <- err
				}
			}
		}()
		defer close(parts)
		bufs := sync.Pool{New: func() any { return new(part) }}
		each(b, func(batch []line) error {
			p := bufs.Get().(*part)
			defer bufs.Put(p)
			if p.done == nil {
				p.done = make(chan error, 1)
			}
			p.body, _ = flat{}.AppendBatch(p.body[:0], batch)
			parts <- *p
			return <-p.done
		})
	})
}

// BenchmarkStep is one step of a stage: a batch was read, and its output, how far the
// reader has come, and 50 keys of state are written together, once each. The peer is the
// engine alone, given the same bytes in one synced batch.
func BenchmarkStep(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	b.Run("disk", func(b *testing.B) {
		db := benchDB(b)
		in, out := benchTopic(b, db, "in"), benchTopic(b, db, "out")
		// The input is there before, in 8 partitions.
		batches := make([][]line, 16)
		for i := range batches {
			batches[i] = lineBatch(rnd, 1000)
		}
		var all sync.WaitGroup
		var n atomic.Int64
		for range writers {
			all.Go(func() {
				for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
					if err := in.writeTo(int(i)%8, batches[i%16]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		b.SetBytes(200_000)
		b.ResetTimer()
		var done atomic.Int64
		ctx, cancel := context.WithCancel(context.Background())
		p := kemi.Pipeline{Flows: []*kemi.Flow{
			kemi.Pipe("step", in.Group("g"), kemi.Transform[line, line](&fifty{}), kemi.Sink[line](kemi.SinkFunc[line](func(ctx context.Context, batch []line) error {
				if origin.Of(ctx) == nil {
					b.Error("no origin")
				}
				err := out.Write(ctx, batch)
				if done.Add(int64(len(batch))) >= int64(b.N)*1000 {
					cancel()
				}
				return err
			}))),
		}}
		if err := p.Run(ctx); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "records/s")
		if d := out.Stats().Duplicates; d > 0 {
			b.Errorf("%d duplicates", d)
		}
	})
	b.Run("engine", func(b *testing.B) {
		db, err := pebble.Open(b.TempDir(), &pebble.Options{MemTableSize: memTable, Logger: quiet{}})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		raw, _ := flat{}.AppendBatch(nil, lineBatch(rnd, 1000))
		b.SetBytes(200_000)
		var n atomic.Int64
		var all sync.WaitGroup
		b.ResetTimer()
		for range writers {
			all.Go(func() {
				var packed []byte
				for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
					packed = s2.Encode(packed[:cap(packed)], raw)
					batch := db.NewBatch()
					_ = batch.Set(offsetKey(kindRecord, 1, int32(i%8), i), packed, nil)
					_ = batch.Set(partKey(kindPosition, 1, int32(i%8)), packed[:100], nil)
					for k := range 50 {
						_ = batch.Set(offsetKey(kindKept, 1, int32(i%8), int64(k)), packed[:32], nil)
					}
					if err := batch.Commit(pebble.Sync); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "records/s")
	})
}

// fifty is a transform with 50 keys of state that change with every batch.
type fifty struct{ n uint64 }

func (*fifty) Fork() kemi.Transform[line, line] { return &fifty{} }
func (*fifty) Restore([]kemi.Kept) error        { return nil }

func (f *fifty) Apply(_ context.Context, dst, src []line) ([]line, error) {
	f.n += uint64(len(src))
	return append(dst, src...), nil
}

func (f *fifty) Keep(dst []kemi.Kept) []kemi.Kept {
	for k := range 50 {
		v := binary.LittleEndian.AppendUint64(make([]byte, 0, 32), f.n+uint64(k))
		dst = append(dst, kemi.Kept{Key: fiftyKeys[k], Value: v[:32]})
	}
	return dst
}

var fiftyKeys = func() (keys [50]string) {
	for k := range keys {
		keys[k] = fmt.Sprint("key", k)
	}
	return keys
}()

// writeTo puts a batch in a partition.
func (t *Topic[T]) writeTo(p int, batch []T) error {
	w := t.writers.Get().(*writer[T])
	defer t.writers.Put(w)
	w.reset(context.Background(), batch)
	for i := range w.entries {
		w.entries[i].part = t.parts[p]
	}
	return t.db.wait(&request{topic: t.topic, entries: w.entries})
}

// BenchmarkTail is the load of 50,000 hosts that are polled once a minute, 50 readings
// each: 42,000 records a second, in the codec that metrics have by themselves, which two
// groups follow. Each Write is synced before it returns: there are 840 a second where it
// is one poll, and 42 where it is 20; small ones that come close together share a sync. It takes as long as it says; the processor time is
// that of the whole process, encoding and decoding included.
func BenchmarkTail(b *testing.B) {
	for _, polls := range []int{1, 20} {
		b.Run(fmt.Sprint("polls=", polls), func(b *testing.B) { benchTail(b, polls) })
	}
}

// countSyncs counts how often the log of the engine is synced.
type countSyncs struct {
	vfs.FS
	n *atomic.Int64
}

type countedFile struct {
	vfs.File
	n *atomic.Int64
}

func (c countSyncs) Unwrap() vfs.FS { return c.FS }

func (c countSyncs) Create(path string, w vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(path, w)
	return countedFile{f, c.n}, err
}

func (c countSyncs) ReuseForWrite(from, to string, w vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.ReuseForWrite(from, to, w)
	return countedFile{f, c.n}, err
}

func (c countedFile) SyncData() error {
	c.n.Add(1)
	return c.File.SyncData()
}

func benchTail(b *testing.B, polls int) {
	if b.N > 1 {
		return // one second each is enough
	}
	const seconds = 10
	var syncs atomic.Int64
	db, err := open(Config{Dir: b.TempDir()}, hooks{fs: countSyncs{vfs.Default, &syncs}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	}()
	t, err := NewTopic(db, "t", TopicConfig[kemi.Metric]{})
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	batches := make([][]kemi.Metric, 256)
	for i := range batches {
		labels := kemi.LabelsOf("host", fmt.Sprint("web", i), "dc", "one", "rack", fmt.Sprint("r", i%40), "os", "linux")
		for k := range 50 {
			batches[i] = append(batches[i], kemi.Counter("metric_"+fmt.Sprint(k), labels, newYear, rnd.Uint64N(1<<40)))
		}
	}
	for i := range batches {
		for j := 1; j < polls; j++ {
			batches[i] = append(batches[i], batches[(i+j)%len(batches)][:50]...)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var read atomic.Int64
	for _, g := range []string{"one", "two"} {
		all.Go(func() {
			_ = t.Group(g).Run(ctx, kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
				read.Add(int64(len(batch)))
				return nil
			}))
		})
	}
	time.Sleep(200 * time.Millisecond)
	var lat []time.Duration
	var mu sync.Mutex
	var pollers sync.WaitGroup
	before, synced, begin := cpu(), syncs.Load(), time.Now()
	total := seconds * 42_000 / 50 / polls
	for i := range total {
		if d := time.Until(begin.Add(time.Duration(i) * time.Second * 50 / 42_000 * time.Duration(polls))); d > 0 {
			time.Sleep(d)
		}
		pollers.Go(func() {
			t0 := time.Now()
			if err := t.Write(context.Background(), batches[i%256]); err != nil {
				b.Error(err)
			}
			mu.Lock()
			lat = append(lat, time.Since(t0))
			mu.Unlock()
		})
	}
	pollers.Wait()
	took := time.Since(begin)
	for read.Load() < int64(2*total*polls*50) && time.Since(begin) < 2*took {
		time.Sleep(time.Millisecond)
	}
	used, synced := cpu()-before, syncs.Load()-synced
	stop()
	all.Wait()
	slices.Sort(lat)
	b.ReportMetric(100*used.Seconds()/took.Seconds(), "%core")
	b.ReportMetric(float64(lat[len(lat)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(lat[len(lat)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(float64(synced)/took.Seconds(), "syncs/s")
	b.ReportMetric(float64(total*polls*50)/took.Seconds(), "records/s")
	b.ReportMetric(float64(read.Load())/float64(2*total*polls*50), "read/written")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReplay feeds state with what is on the disk, muted, as after a restart: polls
// of 50 readings in the codec that metrics have by themselves. 12.5 million readings are
// what 50,000 hosts give in 5 minutes.
func BenchmarkReplay(b *testing.B) {
	db := benchDB(b)
	t, err := NewTopic(db, "t", TopicConfig[kemi.Metric]{Partitions: 8})
	if err != nil {
		b.Fatal(err)
	}
	const hosts, names = 1000, 50
	var labels [hosts]kemi.Labels
	for h := range labels {
		labels[h] = kemi.LabelsOf("host", fmt.Sprint("web", h), "dc", "one", "rack", fmt.Sprint("r", h%40), "os", "linux")
	}
	var all sync.WaitGroup
	var n atomic.Int64
	for range writers {
		all.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				batch := make([]kemi.Metric, names)
				for k := range batch {
					batch[k] = kemi.Counter("metric_"+fmt.Sprint(k), labels[i%hosts], newYear.Add(time.Duration(i/hosts)*time.Minute), uint64(i*int64(k)))
				}
				if err := t.Write(context.Background(), batch); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	run := func(stop func(r ReaderStats) bool) {
		ctx, cancel := context.WithCancel(context.Background())
		p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", t.Group("g"), kemi.Transform[kemi.Metric, kemi.Metric](&latest{}),
			kemi.Sink[kemi.Metric](kemi.SinkFunc[kemi.Metric](func(context.Context, []kemi.Metric) error { return nil })))}}
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		for r := t.Stats().Readers; len(r) == 0 || !stop(r[0]); r = t.Stats().Readers {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	run(func(r ReaderStats) bool { return r.Running > 0 && r.Lag == 0 })
	before := cpu()
	b.ResetTimer()
	run(func(r ReaderStats) bool { return r.Replayed >= uint64(b.N)*names })
	b.StopTimer()
	used := cpu() - before
	b.ReportMetric(used.Seconds()/float64(b.N*names)*12.5e6, "core-s/12.5M")
	b.ReportMetric(float64(b.N*names)/b.Elapsed().Seconds(), "readings/s")
}

// latest keeps the last reading of each series.
type latest struct{ of map[series]kemi.Metric }

type series struct {
	name   string
	labels kemi.Labels
}

func (*latest) Fork() kemi.Transform[kemi.Metric, kemi.Metric] {
	return &latest{map[series]kemi.Metric{}}
}
func (*latest) Horizon() time.Duration { return time.Hour }

func (l *latest) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		l.of[series{m.Name, m.Labels}] = m
	}
	return dst, nil
}
