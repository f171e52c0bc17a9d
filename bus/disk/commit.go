package disk

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/origin"
)

const (
	groupMax    = 8 << 20               // bytes that are synced together; one Write may go beyond it
	keepEvery   = 10 * time.Millisecond // positions ride along with what is written, so often at most …
	flushEvery  = 50 * time.Millisecond // … and by themselves where nothing is
	slowByClock = int64(time.Minute)
)

// queue is what waits for the committer.
type queue struct {
	mu      sync.Mutex
	pending []*request
	bytes   int  // of pending
	urgent  int  // of pending: those that are no Write
	patient bool // the committer waits for more
	closed  bool
	wake    chan struct{} // holds a token when something waits, and is not to wait for more
}

// request is what one caller wants on the disk: all of it in one batch of the engine.
type request struct {
	topic   *topic // nil: entries have no origin
	entries []entry
	source  origin.Source // zero: not known
	marks   []origin.Mark // of source: End counts entries; a Seq that is there already is left out
	records []int         // by mark, to count what is left out
	write   func(b *pebble.Batch)
	keep    bool // keep the positions of all readers with it, now
	patient bool // may wait for others

	bytes int    // of entries
	left  uint64 // records that were left out; for the caller when it is done
	taken atomic.Bool
	done  chan error
}

// entry is a record on its way to the disk.
type entry struct {
	part *part
	body []byte
	sum  uint32 // of body
}

var (
	tickBody = appendBody(nil, true, 0, "", 0, nil)
	tickSum  = checksum(tickBody)
)

// submit hands r to the committer.
func (d *DB) submit(r *request) error {
	if r.done == nil {
		r.done = make(chan error, 1)
	}
	for _, e := range r.entries {
		r.bytes += len(e.body)
	}
	q := &d.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.pending = append(q.pending, r)
	q.count(r, 1)
	if !q.patient || !q.mayWait() {
		q.rouse()
	}
	return nil
}

// count is called with the lock held, as is …
func (q *queue) count(r *request, n int) {
	q.bytes += n * r.bytes
	if !r.patient {
		q.urgent += n
	}
}

// … mayWait, which tells whether what is pending may wait for more, and rouse.
func (q *queue) mayWait() bool { return q.urgent == 0 && q.bytes < paceBytes }

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// await returns when what is pending is not to wait for more, or at a time.
func (d *DB) await(due time.Time) {
	left := time.Until(due)
	if left <= 0 {
		return
	}
	q := &d.queue
	q.mu.Lock()
	q.patient = q.mayWait()
	if !q.patient {
		q.mu.Unlock()
		return
	}
	select {
	case <-q.wake: // of one that may wait
	default:
	}
	q.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-q.wake:
	case <-timer.C:
	case <-d.done:
	}
}

// wait submits and returns when r is safe. It is not to be given up half way.
func (d *DB) wait(r *request) error {
	if err := d.submit(r); err != nil {
		return err
	}
	return <-r.done
}

// take returns what is to be synced together next.
func (q *queue) take(dst []*request) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.patient = false
	n, bytes := 0, 0
	for n < len(q.pending) && bytes < groupMax {
		bytes += q.pending[n].bytes
		q.count(q.pending[n], -1)
		n++
	}
	dst = append(dst, q.pending[:n]...)
	rest := copy(q.pending, q.pending[n:])
	clear(q.pending[rest:])
	if q.pending = q.pending[:rest]; rest > 0 {
		q.rouse()
	}
	return dst
}

// commits is the committer.
func (d *DB) commits() {
	c := committer{DB: d, touched: map[*part]struct{}{}}
	timer := time.NewTicker(flushEvery)
	defer timer.Stop()
	var group []*request
	for {
		idle := false
		select {
		case <-d.queue.wake:
			d.await(c.pace.due())
		case <-timer.C:
			idle = true
		case <-d.done:
			d.queue.mu.Lock()
			d.queue.closed = true
			d.queue.mu.Unlock()
			for group = d.queue.take(group[:0]); len(group) > 0; group = d.queue.take(group[:0]) {
				c.commit(group, true)
			}
			c.commit(nil, true)
			return
		}
		group = d.queue.take(group[:0])
		c.commit(group, idle)
		clear(group)
	}
}

// committer is what only the committer's goroutine uses.
type committer struct {
	*DB
	kept    time.Time // when positions were kept last
	touched map[*part]struct{}
	held    []*request
	pace    pace
}

// commit writes a group of requests, and what readers have come to, in one synced batch.
func (c *committer) commit(group []*request, idle bool) {
	now, wall := c.clock.now()
	c.watchClock(now, wall)
	b := c.engine.NewBatch()
	defer func() { _ = b.Close() }()
	c.held = c.held[:0]
	appended, asked, writes := false, false, 0
	for _, r := range group {
		if !r.taken.CompareAndSwap(false, true) {
			continue // its caller has gone
		}
		c.held = append(c.held, r)
		asked = asked || r.keep
		if r.patient {
			writes++
		}
		if c.append(b, r, now) {
			appended = true
		}
		if r.write != nil {
			r.write(b)
		}
	}
	real := time.Now()
	if c.guard.state.Load() != roomy {
		c.watchDisk() // it may be worse by now
	}
	calm := c.guard.state.Load() != dire
	if asked || calm && (idle || real.Sub(c.kept) >= keepEvery) {
		c.keepPositions(b)
		if !b.Empty() {
			c.kept = real
		}
	}
	switch {
	case !b.Empty():
		c.trailed = false
	case idle && calm && !c.trailed && len(c.held) == 0:
		// What stands at the very end of the engine's log cannot be told from a torn end
		// when it is damaged. So something that nobody needs is to stand there.
		c.trailed = true
		_ = b.LogData([]byte("end"), nil)
	}
	if appended {
		c.clock.appended(now)
	}
	if !b.Empty() {
		c.pace.synced(real, writes)
		if err := b.Commit(pebble.Sync); err != nil {
			c.die(err.Error())
		}
	}
	if appended {
		c.noted.Store(true)
		c.wrote(len(b.Repr()))
	}
	for p := range c.touched {
		p.publish()
	}
	clear(c.touched)
	for _, r := range c.held {
		r.done <- nil
	}
	clear(c.held)
}

// watchClock tells when the clock has been set back far, once.
func (c *committer) watchClock(now, wall int64) {
	switch {
	case now-wall > slowByClock && !c.slow:
		c.tellSlow(now, wall)
	case now == wall && c.slow:
		c.slow = false
		c.log.Info("disk: the clock has come to the time of the newest record", zap.Time("now", clockOf(wall)))
	}
}

// append puts the records of r into b, but for those that are there already.
func (c *committer) append(b *pebble.Batch, r *request, now int64) (some bool) {
	if len(r.entries) == 0 {
		return false
	}
	if r.source == (origin.Source{}) {
		for i := range r.entries {
			c.put(b, &r.entries[i], now)
		}
		return true
	}
	from, before := 0, r.topic.marks[r.source]
	mark := before
	for i, m := range r.marks {
		if m.Seq <= mark {
			r.left += uint64(r.records[i])
			r.topic.duplicates.Add(uint64(r.records[i]))
		} else if m.End > from {
			mark, some = m.Seq, true
			for j := from; j < m.End; j++ {
				c.put(b, &r.entries[j], now)
			}
		}
		from = m.End
	}
	if mark != before {
		key := markKey(r.topic.id, r.source.Partition, r.source.Reader)
		_ = b.Set(key, sealInts(key, uint64(mark)), nil)
		r.topic.marks[r.source] = mark
	}
	return some
}

// put gives a record its place in the log.
func (c *committer) put(b *pebble.Batch, e *entry, now int64) {
	p := e.part
	n := headLen + len(e.body)
	op := b.SetDeferred(offsetKeyLen, n)
	copy(op.Key, offsetKey(kindRecord, p.topic.id, p.number, p.next))
	copy(op.Value[headLen:], e.body)
	p.written += uint64(n)
	if !isTick(e.body) {
		p.count++
	}
	putHead(op.Value, op.Key, e.sum, now, p.written, p.count)
	_ = op.Finish() // fails with an indexed batch alone
	p.next++
	p.time = now
	c.touched[p] = struct{}{}
}

// publish lets readers have what is safe now.
func (p *part) publish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end, p.last, p.size, p.counted = p.next, p.time, p.written, p.count
	for w := range p.lanes {
		w.rouse()
	}
}
