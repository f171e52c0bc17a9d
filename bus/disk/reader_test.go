package disk

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// nowhere is a sink.
var nowhere = kemi.SinkFunc[reading](func(context.Context, []reading) error { return nil })

// Members of a group come and go all the time while positions are kept.
func TestWritesGoOnWhileReadersComeAndGo(t *testing.T) {
	db, err := Open(Config{Dir: t.TempDir(), Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 8, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	const stay, come = 3, 3
	for range stay {
		go func() { _ = topic.Group("g").Run(ctx, nowhere); ended <- struct{}{} }()
	}
	for range come {
		go func() {
			for ctx.Err() == nil {
				c, stop := context.WithTimeout(ctx, 200*time.Microsecond)
				_ = topic.Group("g").Run(c, nowhere)
				stop()
			}
			ended <- struct{}{}
		}()
	}
	begin := time.Now()
	for n := 0; time.Since(begin) < time.Second; n++ {
		done := make(chan error, 1)
		go func() { done <- topic.Write(t.Context(), []reading{{Host: fmt.Sprint("h", n), N: n}}) }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatalf("Write %d hangs", n)
		}
	}
	cancel()
	for range stay + come {
		<-ended
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// read runs a flow from a group to a topic until all is read.
func read(t *testing.T, in, out *Topic[reading], group string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f := kemi.Connect("f", in.Group(group), kemi.Sink[reading](out))
	go func() { done <- (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(ctx) }()
	until(t, "all read", func() bool {
		r := in.Stats().Readers
		return len(r) > 0 && r[0].Running > 0 && r[0].Lag == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func one(t *testing.T, db *DB, name string) *Topic[reading] {
	t.Helper()
	topic, err := NewTopic(db, name, TopicConfig[reading]{Partitions: 1, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func write(t *testing.T, topic *Topic[reading], n int) {
	t.Helper()
	for n := range n {
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: n}}); err != nil {
			t.Fatal(err)
		}
	}
}

// A topic of a name and an offset that were there before is another all the same.
func TestWhatIsMadeOfATopicMadeAnewIsWritten(t *testing.T) {
	db, _ := opened(t, at(newYear), Config{})
	out := one(t, db, "out")
	for range 2 {
		first, _ := opened(t, at(newYear), Config{})
		in := one(t, first, "in")
		write(t, in, 10)
		read(t, in, out, "g")
	}
	if s := out.Stats(); s.Duplicates != 0 || s.Written != 20 || s.Partitions[0].End != 20 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsReadAgainAfterForgetIsWrittenAgain(t *testing.T) {
	db, _ := opened(t, at(newYear), Config{})
	in, out := one(t, db, "in"), one(t, db, "out")
	write(t, in, 10)
	for range 2 {
		read(t, in, out, "g")
		if err := in.Forget("g"); err != nil {
			t.Fatal(err)
		}
	}
	if s := out.Stats(); s.Duplicates != 0 || s.Partitions[0].End != 20 {
		t.Errorf("%+v", s)
	}
}

// Only what is appended is called written.
func TestWhatIsLeftOutIsNotCountedAsWritten(t *testing.T) {
	db, _ := opened(t, at(newYear), Config{})
	out := one(t, db, "out")
	b := origin.Batch{Source: origin.Source{Reader: origin.ReaderOf("in", "g", false)}, Marks: []origin.Mark{{End: 2, Seq: origin.OfRecord(0)}, {End: 4, Seq: origin.OfRecord(1)}}}
	ctx := origin.With(t.Context(), &b)
	for range 2 {
		b.Begin()
		err := out.Write(ctx, []reading{{Host: "h", N: 1}, {Host: "cannot"}, {Host: "h", N: 2}, {Host: "h", N: 3}})
		if err == nil || !strings.Contains(err.Error(), "1 of 4 records failed") {
			t.Fatal(err)
		}
	}
	if s := out.Stats(); s.Written != 3 || s.Duplicates != 3 {
		t.Errorf("written %d, left out %d", s.Written, s.Duplicates)
	}
}

// A Run that begins while Forget is under way begins anew, and its position is kept.
func TestARunBesideForgetKeepsItsPosition(t *testing.T) {
	db, _ := opened(t, at(newYear), Config{})
	in := one(t, db, "in")
	write(t, in, 1)
	run := func() {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- in.Group("g").Run(ctx, nowhere) }()
		until(t, "the record is read", func() bool {
			s := in.Stats().Readers
			return len(s) == 1 && s[0].Running > 0 && s[0].Lag == 0
		})
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	run()
	for i := range 50 {
		forgot := make(chan error, 1)
		go func() { forgot <- in.Forget("g") }()
		time.Sleep(time.Duration(i%10) * 20 * time.Microsecond)
		run()
		if <-forgot != nil {
			continue // it was running
		}
		if pos, _, err := in.reader(readerName{"g", false}).load(in.parts[0]); pos == nil || err != nil {
			t.Fatalf("try %d: no position is kept: %v", i, err)
		}
	}
}

// What the second Run of an All holds on to does not grow with time.
func TestTheSecondRunOfAnAllHoldsOneValueOfEachKey(t *testing.T) {
	now := at(newYear)
	db, _ := opened(t, now, Config{})
	in := one(t, db, "in")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	var came [2]atomic.Int64
	for i := range 2 {
		to := kemi.SinkFunc[reading](func(context.Context, []reading) error { came[i].Add(1); return nil })
		f := kemi.Pipe(fmt.Sprint("f", i), in.All("a"), kemi.Transform[reading, reading](newDifferences()), kemi.Sink[reading](to))
		go func() { done <- (&kemi.Pipeline{Flows: []*kemi.Flow{f}}).Run(ctx) }()
	}
	r := in.reader(readerName{"a", true})
	for n := range int64(20) {
		write(t, in, 1)
		until(t, "both have read it", func() bool { return came[0].Load() > n && came[1].Load() > n })
		if err := db.wait(&request{keep: true}); err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	if held := len(r.pools[1].lanes[0].held); held != 1 {
		t.Errorf("%d values of one host", held)
	}
	r.mu.Unlock()
	cancel()
	<-done
	<-done
}
