package memory_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/memory"
)

// line is a log line of a host, numbered.
func line(host string, n int) kemi.Log { return kemi.Log{Host: host, Message: fmt.Sprint(n)} }

func lines(t testing.TB, c memory.Config[kemi.Log]) *memory.Topic[kemi.Log] {
	topic, err := memory.NewTopic("lines", c)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func write(t testing.TB, topic kemi.Sink[kemi.Log], batch ...kemi.Log) {
	t.Helper()
	if err := topic.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

// drain runs src until it has handed over what is there, and returns that.
func drain(t testing.TB, src kemi.Source[kemi.Log]) (messages []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hosts := make(chan kemi.Log, 10_000)
	err := src.Run(ctx, kemi.SinkFunc[kemi.Log](func(_ context.Context, batch []kemi.Log) error {
		for _, l := range batch {
			hosts <- l
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	close(hosts)
	for l := range hosts {
		messages = append(messages, l.Message)
	}
	return messages
}

func TestNobodyReadsSoTheOldestIsDropped(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{Capacity: 10})
	for i := range 100 {
		write(t, topic, line(fmt.Sprint("web", i), i))
	}
	if s := topic.Stats(); s.Written != 100 || s.Dropped != 90 || s.Held != 10 {
		t.Errorf("after 100 records for nobody: %+v", s)
	}
	seen := map[string]bool{}
	for _, m := range drain(t, topic.Group("late")) {
		seen[m] = true
	}
	for i := 90; i < 100; i++ {
		if !seen[fmt.Sprint(i)] {
			t.Errorf("record %d of the newest 10 is gone; there are %v", i, seen)
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d records, want 10", len(seen))
	}
}

func TestNewestBatchStaysHoweverLarge(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{Capacity: 10})
	batch := make([]kemi.Log, 50)
	for i := range batch {
		batch[i] = line("web1", i)
	}
	write(t, topic, batch...)
	write(t, topic, batch...)
	if got := drain(t, topic.Group("late")); len(got) != 50 {
		t.Errorf("%d records are there, want the 50 of the newest batch", len(got))
	}
}

// A name counts from the moment its source is made: what is written before a flow
// has started is not lost.
func TestNameThatDoesNotRunYetKeepsRecords(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{Capacity: 10})
	g := topic.Group("g")
	for i := range 10 {
		write(t, topic, line("web1", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := topic.Write(ctx, []kemi.Log{line("web1", 10)}); err == nil {
		t.Fatal("an eleventh record was taken, and nothing has been read")
	} else if want := `memory: topic [lines] is full: 10 records wait for "g": context deadline exceeded`; err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
	if got := drain(t, g); fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
		t.Errorf("got %v", got)
	}
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Capacity: 10})
		topic.Group("gone")
		topic.All("gone")
		for i := range 10 {
			write(t, topic, line("web1", i))
		}
		blocked := make(chan error)
		go func() { blocked <- topic.Write(t.Context(), []kemi.Log{line("web1", 10)}) }()
		synctest.Wait()
		if s := topic.Stats(); s.Blocked != 1 || len(s.Readers) != 2 || s.Readers[0].Waiting != 10 {
			t.Errorf("with two readers that do not run: %+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		run := topic.All("gone")
		go func() {
			ended <- run.Run(ctx, kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error { return nil }))
		}()
		synctest.Wait()
		if err := topic.Forget("gone"); err == nil {
			t.Error("a name that runs was forgotten")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := topic.Forget("gone"); err != nil {
			t.Error(err)
		}
		if err := <-blocked; err != nil {
			t.Errorf("a writer still waits for a reader that is forgotten: %v", err)
		}
		if s := topic.Stats(); len(s.Readers) != 0 || s.Blocked != 0 || s.Dropped != 0 {
			t.Errorf("after Forget: %+v", s)
		}
	})
}

func TestStats(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{})
	a, b := topic.All("b"), topic.Group("z")
	topic.Group("c")
	write(t, topic, line("web1", 0), line("web2", 1), line("web1", 2))
	drain(t, a)
	drain(t, b)
	write(t, topic, line("web1", 3))
	want := memory.Stats{Written: 4, Held: 4, Readers: []memory.Lag{
		{Name: "c", Waiting: 4}, {Name: "z", Waiting: 1}, {Name: "b", All: true, Waiting: 1},
	}}
	if got := topic.Stats(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []memory.Config[kemi.Log]{{Partitions: -1}, {Capacity: -1}, {Retain: -1}} {
		if _, err := memory.NewTopic("lines", c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	if _, err := memory.NewTopic("", memory.Config[kemi.Log]{}); err == nil {
		t.Error("a topic without a name was made")
	}
}

// A type without a key is of one key: everything in order.
func TestNoKeyKeepsTheOrderOfAll(t *testing.T) {
	topic, err := memory.NewTopic("dead", memory.Config[kemi.DeadLetter]{})
	if err != nil {
		t.Fatal(err)
	}
	var _ bus.Topic[kemi.DeadLetter] = topic
	g := topic.Group("g")
	for i := range 100 {
		if err := topic.Write(t.Context(), []kemi.DeadLetter{{Error: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	next := 0
	err = g.Run(ctx, kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
		for _, d := range batch {
			if d.Error != fmt.Sprint(next) {
				t.Errorf("letter %s came when %d was next", d.Error, next)
			}
			next++
		}
		return nil
	}))
	if err != nil || next != 100 {
		t.Errorf("%d of 100 letters: %v", next, err)
	}
}
