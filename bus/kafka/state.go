package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/internal/recovery"
)

// Kept state lies on a compacted topic, all of one lane in one partition. Two things
// may not happen to it: that a member which was believed dead and is not writes over
// what its successor has written, and that what was written for a position that was
// never committed is taken for that of the one before.
//
// So each owner of a lane writes under a mark of its own and counts what it writes, and
// the commit, which a member believed dead can no longer make, names the mark and the
// count. An owner writes everything before its first commit. And there are two places
// for each entry: what the last commit is about is never written over, the next goes to
// the other place. Of the two that one counts which is not newer than the commit.
//
//	key:   <group>\n<topic>/<partition>\n<mark>\n<place>\n<key>
//	value: the count (varint), 1 or 0 for forgotten, and the bytes

const (
	statePartitions = 8
	keptDigits      = 12
	// stalest is how long state of an owner that no commit names is left alone, where
	// there may be several owners at once.
	stalest = time.Hour
	// positionKey is that of a position that is too long for a commit.
	positionKey = "\x00position"
	// hereKey is there wherever a commit names a mark, so that state which has gone is
	// told from a state of nothing.
	hereKey = "\x00here"
)

// store is the topic of kept state.
type store struct {
	*Cluster
	mu         sync.Mutex
	partitions int // 0: it was not looked for yet
}

// open makes the topic if it is not there.
func (s *store) open() (partitions int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions == 0 {
		var (
			n         int
			id        [16]byte
			retention time.Duration
			stamps    bool
		)
		err := s.prepare(s.config.StateTopic, wanted{partitions: 0, replication: s.config.ReplicationFactor, compacted: true}, &n, &id, &retention, &stamps)
		if err != nil {
			return 0, fmt.Errorf("kafka: topic %q of Config.StateTopic: %w", s.config.StateTopic, err)
		}
		s.partitions = n
	}
	return s.partitions, nil
}

// raw is an entry as it was found.
type raw struct {
	key   stateKey
	text  string // of the key
	at    int64
	gone  bool
	value []byte
	time  time.Time
}

type stateKey struct {
	lane, mark string
	place      byte
	key        string
}

func (k stateKey) text() string {
	return k.lane + "\n" + k.mark + "\n" + string('0'+k.place) + "\n" + k.key
}

func parseStateKey(text string) (k stateKey, ok bool) {
	group, rest, ok1 := strings.Cut(text, "\n")
	lane, rest, ok2 := strings.Cut(rest, "\n")
	mark, rest, ok3 := strings.Cut(rest, "\n")
	place, key, ok4 := strings.Cut(rest, "\n")
	if !ok1 || !ok2 || !ok3 || !ok4 || len(mark) != keptDigits || place != "0" && place != "1" {
		return k, false
	}
	return stateKey{group + "\n" + lane, mark, place[0] - '0', key}, true
}

func parseStateValue(b []byte) (at int64, gone bool, value []byte, ok bool) {
	at, n := binary.Varint(b)
	if n <= 0 || len(b) == n || b[n] > 1 || at < 0 {
		return 0, false, nil, false
	}
	return at, b[n] == 0, b[n+1:], true
}

// load reads what is kept of some lanes.
func (s *store) load(ctx context.Context, lanes map[string]bool) (map[string][]raw, error) {
	if len(lanes) == 0 {
		return nil, nil
	}
	n, err := s.open()
	if err != nil {
		return nil, err
	}
	topic := s.config.StateTopic
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, s.away(err)
	}
	from := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	for lane := range lanes {
		p := int32(bus.PartitionOf(lane, n))
		end, ok := ends.Lookup(topic, p)
		if !ok {
			end.Err = kerr.UnknownTopicOrPartition
		}
		if end.Err != nil {
			return nil, s.away(end.Err)
		}
		if end.Offset > 0 {
			from[p], left[p] = kgo.NewOffset().AtStart(), end.Offset
		}
	}
	found := map[string]map[string]raw{}
	if len(from) > 0 {
		client, err := kgo.NewClient(append([]kgo.Opt{
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		}, s.common...)...)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		for len(left) > 0 {
			fetches := client.PollFetches(ctx)
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("kafka: kept state on %s could not be read in time: %w", topic, context.Cause(ctx))
			}
			fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
				if fp.Err != nil {
					s.watch.note("kept state cannot be read", s.explain(fp.Err, topic))
				}
				for _, r := range fp.Records {
					keepRaw(found, lanes, r)
				}
				// What compaction has taken is not fetched, but the last record of a log stays.
				if len(fp.Records) > 0 && fp.Records[len(fp.Records)-1].Offset+1 >= left[fp.Partition] || fp.LogStartOffset >= left[fp.Partition] {
					delete(left, fp.Partition)
				}
			})
		}
	}
	all := map[string][]raw{}
	for lane, entries := range found {
		for _, e := range entries {
			all[lane] = append(all[lane], e)
		}
	}
	return all, nil
}

func keepRaw(found map[string]map[string]raw, lanes map[string]bool, r *kgo.Record) {
	k, ok := parseStateKey(string(r.Key))
	if !ok || !lanes[k.lane] {
		return
	}
	text := string(r.Key)
	if len(r.Value) == 0 {
		delete(found[k.lane], text)
		return
	}
	at, gone, value, ok := parseStateValue(r.Value)
	if !ok {
		return
	}
	if found[k.lane] == nil {
		found[k.lane] = map[string]raw{}
	}
	found[k.lane][text] = raw{k, text, at, gone, value, r.Timestamp}
}

// write puts records on the topic and waits until they are safe.
func (s *store) write(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	n, err := s.open()
	if err != nil {
		return err
	}
	for _, r := range records {
		k, _ := parseStateKey(string(r.Key))
		r.Topic, r.Partition = s.config.StateTopic, int32(bus.PartitionOf(k.lane, n))
	}
	if err := s.producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("kafka: kept state: %w", s.away(err))
	}
	return nil
}

// away explains an error. If the topic is not there, as a broker says that has not
// heard of it yet, it is looked for and made again next time.
func (s *store) away(err error) error {
	err = s.explain(err, s.config.StateTopic)
	if errors.Is(err, ErrNoTopic) || errors.Is(err, ErrRecreated) {
		s.mu.Lock()
		s.partitions = 0
		s.mu.Unlock()
		s.producer.PurgeTopicsFromProducing(s.config.StateTopic)
	}
	return err
}

// keeper is what is kept of one lane, by one owner.
type keeper struct {
	lane    string
	mark    string // ours
	count   int64
	named   bool // by the last commit
	entries map[string]*entry
	stale   []string // keys of other owners
}

type entry struct {
	value   []byte
	gone    bool
	dirty   bool
	written bool
	place   byte // of what the last commit is about, if written
}

func newKeeper(group, topic string, p int32) *keeper {
	return &keeper{
		lane: laneKey(group, topic, p), mark: fmt.Sprintf("%012x", rand.Uint64()>>16), entries: map[string]*entry{},
	}
}

func laneKey(group, topic string, p int32) string { return fmt.Sprintf("%s\n%s/%d", group, topic, p) }

// splitName takes apart what name has made.
func splitName(name string) (mark string, count int64, err error) {
	if len(name) <= keptDigits || strings.Trim(name, "0123456789abcdef") != "" {
		return "", 0, errMetadata
	}
	count, bad := strconv.ParseInt(name[keptDigits:], 16, 64)
	if bad != nil || name[keptDigits] == '0' && len(name) > keptDigits+1 {
		return "", 0, errMetadata
	}
	return name[:keptDigits], count, nil
}

// name is what a commit says about the state.
func (k *keeper) name() string { return k.mark + strconv.FormatInt(k.count, 16) }

// begin takes what was found, for a commit that says name, and returns what to
// restore, and the position if it lay there. With errStateGone they are what is left.
func (k *keeper) begin(found []raw, name string, shared bool) (kept []kemi.Kept, pos *recovery.Position, err error) {
	var mark string
	var at int64
	if name != "" {
		if mark, at, err = splitName(name); err != nil {
			return nil, nil, err
		}
	}
	here := false
	best := map[string]raw{}
	now := time.Now()
	for _, e := range found {
		if e.key.mark != mark {
			if !shared || now.Sub(e.time) > stalest {
				k.stale = append(k.stale, e.text)
			}
			continue
		}
		if !shared {
			k.stale = append(k.stale, e.text)
		}
		if old, ok := best[e.key.key]; e.at <= at && (!ok || old.at < e.at) {
			best[e.key.key] = e
		}
	}
	for key, e := range best {
		switch {
		case key == hereKey:
			here = true
		case key == positionKey:
			pos = new(recovery.Position)
			if err := pos.UnmarshalBinary(e.value); err != nil {
				return nil, nil, err
			}
		case !e.gone:
			k.entries[key] = &entry{value: e.value, dirty: true}
			kept = append(kept, kemi.Kept{Key: key, Value: e.value})
		}
	}
	if mark != "" && !here {
		err = errStateGone
	}
	slices.SortFunc(kept, func(a, b kemi.Kept) int { return strings.Compare(a.Key, b.Key) })
	return kept, pos, err
}

// errStateGone says that a commit names state that is not there.
var errStateGone = errors.New("the state that belongs to the committed position is not there")

// take notes what has changed.
func (k *keeper) take(kept []kemi.Kept) {
	for _, e := range kept {
		old := k.entries[e.Key]
		if old == nil {
			old = &entry{}
			k.entries[e.Key] = old
		}
		old.value, old.gone, old.dirty = e.Value, e.Value == nil, true
	}
}

func (k *keeper) dirty() bool {
	for _, e := range k.entries {
		if e.dirty {
			return true
		}
	}
	return false
}

// uses tells whether a commit has to name our mark.
func (k *keeper) uses() bool { return k.named || len(k.entries) > 0 }

// again has everything written again before the next commit.
func (k *keeper) again() { k.named = false }

// due returns what is to be written before the next commit, which is to say name.
func (k *keeper) due() []*kgo.Record {
	var records []*kgo.Record
	if k.named && !k.dirty() {
		return nil
	}
	if k.entries[hereKey] == nil {
		k.entries[hereKey] = &entry{dirty: true}
	}
	k.count++
	for key, e := range k.entries {
		if !e.dirty && k.named {
			continue
		}
		place := byte(0)
		if e.written {
			place = 1 - e.place
		}
		value := binary.AppendVarint(nil, k.count)
		if e.gone {
			value = append(value, 0)
		} else {
			value = append(append(value, 1), e.value...)
		}
		records = append(records, &kgo.Record{Key: []byte(stateKey{k.lane, k.mark, place, key}.text()), Value: value})
	}
	return records
}

// committed says that the commit has been made, and returns what may be forgotten.
func (k *keeper) committed() (old []*kgo.Record) {
	forget := func(text string) { old = append(old, &kgo.Record{Key: []byte(text)}) }
	for key, e := range k.entries {
		if !e.dirty && k.named {
			continue
		}
		if e.written {
			e.place = 1 - e.place
		}
		e.written, e.dirty = true, false
		if e.gone {
			for place := range byte(2) {
				forget(stateKey{k.lane, k.mark, place, key}.text())
			}
			delete(k.entries, key)
		}
	}
	k.named = true
	for _, text := range k.stale {
		forget(text)
	}
	k.stale = nil
	return old
}
