package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/internal/recovery"
)

const (
	laneMin = 256 << 10 // bytes that a lane may hold however many there are
	// far is how much later than now a record may be before it is told.
	far = time.Minute
)

// lane is one partition on its way into the flow, with a goroutine of its own.
type lane[T any] struct {
	*member[T]
	p     int32
	rec   *recovery.Lane[T]
	pos   *recovery.Position
	kept  []kemi.Kept
	first int64
	back  bool // it begins before the committed offset
	part  *part

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	begun  atomic.Bool
	closed sync.Once

	mu      sync.Mutex
	queue   []fetched
	bytes   int
	most    int
	next    int64 // after what has come
	paused  bool  // it has enough
	resting bool  // it cannot be read; it is tried again in a while
	over    bool
	rested  time.Time // when it could not be read last
	heard   time.Time // when something came last
	wake    chan struct{}

	ticking atomic.Bool

	// Under member.committing:
	keeper *keeper
	text   string // of the last commit
	long   string // the position of the last commit, where it did not fit
	staged string // as long, of the next
}

// fetched is records as they came.
type fetched struct {
	records []*kgo.Record
	bytes   int // that they take up, as near as need be
}

// addedMax is how many records are fed at once. More would not make a Write cheaper.
const addedMax = 1024

// open opens the lane of a partition; run is to be called. A reader with many opens
// all before it runs any.
func (m *member[T]) open(p int32, at int64, meta metadata, found []raw, first, end int64) (*lane[T], error) {
	l := &lane[T]{
		member: m, p: p, first: first, part: m.seen.part(p), keeper: newKeeper(m.group, m.topic.name, p),
		done: make(chan struct{}), wake: make(chan struct{}, 1), heard: time.Now(),
	}
	if at >= 0 {
		pos := meta.position
		kept, long, err := l.keeper.begin(found, meta.kept, m.all)
		if errors.Is(err, errStateGone) {
			err = nil
			m.seen.gone.Add(1)
			gone := fmt.Errorf("partition %d: %w: look whether topic %q was deleted, made again, or is not compacted; the reader goes on without it",
				p, errStateGone, m.topic.c.config.StateTopic)
			m.seen.fail(gone)
			m.topic.c.config.Logger.Error("kafka: kept state is lost", zap.String("group", m.group), zap.Error(gone))
		}
		if err != nil {
			return nil, err
		}
		if pos == nil {
			pos = long
		}
		if pos == nil || pos.Next != at {
			// Somebody has set the offset with another tool: that is where to go on, and
			// nothing is known of the input before it.
			m.topic.c.config.Logger.Warn("kafka: a committed offset has no position of kemi beside it, or another: the reader starts there without its state",
				zap.String("group", m.group), zap.Int32("partition", p), zap.Int64("offset", at))
			pos, kept = &recovery.Position{Next: at, Rewind: at, Torn: true}, nil
		}
		l.pos, l.kept = pos, kept
	}
	l.ctx, l.cancel = context.WithCancel(m.ctx)
	l.rec = recovery.Open(m.out, recovery.Config[T]{
		Topic: m.topic.name, Log: m.log(), Reader: m.name, All: m.all, Partition: p, Find: m.topic.find, Counts: &m.seen.counts,
	})
	l.next = first
	if l.pos != nil && l.pos.Next > end {
		// The offsets from end on are given out again, and what comes there is new.
		m.tellLost(p, l.pos.Next, end, errors.New("the log ends before the committed offset, unless somebody has set that"))
		l.back = true
		l.pos.Back(end, l.rec.Horizon() > 0)
	}
	if l.pos != nil {
		from := l.pos.Next
		if l.rec.Horizon() > 0 {
			from = l.pos.Rewind
		}
		l.next = max(from, first)
	}
	l.part.next.Store(l.next)
	l.part.owned.Store(true)
	return l, nil
}

// run feeds the lane until its context is done or it fails.
func (l *lane[T]) run() {
	defer close(l.done)
	err := l.feed()
	if err != nil && l.ctx.Err() == nil {
		l.fail(err)
	}
}

func (l *lane[T]) feed() error {
	if _, err := l.rec.Begin(l.ctx, l.pos, l.kept, l.first); err != nil {
		return err
	}
	l.begun.Store(true)
	tick := l.topic.c.config.Tick
	var timer *time.Timer
	var due <-chan time.Time
	if l.rec.Ticks() {
		timer = time.NewTimer(tick)
		defer timer.Stop()
		due = timer.C
	}
	var queue []fetched
	parse := parser{codec: l.topic.config.Codecs.Write.Name()}
	for {
		if queue = l.take(queue); len(queue) == 0 {
			select {
			case <-l.wake:
			case <-due:
				timer.Reset(l.silence(tick))
			case <-l.ctx.Done():
				return nil
			}
			continue
		}
		bytes, added := 0, 0
		for i, q := range queue {
			for j, r := range q.records {
				next := r.Offset + 1
				e := parse.entry(r)
				if err := l.rec.Add(l.ctx, &e); err != nil {
					return err
				}
				last := i == len(queue)-1 && j == len(q.records)-1
				if added++; !last && added < addedMax {
					continue
				}
				if err := l.rec.Flush(l.ctx, next); err != nil {
					return err
				}
				l.part.next.Store(next)
				added = 0
			}
			// Not before all of it has been fed.
			if bytes += q.bytes; added == 0 {
				l.resume(bytes)
				bytes = 0
			}
		}
	}
}

// offer gives records to the lane, and never blocks: when the lane has enough, its
// partition is not fetched for a while.
func (l *lane[T]) offer(fp *kgo.FetchTopicPartition, most int) {
	l.part.end.Store(fp.HighWatermark)
	if len(fp.Records) == 0 {
		return
	}
	now := time.Now()
	bytes := 0
	var latest time.Time
	for _, r := range fp.Records {
		bytes += len(r.Key) + len(r.Value) + apiece
		if r.Timestamp.After(latest) {
			latest = r.Timestamp
		}
	}
	if latest.Sub(now) > far {
		l.seen.ahead.Add(1)
		l.topic.c.watch.note("records of topic "+l.topic.name+" are from the future: look at the clocks of brokers, or of writers where message.timestamp.type is CreateTime",
			nil, zap.Int32("partition", l.p), zap.Duration("ahead", latest.Sub(now)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, fetched{fp.Records, bytes})
	l.bytes += bytes
	l.most = most
	l.next = fp.Records[len(fp.Records)-1].Offset + 1
	l.heard = now
	if l.bytes > most && !l.paused {
		l.paused = true
		l.client.PauseFetchPartitions(map[string][]int32{l.topic.name: {l.p}})
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// inject gives the lane a record that stands for what could not be read.
func (l *lane[T]) inject(format string, offset, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, fetched{records: []*kgo.Record{{
		Topic: l.topic.name, Partition: l.p, Offset: offset,
		Headers: []kgo.RecordHeader{{Key: headerCodec, Value: []byte(format)}},
	}}})
	l.next = next
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take returns what has come; room is what it has returned before.
func (l *lane[T]) take(room []fetched) []fetched {
	clear(room)
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.queue
	l.queue = room[:0]
	return queue
}

// resume says that bytes have been fed, and has the partition fetched again when the
// lane has room.
func (l *lane[T]) resume(bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes = max(l.bytes-bytes, 0)
	if l.paused && l.bytes <= l.most/2 {
		l.paused = false
		if l.resting {
			return
		}
		l.client.ResumeFetchPartitions(map[string][]int32{l.topic.name: {l.p}})
	}
}

// rest has a partition that cannot be read left alone for a moment, as it would be
// fetched again at once, and returns where that is.
func (l *lane[T]) rest() (offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rested = time.Now()
	if !l.resting && !l.over {
		l.resting = true
		l.client.PauseFetchPartitions(map[string][]int32{l.topic.name: {l.p}})
		time.AfterFunc(againMax/10, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.resting = false; !l.paused && !l.over {
				l.client.ResumeFetchPartitions(map[string][]int32{l.topic.name: {l.p}})
			}
		})
	}
	return l.next
}

// silence appends a tick if nothing has come for a while, and returns when to look
// again.
func (l *lane[T]) silence(tick time.Duration) time.Duration {
	l.mu.Lock()
	quiet := time.Since(l.heard)
	busy := len(l.queue) > 0 || l.paused
	l.mu.Unlock()
	switch {
	case quiet < tick:
		return tick - quiet
	case busy || !l.ticking.CompareAndSwap(false, true):
		return tick
	}
	r := &kgo.Record{Topic: l.topic.name, Partition: l.p, Headers: []kgo.RecordHeader{{Key: headerTick, Value: []byte("1")}}}
	// It has no context, for the reason given at produce.
	l.topic.c.producer.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		l.ticking.Store(false)
		if err == nil {
			l.seen.ticks.Add(1)
		} else if !errors.Is(err, kgo.ErrClientClosed) {
			l.topic.c.watch.note("the time of a silent partition cannot be written", err, zap.String("partition", l.topic.name+"/"+strconv.Itoa(int(l.p))))
		}
	})
	return tick
}

// halt ends lanes. Each may finish the Write it is in; after patience that is cut
// off, if there is a bound.
func halt[T any](lanes []*lane[T], patience time.Duration) {
	for _, l := range lanes {
		l.cancel()
	}
	var late <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		late = t.C
	}
	for _, l := range lanes {
		select {
		case <-l.done:
			continue
		case <-late:
		}
		break
	}
	var wait sync.WaitGroup
	for _, l := range lanes {
		wait.Go(l.close)
	}
	wait.Wait()
}

func (l *lane[T]) close() {
	l.closed.Do(func() {
		l.cancel()
		_ = l.rec.Close()
		<-l.done
		l.part.owned.Store(false)
		// The client remembers a pause also of a partition that goes and comes again.
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		if l.paused || l.resting {
			l.client.ResumeFetchPartitions(map[string][]int32{l.topic.name: {l.p}})
		}
	})
}
