package bustest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

const partitions = 5

// harness is what a check works with.
type harness struct {
	testing.TB
	bus Bus
	rnd *rand.Rand // of the check's own goroutine
}

func (h *harness) open(t Topic) bus.Topic[Record] {
	h.Helper()
	return h.openNamed("bustest", t)
}

func (h *harness) openNamed(name string, t Topic) bus.Topic[Record] {
	h.Helper()
	t.Partitions = partitions
	topic := h.bus.Open(h, name, t)
	if topic == nil {
		h.Fatal("Open returned no topic")
	}
	return topic
}

// eventually waits until cond holds.
func (h *harness) eventually(what func() string, cond func() bool) {
	h.Helper()
	for end := time.Now().Add(h.bus.Patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("not within %v: %s", h.bus.Patience, what())
		}
		if h.Failed() {
			h.FailNow()
		}
	}
}

// producer writes records of its own keys, one batch after the other.
type producer struct {
	h     *harness
	topic kemi.Sink[Record]
	keys  []string
	wrote map[string]int // records, by key
	batch map[string]int // batches, by key
	rnd   *rand.Rand
}

func (h *harness) producer(topic kemi.Sink[Record], keys ...string) *producer {
	return &producer{h, topic, keys, map[string]int{}, map[string]int{}, rand.New(rand.NewPCG(h.rnd.Uint64(), 0))}
}

func keys(prefix string, n int) []string {
	ks := make([]string, n)
	for i := range ks {
		ks[i] = fmt.Sprint(prefix, i)
	}
	return ks
}

// send writes n records of keys at random, must succeed, and then makes rubbish of
// the slice.
func (p *producer) send(n int) {
	p.h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.h.bus.Patience)
	defer cancel()
	if err := p.try(ctx, n, ""); err != nil {
		p.h.Errorf("Write of %d records: %v", n, err)
	}
}

func (p *producer) try(ctx context.Context, n int, text string) error {
	batch := make([]Record, n)
	of := map[string]int{}
	for i := range batch {
		k := p.keys[p.rnd.IntN(len(p.keys))]
		batch[i] = Record{Key: k, Seq: p.wrote[k] + of[k], Batch: p.batch[k], Text: text}
		of[k]++
	}
	for i := range batch {
		batch[i].Of = of[batch[i].Key]
	}
	before := slices.Clone(batch)
	err := p.topic.Write(ctx, batch)
	if !slices.Equal(before, batch) {
		p.h.Error("Write changed the batch, which is not its own")
	}
	for i := range batch {
		batch[i] = Record{Key: batch[i].Key, Seq: -1, Text: "the slice was kept after Write had returned"}
	}
	if err != nil {
		return err
	}
	for k, m := range of {
		p.wrote[k] += m
		p.batch[k]++
	}
	return nil
}

// wrote is what producers have written, by key.
func wrote(ps ...*producer) map[string]int {
	all := map[string]int{}
	for _, p := range ps {
		maps.Copy(all, p.wrote)
	}
	return all
}

// running is a source that runs.
type running struct {
	h      *harness
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// start runs a source until stop or the end of the check.
func (h *harness) start(src kemi.Source[Record], out kemi.Sink[Record]) *running {
	return h.goRun(func(ctx context.Context) error { return src.Run(ctx, out) })
}

func (h *harness) goRun(run func(ctx context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{h: h, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = run(ctx)
		if ctx.Err() == nil {
			h.Errorf("Run returned (%v), and nobody had asked it to", r.err)
		}
	}()
	h.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(h.bus.Patience):
			h.Errorf("Run did not return %v after it was asked to", h.bus.Patience)
		}
	})
	return r
}

// stop asks the source to end and returns what Run returned.
func (r *running) stop() error {
	r.h.Helper()
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(r.h.bus.Patience):
		r.h.Fatalf("Run did not return %v after it was asked to", r.h.bus.Patience)
	}
	return r.err
}

func (r *running) stopCleanly() {
	r.h.Helper()
	if err := r.stop(); err != nil {
		r.h.Errorf("Run returned an error after it was asked to stop: %v", err)
	}
}
