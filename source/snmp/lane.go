package snmp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// lane is a fork of a Poller: where the results of its jobs come together.
type lane struct {
	p     *Poller
	mu    sync.Mutex
	ready []*poll // that have ended, in that order
}

var errClosed = errors.New("snmp: the poller is closed")

// batch is what one Apply waits for.
type batch struct {
	mu   sync.Mutex
	left int
	done chan struct{}
}

func (b *batch) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left--; b.left == 0 {
		close(b.done)
	}
}

// Apply is that of Poller.
func (l *lane) Apply(ctx context.Context, dst []kemi.Metric, src []kemi.Job) ([]kemi.Metric, error) {
	if err := ctx.Err(); err != nil {
		return dst, err
	}
	b := &batch{left: 1, done: make(chan struct{})} // one for the loop itself
	var refused []kemi.Failure
	var started []*poll
	for i := range src {
		q, err := l.start(&src[i], b)
		switch {
		case errors.Is(err, errClosed):
			l.disown(started)
			return dst, err
		case err != nil:
			l.p.count.refused.Add(1)
			refused = append(refused, kemi.Failure{Index: i, Err: kemi.Permanent(err)})
		case q != nil:
			started = append(started, q)
		}
	}
	b.finish()
	if err := l.wait(ctx, b); err != nil {
		l.disown(started)
		return dst, err
	}
	dst = l.take(dst)
	for _, f := range refused {
		l.tellRefused(&src[f.Index])
	}
	return dst, kemi.Partial(src, refused...)
}

// tellRefused says that the host of a job that cannot be polled is not watched: the
// dead letter tells whoever reads those, up tells the rules. It comes with the next
// Apply or Tick, since a refused record has no results of its own.
func (l *lane) tellRefused(j *kemi.Job) {
	if j.Resource == "" {
		return
	}
	labels, t := labelsOf(j), time.Now().UTC()
	l.deliver(&poll{out: []kemi.Metric{
		kemi.Gauge("up", labels, t, 0),
		kemi.Gauge("snmp_failure", labels.With("reason", string(misconfigured)), t, 1),
	}})
}

// wait waits until the batch is done or the patience has passed.
func (l *lane) wait(ctx context.Context, b *batch) error {
	if l.p.cfg.Patience < 0 {
		return nil
	}
	select {
	case <-b.done:
		return nil
	default:
	}
	t := time.NewTimer(l.p.cfg.Patience)
	defer t.Stop()
	select {
	case <-b.done:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.p.ctx.Done():
		return errClosed
	}
	return nil
}

// disown leaves no trace of the jobs of an Apply that fails: they will come again.
func (l *lane) disown(polls []*poll) {
	for _, q := range polls {
		q.h.mu.Lock()
		if q.lane == l {
			q.lane = nil
		}
		q.h.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = slices.DeleteFunc(l.ready, func(q *poll) bool { return slices.Contains(polls, q) })
}

func (l *lane) deliver(q *poll) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = append(l.ready, q)
}

// Tick is that of Poller.
func (l *lane) Tick(_ context.Context, dst []kemi.Metric, _ time.Time) ([]kemi.Metric, error) {
	return l.take(dst), nil
}

func (l *lane) take(dst []kemi.Metric) []kemi.Metric {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.ready {
		dst = append(dst, q.out...)
		l.ready[i] = nil
	}
	l.ready = l.ready[:0]
	return dst
}

// start starts the poll of one job, unless it is too late for it or the host is being
// polled already.
func (l *lane) start(j *kemi.Job, b *batch) (*poll, error) {
	p := l.p
	p.count.jobs.Add(1)
	if j.Resource == "" || j.Target == "" {
		return nil, fmt.Errorf("snmp: job for %q: it needs a resource and a target", j.Resource+j.Target)
	}
	sec, err := p.lookup(j.Auth)
	if err != nil {
		return nil, fmt.Errorf("snmp: job for %s: %w", j.Resource, err)
	}
	pl, err := p.planOf(j.Profiles)
	if err != nil {
		return nil, fmt.Errorf("snmp: job for %s: %w", j.Resource, err)
	}
	now := time.Now()
	if !j.Deadline.IsZero() && now.After(j.Deadline) {
		dropped := p.count.stale.Add(1)
		if p.toldStale.due(now) {
			p.log.Warn("a poll job came after its deadline and was dropped: the jobs wait too long, or the clocks of the machines differ",
				zap.String("host", j.Resource), zap.Duration("late", now.Sub(j.Deadline)), zap.Uint64("dropped_so_far", dropped))
		}
		return nil, nil
	}
	h := p.host(hostKey{j.Resource, j.Target, j.Auth}, j.Interval, now)
	q := newPoll(p, h, *j, pl, sec, l, now)

	if !p.begin() {
		p.count.aborted.Add(1)
		return nil, errClosed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != nil {
		h.now.lane = l // whoever asked last gets the result
		p.count.joined.Add(1)
		p.polls.Done()
		return nil, nil
	}
	if h.prompt(p.cfg.Patience) {
		q.batch = b
		b.mu.Lock()
		b.left++
		b.mu.Unlock()
	}
	h.now = q
	p.count.running.Add(1)
	go q.run()
	return q, nil
}
