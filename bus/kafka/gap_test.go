package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faults"
	"github.com/kemi-go/kemi/internal/origin"
)

// TestFaultsInTheMiddleOfWrites: brokers refuse batches for good
// while a Write hands over its records, and lanes write again what has failed, be it
// in other pieces, as lanes do. What a reader sees is each record once and in order.
func TestFaultsInTheMiddleOfWrites(t *testing.T) {
	t.Parallel()
	const writers, writes, refused = 4, 30, 5
	seed := faults.Seed(t)
	f := fake(t)
	config := quick(t, f)
	config.BatchMaxBytes = batchMin // a Write is many batches
	config.Linger = -1              // which are under way while it still hands over the others
	config.Logger = nil
	cluster := open(t, config)
	cluster.still.after = 3 * time.Second
	topic, err := NewTopic(cluster, "out", TopicConfig[sample]{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	r := collect(t, topic.Group("g"))
	var asked atomic.Int64
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	over, stop := context.WithCancel(t.Context())
	var chaos, lanes sync.WaitGroup
	chaos.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 0))
		for over.Err() == nil {
			// A Write asks some 30 times. Were one of three refused, none would ever go through.
			for next := asked.Load() + 10 + rnd.Int64N(40); asked.Load() < next && over.Err() == nil; {
				time.Sleep(100 * time.Microsecond)
			}
			h := f.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Partitions: []int32{rnd.Int32N(2)},
				Err: []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.MessageTooLarge, kerr.InvalidRecord, kerr.NotEnoughReplicas, kerr.RequestTimedOut}[rnd.IntN(5)],
			})
			_ = h.Wait(over, 1)
			h.Remove()
			if rnd.IntN(4) == 0 {
				f.ShufflePartitionLeaders()
			}
		}
	})
	failures := 0
	var mu sync.Mutex
	tried := func() bool { // a client retries most of what brokers answer
		mu.Lock()
		defer mu.Unlock()
		return failures >= refused && topic.Stats().Readers[0].Duplicates > 0
	}
	for w := range int32(writers) {
		lanes.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)+1))
			next := 0
			for n := 0; n < writes || !tried() && n < 100*writes; n++ {
				var batch []sample
				from := &origin.Batch{Source: origin.Source{Reader: "in@calc", Partition: w}}
				for seq := range 100 + rnd.IntN(3000) {
					for range rnd.IntN(4) {
						batch = append(batch, sample{Key: fmt.Sprint("w", w), Seq: next})
						next++
					}
					if seq > 0 && len(batch) > 0 {
						from.Marks = append(from.Marks, origin.Mark{End: len(batch), Seq: origin.Seq(next)})
					}
				}
				from.Marks = slices.CompactFunc(from.Marks, func(a, b origin.Mark) bool { return a.Seq == b.Seq })
				write := func() error {
					from.Begin() // as a lane does, each time
					return topic.Write(origin.With(context.Background(), from), batch)
				}
				for write() != nil {
					mu.Lock()
					failures++
					mu.Unlock()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			t.Logf("writer %d: %d records", w, next)
		})
	}
	lanes.Wait()
	stop()
	chaos.Wait()
	wrote := int(topic.Stats().Written)
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= wrote })
	_ = r.stop(t)
	next := map[string]int{}
	for _, s := range r.got {
		if s.Seq != next[s.Key] {
			t.Fatalf("seed %d: of %s came %d, and %d was next", seed, s.Key, s.Seq, next[s.Key])
		}
		next[s.Key]++
	}
	s := topic.Stats().Readers[0]
	faults.Report(t, "seed %d: %d Writes failed in between; %d records, each once; %d gaps and %d duplicates were left out", seed, failures, wrote, s.Gaps, s.Duplicates)
	if failures < refused || s.Duplicates == 0 {
		t.Error("nothing was tried")
	}
}

// pausing holds up the client at one record.
type pausing struct {
	at    int
	seen  int
	pause func()
}

func (p *pausing) OnProduceRecordBuffered(*kgo.Record) {
	if p.seen++; p.seen == p.at {
		p.pause()
	}
}

// TestAGapIsNotTakenForTheEnd: the first half of a Write is refused while the second
// is handed over, which goes through. Both come when the Write is repeated.
func TestAGapIsNotTakenForTheEnd(t *testing.T) {
	t.Parallel()
	const n = 200
	f := fake(t)
	hook := &pausing{at: n / 2}
	config := quick(t, f)
	config.Linger, config.hook = -1, hook
	topic, err := NewTopic(open(t, config), "out", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	hook.pause = func() {
		if err := fault.Wait(t.Context(), 1); err != nil {
			t.Error(err)
		}
		eventually(t, "the first half is not refused", func() bool { return topic.c.producer.BufferedProduceRecords() <= 1 })
		fault.Remove()
	}
	batch := make([]sample, n)
	from := &origin.Batch{Source: origin.Source{Reader: "in@calc"}}
	for i := range batch {
		batch[i] = sample{Key: "a", Seq: i}
		from.Marks = append(from.Marks, origin.Mark{End: i + 1, Seq: origin.Seq(i + 1)})
	}
	ctx := origin.With(t.Context(), from)
	if err := topic.Write(ctx, batch); !errors.Is(err, ErrForbidden) {
		t.Fatalf("Write: %v", err)
	}
	if end := f.PartitionInfo("out", 0).HighWatermark; end == 0 || end > n/2+1 {
		t.Fatalf("%d records went through, and there was to be a gap", end)
	}
	from.Begin()
	if err := topic.Write(ctx, batch); err != nil {
		t.Fatal(err)
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= n })
	_ = r.stop(t)
	for i, s := range r.got {
		if s.Seq != i {
			t.Fatalf("%d came when %d was next", s.Seq, i)
		}
	}
	if s := topic.Stats().Readers[0]; s.Gaps == 0 {
		t.Errorf("nothing was tried: %+v", s)
	}
}

// TestPiecesOfAnotherSizeLoseNothing: a Write that is repeated with another limit is
// cut into other pieces.
func TestPiecesOfAnotherSizeLoseNothing(t *testing.T) {
	t.Parallel()
	f := fake(t)
	batch := make([]sample, 300)
	for i := range batch {
		batch[i] = sample{Key: "a", Seq: i, Gone: "some text that makes it longer"}
	}
	from := &origin.Batch{Source: origin.Source{Reader: "in@calc"}, Marks: []origin.Mark{{End: len(batch), Seq: 7}}}
	var topic *Topic[sample]
	for _, size := range []int{6000, 20_000, 4096} {
		config := quick(t, f)
		config.BatchMaxBytes = size
		var err error
		if topic, err = NewTopic(open(t, config), "out", TopicConfig[sample]{Partitions: 1}); err != nil {
			t.Fatal(err)
		}
		from.Begin()
		if err := topic.Write(origin.With(t.Context(), from), batch); err != nil {
			t.Fatal(err)
		}
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool {
		s := topic.Stats().Readers[0]
		return s.Lag == 0 && len(s.Partitions) > 0 && s.Partitions[0].Next > 0
	})
	_ = r.stop(t)
	seen := map[int]int{}
	for _, s := range r.got {
		seen[s.Seq]++
	}
	if len(seen) != len(batch) || len(r.got) != len(batch) {
		t.Errorf("%d came, %d of %d", len(r.got), len(seen), len(batch))
	}
}

var _ kemi.Sink[sample] = (*Topic[sample])(nil)
