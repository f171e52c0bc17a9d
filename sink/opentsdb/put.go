package opentsdb

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// Write stores the metrics of batch. See the package for what a nil answer means.
func (s *Sink) Write(ctx context.Context, batch []kemi.Metric) error {
	if len(batch) == 0 {
		return nil
	}
	p := s.plan(batch)
	defer s.release(p)
	d := &delivery{plan: p, sink: s, ctx: ctx}
	d.run()
	s.points.Add(uint64(len(p.points) - d.lost))
	return kemi.Partial(batch, p.failed...)
}

// delivery is one Write under way.
type delivery struct {
	*plan
	sink *Sink
	ctx  context.Context

	mu   sync.Mutex // guards failed and lost
	lost int        // points that were not stored
	// stop is why no more requests are sent: the server is down, or stuck, or says
	// that it is too much. What is left is tried again later.
	stop atomic.Pointer[error]
}

// run sends the points, in requests of about the same size.
func (d *delivery) run() {
	s, n := d.sink, len(d.points)
	if n == 0 {
		return
	}
	// The limit counts compressed bytes, which are not known beforehand: the last
	// ratio is a good guess, and a body that comes out too large is halved.
	size := int64(len(d.json)) * s.ratio.Load() / 1000
	requests := min(n, max(int(size/(s.limit.Load()*9/10))+1, (n+s.cfg.MaxPoints-1)/s.cfg.MaxPoints))
	var next atomic.Int64
	work := func() {
		for k := int(next.Add(1)) - 1; k < requests; k = int(next.Add(1)) - 1 {
			d.send(k*n/requests, (k+1)*n/requests)
		}
	}
	var wg sync.WaitGroup
	for range min(requests, s.cfg.Connections) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// fail lists points [i,j) as failed.
func (d *delivery) fail(i, j int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.points[i:j] {
		d.failed = append(d.failed, kemi.Failure{Index: p.index, Err: err})
	}
	d.lost += j - i
}

// giveUp lists points [i,j) as failed and sends nothing more.
func (d *delivery) giveUp(i, j int, err error) {
	d.stop.CompareAndSwap(nil, &err)
	d.fail(i, j, err)
}

// send brings points [i,j) to the server, or lists them as failed.
func (d *delivery) send(i, j int) {
	if stop := d.stop.Load(); stop != nil {
		d.fail(i, j, *stop)
		return
	}
	s := d.sink
	points := d.json[d.points[i].start:d.points[j-1].end]
	body := s.body(points)
	n := int64(len(body))
	alone := j-i == 1
	switch {
	case !alone && n > s.limit.Load():
		d.halve(i, j)
		return
	case alone && n > int64(min(s.cfg.MaxBytes, anyServer)):
		d.fail(i, j, kemi.Permanent(fmt.Errorf("%s: one metric takes %d bytes, more than a request may have", s.name, n)))
		return
	}

	a := s.post(d.ctx, body, len(points), j-i)
	switch {
	case a.err == nil:
		raise(&s.passed, n)
		d.judge(&a, i, j)
	case a.tooLarge && alone:
		d.fail(i, j, kemi.Permanent(fmt.Errorf("one metric takes %d bytes: %w", n, a.err)))
	case a.tooLarge:
		s.lowerLimit(n / 2)
		d.halve(i, j)
	case a.closed && !alone && n > anyServer && n > s.passed.Load():
		// With chunks enabled, the server closes the connection on a body over its limit
		// and says nothing. It was that, and not a server going away, if smaller bodies are
		// answered. A size that was answered before is above suspicion, once.
		d.halve(i, j)
		if d.stop.Load() == nil {
			s.lowerLimit(n / 2)
		}
	default:
		if n <= s.passed.Load() {
			s.passed.Store(n - 1)
		}
		d.giveUp(i, j, a.err)
	}
}

// halve sends points [i,j) in two requests, one after the other.
func (d *delivery) halve(i, j int) {
	mid := i + (j-i)/2
	d.send(i, mid)
	d.send(mid, j)
}

func raise(v *atomic.Int64, to int64) {
	for old := v.Load(); to > old && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

// lowerLimit remembers that a body has to be of n bytes at most.
func (s *Sink) lowerLimit(n int64) {
	n = max(n, minBytes)
	for old := s.limit.Load(); n < old && !s.limit.CompareAndSwap(old, n); old = s.limit.Load() {
	}
	s.tell.Do(func() {
		s.log.Warn("the server refuses requests of this size, so smaller ones are sent; for larger ones "+
			"set tsd.http.request.enable_chunked = true and tsd.http.request.max_chunk to MaxBytes or more on the server",
			zap.String("sink", s.name), zap.Int("MaxBytes", s.cfg.MaxBytes), zap.Int64("now", n))
	})
}
