package sink

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// Coalesce returns a sink that puts the batches of many writers together into fewer,
// larger ones for to: a group commit. Nobody is answered before to has answered, and
// each writer learns of its own records only.
//
// A batch is handed on when it has max records or when linger has passed since its
// first writer came, but only one at a time: who comes while to is busy goes with
// the next. With a linger of 0 that is all the waiting there is, and writers that are
// alone are not delayed. max of 0 is 1000. A batch of max records or more is handed
// on by itself, as it is, and at once.
//
// A writer that gives up, because its context is done, gets an error; its records
// may still be written. The context to is given has the values of the first writer's
// and is cancelled when all writers of a batch have given up. If to refuses a batch
// of several writers for good and does not say which record it means, each writer's
// part is written by itself, so that nobody suffers for another's record.
//
// Records of several writers have no common origin on the bus. A durable topic behind
// takes them, and cannot tell which of them it has had when a flow begins again after
// a crash: put Coalesce before stores, and not before topics.
//
// There is a goroutine while somebody waits, and none when nobody does.
func Coalesce[T any](to kemi.Sink[T], max int, linger time.Duration) kemi.Sink[T] {
	if max <= 0 {
		max = 1000
	}
	return &coalescer[T]{to: to, max: max, linger: linger, turn: make(chan struct{}, 1)}
}

type coalescer[T any] struct {
	to     kemi.Sink[T]
	max    int
	linger time.Duration
	turn   chan struct{} // holds one token while to is being written to

	mu    sync.Mutex
	open  *flush[T] // takes further writers; nil: there is none
	spare []T       // the array of a flush that is over
}

// flush is one batch for to, and those who wait for it.
type flush[T any] struct {
	ctx    context.Context
	cancel context.CancelFunc
	closed chan struct{} // no more writers are taken
	done   chan struct{} // parts have their results

	// Under the mutex of the coalescer while the flush is open, then its leader's
	// until done is closed.
	batch []T
	parts []share

	waiting int // writers that have not given up; under the mutex
}

// share is one writer's part of a flush.
type share struct {
	from, to int
	failed   []kemi.Failure // by index in the share
	err      error          // of the whole share
}

func (c *coalescer[T]) String() string { return name(c.to) }

func (c *coalescer[T]) Write(ctx context.Context, batch []T) error {
	n := len(batch)
	switch {
	case n == 0:
		return nil
	case n >= c.max:
		return c.to.Write(ctx, batch)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	c.mu.Lock()
	f := c.open
	if f != nil && len(f.batch)+n > c.max {
		c.shut(f)
		f = nil
	}
	if f == nil {
		f = c.begin(ctx)
	}
	me := len(f.parts)
	f.parts = append(f.parts, share{from: len(f.batch), to: len(f.batch) + n})
	f.batch = append(f.batch, batch...)
	f.waiting++
	if len(f.batch) >= c.max {
		c.shut(f)
	}
	c.mu.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
		if !c.leave(f) {
			return fmt.Errorf("gave up waiting for %s: %w", name(c.to), context.Cause(ctx))
		}
	}
	s := &f.parts[me]
	if s.err != nil {
		return s.err
	}
	return kemi.Partial(batch, s.failed...)
}

// begin opens a flush and starts its leader. The caller holds the mutex.
func (c *coalescer[T]) begin(ctx context.Context) *flush[T] {
	f := &flush[T]{closed: make(chan struct{}), done: make(chan struct{}), batch: c.spare[:0]}
	c.spare = nil
	// The origin is valid until this Write returns, and the flush may be longer under way.
	values := context.WithoutCancel(ctx)
	if b := origin.Of(ctx); b != nil {
		values = origin.With(values, &origin.Batch{Source: b.Source, Marks: slices.Clone(b.Marks)})
	}
	f.ctx, f.cancel = context.WithCancel(values)
	c.open = f
	go c.lead(f)
	return f
}

// shut lets no more writers into an open flush. The caller holds the mutex.
func (c *coalescer[T]) shut(f *flush[T]) {
	if c.open == f {
		c.open = nil
		close(f.closed)
	}
}

// leave takes a writer that gives up out of a flush, unless it is done after all.
// When it was the last one, nobody wants the flush any more.
func (c *coalescer[T]) leave(f *flush[T]) (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-f.done:
		return true
	default:
	}
	if f.waiting--; f.waiting == 0 {
		c.shut(f)
		f.cancel()
	}
	return false
}

// lead brings one flush to its end.
func (c *coalescer[T]) lead(f *flush[T]) {
	defer f.cancel()
	if c.linger > 0 {
		t := time.NewTimer(c.linger)
		select {
		case <-t.C:
		case <-f.closed:
		}
		t.Stop()
	}
	select {
	case c.turn <- struct{}{}:
	case <-f.ctx.Done():
		return // nobody waits
	}
	c.mu.Lock()
	c.shut(f)
	c.mu.Unlock()
	answered := false
	defer func() {
		for i := range f.parts {
			if !answered && f.parts[i].err == nil {
				f.parts[i].err = errEnded
			}
		}
		<-c.turn
		c.mu.Lock()
		defer c.mu.Unlock()
		c.spare = f.batch[:0]
		close(f.done)
	}()
	if f.ctx.Err() == nil {
		f.write(c.to)
	}
	answered = true
}

// write writes the batch and gives each writer its part of the answer.
func (f *flush[T]) write(to kemi.Sink[T]) {
	ctx := f.ctx
	if len(f.parts) > 1 {
		ctx = origin.With(ctx, nil)
	}
	err := write(ctx, to, f.batch)
	if err == nil {
		return
	}
	failed, partial := failures(err, f.batch)
	for i := range f.parts {
		s := &f.parts[i]
		switch {
		case partial:
			s.take(failed, s.from)
		case kemi.IsPermanent(err) && len(f.parts) > 1 && f.ctx.Err() == nil:
			own := f.batch[s.from:s.to]
			e := write(ctx, to, own)
			if failed, ok := failures(e, own); ok {
				s.take(failed, 0)
			} else {
				s.err = e
			}
		default:
			s.err = err
		}
	}
}

// take keeps the failures of the share, whose first record has the index first.
func (s *share) take(failed []kemi.Failure, first int) {
	for _, x := range failed {
		if i := x.Index - first; i >= 0 && i < s.to-s.from {
			s.failed = append(s.failed, kemi.Failure{Index: i, Err: x.Err})
		}
	}
}
