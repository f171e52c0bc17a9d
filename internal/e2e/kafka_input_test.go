//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/otlp"
	kafkabus "github.com/kemi-go/kemi/bus/kafka"
)

// TestKafkaWithWrongInput has one broker for everything that may be wrong with a topic,
// its records, and those who want in.
func TestKafkaWithWrongInput(t *testing.T) {
	k := startKafka(t, kafkaOptions{Secure: true})
	for name, do := range map[string]func(*testing.T, *kafka){
		"who may not come in is told why":       notLetIn,
		"who may not write or read is told why": forbidden,
		"foreign records are dead letters":      foreignRecords,
		"a record that is too large is named":   tooLarge,
		"a limit may be lowered":                limitLowered,
		"clocks an hour apart":                  clocksApart,
		"a topic is deleted":                    func(t *testing.T, k *kafka) { topicGone(t, k, false) },
		"a topic is made again":                 func(t *testing.T, k *kafka) { topicGone(t, k, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, k)
		})
	}
}

// openKafka opens a connection and watches what is said to the log.
func openKafka(t *testing.T, config kafkabus.Config) (*kafkabus.Cluster, *observer.ObservedLogs, error) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	config.Logger = zap.New(core)
	c, err := kafkabus.Open(config)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, logs, err
}

// reading is a pipeline that reads a topic.
type reading struct {
	t    *testing.T
	got  tally
	dead letters
	stop context.CancelFunc
	done chan error
	flow *kemi.Flow
}

func read(t *testing.T, from kemi.Source[kemi.Metric], via ...kemi.Transform[kemi.Metric, kemi.Metric]) *reading {
	r := &reading{t: t, done: make(chan error, 1)}
	r.flow = kemi.Connect("read", from, kemi.Sink[kemi.Metric](&r.got))
	if len(via) > 0 {
		r.flow = kemi.Pipe("read", from, via[0], kemi.Sink[kemi.Metric](&r.got))
	}
	p := kemi.Pipeline{Flows: []*kemi.Flow{r.flow}, DeadLetters: &r.dead}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	t.Cleanup(stop)
	go func() { r.done <- p.Run(ctx) }()
	return r
}

// comes waits for metrics and dead letters.
func (r *reading) comes(got, dead int) {
	r.t.Helper()
	eventually(r.t, hang, "reading", func() error {
		select {
		case err := <-r.done:
			r.t.Fatalf("the pipeline has ended: %v", err)
		default:
		}
		r.dead.mu.Lock()
		defer r.dead.mu.Unlock()
		if g, d := r.got.count(), len(r.dead.all); g < got || d < dead {
			return fmt.Errorf("%d metrics, %d dead letters; want %d, %d", g, d, got, dead)
		}
		return nil
	})
}

// ends waits until it ends by itself, or stops it.
func (r *reading) ends(stop bool) error {
	r.t.Helper()
	if stop {
		r.stop()
	}
	select {
	case err := <-r.done:
		return err
	case <-time.After(hang):
		r.t.Fatal("the pipeline does not end")
		return nil
	}
}

func put(t *testing.T, topic kemi.Sink[kemi.Metric], ms ...kemi.Metric) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if err := topic.Write(ctx, ms); err != nil {
		t.Fatal(err)
	}
}

func gauge(host string, n int) kemi.Metric {
	return kemi.Gauge("n", kemi.LabelsOf("host", host), began.Add(time.Duration(n)*time.Second), float64(n))
}

// valuesOf returns the values of each host, in order.
func valuesOf(ms []kemi.Metric) map[string][]int {
	all := map[string][]int{}
	for _, m := range ms {
		all[m.Host()] = append(all[m.Host()], int(m.Float()))
	}
	return all
}

// notLetIn: Open says what is wrong, in the words of this library, and no password.
func notLetIn(t *testing.T, k *kafka) {
	login := func(mechanism, password string) *kafkabus.SASL {
		return &kafkabus.SASL{Mechanism: mechanism, User: kafkaUser, Password: password}
	}
	token := func(valid time.Duration) *kafkabus.SASL {
		return &kafkabus.SASL{Mechanism: "OAUTHBEARER", Token: func(context.Context) (string, error) { return kafkaToken(kafkaUser, valid), nil }}
	}
	trust, foreign := &tls.Config{RootCAs: k.CA}, &tls.Config{RootCAs: k.ForeignCA}
	mutual := func(c tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: k.CA, Certificates: []tls.Certificate{c}}
	}
	const wrong = "not-" + kafkaPassword
	for _, c := range []struct {
		name string
		to   []string
		tls  *tls.Config
		sasl *kafkabus.SASL
		want error  // nil: of no kind
		say  string // empty: let in
	}{
		{"plain text", k.Brokers(), nil, nil, nil, ""},
		{"PLAIN", k.SASL(), nil, login("PLAIN", kafkaPassword), nil, ""},
		{"SCRAM-SHA-256", k.SASL(), nil, login("SCRAM-SHA-256", kafkaPassword), nil, ""},
		{"SCRAM-SHA-512", k.SASL(), nil, login("SCRAM-SHA-512", kafkaPassword), nil, ""},
		{"OAUTHBEARER", k.SASL(), nil, token(time.Hour), nil, ""},
		{"TLS", k.TLS(), trust, nil, nil, ""},
		{"TLS and SCRAM", k.SASLTLS(), trust, login("SCRAM-SHA-512", kafkaPassword), nil, ""},
		{"mutual TLS", k.MutualTLS(), mutual(k.ClientCert), nil, nil, ""},
		{"PLAIN, wrong password", k.SASL(), nil, login("PLAIN", wrong), kafkabus.ErrLogin, "PLAIN as " + kafkaUser},
		{"SCRAM-SHA-256, wrong password", k.SASL(), nil, login("SCRAM-SHA-256", wrong), kafkabus.ErrLogin, "SCRAM-SHA-256 as " + kafkaUser},
		{"SCRAM-SHA-512, wrong password", k.SASL(), nil, login("SCRAM-SHA-512", wrong), kafkabus.ErrLogin, "SCRAM-SHA-512 as " + kafkaUser},
		{"TLS and SCRAM, wrong password", k.SASLTLS(), trust, login("SCRAM-SHA-256", wrong), kafkabus.ErrLogin, "SCRAM-SHA-256 as " + kafkaUser},
		{"OAUTHBEARER, expired", k.SASL(), nil, token(-time.Hour), nil, "oauth"},
		{"no login", k.SASL(), nil, nil, kafkabus.ErrUnreached, "Config.SASL"},
		{"a login that nobody wants", k.Brokers(), nil, login("PLAIN", kafkaPassword), kafkabus.ErrLogin, "Config.SASL"},
		{"foreign authority", k.TLS(), foreign, nil, kafkabus.ErrTLS, "RootCAs"},
		{"no certificate", k.MutualTLS(), trust, nil, kafkabus.ErrTLS, "Certificates"},
		{"foreign certificate", k.MutualTLS(), mutual(k.ForeignCert), nil, kafkabus.ErrTLS, "Certificates"},
		{"plain text to TLS", k.TLS(), nil, nil, nil, "speaking to a tls endpoint"},
		{"TLS to plain text", k.Brokers(), trust, nil, kafkabus.ErrUnreached, "Config.TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asked := time.Now()
			config := kafkabus.Config{Brokers: c.to, TLS: c.tls, SASL: c.sasl, Timeout: 2 * time.Minute, RequestTimeout: 2 * time.Minute}
			_, logs, err := openKafka(t, config)
			if (err == nil) != (c.say == "") || c.want != nil && !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.say) {
				t.Errorf("Open: %v\nwant %v with %q", err, c.want, c.say)
			}
			if d := time.Since(asked); d > time.Minute { // it is told, and not waited for
				t.Errorf("it took %s", d)
			}
			text := fmt.Sprint(err, fmt.Sprintf("%v %+v %#v", config.SASL, config, config))
			for _, e := range logs.All() {
				text += e.Message + fmt.Sprint(e.ContextMap())
			}
			if strings.Contains(text, kafkaPassword) {
				t.Errorf("the password is told: %s", text)
			}
		})
	}
}

// forbidden: ACLs take rights away. A Write fails, a reader ends, both say what is
// lacking; and when the right is given back the same topic takes the same Write.
func forbidden(t *testing.T, k *kafka) {
	admin := kadm.NewClient(k.Client())
	deny := func(b *kadm.ACLBuilder) *kadm.ACLBuilder {
		return b.ResourcePatternType(kadm.ACLPatternLiteral).Deny("User:" + kafkaUser).DenyHosts()
	}
	set := func(b *kadm.ACLBuilder) {
		t.Helper()
		made, err := admin.CreateACLs(t.Context(), b)
		if err != nil || len(made) == 0 || made[0].Err != nil {
			t.Fatalf("%v: %+v", err, made)
		}
	}
	take := func(b *kadm.ACLBuilder) {
		t.Helper()
		if gone, err := admin.DeleteACLs(t.Context(), b); err != nil || len(gone) == 0 || gone[0].Err != nil || len(gone[0].Deleted) == 0 {
			t.Fatalf("%v: %+v", err, gone)
		}
	}
	// An authorizer with any ACL about a topic lets in nobody else.
	allow := func(b *kadm.ACLBuilder) *kadm.ACLBuilder {
		return b.ResourcePatternType(kadm.ACLPatternPrefixed).Allow("User:" + kafkaUser).AllowHosts()
	}
	set(allow(kadm.NewACLs().Topics("forbidden").Operations(kadm.OpAll)))
	set(allow(kadm.NewACLs().Groups("forbidden").Operations(kadm.OpAll)))
	c, _, err := openKafka(t, kafkabus.Config{Brokers: k.SASL(), SASL: &kafkabus.SASL{Mechanism: "SCRAM-SHA-256", User: kafkaUser, Password: kafkaPassword}})
	if err != nil {
		t.Fatal(err)
	}
	topic := kafkaTopic(t, c, "forbidden", kafkabus.TopicConfig[kemi.Metric]{Partitions: 2})
	put(t, topic, gauge("a", 1))

	noWrite := deny(kadm.NewACLs().Topics("forbidden").Operations(kadm.OpWrite))
	set(noWrite)
	eventually(t, hang, "the ACL holds", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		switch err := topic.Write(ctx, []kemi.Metric{gauge("b", 1)}); {
		case err == nil:
			return errors.New("it was written")
		case !errors.Is(err, kafkabus.ErrForbidden) || !strings.Contains(err.Error(), `topic "forbidden"`):
			t.Fatalf("Write: %v", err)
		}
		return nil
	})
	take(noWrite)
	eventually(t, hang, "the ACL is gone", func() error { return topic.Write(t.Context(), []kemi.Metric{gauge("a", 2)}) })

	r := read(t, topic.All("reader"))
	eventually(t, hang, "reading", func() error {
		r.got.mu.Lock()
		defer r.got.mu.Unlock()
		if !slices.Contains(valuesOf(r.got.all)["a"], 2) {
			return errors.New("it did not come")
		}
		return nil
	})
	if err := r.ends(true); err != nil {
		t.Error(err)
	}
	for _, right := range []*kadm.ACLBuilder{
		deny(kadm.NewACLs().Groups("forbidden.reader").Operations(kadm.OpRead)),
		deny(kadm.NewACLs().Topics("forbidden").Operations(kadm.OpRead)),
	} {
		set(right)
		r := read(t, topic.Group("reader"))
		if err := r.ends(false); !errors.Is(err, kafkabus.ErrForbidden) || !strings.Contains(err.Error(), `"forbidden."`) {
			t.Errorf("Run: %v", err)
		}
		take(right)
	}
}

// foreignRecords are written by kcat.
func foreignRecords(t *testing.T, k *kafka) {
	c, _, err := openKafka(t, kafkabus.Config{Brokers: k.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	topic := kafkaTopic(t, c, "foreign", kafkabus.TopicConfig[kemi.Metric]{Partitions: 1})
	kcat := need(t, "kcat", "kcat")
	produce := func(text string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), kcat, append([]string{"-P", "-b", k.Brokers()[0], "-t", "foreign", "-p", "0"}, args...)...)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	good, err := otlp.Metrics().AppendBatch(nil, []kemi.Metric{gauge("a", 7)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, topic, gauge("a", 1))
	bad := []struct{ payload, say string }{
		{"no metric at all", "TopicConfig.Foreign"},
		{"of tomorrow", `"otlp/99"`},
		{"gzipped by kcat", "TopicConfig.Foreign"},
		{string(good[:len(good)-3]), ""}, // cut off
		{"", "TopicConfig.Foreign"},      // a tombstone
	}
	codec := "kemi-codec=" + otlp.Metrics().Name()
	produce(bad[0].payload)
	produce(bad[1].payload, "-H", "kemi-codec=otlp/99")
	produce(bad[2].payload, "-z", "gzip", "-k", "key")
	produce(bad[3].payload, "-H", codec, "-D", "\x01\x01")
	if err := k.Client().ProduceSync(t.Context(), &kgo.Record{Topic: "foreign", Key: []byte("k")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	produce(string(good), "-H", codec, "-H", "kemi-origin=nonsense", "-D", "\x01\x01", "-z", "zstd") // as kemi would
	put(t, topic, gauge("a", 2))
	for _, from := range []kemi.Source[kemi.Metric]{topic.Group("g"), topic.All("g")} {
		r := read(t, from)
		r.comes(3, len(bad))
		if err := r.ends(true); err != nil {
			t.Error(err)
		}
		if got := valuesOf(r.got.all)["a"]; !slices.Equal(got, []int{1, 7, 2}) {
			t.Errorf("got %v", got)
		}
		for i, d := range r.dead.all {
			if string(d.Payload) != bad[i].payload || !strings.Contains(d.Error, bad[i].say) || d.Origin.Topic != "foreign" || d.Origin.Offset != int64(i+1) {
				t.Errorf("dead letter %d: %+v", i, d)
			}
		}
	}
	for _, s := range topic.Stats().Readers {
		if s.Refused != uint64(len(bad)) {
			t.Errorf("%s counts %d refused", s.Group, s.Refused)
		}
	}
}

// noise does not become less by compression.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[rand.IntN(64)]
	}
	return string(b)
}

func tooLarge(t *testing.T, k *kafka) {
	c, _, err := openKafka(t, kafkabus.Config{Brokers: k.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	k.CreateTopic("large", 2, "message.timestamp.type", "LogAppendTime", "max.message.bytes", "20000")
	topic := kafkaTopic(t, c, "large", kafkabus.TopicConfig[kemi.Metric]{})
	var batch []kemi.Metric
	for i := range 1000 {
		batch = append(batch, kemi.Gauge("n", kemi.LabelsOf("host", fmt.Sprint("web", i%3), "text", noise(100)), began, float64(i)))
	}
	batch[500] = kemi.Gauge("n", kemi.LabelsOf("host", "web2", "text", noise(30_000)), began, 500)
	err = topic.Write(t.Context(), batch)
	failed, ok := kemi.Failures(err, batch)
	if !ok || len(failed) != 1 || failed[0].Index != 500 || !kemi.IsPermanent(failed[0].Err) || !errors.Is(failed[0].Err, kafkabus.ErrTooLarge) ||
		!strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("Write: %v", err)
	}
	r := read(t, topic.Group("g"))
	r.comes(999, 0)
	if err := r.ends(true); err != nil {
		t.Error(err)
	}
}

// limitLowered: somebody makes max.message.bytes less while kemi runs. A Write that is
// too large for it now fails, whole, and can be written when the limit is back.
func limitLowered(t *testing.T, k *kafka) {
	c, _, err := openKafka(t, kafkabus.Config{Brokers: k.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	topic := kafkaTopic(t, c, "lowered", kafkabus.TopicConfig[kemi.Metric]{Partitions: 1})
	admin := kadm.NewClient(k.Client())
	limit := func(bytes string) {
		t.Helper()
		done, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &bytes}}, "lowered")
		if err != nil || done[0].Err != nil {
			t.Fatalf("%v, %+v", err, done)
		}
	}
	put(t, topic, gauge("a", 1))
	limit("5000")
	large := []kemi.Metric{kemi.Gauge("n", kemi.LabelsOf("host", "a", "text", noise(20_000)), began, 2)}
	eventually(t, hang, "the limit holds", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		switch err := topic.Write(ctx, large); {
		case err == nil:
			return errors.New("it was written")
		case !errors.Is(err, kafkabus.ErrTooLarge) || !strings.Contains(err.Error(), "raise it"):
			t.Fatalf("Write: %v", err)
		}
		return nil
	})
	put(t, topic, gauge("a", 3)) // others go on
	limit("100000")
	eventually(t, hang, "the limit is back", func() error { return topic.Write(t.Context(), large) })
	r := read(t, topic.Group("g"))
	eventually(t, hang, "reading", func() error {
		r.got.mu.Lock()
		defer r.got.mu.Unlock()
		got := valuesOf(r.got.all)["a"]
		for n := range 3 {
			if !slices.Contains(got, n+1) {
				return fmt.Errorf("%v came", got)
			}
		}
		return nil
	})
	if err := r.ends(true); err != nil {
		t.Error(err)
	}
}

// clocksApart: on a topic with the writers' times, the clock of one writer is an hour
// ahead. It is told; nothing is lost; and a reader with state that starts again has the
// state it had, as time goes by the log and never back.
func clocksApart(t *testing.T, k *kafka) {
	k.CreateTopic("clocks", 1, "message.timestamp.type", "CreateTime")
	c, logs, err := openKafka(t, kafkabus.Config{Brokers: k.Brokers(), Tick: 500 * time.Millisecond, CommitInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	topic := kafkaTopic(t, c, "clocks", kafkabus.TopicConfig[kemi.Metric]{})
	said := func(what string) {
		t.Helper()
		if logs.Filter(func(e observer.LoggedEntry) bool { return strings.Contains(e.Message, what) }).Len() == 0 {
			t.Errorf("the log does not say %q", what)
		}
	}
	said("message.timestamp.type is CreateTime")
	cl := k.Client()
	n, soon := 0, 0
	last := map[string]time.Time{}
	write := func(host string, ahead time.Duration) error {
		t.Helper()
		at := time.Now().Add(ahead)
		if at.Sub(last[host]) < 4*time.Second {
			soon++ // enough for a rate
		}
		last[host] = at
		value, err := otlp.Metrics().AppendBatch(nil, []kemi.Metric{
			gauge(host, n), kemi.Counter("c", kemi.LabelsOf("host", host), at.UTC(), uint64(n)),
		})
		if err != nil {
			t.Fatal(err)
		}
		n++
		return cl.ProduceSync(t.Context(), &kgo.Record{
			Topic: "clocks", Key: []byte(host), Value: value, Timestamp: at,
			Headers: []kgo.RecordHeader{{Key: "kemi-codec", Value: []byte(otlp.Metrics().Name())}},
		}).FirstErr()
	}
	want := 0
	var got []kemi.Metric
	for range 3 { // each a new start
		r := read(t, topic.Group("g"), memberRates(t))
		for range 10 {
			if err := errors.Join(write("right", 0), write("ahead", time.Hour-10*time.Second)); err != nil {
				t.Fatal(err)
			}
			want += 2
			time.Sleep(50 * time.Millisecond)
		}
		eventually(t, hang, "reading", func() error {
			r.got.mu.Lock()
			defer r.got.mu.Unlock()
			if n := len(gauges(append(slices.Clone(got), r.got.all...))); n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
		if err := r.ends(true); err != nil {
			t.Error(err)
		}
		if s := r.flow.Stats(); s.Mismatches+s.Dead+s.Dropped > 0 {
			t.Errorf("the flow has %+v", s)
		}
		got = append(got, r.got.all...)
	}
	for host, ns := range valuesOf(gauges(got)) {
		if !slices.IsSorted(ns) || len(slices.Compact(ns)) != want/2 {
			t.Errorf("of %s came %v", host, ns)
		}
	}
	rates := 0
	for _, m := range got {
		if m.Name == "c_rate" {
			rates++
		}
	}
	if soon == 0 || rates < soon-8 { // the leap of the clock and the new starts cost a few
		t.Errorf("%d rates of %d readings, %d of them soon after another", rates, want, soon)
	}
	said("from the future")
	if s := topic.Stats().Readers[0]; s.Ahead == 0 || s.Proved == 0 || s.Mismatched+s.Lost+s.Shortened > 0 {
		t.Errorf("the reader has %+v", s)
	}
	// A broker takes no record of more than an hour ahead (log.message.timestamp.after.max.ms).
	if err := write("mad", time.Hour+time.Minute); !errors.Is(err, kerr.InvalidTimestamp) {
		t.Errorf("a clock of more than an hour ahead: %v", err)
	}
}

func gauges(ms []kemi.Metric) (all []kemi.Metric) {
	for _, m := range ms {
		if m.Name == "n" {
			all = append(all, m)
		}
	}
	return all
}

// topicGone: a topic is deleted under its readers, and perhaps made again. They end and
// say so, and so does who writes. Who starts again on the new one reads all of it.
func topicGone(t *testing.T, k *kafka, again bool) {
	name, want, say := "deleted", kafkabus.ErrNoTopic, "look why it was deleted"
	if again {
		name, want, say = "again", kafkabus.ErrRecreated, "delete the groups"
	}
	c, _, err := openKafka(t, kafkabus.Config{Brokers: k.Brokers(), CommitInterval: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	topic := kafkaTopic(t, c, name, kafkabus.TopicConfig[kemi.Metric]{Partitions: 2})
	for i := range 10 {
		put(t, topic, gauge("a", i))
	}
	readers := []*reading{read(t, topic.Group("g")), read(t, topic.All("g"))}
	admin := kadm.NewClient(k.Client(kgo.MetadataMinAge(100 * time.Millisecond)))
	for i, r := range readers {
		r.comes(10, 0)
		group := name + ".g" + []string{"", ".all"}[i]
		eventually(t, hang, "the commit", func() error { return past(admin, group, name, k.ends(admin, name)) })
	}
	if _, err := admin.DeleteTopic(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if again {
		eventually(t, hang, "making it again", func() error {
			_, err := admin.CreateTopic(t.Context(), 2, -1, map[string]*string{"message.timestamp.type": kadm.StringPtr("LogAppendTime")}, name)
			return err
		})
	}
	gone := time.Now()
	for i, r := range readers {
		if err := r.ends(false); !errors.Is(err, want) || !strings.Contains(err.Error(), say) {
			t.Errorf("reader %d ends with %v", i, err)
		}
		t.Logf("reader %d ended after %s", i, time.Since(gone).Round(100*time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	err = topic.Write(ctx, []kemi.Metric{gauge("a", 10)})
	t.Logf("a Write to it: %v", err)
	accepted := err == nil
	switch {
	case again && err != nil && !errors.Is(err, kafkabus.ErrRecreated):
		t.Errorf("a Write to a topic that was made again: %v", err)
	case !again && !errors.Is(err, kafkabus.ErrNoTopic):
		t.Errorf("a Write to a topic that is gone: %v", err)
	}
	c, _, err = openKafka(t, kafkabus.Config{Brokers: k.Brokers()}) // as the error says
	if err != nil {
		t.Fatal(err)
	}
	next := kafkaTopic(t, c, name, kafkabus.TopicConfig[kemi.Metric]{Partitions: 2})
	for i := range 3 {
		put(t, next, gauge("a", 20+i))
	}
	wanted := []int{20, 21, 22}
	if accepted {
		wanted = append([]int{10}, wanted...)
	}
	for i, from := range []kemi.Source[kemi.Metric]{next.Group("g"), next.All("g")} {
		r := read(t, from)
		r.comes(len(wanted), 0)
		if err := r.ends(true); err != nil {
			t.Error(err)
		}
		if got := valuesOf(r.got.all)["a"]; !slices.Equal(got, wanted) {
			t.Errorf("reader %d got %v", i, got)
		}
	}
}
