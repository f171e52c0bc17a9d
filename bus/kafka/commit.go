package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/internal/recovery"
)

// commitOften commits while the member lives.
func (m *member[T]) commitOften() {
	t := time.NewTicker(m.topic.c.config.CommitInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-m.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(m.ctx, m.topic.c.config.Timeout)
		if err := m.commit(ctx, nil); err != nil && m.ctx.Err() == nil {
			m.commitFailed(err)
		}
		cancel()
	}
}

// errGone is no trouble: who has taken the lanes away has committed them.
var errGone = errors.New("partitions have gone while they were committed")

func (m *member[T]) commitFailed(err error) {
	if errors.Is(err, errGone) {
		return
	}
	m.seen.fails.Add(1)
	m.seen.fail(err)
	m.topic.c.watch.note("reader "+m.group+" cannot commit; what it delivers from now on comes again after a restart", err)
}

// commit commits how far lanes have come: the state first, then the positions. Nil
// stands for all lanes that are held, and of these only those are committed that are
// held still when it comes to that: a partition that others have by then is theirs.
func (m *member[T]) commit(ctx context.Context, lanes []*lane[T]) error {
	m.committing.Lock()
	defer m.committing.Unlock()
	taken := lanes != nil
	if !taken {
		lanes = m.held()
	}
	// Partition 0 is asked last.
	slices.SortFunc(lanes, func(a, b *lane[T]) int { return int(b.p) - int(a.p) })
	at := map[*lane[T]]kgo.EpochOffset{}
	texts := map[int32]string{}
	var state []*kgo.Record
	changed := false
	for _, l := range lanes {
		if !l.begun.Load() {
			if m.all {
				return nil // all or none
			}
			continue
		}
		pos, kept := l.rec.Position()
		text, due := l.stage(pos, kept)
		if text == l.text && len(due) == 0 && !m.all {
			continue
		}
		changed = changed || text != l.text || len(due) > 0
		state = append(state, due...)
		at[l] = kgo.EpochOffset{Epoch: -1, Offset: pos.Next}
		texts[l.p] = text
	}
	if !changed {
		return nil
	}
	return m.put(ctx, at, texts, state, taken)
}

// commitAt commits a lane that has to go back.
func (m *member[T]) commitAt(ctx context.Context, l *lane[T], next int64) error {
	m.committing.Lock()
	defer m.committing.Unlock()
	if !l.begun.Load() {
		return nil
	}
	pos, kept := l.rec.Position()
	if pos.Next <= next {
		return nil
	}
	pos.Back(next, l.rec.Horizon() > 0)
	text, due := l.stage(pos, kept)
	return m.put(ctx, map[*lane[T]]kgo.EpochOffset{l: {Epoch: -1, Offset: next}}, map[int32]string{l.p: text}, due, true)
}

// stage returns the metadata for a position, and what is to be written before it.
func (l *lane[T]) stage(pos recovery.Position, kept []kemi.Kept) (text string, due []*kgo.Record) {
	l.keeper.take(kept)
	meta := metadata{position: &pos}
	l.staged = ""
	if long := pos.Text(); len(long)+keptDigits+20 > metadataMax {
		if l.staged = long; long != l.long {
			l.keeper.take([]kemi.Kept{{Key: positionKey, Value: pos.AppendBinary(nil)}})
			l.topic.c.watch.note("the marks of reader "+l.group+" do not fit into a commit and are kept on the state topic; fewer partitions upstream would do", nil)
		}
		meta.position = nil
	}
	if l.keeper.uses() {
		due = l.keeper.due()
		meta.kept = l.keeper.name()
	}
	return meta.text(), due
}

func (m *member[T]) put(ctx context.Context, at map[*lane[T]]kgo.EpochOffset, texts map[int32]string, state []*kgo.Record, taken bool) error {
	if m.all {
		if further, err := m.further(ctx, at); err != nil || further {
			return err
		}
	}
	if err := m.topic.c.state.write(ctx, state); err != nil {
		if errors.Is(err, ErrNoTopic) || errors.Is(err, ErrRecreated) {
			for l := range at {
				l.keeper.again()
			}
		}
		return err
	}
	refused, err := m.putOffsets(ctx, at, texts, taken)
	if err != nil {
		return err
	}
	var old []*kgo.Record
	for l := range at {
		if refused[l.p] == nil {
			l.text, l.long = texts[l.p], l.staged
			if l.keeper.uses() {
				old = append(old, l.keeper.committed()...)
			}
			if m.all {
				m.last[l.p] = at[l].Offset
			}
		} else {
			err = refused[l.p]
		}
	}
	if len(old) > 0 {
		if e := m.topic.c.state.write(ctx, old); e != nil {
			m.topic.c.watch.note("state that is no longer needed cannot be taken away", e)
		}
	}
	return err
}

func (m *member[T]) putOffsets(ctx context.Context, at map[*lane[T]]kgo.EpochOffset, texts map[int32]string, taken bool) (refused map[int32]error, err error) {
	refused = map[int32]error{}
	topic := m.topic.name
	if m.all {
		offsets := kadm.Offsets{}
		for l, o := range at {
			offsets.Add(kadm.Offset{Topic: topic, Partition: l.p, At: o.Offset, LeaderEpoch: -1, Metadata: texts[l.p]})
		}
		done, err := m.topic.c.admin.CommitOffsets(ctx, m.group, offsets)
		if err != nil {
			return nil, m.topic.c.explain(err, topic)
		}
		done.Each(func(o kadm.OffsetResponse) {
			if o.Err != nil {
				refused[o.Partition] = m.topic.c.explain(o.Err, topic)
			}
		})
		return refused, nil
	}
	offsets := map[int32]kgo.EpochOffset{}
	for l, o := range at {
		offsets[l.p] = o
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if !taken {
			// The client commits for the generation it is in by now.
			m.mu.Lock()
			defer m.mu.Unlock()
			for l := range at {
				if m.lanes[l.p] != l {
					return errGone
				}
			}
		}
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				p := &req.Topics[i].Partitions[j]
				text := texts[p.Partition]
				p.Metadata = &text
			}
		}
		return nil
	})
	m.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, e error) {
			if e != nil {
				if err = m.topic.c.explain(e, topic); errors.Is(e, errGone) {
					err = errGone
				}
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if e := kerr.ErrorForCode(p.ErrorCode); e != nil {
						refused[p.Partition] = fmt.Errorf("partition %d: %w", p.Partition, m.topic.c.explain(e, topic))
					}
				}
			}
		})
	return refused, err
}

// further tells whether another Run of the All has come further than this one.
func (m *member[T]) further(ctx context.Context, at map[*lane[T]]kgo.EpochOffset) (bool, error) {
	was, err := m.committed(ctx)
	if err != nil {
		return false, err
	}
	var mine, theirs int64
	strange := false
	for l, o := range at {
		mine += o.Offset
		if w, ok := was.Lookup(m.topic.name, l.p); ok && w.At >= 0 {
			theirs += w.At
			strange = strange || w.At != m.last[l.p]
		}
	}
	if !strange {
		return false, nil // nobody else has committed
	}
	// Its state, if there is any, lies under another mark, and ours may have gone.
	for l := range at {
		l.keeper.again()
	}
	return theirs > mine, nil
}

// look looks whether the topic is still what it was, and whether the member gets
// anywhere.
func (m *member[T]) look() {
	t := time.NewTicker(min(lookEvery, m.topic.c.patience/2))
	defer t.Stop()
	missing := 0
	for {
		select {
		case <-t.C:
		case <-m.ctx.Done():
			return
		}
		ctx, cancel := m.topic.c.within(m.ctx)
		d, err := m.topic.c.describe(ctx, m.topic.name)
		switch {
		case errors.Is(err, ErrNoTopic):
			if missing++; missing > 1 { // one broker may not have heard of it yet
				m.fail(err)
			}
		case err != nil:
			m.seen.fail(err)
		default:
			missing = 0
			m.compare(d)
			m.stuck(ctx, m.measure(ctx))
		}
		cancel()
	}
}

func (m *member[T]) compare(d kadm.TopicDetail) {
	switch {
	case d.ID != kadm.TopicID(m.topic.id) && d.ID != kadm.TopicID{} && m.topic.id != [16]byte{}:
		m.fail(m.topic.c.explain(kerr.UnknownTopicID, m.topic.name))
	case len(d.Partitions) != m.topic.partitions && len(d.Partitions) > 0:
		m.fail(fmt.Errorf("it has %d partitions now, and had %d: keys have moved; stop all writers, let readers come to the end, and start again", len(d.Partitions), m.topic.partitions))
	}
}

// measure asks where the partitions end: of one that is not fetched for a while, as its
// lane has enough, the client does not hear how it grows.
func (m *member[T]) measure(ctx context.Context) kadm.ListedOffsets {
	ends, err := m.topic.c.admin.ListEndOffsets(ctx, m.topic.name)
	if err != nil {
		return nil
	}
	for _, l := range m.held() {
		if end, ok := ends.Lookup(m.topic.name, l.p); ok && end.Err == nil {
			l.part.end.Store(end.Offset)
		}
	}
	return ends
}

// stuck makes the client anew when it does not hold what it should, or gets nothing
// though there is something: the oldest complaint about consumer groups after trouble
// in a cluster.
func (m *member[T]) stuck(ctx context.Context, ends kadm.ListedOffsets) {
	patience := m.topic.c.patience
	m.mu.Lock()
	held, had := len(m.lanes), m.had
	var silent []*lane[T]
	for _, l := range m.lanes {
		l.mu.Lock()
		if len(l.queue) == 0 && l.bytes == 0 && !l.resting && time.Since(l.heard) > patience && time.Since(l.rested) > patience {
			silent = append(silent, l)
		}
		l.mu.Unlock()
	}
	m.mu.Unlock()
	if held == m.topic.partitions || held == 0 && time.Since(had) <= patience || !m.orphans(ctx, held) {
		m.whole = time.Now()
	} else if held == 0 || time.Since(m.whole) > patience {
		m.cancel(fmt.Errorf("%w: the group has partitions that nobody reads", errAgain))
	}
	for _, l := range silent {
		if end, ok := ends.Lookup(m.topic.name, l.p); ok && end.Err == nil && end.Offset > l.nextOffset() {
			m.topic.c.config.Logger.Warn("kafka: nothing comes of a partition that has records",
				zap.String("group", m.group), zap.Int32("partition", l.p), zap.Int64("next", l.nextOffset()), zap.Int64("end", end.Offset))
			m.cancel(fmt.Errorf("%w: nothing comes of partition %d for %v, though it has records", errAgain, l.p, patience))
			return
		}
	}
}

// orphans tells whether there are partitions that the group has given to this member
// and its client does not read: where it could not learn the offset of one it gives that
// up for good. Of a member that holds nothing it tells also whether partitions belong to
// nobody, or the group does not know this one, though its client should be in it.
func (m *member[T]) orphans(ctx context.Context, held int) bool {
	if m.all {
		return held == 0
	}
	groups, err := m.topic.c.admin.DescribeGroups(ctx, m.group)
	if err != nil {
		return false
	}
	g := groups[m.group]
	if g.Err != nil {
		return false
	}
	switch g.State {
	case "Stable":
	case "Empty", "Dead":
		return held == 0
	default: // it is being dealt out, which has an end
		if held > 0 {
			return false
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return time.Since(m.had) > 2*(m.topic.c.patience+m.topic.c.config.RebalanceTimeout)
	}
	me, _ := m.client.GroupMetadata()
	here, owned, mine := false, 0, 0
	for _, member := range g.Members {
		here = here || member.MemberID == me
		if c, ok := member.Assigned.AsConsumer(); ok {
			for _, t := range c.Topics {
				if t.Topic != m.topic.name {
					continue
				}
				owned += len(t.Partitions)
				if member.MemberID == me {
					mine += len(t.Partitions)
				}
			}
		}
	}
	return mine > held || held == 0 && (!here || owned < m.topic.partitions)
}
