package kafka

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// TestAnOffsetBehindTheEnd: the log ends before the offset that was committed, as after
// an election of a broker that had not got all. What is written from there on is new.
func TestAnOffsetBehindTheEnd(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		f := fake(t)
		topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		var src kemi.Source[sample]
		name := "in.g"
		if all {
			name, src = "in.g.all", topic.All("g")
		} else {
			src = topic.Group("g")
		}
		for i := range 10 {
			put(t, topic, sample{Key: "a", Seq: i})
		}
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: "in", Partition: 0, At: 50, LeaderEpoch: -1})
		if err := kadm.NewClient(stranger(t, f)).CommitAllOffsets(t.Context(), name, offsets); err != nil {
			t.Fatal(err)
		}
		r := collect(t, src)
		eventually(t, "the loss is not counted", func() bool {
			readers := topic.Stats().Readers
			return len(readers) > 0 && readers[len(readers)-1].Lost == 40
		})
		for i := range 10 {
			put(t, topic, sample{Key: "a", Seq: 10 + i})
		}
		eventually(t, "what is new does not come", func() bool { got, _ := r.counts(); return got >= 10 })
		eventually(t, "the new position is not kept", func() bool { return f.GroupInfo(name).Commits["in"][0].Offset == 20 })
		_ = r.stop(t)
		for i, s := range r.got {
			if s.Seq != 10+i {
				t.Fatalf("all %v: %d came when %d was next", all, s.Seq, 10+i)
			}
		}
	}
}

// TestAnOffsetInTheMiddleOfAWrite: somebody has set it there. What comes after it in the
// same Write names records before it that were never read, and is no gap.
func TestAnOffsetInTheMiddleOfAWrite(t *testing.T) {
	t.Parallel()
	f := fake(t)
	topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]sample, 10)
	from := &origin.Batch{Source: origin.Source{Reader: "raw@calc"}}
	for i := range batch {
		batch[i] = sample{Key: fmt.Sprint("k", i), Seq: i}
		from.Marks = append(from.Marks, origin.Mark{End: i + 1, Seq: origin.Seq(i + 1)})
	}
	from.Begin()
	if err := topic.Write(origin.With(t.Context(), from), batch); err != nil {
		t.Fatal(err)
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "in", Partition: 0, At: 4, LeaderEpoch: -1})
	if err := kadm.NewClient(stranger(t, f)).CommitAllOffsets(t.Context(), "in.g", offsets); err != nil {
		t.Fatal(err)
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "the rest of the Write does not come", func() bool { got, _ := r.counts(); return got >= 6 })
	_ = r.stop(t)
	if len(r.got) != 6 || r.got[0].Seq != 4 {
		t.Errorf("got %v", r.got)
	}
}

// TestALogThatIsSaidToHaveLostItsEnd: the new leader knows nothing of the epoch that was
// read in, so nobody can say what is still as it was. All is read again, and what comes of
// it is what came before, with the times of the log.
func TestALogThatIsSaidToHaveLostItsEnd(t *testing.T) {
	t.Parallel()
	f := fake(t)
	cluster := open(t, quick(t, f))
	in, out := topicOf[sample](t, cluster, "in"), topicOf[sample](t, cluster, "out")
	p := kemi.Pipeline{
		Flows:        []*kemi.Flow{kemi.Pipe("pairs", in.Group("calc"), kemi.Transform[sample, sample](&pairs{}), kemi.Sink[sample](out))},
		DrainTimeout: time.Minute,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	r := collect(t, out.Group("check"))
	lost := func() uint64 {
		n := uint64(0)
		for _, s := range append(in.Stats().Readers, out.Stats().Readers...) {
			n += s.Lost
		}
		return n
	}
	began, seq := time.Now(), 0
	for ; in.Stats().Readers == nil || in.Stats().Readers[0].Lost == 0 || out.Stats().Readers[0].Lost == 0 || time.Since(began) < 2*silent; seq++ {
		if time.Since(began) > hang {
			t.Fatal("nothing was tried")
		}
		// Each key is seen once more, before or after it is forgotten.
		put(t, in, sample{Key: fmt.Sprint("k", seq%40), Seq: seq})
		time.Sleep(20 * time.Millisecond)
		if seq%50 == 49 {
			f.ShufflePartitionLeaders()
			time.Sleep(300 * time.Millisecond) // nothing is written in the new epoch
		}
	}
	eventually(t, "it does not come to the end", func() bool {
		for p, info := range f.PartitionInfos("in") {
			if f.GroupInfo("in.calc").Commits["in"][int32(p)].Offset < info.HighWatermark {
				return false
			}
		}
		return true
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want, may := expect(t, f, "in")
	sum := 0
	for _, n := range want {
		sum += n
	}
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= sum })
	_ = r.stop(t)
	for _, s := range r.got {
		if want[s]--; want[s] < 0 && may[s] == 0 {
			t.Errorf("%+v is wrong, or came twice", s)
		}
	}
	for s, n := range want {
		if n > 0 {
			t.Errorf("%+v is lost", s)
		}
	}
	t.Logf("%d records, %d offsets read again, %d outputs", seq, lost(), len(r.got))
}
