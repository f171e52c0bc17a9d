package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
	"github.com/kemi-go/kemi/internal/origin"
)

// stranger is a client that is not ours.
func stranger(tb testing.TB, f *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	tb.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(f.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func produce(tb testing.TB, c *kgo.Client, records ...*kgo.Record) {
	tb.Helper()
	if err := c.ProduceSync(tb.Context(), records...).FirstErr(); err != nil {
		tb.Fatal(err)
	}
}

// collected is what a reader has delivered.
type collected struct {
	mu     sync.Mutex
	got    []sample
	dead   []kemi.DeadLetter
	cancel context.CancelFunc
	done   chan error
}

// collect reads until stop.
func collect(tb testing.TB, src kemi.Source[sample]) *collected {
	c := &collected{done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	p := kemi.Pipeline{
		DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, b []kemi.DeadLetter) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.dead = append(c.dead, b...)
			return nil
		}),
		Flows: []*kemi.Flow{kemi.Connect("collect", src, kemi.SinkFunc[sample](func(_ context.Context, b []sample) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, b...)
			return nil
		}))},
	}
	go func() { c.done <- p.Run(ctx) }()
	tb.Cleanup(cancel)
	return c
}

func (c *collected) stop(tb testing.TB) error {
	tb.Helper()
	c.cancel()
	return c.end(tb)
}

// end waits for a reader that ends by itself.
func (c *collected) end(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-c.done:
		return err
	case <-time.After(hang):
		tb.Fatal("Run does not return")
		return nil
	}
}

func (c *collected) counts() (got, dead int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got), len(c.dead)
}

// hang is after how long something does not come any more, however busy the machine is.
const hang = 3 * time.Minute

func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for end := time.Now().Add(hang); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal(what)
		}
	}
}

func put(tb testing.TB, t *Topic[sample], batch ...sample) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if err := t.Write(ctx, batch); err != nil {
		tb.Fatal(err)
	}
}

func TestForeignRecordsAreDeadLettersWithTheirBytes(t *testing.T) {
	t.Parallel()
	f := fake(t)
	c := open(t, quick(t, f))
	topic, err := NewTopic(c, "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := stranger(t, f)
	put(t, topic, sample{Key: "a", Seq: 1})
	bad := []*kgo.Record{
		{Topic: "in", Value: []byte("what is this")},
		{Topic: "in"}, // a tombstone
		{Topic: "in", Value: []byte("xyz"), Headers: []kgo.RecordHeader{{Key: headerCodec, Value: []byte("kemi/99")}}},
		{Topic: "in", Value: []byte(`{"Key":"a","Se`), Headers: []kgo.RecordHeader{{Key: headerCodec, Value: []byte("json/1")}}}, // cut off
		{Topic: "in", Value: []byte(`zzz`), Headers: []kgo.RecordHeader{
			{Key: headerCodec, Value: []byte("json/1")}, {Key: headerOrigin, Value: []byte("///")}, {Key: headerAfter, Value: []byte("\xff")}, {Key: headerTick},
		}},
	}
	produce(t, s, bad...)
	put(t, topic, sample{Key: "a", Seq: 2})
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, dead := r.counts(); return got == 2 && dead == len(bad) })
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
	words := []string{"TopicConfig.Foreign", "TopicConfig.Foreign", `"kemi/99"`, "", ""}
	for i, d := range r.dead {
		if !bytes.Equal(d.Payload, bad[i].Value) || d.Origin != (kemi.Origin{Topic: "in", Offset: int64(i + 1)}) || !strings.Contains(d.Error, words[i]) {
			t.Errorf("dead letter %d: %+v", i, d)
		}
	}
	if n := topic.Stats().Readers[0].Refused; n != uint64(len(bad)) {
		t.Errorf("%d were counted as refused, want %d", n, len(bad))
	}
}

func TestForeignRecordsCanBeMeantToBeThere(t *testing.T) {
	t.Parallel()
	f := fake(t)
	topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1, Foreign: jsonl.Codec[sample]()})
	if err != nil {
		t.Fatal(err)
	}
	produce(t, stranger(t, f), &kgo.Record{Topic: "in", Value: []byte(`{"Key":"a","Seq":7}`)})
	r := collect(t, topic.All("a"))
	eventually(t, "it did not come", func() bool { got, _ := r.counts(); return got == 1 })
	_ = r.stop(t)
	if r.got[0] != (sample{Key: "a", Seq: 7}) {
		t.Errorf("got %+v", r.got)
	}
}

// TestABombIsADeadLetter: a batch that is small and becomes too large.
func TestABombIsADeadLetter(t *testing.T) {
	t.Parallel()
	f := fake(t)
	config := quick(t, f)
	config.MaxBufferedBytes = 1 << 20
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := stranger(t, f, kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedBytes(64<<20))
	put(t, topic, sample{Key: "a", Seq: 1})
	produce(t, s, &kgo.Record{Topic: "in", Value: make([]byte, 4<<20)})
	put(t, topic, sample{Key: "a", Seq: 2})
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, dead := r.counts(); return got == 2 && dead == 1 })
	_ = r.stop(t)
	if d := r.dead[0]; d.Origin.Offset != 1 || !strings.Contains(d.Error, "MaxBufferedBytes") {
		t.Errorf("%+v", d)
	}
}

func TestARecordThatIsTooLargeIsNamed(t *testing.T) {
	t.Parallel()
	f := fake(t)
	config := quick(t, f)
	config.BatchMaxBytes = 20_000
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]sample, 1000)
	for i := range batch {
		batch[i] = sample{Key: fmt.Sprint("k", i%3), Seq: i}
	}
	batch[500].Gone = strings.Repeat("x", 30_000)
	err = topic.Write(t.Context(), batch)
	failed, ok := kemi.Failures(err, batch)
	if !ok || len(failed) != 1 || failed[0].Index != 500 || !kemi.IsPermanent(failed[0].Err) || !errors.Is(failed[0].Err, ErrTooLarge) {
		t.Fatalf("Write: %v", err)
	}
	if !strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("it does not say what to do: %v", err)
	}
	r := collect(t, topic.Group("g"))
	eventually(t, "the others are not there", func() bool { got, _ := r.counts(); return got == 999 })
	_ = r.stop(t)
}

// TestATopicDeletedOrMadeAgainEndsItsReaders, and says what to do.
func TestATopicDeletedOrMadeAgainEndsItsReaders(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, all := range []bool{false, true} {
			f := fake(t)
			c := open(t, quick(t, f))
			c.patience = time.Second
			topic := topicOf[sample](t, c, "in")
			put(t, topic, sample{Key: "a", Seq: 1})
			src := topic.Group("g")
			if all {
				src = topic.All("g")
			}
			r := collect(t, src)
			eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })
			// Made again at once: nobody hears that it was gone for a moment.
			var gone atomic.Bool
			gone.Store(again)
			f.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
				f.KeepControl()
				if gone.Load() {
					return nil, errors.New("later"), true
				}
				return nil, nil, false
			})
			if err := f.DeleteTopic("in"); err != nil {
				t.Fatal(err)
			}
			want, words := ErrNoTopic, "look why it was deleted"
			if again {
				want, words = ErrRecreated, "delete the groups"
				if err := f.CreateTopic("in", lanes, nil); err != nil {
					t.Fatal(err)
				}
				gone.Store(false)
			}
			if err := r.end(t); !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
				t.Errorf("made again %v, all %v: Run returned %v, want %v", again, all, err, want)
			}
		}
	}
}

// TestClocksThatDifferAreTold: with CreateTime the time of a record is that of its
// writer, and one of two has a clock an hour ahead.
func TestClocksThatDifferAreTold(t *testing.T) {
	t.Parallel()
	f := fake(t)
	if err := f.CreateTopic("in", 1, map[string]string{"message.timestamp.type": "CreateTime"}); err != nil {
		t.Fatal(err)
	}
	config := quick(t, f)
	core, logs := observer.New(zap.WarnLevel)
	config.Logger = zap.New(core)
	topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{})
	if err != nil {
		t.Fatal(err)
	}
	if logs.FilterMessageSnippet("message.timestamp.type").Len() != 1 {
		t.Errorf("CreateTime was not told: %v", logs.All())
	}
	put(t, topic, sample{Key: "a", Seq: 1})
	produce(t, stranger(t, f), &kgo.Record{
		Topic: "in", Timestamp: time.Now().Add(time.Hour), Value: []byte(`{"Key":"a","Seq":2}`),
		Headers: []kgo.RecordHeader{{Key: headerCodec, Value: []byte("json/1")}},
	})
	put(t, topic, sample{Key: "a", Seq: 3})
	r := collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got == 3 })
	_ = r.stop(t)
	if s := topic.Stats().Readers[0]; s.Ahead == 0 || logs.FilterMessageSnippet("from the future").Len() != 1 {
		t.Errorf("not told: %+v, %v", s, logs.All())
	}
}

func TestTopicsAreLookedAt(t *testing.T) {
	t.Parallel()
	f := fake(t)
	for name, settings := range map[string]map[string]string{
		"compacted": {"cleanup.policy": "compact"},
		"isr":       {"min.insync.replicas": "4"},
		"weak":      {"min.insync.replicas": "1", "retention.ms": "3600000"},
		"plain":     {"min.insync.replicas": "2", "message.timestamp.type": "LogAppendTime"},
	} {
		if err := f.CreateTopic(name, 5, settings); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		topic  string
		config TopicConfig[sample]
		err    string
		warn   string
	}{
		{"plain", TopicConfig[sample]{}, "", ""},
		{"plain", TopicConfig[sample]{Partitions: 5}, "", ""},
		{"plain", TopicConfig[sample]{Partitions: 6}, "it has 5 partitions", ""},
		{"compacted", TopicConfig[sample]{}, "set it to delete", ""},
		{"isr", TopicConfig[sample]{}, "nothing can be written", ""},
		{"weak", TopicConfig[sample]{Retain: 2 * time.Hour}, "", "min.insync.replicas is 1"},
		{"weak", TopicConfig[sample]{Retain: 2 * time.Hour}, "", "less than TopicConfig.Retain"},
		{"no name", TopicConfig[sample]{}, "a name has letters", ""},
		{"", TopicConfig[sample]{}, "needs a name", ""},
		{"new", TopicConfig[sample]{Partitions: -1}, "-1 partitions", ""},
		{"new", TopicConfig[sample]{ReplicationFactor: 9}, "cannot be made", ""},
		{"new", TopicConfig[sample]{Codecs: codec.Set[sample]{Read: []bus.Codec[sample]{jsonl.Codec[sample]()}}}, "no codec to write with", ""},
	} {
		config := quick(t, f)
		core, logs := observer.New(zap.WarnLevel)
		config.Logger = zap.New(core)
		_, err := NewTopic(open(t, config), c.topic, c.config)
		if err == nil && c.err != "" || err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q %+v: %v, want %q", c.topic, c.config, err, c.err)
		}
		if n := logs.FilterMessageSnippet(c.warn).Len(); c.warn != "" && n == 0 {
			t.Errorf("%q: %q was not told: %v", c.topic, c.warn, logs.All())
		}
		if c.topic == "plain" && logs.Len() > 0 {
			t.Errorf("there is nothing to say of it: %v", logs.All())
		}
	}
}

// TestAnOffsetThatSomebodySetIsRespected, be it back or forth.
func TestAnOffsetThatSomebodySetIsRespected(t *testing.T) {
	t.Parallel()
	f := fake(t)
	c := open(t, quick(t, f))
	topic, err := NewTopic(c, "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, topic, sample{Key: "a", Seq: i})
	}
	for _, all := range []bool{false, true} {
		src := func() kemi.Source[sample] { return topic.Group("g") }
		name := "in.g"
		if all {
			src, name = func() kemi.Source[sample] { return topic.All("g") }, "in.g.all"
		}
		r := collect(t, src())
		eventually(t, "not all came", func() bool { got, _ := r.counts(); return got == 10 })
		_ = r.stop(t)
		adm := kadm.NewClient(stranger(t, f))
		if err := adm.CommitAllOffsets(t.Context(), name, kadm.OffsetsFromFetches(nil)); err != nil {
			t.Fatal(err)
		}
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: "in", Partition: 0, At: 4, LeaderEpoch: -1})
		if err := adm.CommitAllOffsets(t.Context(), name, offsets); err != nil {
			t.Fatal(err)
		}
		r = collect(t, src())
		eventually(t, "it does not go on from there", func() bool { got, _ := r.counts(); return got >= 6 })
		_ = r.stop(t)
		if len(r.got) != 6 || r.got[0].Seq != 4 {
			t.Errorf("all %v: got %v", all, r.got)
		}
	}
}

// TestAPositionOfANewerProgramIsNotWrittenOver: an older one must not go on from it.
func TestAPositionOfANewerProgramIsNotWrittenOver(t *testing.T) {
	t.Parallel()
	f := fake(t)
	topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, topic, sample{Key: "a"})
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "in", Partition: 0, At: 1, LeaderEpoch: -1, Metadata: "kemi1:" + "/w"}) // version 255
	for _, name := range []string{"in.g", "in.g.all"} {
		if err := kadm.NewClient(stranger(t, f)).CommitAllOffsets(t.Context(), name, offsets); err != nil {
			t.Fatal(err)
		}
	}
	for _, src := range []kemi.Source[sample]{topic.Group("g"), topic.All("g")} {
		if err := collect(t, src).end(t); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("Run returned %v", err)
		}
	}
}

// TestMoreMarksThanACommitTakes: a reader of a topic that many partitions are written
// into remembers them all, across a restart.
func TestMoreMarksThanACommitTakes(t *testing.T) {
	t.Parallel()
	const sources = 600
	f := fake(t)
	topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := stranger(t, f)
	from := func(seq origin.Seq) (records []*kgo.Record) {
		for i := range int32(sources) {
			stamp := origin.Stamp{Source: origin.Source{Reader: "up@r", Partition: i}, Seq: seq}
			records = append(records, &kgo.Record{
				Topic: "in", Value: fmt.Appendf(nil, `{"Key":"k","Seq":%d}`, seq),
				Headers: []kgo.RecordHeader{{Key: headerCodec, Value: []byte("json/1")}, {Key: headerOrigin, Value: stamp.Append(nil)}},
			})
		}
		return records
	}
	for round := range 3 {
		for seq := range origin.Seq(round + 1) { // all that was written before comes again
			produce(t, s, from(1_000_000_007*(seq+1))...)
		}
		for who, src := range []kemi.Source[sample]{topic.Group("g"), topic.All("g")} {
			r := collect(t, src)
			eventually(t, "not all came", func() bool { got, _ := r.counts(); return got >= sources })
			eventually(t, "it was not read to the end", func() bool {
				s := topic.Stats().Readers[who]
				return s.Lag == 0 && len(s.Partitions) == 1
			})
			_ = r.stop(t)
			if len(r.got) != sources {
				t.Errorf("round %d: %d came, want %d", round, len(r.got), sources)
			}
		}
	}
	text := f.GroupInfo("in.g").Commits["in"][0].Metadata
	if !strings.HasPrefix(text, "kemi1@") {
		t.Errorf("the position was to be too long for a commit, and is %d bytes", len(text))
	}
}

// TestWhatRetentionHasTakenIsCounted.
func TestWhatRetentionHasTakenIsCounted(t *testing.T) {
	t.Parallel()
	f := fake(t)
	topic, err := NewTopic(open(t, quick(t, f)), "in", TopicConfig[sample]{Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	put(t, topic, sample{Key: "a", Seq: 1})
	r := collect(t, topic.Group("g"))
	eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })
	_ = r.stop(t)
	for i := range 9 {
		put(t, topic, sample{Key: "a", Seq: 2 + i})
	}
	if err := f.DeleteRecords("in", 0, 6); err != nil {
		t.Fatal(err)
	}
	r = collect(t, topic.Group("g"))
	eventually(t, "not all came", func() bool { got, _ := r.counts(); return got == 4 })
	_ = r.stop(t)
	if n := topic.Stats().Readers[0].Lost; n != 5 {
		t.Errorf("%d counted as lost, want 5", n)
	}
}

// TestRetentionThatIsTooShortIsTold: a reader that looks back further than half of what
// the topic keeps cannot be built again after an outage.
func TestRetentionThatIsTooShortIsTold(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{time.Second, time.Hour} {
		config := quick(t, fake(t))
		core, logs := observer.New(zap.WarnLevel)
		config.Logger = zap.New(core)
		topic, err := NewTopic(open(t, config), "in", TopicConfig[sample]{Partitions: 1, Retain: keep})
		if err != nil {
			t.Fatal(err)
		}
		put(t, topic, sample{Key: "a", Seq: 1})
		came := make(chan bool, 100)
		ctx, cancel := context.WithCancel(t.Context())
		p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("pairs", topic.Group("g"), kemi.Transform[sample, sample](&pairs{}),
			kemi.SinkFunc[sample](func(context.Context, []sample) error { came <- true; return nil }))}}
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		<-came
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if told := logs.FilterMessageSnippet("raise retention.ms to 6000").Len() == 1; told != (keep == time.Second) {
			t.Errorf("of %v it was told %v: %v", keep, told, logs.All())
		}
	}
}
