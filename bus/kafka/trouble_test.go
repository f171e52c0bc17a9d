package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
)

// clients remembers those that were made.
type clients struct {
	mu  sync.Mutex
	all []*kgo.Client
}

func (c *clients) OnNewClient(cl *kgo.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, cl)
}

// member is the one that was made last.
func (c *clients) member() *kgo.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[len(c.all)-1]
}

// TestAClientThatHasLeftItsGroupIsMadeAnew: it stands there, asks for nothing and says
// nothing.
func TestAClientThatHasLeftItsGroupIsMadeAnew(t *testing.T) {
	t.Parallel()
	f := fake(t)
	config := quick(t, f)
	hook := &clients{}
	config.hook = hook
	c := open(t, config)
	c.patience = time.Second
	topic := topicOf[sample](t, c, "in")
	put(t, topic, sample{Key: "a", Seq: 1})
	r := collect(t, topic.Group("g"))
	eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })
	before := topic.Stats().Readers[0].Restarts
	if err := hook.member().LeaveGroupContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not told", func() bool {
		s := topic.Stats().Readers[0]
		return s.Restarts > before && strings.Contains(s.LastErr, "nobody reads")
	})
	put(t, topic, sample{Key: "a", Seq: 2})
	eventually(t, "it does not come back", func() bool { got, _ := r.counts(); return got == 2 })
	_ = r.stop(t)
}

// TestAPartitionOfWhichNothingComesIsAskedForAnew: a broker that answers, with nothing.
func TestAPartitionOfWhichNothingComesIsAskedForAnew(t *testing.T) {
	t.Parallel()
	f := fake(t)
	c := open(t, quick(t, f))
	c.patience = time.Second
	topic := topicOf[sample](t, c, "in")
	var asleep atomic.Bool
	asleep.Store(true)
	f.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if !asleep.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		resp.SessionID = 0
		return resp, nil, true
	})
	put(t, topic, sample{Key: "a", Seq: 1})
	r := collect(t, topic.Group("g"))
	// One that joins slowly is made anew, too, with other words.
	eventually(t, "the client is not made anew, and told why", func() bool {
		s := topic.Stats().Readers[0]
		return s.Restarts > 0 && strings.Contains(s.LastErr, "nothing comes of partition")
	})
	asleep.Store(false)
	eventually(t, "nothing comes", func() bool { got, _ := r.counts(); return got == 1 })
	_ = r.stop(t)
}

// TestPartitionsThatTheClientHasGivenUpAreReadAgain: the group has given them to this
// member, and its client does not read them as it could not learn their offsets.
func TestPartitionsThatTheClientHasGivenUpAreReadAgain(t *testing.T) {
	t.Parallel()
	for _, left := range []int32{0, lanes / 2} { // of them are read
		f := fake(t)
		c := open(t, quick(t, f))
		c.patience = 5 * time.Second // the client gives up after 3
		topic := topicOf[sample](t, c, "in")
		var batch []sample
		for i := range 100 {
			batch = append(batch, sample{Key: fmt.Sprint("k", i)})
		}
		put(t, topic, batch...)
		var whole atomic.Bool
		f.ControlKey(int16(kmsg.OffsetFetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			f.KeepControl()
			if whole.Load() {
				return nil, nil, false
			}
			req := kreq.(*kmsg.OffsetFetchRequest)
			resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
			for _, rg := range req.Groups {
				sg := kmsg.NewOffsetFetchResponseGroup()
				sg.Group = rg.Group
				for _, rt := range rg.Topics {
					st := kmsg.NewOffsetFetchResponseGroupTopic()
					st.Topic, st.TopicID = rt.Topic, rt.TopicID
					for _, p := range rt.Partitions {
						if p < left {
							sp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
							sp.Partition, sp.Offset, sp.LeaderEpoch = p, -1, -1
							st.Partitions = append(st.Partitions, sp)
						}
					}
					sg.Topics = append(sg.Topics, st)
				}
				resp.Groups = append(resp.Groups, sg)
			}
			return resp, nil, true
		})
		r := collect(t, topic.Group("g"))
		if left > 0 {
			eventually(t, "the others are not read", func() bool { got, _ := r.counts(); return got > 0 })
		}
		eventually(t, "the client is not made anew", func() bool { return topic.Stats().Readers[0].Restarts > 0 })
		whole.Store(true)
		eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= len(batch) })
		_ = r.stop(t)
		if len(r.got) != len(batch) {
			t.Errorf("%d came, want %d", len(r.got), len(batch))
		}
	}
}

// flips changes the answers of brokers on their way.
type flips struct{ on atomic.Bool }

const good, bad = "all is well", "all is hell"

type flipped struct {
	net.Conn
	f *flips
}

func (c flipped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.f.on.Load() {
		copy(b, bytes.ReplaceAll(b[:n], []byte(good), []byte(bad)))
	}
	return n, err
}

// TestABatchWithAWrongChecksumStandsStillAndIsNamed, and nothing is lost: what came
// before it is delivered, and it and the rest when it can be read.
func TestABatchWithAWrongChecksumStandsStillAndIsNamed(t *testing.T) {
	t.Parallel()
	f := fake(t)
	var flip flips
	flip.on.Store(true)
	config := quick(t, f)
	config.Compression = []string{"none"}
	core, logs := observer.New(zap.WarnLevel)
	config.Logger = zap.New(core)
	config.dial = func(ctx context.Context, network, host string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, host)
		return flipped{c, &flip}, err
	}
	c := open(t, config)
	c.patience = 5 * time.Second // more than the second that a partition rests, however busy the machine is
	topic, err := NewTopic(c, "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		s := sample{Key: "a", Seq: i}
		if i == 6 {
			s.Gone = good
		}
		put(t, topic, s)
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "it is not told", func() bool {
		return strings.Contains(topic.Stats().Readers[0].LastErr, "partition 0 of topic in cannot be read at offset 6")
	})
	eventually(t, "what came before it is not delivered", func() bool { got, _ := r.counts(); return got == 6 })
	eventually(t, "it is not logged", func() bool { return logs.FilterMessageSnippet("stands still").Len() > 0 })
	before := topic.Stats().Readers[0].Restarts
	time.Sleep(2 * c.patience) // the watchdog could not help
	if s := topic.Stats().Readers[0]; s.Lag != 4 || s.Restarts != before {
		t.Errorf("%+v", s)
	}
	flip.on.Store(false)
	eventually(t, "the rest is lost", func() bool { got, _ := r.counts(); return got == 10 })
	_ = r.stop(t)
	for i, s := range r.got {
		if s.Seq != i {
			t.Fatalf("%d came when %d was next", s.Seq, i)
		}
	}
}

// TestRecordsThatTheClusterHasLostAreTold: a leader whose log ends before what was
// read gives the offsets out again, and what lies there now is read.
func TestRecordsThatTheClusterHasLostAreTold(t *testing.T) {
	t.Parallel()
	f := fake(t)
	config := quick(t, f)
	core, logs := observer.New(zap.ErrorLevel)
	config.Logger = zap.New(core)
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, topic, sample{Key: "a", Seq: i})
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got == 10 })
	f.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, rt := range req.(*kmsg.OffsetForLeaderEpochRequest).Topics {
			st := kmsg.NewOffsetForLeaderEpochResponseTopic()
			st.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				sp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				sp.Partition, sp.LeaderEpoch, sp.EndOffset = rp.Partition, rp.LeaderEpoch, 5
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.FencedLeaderEpoch})
	eventually(t, "what lies there now is not read", func() bool { got, _ := r.counts(); return got == 15 })
	_ = r.stop(t)
	if s := topic.Stats().Readers[0]; s.Lost != 5 {
		t.Errorf("%d were counted as lost, want 5", s.Lost)
	}
	if logs.FilterMessageSnippet("lost records that it had acknowledged").Len() != 1 {
		t.Errorf("it is not told: %v", logs.All())
	}
	if r.got[10].Seq != 5 {
		t.Errorf("it went on with %+v", r.got[10])
	}
}

// TestAReaderThatWasAllowedToReadWaitsForAWhile: an ACL that is taken away for a
// moment does not end it; one that stays away does, and so does one that never was.
func TestAReaderThatWasAllowedToReadWaitsForAWhile(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		f := fake(t)
		c := open(t, quick(t, f))
		topic := topicOf[sample](t, c, "in")
		source := func() kemi.Source[sample] {
			if all {
				return topic.All("g")
			}
			return topic.Group("g")
		}
		forbid := func() *kfake.FaultHandle {
			return f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		}
		put(t, topic, sample{Key: "a", Seq: 1})
		h := forbid()
		if err := collect(t, source()).end(t); !errors.Is(err, ErrForbidden) {
			t.Fatalf("it may not read, and Run returned %v", err)
		}
		h.Remove()
		r := collect(t, source())
		eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })
		h = forbid()
		before := topic.Stats().Readers[0].Restarts
		eventually(t, "it does not hear of it", func() bool { return topic.Stats().Readers[0].Restarts > before+1 })
		h.Remove()
		put(t, topic, sample{Key: "a", Seq: 2})
		eventually(t, "it does not go on", func() bool { got, _ := r.counts(); return got == 2 })
		_ = r.stop(t)

		c.patience = 500 * time.Millisecond
		put(t, topic, sample{Key: "a", Seq: 3})
		r = collect(t, source())
		eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })
		defer forbid().Remove()
		if err := r.end(t); !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "after it had worked") {
			t.Errorf("Run returned %v", err)
		}
	}
}

// TestTheLagOfAReaderThatStandsStillGrows: nothing is fetched then that would tell.
func TestTheLagOfAReaderThatStandsStillGrows(t *testing.T) {
	t.Parallel()
	config := quick(t, fake(t))
	config.MaxBufferedBytes = laneMin
	c := open(t, config)
	c.patience = time.Second
	topic, err := NewTopic(c, "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	more := func() {
		for range n {
			put(t, topic, sample{Key: "a", Gone: strings.Repeat("x", laneMin/8)})
		}
	}
	more()
	came := make(chan bool, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- topic.Group("g").Run(ctx, kemi.SinkFunc[sample](func(ctx context.Context, _ []sample) error {
			select {
			case came <- true:
			default:
			}
			<-ctx.Done()
			return ctx.Err()
		}))
	}()
	<-came
	before := topic.Stats().Readers[0].Restarts // of a client that was slow to come so far
	for i := range 3 {
		more()
		eventually(t, "the lag does not grow", func() bool { return topic.Stats().Readers[0].Lag == int64((i+2)*n) })
	}
	if s := topic.Stats().Readers[0]; s.Restarts > before {
		t.Errorf("a sink that is away is no trouble of the client: %+v", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tally keeps how many there were.
type tally struct{ n int }

func (*tally) Fork() kemi.Transform[sample, sample] { return &tally{} }
func (c *tally) Apply(_ context.Context, dst, src []sample) ([]sample, error) {
	for range src {
		c.n++
		dst = append(dst, sample{Key: "n", Seq: c.n})
	}
	return dst, nil
}

func (c *tally) Keep(dst []kemi.Kept) []kemi.Kept {
	return append(dst, kemi.Kept{Key: "n", Value: fmt.Append(nil, c.n)})
}

func (c *tally) Restore(kept []kemi.Kept) error {
	for _, k := range kept {
		if _, err := fmt.Sscan(string(k.Value), &c.n); err != nil {
			return err
		}
	}
	return nil
}

var _ kemi.Keeper = (*tally)(nil)

// TestKeptStateThatIsDeletedIsTold: a reader that runs writes it again, one that starts
// says what it lacks.
func TestKeptStateThatIsDeletedIsTold(t *testing.T) {
	t.Parallel()
	f := fake(t)
	config := quick(t, f)
	core, logs := observer.New(zap.WarnLevel)
	config.Logger = zap.New(core)
	c := open(t, config)
	topic, err := NewTopic(c, "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	var last atomic.Int64
	start := func() func() {
		ctx, cancel := context.WithCancel(t.Context())
		p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("count", topic.Group("g"), kemi.Transform[sample, sample](&tally{}),
			kemi.SinkFunc[sample](func(_ context.Context, b []sample) error { last.Store(int64(b[len(b)-1].Seq)); return nil }))}}
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	next := func(want int64) {
		t.Helper()
		put(t, topic, sample{Key: "a"})
		eventually(t, fmt.Sprintf("%d does not come", want), func() bool { return last.Load() == want })
	}
	committed := func(n int64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d is not committed: %+v", n, topic.Stats()), func() bool {
			g := f.GroupInfo("in.g")
			return g != nil && g.Commits["in"][0].Offset >= n
		})
	}
	stop := start()
	next(1)
	committed(1)
	if err := f.DeleteTopic("kemi-state"); err != nil {
		t.Fatal(err)
	}
	next(2)
	committed(2)
	if s := topic.Stats().Readers[0]; s.CommitsFailed == 0 || !strings.Contains(s.LastErr, "kemi-state") {
		t.Errorf("it is not told: %+v", s)
	}
	stop()
	stop = start()
	next(3) // the state was written again
	committed(3)
	stop()
	if n := topic.Stats().Readers[0].StateLost; n != 0 {
		t.Errorf("%d counted as lost, and it was there", n)
	}
	if err := f.DeleteTopic("kemi-state"); err != nil {
		t.Fatal(err)
	}
	if err := f.CreateTopic("kemi-state", 8, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	defer start()()
	next(1)
	if n := topic.Stats().Readers[0].StateLost; n != 1 || logs.FilterMessageSnippet("kept state is lost").Len() != 1 {
		t.Errorf("%d counted as lost; %v", n, logs.All())
	}
}

// TestATokenIsAskedForAtEachConnection, and an error of it is told.
func TestATokenIsAskedForAtEachConnection(t *testing.T) {
	n := 0
	s := SASL{Mechanism: "OAUTHBEARER", Token: func(context.Context) (string, error) {
		if n++; n > 2 {
			return "", errors.New("the issuer is away")
		}
		return fmt.Sprint("token-", n), nil
	}}
	m, err := s.mechanism()
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		session, first, err := m.Authenticate(t.Context(), "broker:9092")
		if err != nil || !bytes.Contains(first, fmt.Appendf(nil, "auth=Bearer token-%d\x01", i)) {
			t.Fatalf("it begins with %q, %v", first, err)
		}
		if done, _, err := session.Challenge(nil); !done || err != nil {
			t.Errorf("after a yes: %v, %v", done, err)
		}
	}
	if _, _, err := m.Authenticate(t.Context(), "broker:9092"); err == nil || !strings.Contains(err.Error(), "the issuer is away") {
		t.Errorf("Authenticate: %v", err)
	}
}

// stall is a network on which a Write to a broker stands still on its way, with all that
// the connection brings after it, and arrives when it thaws.
type stall struct {
	asked atomic.Int64 // Writes that were sent
	mu    sync.Mutex
	next  chan struct{} // closed when what stands still next thaws
}

type stalled struct {
	net.Conn
	s *stall

	mu             sync.Mutex
	frozen, closed bool
	held           []byte
}

func (s *stall) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	return &stalled{Conn: c, s: s}, err
}

// freeze has the next Write stand still until thaw.
func (s *stall) freeze() (thaw func()) {
	ice := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.Store(0)
	s.next = ice
	return func() { close(ice) }
}

func (s *stall) take() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.Add(1)
	ice := s.next
	s.next = nil
	return ice
}

func (c *stalled) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(b) > 6 && b[4] == 0 && b[5] == byte(kmsg.Produce) { // a size, and what is asked for
		if ice := c.s.take(); ice != nil && !c.frozen {
			c.frozen = true
			go c.thaw(ice)
		}
	}
	if c.frozen {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *stalled) thaw(ice chan struct{}) {
	<-ice
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.Conn.Write(c.held)
	c.frozen, c.held = false, nil
	if c.closed {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		_, _ = c.Conn.Read(make([]byte, 1)) // it has done what it was asked for
		_ = c.Conn.Close()
	}
}

func (c *stalled) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen {
		c.closed = true
		return c.SetReadDeadline(time.Now())
	}
	return c.Conn.Close()
}

// TestABrokerThatFreezesHoldsUpAWriteForSeconds at most, and what is sent again while it
// was stored all the same is there once.
func TestABrokerThatFreezesHoldsUpAWriteForSeconds(t *testing.T) {
	t.Parallel()
	f := fake(t)
	var network stall
	config := quick(t, f)
	config.dial = network.dial
	config.RequestTimeout = 2 * time.Second
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, topic, sample{Key: "a", Seq: 0})
	for i := range 3 {
		thaw := network.freeze()
		began := time.Now()
		put(t, topic, sample{Key: "a", Seq: 1 + i})
		// The client's own patience would be 20 s.
		if took := time.Since(began); network.asked.Load() < 2 || took > 15*time.Second {
			t.Errorf("it took %v, asked %d times", took, network.asked.Load())
		}
		thaw() // and only now it does what it was asked for
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= 4 })
	put(t, topic, sample{Key: "a", Seq: 4})
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= 5 })
	_ = r.stop(t)
	for i, s := range r.got {
		if s.Seq != i {
			t.Fatalf("%d came when %d was next", s.Seq, i)
		}
	}
}
