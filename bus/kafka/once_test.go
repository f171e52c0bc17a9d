package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/faults"
)

// sample is one record of the tests.
type sample struct {
	Key  string
	Seq  int
	Prev int    `json:",omitempty"` // output: the one before, 0 if that was too long ago
	Gone string `json:",omitempty"` // output: the key was last seen too long ago, at this time
}

func (s sample) PartitionKey() string { return s.Key }

// pairs says of each sample which one came before it, if not too long ago, and on a
// tick which keys have fallen silent.
type pairs struct {
	now  time.Time
	last map[string]at
	hash uint64
}

type at struct {
	seq  int
	when time.Time
}

const silent = 2 * time.Second

func (*pairs) Fork() kemi.Transform[sample, sample] { return &pairs{last: map[string]at{}} }
func (*pairs) Horizon() time.Duration               { return silent + time.Second }
func (p *pairs) Proof() kemi.Proof                  { return kemi.Proof{Version: 1, Hash: p.hash} }

func (a at) hash(key string) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, key, a.seq, a.when.UnixNano())
	return h.Sum64()
}

func (p *pairs) Apply(_ context.Context, dst, src []sample) ([]sample, error) {
	for _, s := range src {
		old, ok := p.last[s.Key]
		if ok {
			p.hash -= old.hash(s.Key)
		}
		now := at{s.Seq, p.now}
		p.last[s.Key] = now
		p.hash += now.hash(s.Key)
		dst = append(dst, sample{Key: s.Key, Seq: s.Seq, Prev: old.seq})
	}
	return dst, nil
}

func (p *pairs) Tick(_ context.Context, dst []sample, now time.Time) ([]sample, error) {
	p.now = now
	from := len(dst)
	for key, a := range p.last {
		if now.Sub(a.when) > silent {
			p.hash -= a.hash(key)
			delete(p.last, key)
			dst = append(dst, sample{Key: key, Seq: a.seq, Gone: now.UTC().Format(time.RFC3339)})
		}
	}
	slices.SortFunc(dst[from:], func(a, b sample) int { return cmpString(a.Key, b.Key) })
	return dst, nil
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// expect computes the output from the input topic as far as the group has come, and
// shares no code with what is under test. What comes of the time that passed before the
// next record may be there too: a lane can end between the two.
func expect(t *testing.T, f *kfake.Cluster, topic string) (out, may map[sample]int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	left := 0
	for _, p := range f.PartitionInfos(topic) {
		left += int(p.HighWatermark)
	}
	logs := map[int32][]*kgo.Record{}
	for left > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			logs[r.Partition] = append(logs[r.Partition], r)
			left--
		})
	}
	out, may = map[sample]int{}, map[sample]int{}
	come := f.GroupInfo("in.calc").Commits["in"]
	for p, log := range logs {
		last := map[string]at{}
		var clock time.Time
		for _, r := range log {
			to := out
			if r.Offset >= come[p].Offset {
				to = may
			}
			if second := r.Timestamp.Truncate(time.Second); second.After(clock) {
				clock = second
				for key, a := range last {
					if clock.Sub(a.when) > silent {
						delete(last, key)
						to[sample{Key: key, Seq: a.seq, Gone: clock.UTC().Format(time.RFC3339)}]++
					}
				}
			}
			if r.Offset >= come[p].Offset {
				break
			}
			if len(r.Value) == 0 {
				continue
			}
			for line := range bytesLines(r.Value) {
				var s sample
				if err := json.Unmarshal(line, &s); err != nil {
					t.Fatalf("%v: %q", err, line)
				}
				out[sample{Key: s.Key, Seq: s.Seq, Prev: last[s.Key].seq}]++
				last[s.Key] = at{s.Seq, clock}
			}
		}
	}
	return out, may
}

// tell logs what lies on the topics of a key, and the time of its partition of in.
func tell(t *testing.T, f *kfake.Cluster, key string) {
	t.Helper()
	for _, topic := range []string{"in", "out"} {
		p := int32(bus.PartitionOf(key, lanes))
		client := stranger(t, f, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}))
		var clock time.Time
		for left := f.PartitionInfo(topic, p).HighWatermark; left > 0; {
			ctx, cancel := context.WithTimeout(t.Context(), hang)
			fetches := client.PollFetches(ctx)
			cancel()
			if err := fetches.Err0(); err != nil {
				t.Log(err)
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				left--
				second := r.Timestamp.Truncate(time.Second)
				if topic == "in" && !second.Equal(clock) {
					t.Logf("in/%d offset %d: it is %s", p, r.Offset, second.UTC().Format(time.TimeOnly))
					clock = second
				}
				if bytes.Contains(r.Value, fmt.Appendf(nil, "%q", key)) {
					t.Logf("%s/%d offset %d at %s: %v %s", topic, p, r.Offset, r.Timestamp.UTC().Format("15:04:05.000"), headersOf(r), r.Value)
				}
			})
		}
	}
}

func headersOf(r *kgo.Record) (all []string) {
	for _, h := range r.Headers {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return all
}

func bytesLines(b []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := slices.Index(b, '\n')
			if n < 0 {
				n = len(b) - 1
			}
			if !yield(b[:n+1]) {
				return
			}
			b = b[n+1:]
		}
	}
}

// wire is the network of one member: it can be cut for good, or frozen for a while.
type wire struct {
	mu    sync.Mutex
	cut   bool
	ice   chan struct{} // closed: thawed; nil: it was not frozen
	conns map[net.Conn]struct{}
}

func (w *wire) dial(ctx context.Context, network, host string) (net.Conn, error) {
	w.pass()
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = c.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED} // the member is dead
	}
	if w.conns == nil {
		w.conns = map[net.Conn]struct{}{}
	}
	w.conns[c] = struct{}{}
	return &wired{c, w}, nil
}

// pass waits while the wire is frozen.
func (w *wire) pass() {
	w.mu.Lock()
	ice := w.ice
	w.mu.Unlock()
	if ice != nil {
		<-ice
	}
}

func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Close()
	}
}

func (w *wire) freeze(d time.Duration) {
	ice := make(chan struct{})
	w.mu.Lock()
	w.ice = ice
	w.mu.Unlock()
	time.AfterFunc(d, func() { close(ice) })
}

type wired struct {
	net.Conn
	w *wire
}

func (c *wired) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.pass()
	return n, err
}

func (c *wired) Write(b []byte) (int, error) {
	c.w.pass()
	return c.Conn.Write(b)
}

// machine is one process: a client, and a pipeline from in to out.
type machine struct {
	wire   wire
	cancel context.CancelFunc
	done   chan struct{}
	in     *Topic[sample]
}

// fleet is the machines of the test and what they share.
type fleet struct {
	*testing.T
	f      *kfake.Cluster
	config func(*wire) Config
	mu     sync.Mutex
	counts [6]uint64 // rewinds, proved, mismatched, gaps, duplicates, ticks: of machines that are gone
	failed chan error
}

const lanes = 8

func topicOf[T any](tb testing.TB, c *Cluster, name string) *Topic[T] {
	tb.Helper()
	t, err := NewTopic(c, name, TopicConfig[T]{Partitions: lanes})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func (fl *fleet) start() *machine {
	m := &machine{done: make(chan struct{})}
	c, err := Open(fl.config(&m.wire))
	if err != nil {
		fl.Fatal(err)
	}
	c.patience = 5 * time.Second // of the watchdog
	m.in = topicOf[sample](fl, c, "in")
	out := topicOf[sample](fl, c, "out")
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	p := kemi.Pipeline{
		Flows:        []*kemi.Flow{kemi.Pipe("pairs", m.in.Group("calc"), kemi.Transform[sample, sample](&pairs{}), kemi.Sink[sample](out))},
		DrainTimeout: 100 * time.Millisecond,
	}
	go func() {
		defer close(m.done)
		if err := p.Run(ctx); err != nil && ctx.Err() == nil {
			fl.failed <- err
		}
		_ = c.Close()
	}()
	return m
}

func (fl *fleet) end(m *machine) {
	m.cancel()
	<-m.done
	s := m.in.Stats().Readers[0]
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i, n := range []uint64{s.Rewinds, s.Proved, s.Mismatched, s.Gaps, s.Duplicates, s.Ticks} {
		fl.counts[i] += n
	}
}

// rewinds is how often members have built state again, those that are gone and those that
// are here.
func (fl *fleet) rewinds(members []*machine) uint64 {
	fl.mu.Lock()
	n := fl.counts[0]
	fl.mu.Unlock()
	for _, m := range members {
		for _, r := range m.in.Stats().Readers {
			n += r.Rewinds
		}
	}
	return n
}

// TestFaultsOfMembersAndBrokers runs members that take in to out, kills them, freezes them
// past their session and lets them thaw, moves leaders and coordinators and has brokers
// answer with errors, and then compares out, as a reader of kemi sees it, with what in
// says it should be.
func TestFaultsOfMembersAndBrokers(t *testing.T) {
	t.Parallel()
	kills, freezes := faults.Count(t, 500), faults.Count(t, 200)
	seed := faults.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	f := fake(t)
	fl := &fleet{T: t, f: f, failed: make(chan error, 1000), config: func(w *wire) Config {
		c := quick(t, f)
		c.SessionTimeout, c.HeartbeatInterval, c.RebalanceTimeout = 700*time.Millisecond, 50*time.Millisecond, 2*time.Second
		c.RequestTimeout = 4 * time.Second
		c.Tick = 300 * time.Millisecond
		c.dial = w.dial
		c.Logger = nil
		return c
	}}
	plain := open(t, quick(t, f))
	in, out := topicOf[sample](t, plain, "in"), topicOf[sample](t, plain, "out")

	// The reader of out: restarted now and then, so that its marks have to be kept.
	var mu sync.Mutex
	got := map[sample]int{}
	reader := func(ctx context.Context) error {
		return out.Group("check").Run(ctx, kemi.SinkFunc[sample](func(_ context.Context, batch []sample) error {
			mu.Lock()
			defer mu.Unlock()
			for _, s := range batch {
				got[s]++
			}
			return nil
		}))
	}
	over, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	helpers.Go(func() {
		for over.Err() == nil {
			ctx, cancel := context.WithTimeout(over, 2*time.Second)
			if err := reader(ctx); err != nil {
				t.Error(err)
			}
			cancel()
		}
	})

	// The writer. Some keys fall silent now and then.
	writing, quiet := context.WithCancel(context.Background())
	helpers.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 2))
		seqs := map[string]int{}
		for writing.Err() == nil {
			batch := make([]sample, 0, 50)
			for range 1 + rnd.IntN(50) {
				key := fmt.Sprint("k", rnd.IntN(60))
				if rnd.IntN(40) == 0 {
					key = fmt.Sprint("rare", rnd.IntN(40))
				}
				seqs[key]++
				batch = append(batch, sample{Key: key, Seq: seqs[key]})
			}
			if err := in.Write(context.Background(), batch); err != nil {
				// It may be there, and it may not: the model reads the topic and does not ask.
				t.Log(err)
			}
			time.Sleep(time.Duration(rnd.IntN(8)) * time.Millisecond)
			// Faults come faster than the members can replay for long.
			for writing.Err() == nil && backlog(f) > 20_000 {
				time.Sleep(50 * time.Millisecond)
			}
		}
	})

	members := []*machine{fl.start(), fl.start(), fl.start()}
	killed, frozen, injected, joined := 0, 0, 0, 0
	var ends sync.WaitGroup
	for round := 0; killed < kills || frozen < freezes || fl.rewinds(members) == 0 && round < 1000; round++ {
		time.Sleep(time.Duration(100+rnd.IntN(300)) * time.Millisecond)
		i := rnd.IntN(len(members))
		switch x := rnd.IntN(10); {
		case x < 4 && killed < kills:
			m := members[i]
			members = slices.Delete(members, i, i+1)
			m.wire.kill()
			killed++
			ends.Go(func() { fl.end(m) })
			if len(members) < 2 {
				members = append(members, fl.start())
			}
		case x < 6 && frozen < freezes:
			members[i].wire.freeze(time.Duration(1000+rnd.IntN(1200)) * time.Millisecond)
			frozen++
		case x < 8:
			injected++
			inject(f, rnd)
		}
		if len(members) < 5 && rnd.IntN(3) == 0 {
			members = append(members, fl.start())
			joined++
		}
		if t.Failed() {
			break
		}
	}
	quiet()
	time.Sleep(2 * time.Second) // the frozen ones thaw
	ends.Wait()

	// One is left, and comes to the end.
	members = append(members, fl.start())
	for _, m := range members[:len(members)-1] {
		fl.end(m)
	}
	last := members[len(members)-1]
	written := map[int32]int64{}
	for p, info := range f.PartitionInfos("in") {
		written[int32(p)] = info.HighWatermark
	}
	caughtUp := func() bool {
		come := f.GroupInfo("in.calc").Commits["in"]
		for p, end := range written {
			if come[p].Offset < end {
				return false
			}
		}
		return true
	}
	deadline := time.Now().Add(hang)
	for time.Now().Before(deadline) {
		time.Sleep(300 * time.Millisecond)
		if !caughtUp() {
			continue
		}
		fl.end(last)
		last = nil
		break
	}
	if last != nil {
		t.Errorf("the last member does not come to the end: %+v", last.in.Stats())
		fl.end(last)
	}
	want, may := expect(t, f, "in")
	count := func() (lost, dup, wrong int) {
		mu.Lock()
		defer mu.Unlock()
		for s, n := range want {
			lost += max(n-got[s], 0)
		}
		for s, n := range got {
			switch {
			case want[s]+may[s] == 0:
				wrong++
			case n > want[s]+may[s]:
				dup += n - want[s] - may[s]
			}
		}
		return lost, dup, wrong
	}
	for end := time.Now().Add(hang); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if lost, _, _ := count(); lost == 0 {
			break
		}
	}
	stop()
	helpers.Wait()
	close(fl.failed)
	for err := range fl.failed {
		t.Errorf("a pipeline ended by itself: %v", err)
	}
	lost, dup, wrong := count()
	check := out.Stats().Readers[0]
	faults.Report(t, "seed %d: %d kills, %d freezes, %d joins, %d broker faults; %d outputs: %d lost, %d duplicate, %d wrong; "+
		"%d duplicates and %d gaps left out; of members that ended: %d rewinds, %d proved, %d mismatched",
		seed, killed, frozen, joined, injected, len(want), lost, dup, wrong, check.Duplicates, check.Gaps, fl.counts[0], fl.counts[1], fl.counts[2])
	if lost+dup+wrong > 0 || fl.counts[2] > 0 {
		t.Errorf("seed %d: %d lost, %d duplicate, %d wrong, %d states not as they were", seed, lost, dup, wrong, fl.counts[2])
		mu.Lock()
		defer mu.Unlock()
		told := 0
		for s, n := range got {
			if n != want[s] && told < 10 {
				told++
				t.Logf("%+v came %d times, want %d", s, n, want[s])
				tell(t, f, s.Key)
			}
		}
		for s, n := range want {
			if got[s] < n && told < 20 {
				told++
				t.Logf("%+v came %d times, want %d", s, got[s], n)
				tell(t, f, s.Key)
			}
		}
	}
	if len(want) == 0 || fl.counts[0] == 0 {
		t.Error("nothing was tried")
	}
}

// backlog is how many records the group has not committed; ticks are records too.
func backlog(f *kfake.Cluster) (n int64) {
	g := f.GroupInfo("in.calc")
	for p, info := range f.PartitionInfos("in") {
		n += info.HighWatermark
		if g != nil {
			n -= g.Commits["in"][int32(p)].Offset
		}
	}
	return n
}

// inject has something happen at the brokers.
func inject(f *kfake.Cluster, rnd *rand.Rand) {
	switch rnd.IntN(8) {
	case 0:
		f.ShufflePartitionLeaders()
	case 1:
		f.RehashCoordinators()
	case 2:
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 1 + rnd.IntN(3)})
	case 3:
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 1 + rnd.IntN(3)})
	case 4:
		// For good, as the client sees it: a Write fails in its middle.
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "out", Partitions: []int32{rnd.Int32N(lanes)}, Err: kerr.TopicAuthorizationFailed, Count: 1 + rnd.IntN(2)})
	case 5:
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition, Count: 1 + rnd.IntN(3)})
	case 6:
		err := []*kerr.Error{kerr.NotCoordinator, kerr.RequestTimedOut, kerr.IllegalGeneration, kerr.UnknownMemberID}[rnd.IntN(4)]
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "in.calc", Err: err, Count: 1})
	case 7:
		err := []*kerr.Error{kerr.NotCoordinator, kerr.UnknownMemberID}[rnd.IntN(2)]
		f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: "in.calc", Err: err, Count: 1})
	}
}
