package memory_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// history is a transform whose state is what it was fed with. Each record it gives
// out says what it knows.
type history struct {
	horizon time.Duration
	known   []string
}

func (h *history) Fork() kemi.Transform[kemi.Log, string] { return &history{horizon: h.horizon} }
func (h *history) Horizon() time.Duration                 { return h.horizon }
func (h *history) Apply(_ context.Context, dst []string, src []kemi.Log) ([]string, error) {
	for _, l := range src {
		h.known = append(h.known, l.Message)
		dst = append(dst, strings.Join(h.known, " "))
	}
	return dst, nil
}

// pipeline runs topic.Group("g") through a history until what is there is read, and
// returns what came out.
func pipeline(t *testing.T, topic *memory.Topic[kemi.Log], horizon time.Duration) (out []string) {
	t.Helper()
	var mu sync.Mutex
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Pipe("state", topic.Group("g"), &history{horizon: horizon}, kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
			mu.Lock()
			defer mu.Unlock()
			out = append(out, batch...)
			return nil
		})),
	}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return out
}

// A lane is fed what the horizon reaches back to from its position, and no more.
func TestHorizonIsCountedFromThePosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 1, Retain: time.Hour})
		pipeline(t, topic, 0)
		for i := range 10 { // one a minute
			write(t, topic, line("web1", i))
			time.Sleep(time.Minute)
		}
		pipeline(t, topic, 0)
		time.Sleep(24 * time.Hour) // an outage does not age the state
		write(t, topic, line("web1", 10))
		// The newest record before the position is 9: three minutes before it is 6.
		if got := pipeline(t, topic, 3*time.Minute); fmt.Sprint(got) != "[6 7 8 9 10]" {
			t.Errorf("the record came out of a state of %q", got)
		}
		write(t, topic, line("web1", 11))
		if got := pipeline(t, topic, 0); fmt.Sprint(got) != "[11]" {
			t.Errorf("without a horizon the state is %q", got)
		}
	})
}

// Retain is counted back from the newest record that everybody has read.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 1, Retain: 5 * time.Minute})
		pipeline(t, topic, 0)
		for i := range 60 {
			write(t, topic, line("web1", i))
			time.Sleep(time.Minute)
		}
		if held := topic.Stats().Held; held != 60 {
			t.Errorf("%d records are held, and none of 60 has been read", held)
		}
		pipeline(t, topic, 0)
		if held := topic.Stats().Held; held != 6 {
			t.Errorf("%d records are held, want those of 5 minutes, 6", held)
		}
		write(t, topic, line("web1", 60))
		if got := pipeline(t, topic, time.Hour); fmt.Sprint(got) != "[54 55 56 57 58 59 60]" {
			t.Errorf("a horizon longer than Retain gives %q", got)
		}
	})
}

func TestNothingIsKeptWithoutRetain(t *testing.T) {
	topic := lines(t, memory.Config[kemi.Log]{})
	topic.Group("g")
	for i := range 100 {
		write(t, topic, line(fmt.Sprint("web", i), i))
	}
	if got := len(pipeline(t, topic, time.Hour)); got != 100 {
		t.Errorf("%d of 100 records came out", got)
	}
	if held := topic.Stats().Held; held != 0 {
		t.Errorf("%d records are held that everybody has read", held)
	}
}

// A partition that moves to another member takes its state along.
func TestStateMovesWithThePartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 4, Retain: time.Hour})
		out := make(chan string, 1000)
		start := func() (stop func()) {
			p := kemi.Pipeline{Flows: []*kemi.Flow{
				kemi.Pipe("state", topic.Group("g"), &history{horizon: time.Hour}, kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
					for _, s := range batch {
						out <- s
					}
					return nil
				})),
			}}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- p.Run(ctx) }()
			return func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		want := ""
		step := func(i int) {
			t.Helper()
			write(t, topic, line("web1", i))
			want = strings.TrimSpace(fmt.Sprint(want, " ", i))
			if got := <-out; got != want {
				t.Errorf("record %d came out of a state of %q, want %q", i, got, want)
			}
		}
		stop := start()
		for i := range 20 {
			step(2 * i)
			other := start()
			step(2*i + 1)
			stop()
			stop = other
		}
		stop()
	})
}

// A replay goes on when what it was about to read is dropped, because a slower reader
// that held it has caught up.
func TestReplayOutlivesWhatItReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := lines(t, memory.Config[kemi.Log]{Partitions: 1, Retain: 90 * time.Second})
		g, slow := topic.Group("g"), topic.Group("slow")
		for i := range 10 {
			var batch []kemi.Log // too large to be read together with the next
			for range 200 {
				batch = append(batch, line("web1", i))
			}
			write(t, topic, batch...)
			time.Sleep(time.Minute)
		}
		drain(t, g)

		blocked, free := make(chan struct{}), make(chan struct{})
		var replayed []string
		block := sync.OnceFunc(func() { close(blocked); <-free })
		state := kemi.TransformFunc[kemi.Log, kemi.Log](func(_ context.Context, dst, src []kemi.Log) ([]kemi.Log, error) {
			replayed = append(replayed, src[0].Message)
			block()
			return append(dst, src...), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", g, kemi.Transform[kemi.Log, kemi.Log](warmed{state}),
			kemi.SinkFunc[kemi.Log](func(context.Context, []kemi.Log) error { return nil }))}}
		go func() { ended <- p.Run(ctx) }()
		<-blocked
		drain(t, slow)
		close(free)
		synctest.Wait()
		write(t, topic, line("web1", 10))
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(replayed); got != "[0 8 9 10]" {
			t.Errorf("the state was fed %v, want what was there: [0 8 9 10]", got)
		}
	})
}

// warmed gives a transform a horizon.
type warmed struct {
	kemi.Transform[kemi.Log, kemi.Log]
}

func (warmed) Horizon() time.Duration { return time.Hour }
