package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

const (
	lookEvery = 10 * time.Second
	againMin  = 100 * time.Millisecond
	againMax  = 10 * time.Second
)

// source is one name that reads a topic.
type source[T any] struct {
	topic       *Topic[T]
	name, group string
	seen        *reading
}

// group and all differ in that only a group is kemi.Shared.
type (
	group[T any] struct{ source[T] }
	all[T any]   struct{ source[T] }
)

var _ kemi.Shared = group[int]{}

// Shares says that members of a group share the topic.
func (group[T]) Shares() bool { return true }

// String is that of the topic.
func (s source[T]) String() string { return s.topic.String() }

// Run reads as a member of the group until ctx is done.
func (g group[T]) Run(ctx context.Context, out kemi.Sink[T]) error {
	if strings.HasSuffix(g.name, ".all") {
		return fmt.Errorf("kafka: topic %s: a group cannot be called %q: names that end in .all are those of All", g.topic.name, g.name)
	}
	return g.run(ctx, out, false)
}

// Run reads all partitions until ctx is done.
func (a all[T]) Run(ctx context.Context, out kemi.Sink[T]) error { return a.run(ctx, out, true) }

// errAgain says that a client is to be thrown away and another one made.
var errAgain = errors.New("the client is made anew")

func (s source[T]) run(ctx context.Context, out kemi.Sink[T], all bool) error {
	if err := checkName(s.name, 200); err != nil {
		return fmt.Errorf("kafka: topic %s: reader %.300q: %w", s.topic.name, s.name, err)
	}
	worked := false
	var refused time.Time // since when, after it had worked
	for wait := againMin; ; wait = min(2*wait, againMax) {
		began := time.Now()
		m := newMember(ctx, s, out, all)
		err := m.run()
		if m.read.Load() {
			worked, refused = true, time.Time{}
		}
		if worked && (errors.Is(err, ErrForbidden) || errors.Is(err, ErrLogin)) {
			// What was allowed and is not: an ACL or a password may be about to be replaced.
			if refused.IsZero() {
				refused = time.Now()
			}
			if time.Since(refused) < s.topic.c.patience {
				err = fmt.Errorf("%w: %w", errAgain, err)
			} else {
				err = fmt.Errorf("for %v, after it had worked: %w", time.Since(refused).Round(time.Second), err)
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || !errors.Is(err, errAgain):
			return fmt.Errorf("kafka: topic %s: reader %q: %w", s.topic.name, s.name, err)
		}
		s.seen.again.Add(1)
		s.seen.fail(err)
		s.topic.c.watch.note("reader "+s.group+" starts again", err)
		if time.Since(began) > time.Minute {
			wait = againMin
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// member is one client that reads.
type member[T any] struct {
	source[T]
	all    bool
	out    kemi.Sink[T]
	ctx    context.Context
	cancel context.CancelCauseFunc
	client *kgo.Client
	read   atomic.Bool // records have come

	mu      sync.Mutex
	left    bool // no more lanes
	lanes   map[int32]*lane[T]
	fetched map[int32]kmsg.OffsetFetchResponseGroupTopicPartition // what was committed, of partitions that were just assigned
	had     time.Time                                             // when there was a lane last
	whole   time.Time                                             // of look: when there was a lane for all that is ours

	committing sync.Mutex
	last       map[int32]int64 // All: what we have committed
}

func newMember[T any](ctx context.Context, s source[T], out kemi.Sink[T], all bool) *member[T] {
	m := &member[T]{source: s, all: all, out: out, lanes: map[int32]*lane[T]{}, had: time.Now(), whole: time.Now()}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	return m
}

// log names the topic. What comes of a topic that was made again is not what came of
// the one before, and must not be taken for it by those who remember.
func (s source[T]) log() string {
	if s.topic.id == [16]byte{} {
		return s.topic.name
	}
	return fmt.Sprintf("%s.%x", s.topic.name, s.topic.id[:4])
}

// fail ends the member.
func (m *member[T]) fail(err error) {
	m.seen.fail(err)
	m.cancel(err)
}

func (m *member[T]) run() (err error) {
	defer m.cancel(nil)
	c := m.topic.c.config
	// All brokers are asked at once, as one that has nothing new answers after FetchMaxWait.
	// What waits here is bounded by FetchMaxBytes of each, and by the lanes.
	opts := append([]kgo.Opt{
		kgo.FetchMaxBytes(int32(c.FetchMaxBytes)),
		kgo.FetchMaxPartitionBytes(int32(c.FetchMaxPartitionBytes)),
		kgo.FetchMinBytes(int32(c.FetchMinBytes)),
		kgo.FetchMaxWait(c.FetchMaxWait),
		kgo.MaxDecompressBatchBytes(c.MaxBufferedBytes),
		kgo.BrokerMaxReadBytes(int32(max(100<<20, 2*c.FetchMaxBytes))),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}, m.topic.c.common...)
	if !m.all {
		opts = append(opts,
			kgo.ConsumerGroup(m.group),
			kgo.ConsumeTopics(m.topic.name),
			kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.DisableAutoCommit(),
			kgo.BlockRebalanceOnPoll(),
			kgo.SessionTimeout(c.SessionTimeout),
			kgo.HeartbeatInterval(c.HeartbeatInterval),
			kgo.RebalanceTimeout(c.RebalanceTimeout),
			kgo.OnOffsetsFetched(m.onFetched),
			kgo.AdjustFetchOffsetsFn(m.onOffsets),
			kgo.OnPartitionsRevoked(m.onRevoked),
			kgo.OnPartitionsLost(m.onLost),
		)
	}
	if m.client, err = kgo.NewClient(opts...); err != nil {
		return err
	}
	defer m.leave()
	var helpers sync.WaitGroup
	helpers.Go(m.look)
	if m.all {
		m.assignAll()
	}
	helpers.Go(m.commitOften)
	m.poll()
	m.cancel(nil)
	helpers.Wait()
	if err := context.Cause(m.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// leave ends what the member has, and commits it.
func (m *member[T]) leave() {
	m.mu.Lock()
	m.left = true
	m.mu.Unlock()
	// The lanes stay in place: what is revoked meanwhile is committed before another has
	// it, and not afterwards.
	halt(m.held(), 0) // a Write under way is finished; the flow's hard stop ends it
	ctx, cancel := context.WithTimeout(context.Background(), min(m.topic.c.config.Timeout, m.topic.c.config.RebalanceTimeout))
	defer cancel()
	if err := m.commit(ctx, nil); err != nil {
		m.commitFailed(err)
	}
	m.takeLanes(nil)
	if !m.all {
		// Others have its partitions at once, and not after the session.
		_ = m.client.LeaveGroupContext(ctx)
	}
	m.client.CloseAllowingRebalance()
}

// held returns all lanes.
func (m *member[T]) held() []*lane[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.lanes))
}

// takeLanes takes lanes out, all of them for nil.
func (m *member[T]) takeLanes(which []int32) []*lane[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lanes []*lane[T]
	for p, l := range m.lanes {
		if which == nil || slices.Contains(which, p) {
			lanes = append(lanes, l)
			delete(m.lanes, p)
		}
	}
	return lanes
}

// poll hands over what the client has fetched.
func (m *member[T]) poll() {
	for m.ctx.Err() == nil {
		// All there is: what the client still holds of a partition that is paused then is
		// fetched again, and it is unpacked already.
		fetches := m.client.PollFetches(m.ctx)
		m.mu.Lock()
		most := max(m.topic.c.config.MaxBufferedBytes/max(len(m.lanes), 1), laneMin)
		fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
			l := m.lanes[fp.Partition]
			if l == nil || fp.Err != nil && len(fp.Records) == 0 {
				return
			}
			if fp.LogStartOffset > l.next && len(fp.Records) > 0 && fp.Records[0].Offset >= fp.LogStartOffset {
				// What is counted and told as lost is told by a lane that begins.
				m.cancel(fmt.Errorf("%w: partition %d: retention has taken %d records that were not read yet", errAgain, fp.Partition, fp.LogStartOffset-l.next))
				return
			}
			if len(fp.Records) > 0 {
				m.read.Store(true)
			}
			l.offer(&fp, most)
		})
		if len(m.lanes) > 0 {
			m.had = time.Now()
		}
		m.mu.Unlock()
		// After the records: what came before the trouble is good.
		fetches.EachError(func(_ string, p int32, err error) { m.trouble(p, err) })
		if !m.all {
			m.client.AllowRebalance()
		}
	}
}

// trouble is an error of a fetch, or of the group.
func (m *member[T]) trouble(p int32, err error) {
	var (
		large *kgo.ErrDecompressTooLarge
		loss  *kgo.ErrDataLoss
	)
	switch {
	case m.ctx.Err() != nil || errors.Is(err, kgo.ErrClientClosed):
		return
	case errors.As(err, &large):
		m.skip(p, tooLarge, large.Offset, large.NextOffset, large.Epoch)
		return
	case errors.As(err, &loss):
		m.lost(p, loss)
		return
	}
	err = m.topic.c.explain(err, m.topic.name)
	if errors.Is(err, ErrRecreated) || errors.Is(err, ErrNoTopic) {
		// So a broker says of a topic that is gone, and of one it has not heard of yet.
		ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
		d, missing := m.topic.c.describe(ctx, m.topic.name)
		cancel()
		switch {
		case errors.Is(missing, ErrNoTopic):
			err = fmt.Errorf("a broker does not know the topic: %v", missing) //nolint:errorlint // look finds out whether others do
		case missing != nil:
			err = missing
		case d.ID == kadm.TopicID(m.topic.id):
			err = fmt.Errorf("a broker has not heard of the topic: %v", err) //nolint:errorlint // it is not that
		default:
			err = m.topic.c.explain(kerr.UnknownTopicID, m.topic.name)
		}
	}
	if final(err) {
		m.fail(err)
		return
	}
	m.mu.Lock()
	l := m.lanes[p]
	m.mu.Unlock()
	if l != nil && damaged(err) {
		err = fmt.Errorf("partition %d of topic %s cannot be read at offset %d, and stands still there; look at the disks of its brokers, or set the offset of group %q past it: %w",
			p, m.topic.name, l.rest(), m.group, err)
		m.seen.fail(err)
		m.topic.c.watch.note(fmt.Sprintf("reader %s stands still in partition %d", m.group, p), err, zap.Int32("partition", p))
		return
	}
	m.seen.fail(err)
	m.topic.c.watch.note("reader "+m.group+" has trouble", err, zap.Int32("partition", p))
}

// damaged tells an error about the bytes that have come from those of brokers and
// of the network, which pass.
func damaged(err error) bool {
	var (
		code    *kerr.Error
		session *kgo.ErrGroupSession
		network net.Error
	)
	return !errors.As(err, &code) && !errors.As(err, &session) && !errors.As(err, &network) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, io.EOF)
}

// skip goes past a batch that cannot be read, which goes to the dead letters by name.
func (m *member[T]) skip(p int32, format string, offset, next int64, epoch int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lanes[p]
	if l == nil {
		return
	}
	l.inject(format, offset, next)
	m.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{m.topic.name: {p: {Epoch: epoch, Offset: next}}})
}

// lost is told that the log ends before what was read of it.
func (m *member[T]) lost(p int32, loss *kgo.ErrDataLoss) {
	m.tellLost(p, loss.ConsumedTo, loss.ResetTo, loss)
	// Offsets are given out again, so the lane has to go back.
	m.mu.Lock()
	l := m.lanes[p]
	m.mu.Unlock()
	if l == nil || loss.ResetTo >= l.nextOffset() {
		return
	}
	for _, l := range m.takeLanes([]int32{p}) {
		halt([]*lane[T]{l}, m.handOver())
		ctx, cancel := m.topic.c.within(context.Background())
		err := m.commitAt(ctx, l, loss.ResetTo)
		cancel()
		m.cancel(errors.Join(fmt.Errorf("%w: partition %d goes back to offset %d", errAgain, p, loss.ResetTo), err))
	}
}

func (m *member[T]) tellLost(p int32, read, end int64, why error) {
	m.seen.counts.Lost.Add(uint64(max(read-end, 0)))
	m.topic.c.config.Logger.Error("kafka: the cluster has lost records that it had acknowledged: look at min.insync.replicas and unclean.leader.election.enable",
		zap.String("topic", m.topic.name), zap.Int32("partition", p), zap.Int64("read", read), zap.Int64("end", end), zap.Error(why))
}

func (l *lane[T]) nextOffset() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// handOver is how long a Write may go on when its partition moves, before it is cut
// off and the next owner writes the batch again.
func (m *member[T]) handOver() time.Duration {
	return min(5*time.Second, m.topic.c.config.RebalanceTimeout/3)
}

// ---- the group --------------------------------------------------------------

func (m *member[T]) onFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched = map[int32]kmsg.OffsetFetchResponseGroupTopicPartition{}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			if t.Topic != m.topic.name && t.TopicID != m.topic.id {
				continue
			}
			for _, p := range t.Partitions {
				m.fetched[p.Partition] = p
			}
		}
	}
	for _, t := range resp.Topics { // as older brokers say it
		if t.Topic != m.topic.name {
			continue
		}
		for _, p := range t.Partitions {
			m.fetched[p.Partition] = kmsg.OffsetFetchResponseGroupTopicPartition{Partition: p.Partition, Offset: p.Offset, Metadata: p.Metadata}
		}
	}
	return nil
}

// onOffsets is told which partitions are new and says where to read them from. The
// replay itself is left to the lane.
func (m *member[T]) onOffsets(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	if m.ctx.Err() != nil {
		return offsets, nil
	}
	at := map[int32]commit{}
	m.mu.Lock()
	for p := range offsets[m.topic.name] {
		c := commit{at: -1}
		if f, ok := m.fetched[p]; ok && f.Offset >= 0 {
			c.at = f.Offset
			if f.Metadata != nil {
				c.text = *f.Metadata
			}
		}
		at[p] = c
	}
	m.mu.Unlock()
	bound, cancel := m.topic.c.within(ctx)
	defer cancel()
	from, err := m.begin(bound, at)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		m.trouble(-1, err)
		// And so to another try. The client would take what looks like context.Canceled for
		// the end of the group, and stand there without partitions for ever.
		return nil, fmt.Errorf("kafka: partitions cannot be begun with: %v", err) //nolint:errorlint // see above
	}
	for p, next := range from {
		offsets[m.topic.name][p] = kgo.NewOffset().At(next).WithEpoch(-1)
	}
	return offsets, nil
}

// commit is what was committed of a partition; at is -1 for nothing.
type commit struct {
	at   int64
	text string
}

// begin opens and starts the lanes of partitions and returns where to read from.
func (m *member[T]) begin(ctx context.Context, at map[int32]commit) (map[int32]int64, error) {
	if len(at) == 0 {
		return nil, nil
	}
	topic := m.topic
	first, err := topic.c.admin.ListStartOffsets(ctx, topic.name)
	if err != nil {
		return nil, topic.c.explain(err, topic.name)
	}
	ends, err := topic.c.admin.ListEndOffsets(ctx, topic.name)
	if err != nil {
		return nil, topic.c.explain(err, topic.name)
	}
	metas := map[int32]metadata{}
	keep := map[string]bool{}
	for p, c := range at {
		start, ok := first.Lookup(topic.name, p)
		if !ok {
			start.Err = kerr.UnknownTopicOrPartition
		}
		if start.Err != nil {
			return nil, fmt.Errorf("the first offset of partition %d: %w", p, topic.c.explain(start.Err, topic.name))
		}
		if end, ok := ends.Lookup(topic.name, p); !ok || end.Err != nil {
			return nil, fmt.Errorf("the last offset of partition %d: %w", p, topic.c.explain(cmp.Or(end.Err, error(kerr.UnknownTopicOrPartition)), topic.name))
		}
		if c.at < 0 {
			continue
		}
		meta, err := parseMetadata(c.text)
		if err != nil {
			if strings.Contains(err.Error(), "newer") {
				return nil, m.newer(p, err)
			}
			meta = metadata{}
		}
		metas[p] = meta
		if meta.kept != "" {
			keep[laneKey(m.group, topic.name, p)] = true
		}
	}
	found, err := topic.c.state.load(ctx, keep)
	if err != nil {
		return nil, err
	}
	// Partition 0 is opened first.
	var order []int32
	for p := range at {
		order = append(order, p)
	}
	slices.Sort(order)
	from := map[int32]int64{}
	var opened []*lane[T]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return nil, errors.New("the reader has ended")
	}
	for _, p := range order {
		if l := m.lanes[p]; l != nil { // assigned again before it was read
			from[p] = l.nextOffset()
			continue
		}
		start, _ := first.Lookup(topic.name, p)
		end, _ := ends.Lookup(topic.name, p)
		l, err := m.open(p, at[p].at, metas[p], found[laneKey(m.group, topic.name, p)], start.Offset, end.Offset)
		if err != nil {
			for _, l := range opened {
				close(l.done)
				l.close()
			}
			return nil, err
		}
		opened = append(opened, l)
	}
	for _, l := range opened {
		m.lanes[l.p] = l
		from[l.p] = l.next
		m.retains(l)
		go l.run()
	}
	return from, nil
}

// newer ends the member: an older program must not go on from what a newer one has
// left.
func (m *member[T]) newer(p int32, err error) error {
	err = fmt.Errorf("the position of partition %d: %w: run the newer program, or reset the offsets of group %q", p, err, m.group)
	m.cancel(err)
	return err
}

// retains tells when the topic does not keep what a lane has to replay.
func (m *member[T]) retains(l *lane[T]) {
	need := 2 * l.rec.Horizon()
	if keep := m.topic.retention; keep > 0 && keep < need {
		m.topic.c.watch.note(fmt.Sprintf("topic %s keeps %v, and reader %s looks back %v: "+
			"after an outage its state cannot be built again; raise retention.ms to %d at least", m.topic.name, keep, m.name, need/2, need.Milliseconds()), nil)
	}
}

func (m *member[T]) onRevoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	which := gone[m.topic.name]
	if len(which) == 0 {
		return
	}
	lanes := m.takeLanes(which)
	halt(lanes, m.handOver())
	ctx, cancel := m.topic.c.within(ctx)
	defer cancel()
	if len(lanes) == 0 {
		return
	}
	if err := m.commit(ctx, lanes); err != nil {
		m.commitFailed(err)
	}
}

// onLost is told that others have the partitions by now: what is committed is theirs.
func (m *member[T]) onLost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	which := gone[m.topic.name]
	if len(which) == 0 {
		return
	}
	halt(m.takeLanes(which), time.Millisecond)
}

// ---- all --------------------------------------------------------------------

// assignAll tries until it is done, or the member has ended.
func (m *member[T]) assignAll() {
	for wait := againMin; m.ctx.Err() == nil; wait = min(2*wait, againMax) {
		err := m.tryAssignAll()
		if err == nil {
			return
		}
		m.trouble(-1, err)
		select {
		case <-time.After(wait):
		case <-m.ctx.Done():
		}
	}
}

func (m *member[T]) tryAssignAll() error {
	ctx, cancel := m.topic.c.within(m.ctx)
	defer cancel()
	was, err := m.committed(ctx)
	if err != nil {
		return err
	}
	at := map[int32]commit{}
	for p := range int32(m.topic.partitions) {
		at[p] = commit{at: -1}
		if o, ok := was.Lookup(m.topic.name, p); ok && o.At >= 0 {
			at[p] = commit{o.At, o.Metadata}
		}
	}
	from, err := m.begin(ctx, at)
	if err != nil {
		return err
	}
	m.last = map[int32]int64{}
	offsets := map[int32]kgo.Offset{}
	m.mu.Lock()
	for p, next := range from {
		offsets[p] = kgo.NewOffset().At(next)
		if l := m.lanes[p]; l != nil && l.back {
			m.last[p] = at[p].at // ours, not of another Run that has come further
		}
	}
	m.mu.Unlock()
	m.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{m.topic.name: offsets})
	return nil
}

func (m *member[T]) committed(ctx context.Context) (kadm.OffsetResponses, error) {
	was, err := m.topic.c.admin.FetchOffsetsForTopics(ctx, m.group, m.topic.name)
	if err == nil {
		err = was.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil // it reads for the first time
	}
	if err != nil {
		return nil, m.topic.c.explain(err, m.topic.name)
	}
	return was, nil
}
