package disk

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
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
		case <-time.After(10 * time.Second):
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
