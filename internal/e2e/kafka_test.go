//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// kafkaToken is an unsigned token (a JWS with the algorithm none), which a Secure
// kafka takes for OAUTHBEARER.
func kafkaToken(user string, valid time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	return part([]byte(`{"alg":"none"}`)) + "." +
		part(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, user, now.Unix(), now.Add(valid).Unix())) + "."
}

// Every way of being let in lets the right one in, to write and to read, and refuses
// the wrong one with an error that says so.
func TestKafkaLetsInWhoMayComeIn(t *testing.T) {
	k := startKafka(t, kafkaOptions{Secure: true})
	k.CreateTopic("in", 1, "message.timestamp.type", "LogAppendTime")
	withPlain := func(user, password string) kgo.Opt {
		return kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism())
	}
	scram256 := func(user, password string) kgo.Opt {
		return kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism())
	}
	scram512 := func(user, password string) kgo.Opt {
		return kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism())
	}
	token := func(token string) kgo.Opt { return kgo.SASL(oauth.Auth{Token: token}.AsMechanism()) }
	trust := kgo.DialTLSConfig(&tls.Config{RootCAs: k.CA})
	foreign := kgo.DialTLSConfig(&tls.Config{RootCAs: k.ForeignCA})
	mutual := func(c tls.Certificate) kgo.Opt {
		return kgo.DialTLSConfig(&tls.Config{RootCAs: k.CA, Certificates: []tls.Certificate{c}})
	}
	const denied, unknownCA, badCert = "SASL_AUTHENTICATION_FAILED", "unknown authority", "tls: "
	for _, c := range []struct {
		name  string
		addrs []string
		opts  []kgo.Opt
		want  string // of the error; empty: let in
	}{
		{"plaintext", k.Brokers(), nil, ""},
		{"plain", k.SASL(), []kgo.Opt{withPlain(kafkaUser, kafkaPassword)}, ""},
		{"plain, wrong password", k.SASL(), []kgo.Opt{withPlain(kafkaUser, "no")}, denied},
		{"plain, unknown user", k.SASL(), []kgo.Opt{withPlain("mallory", kafkaPassword)}, denied},
		{"scram-256", k.SASL(), []kgo.Opt{scram256(kafkaUser, kafkaPassword)}, ""},
		{"scram-256, wrong password", k.SASL(), []kgo.Opt{scram256(kafkaUser, "no")}, denied},
		{"scram-256, unknown user", k.SASL(), []kgo.Opt{scram256("mallory", kafkaPassword)}, denied},
		{"scram-512", k.SASL(), []kgo.Opt{scram512(kafkaUser, kafkaPassword)}, ""},
		{"scram-512, wrong password", k.SASL(), []kgo.Opt{scram512(kafkaUser, "no")}, denied},
		{"oauthbearer", k.SASL(), []kgo.Opt{token(kafkaToken("alice", time.Hour))}, ""},
		{"oauthbearer, expired", k.SASL(), []kgo.Opt{token(kafkaToken("alice", -time.Hour))}, "oauth"},
		{"no sasl at all", k.SASL(), nil, "closed"},
		{"tls", k.TLS(), []kgo.Opt{trust}, ""},
		{"tls, foreign authority", k.TLS(), []kgo.Opt{foreign}, unknownCA},
		{"tls, no tls", k.TLS(), nil, "invalid large response size"},
		{"plain in tls", k.SASLTLS(), []kgo.Opt{trust, withPlain(kafkaUser, kafkaPassword)}, ""},
		{"scram-256 in tls", k.SASLTLS(), []kgo.Opt{trust, scram256(kafkaUser, kafkaPassword)}, ""},
		{"scram-512 in tls", k.SASLTLS(), []kgo.Opt{trust, scram512(kafkaUser, kafkaPassword)}, ""},
		{"oauthbearer in tls", k.SASLTLS(), []kgo.Opt{trust, token(kafkaToken("alice", time.Hour))}, ""},
		{"scram-512 in tls, wrong password", k.SASLTLS(), []kgo.Opt{trust, scram512(kafkaUser, "no")}, denied},
		{"mutual tls", k.MutualTLS(), []kgo.Opt{mutual(k.ClientCert)}, ""},
		{"mutual tls, no certificate", k.MutualTLS(), []kgo.Opt{trust}, badCert},
		{"mutual tls, foreign certificate", k.MutualTLS(), []kgo.Opt{mutual(k.ForeignCert)}, badCert},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := append(c.opts, kgo.SeedBrokers(c.addrs...))
			if c.want == "" { // or else nobody asks beside the Ping, whose error says less when that fails first
				opts = append(opts, kgo.ConsumeTopics("in"))
			}
			cl, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if c.want != "" {
				err := cl.Ping(ctx)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want one with %q", err, c.want)
				}
				return
			}
			before := time.Now().Add(-time.Second)
			r := &kgo.Record{Topic: "in", Value: []byte(c.name), Timestamp: time.Unix(1, 0)}
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			for {
				fs := cl.PollFetches(ctx)
				if err := fs.Err(); err != nil {
					t.Fatal(err)
				}
				for _, got := range fs.Records() {
					if string(got.Value) != c.name {
						continue // of the one before
					}
					if got.Timestamp.Before(before) {
						t.Errorf("the time is %s, and not the log's own", got.Timestamp)
					}
					return
				}
			}
		})
	}
}

// A broker of three is killed while records are written, another frozen: the writing
// goes on. Then all are killed. What was acknowledged is there, once and in order.
func TestKafkaLosesNothingWithABroker(t *testing.T) {
	k := startKafka(t, kafkaOptions{Nodes: 3})
	const partitions = 6
	k.CreateTopic("t", partitions)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	stop, ended := make(chan struct{}), make(chan struct{})
	var acked atomic.Int64
	var pause atomic.Int64 // the longest wait for an acknowledgement
	go func() {
		defer close(ended)
		cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			// What was sent to a broker that is frozen is given up after these two, 20 s by default.
			kgo.ProduceRequestTimeout(2*time.Second), kgo.RequestTimeoutOverhead(2*time.Second),
			// A new leader is learned of after this, 5 s by default.
			kgo.MetadataMinAge(250*time.Millisecond))
		if err != nil {
			t.Error(err)
			return
		}
		defer cl.Close()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			r := &kgo.Record{Topic: "t", Partition: int32(n % partitions), Value: []byte(strconv.Itoa(n))}
			sent := time.Now()
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Errorf("record %d: %v", n, err)
				return
			}
			acked.Add(1)
			pause.Store(max(pause.Load(), int64(time.Since(sent))))
		}
	}()
	more := func() {
		t.Helper()
		from := acked.Load()
		eventually(t, hang, "the writing goes on", func() error {
			if n := acked.Load() - from; n < 200 {
				return fmt.Errorf("%d records were acknowledged", n)
			}
			return nil
		})
	}
	part := func(what string, do func()) {
		t.Helper()
		began := time.Now()
		do()
		t.Logf("%s: %s", what, time.Since(began).Round(100*time.Millisecond))
	}
	part("the first records", more)
	k.Kill(0)
	part("the killed one is out of sync", func() { k.AwaitOutOfSync(0, "t") })
	part("more records", more)
	part("restart", func() { k.Restart(0) })
	part("in sync", func() { k.AwaitInSync("t") })
	k.Freeze(1)
	part("the frozen one is out of sync", func() { k.AwaitOutOfSync(1, "t") })
	part("more records", more)
	k.Thaw(1)
	part("in sync", func() { k.AwaitInSync("t") })
	part("more records", more)
	close(stop)
	<-ended
	sent := int(acked.Load())
	t.Logf("the longest wait was %s", time.Duration(pause.Load()).Round(100*time.Millisecond))
	part("all are killed, and back", func() {
		for i := range 3 {
			k.Kill(i)
		}
		for i := range 3 {
			k.Restart(i)
		}
		k.AwaitInSync("t")
	})
	cl := k.Client(kgo.ConsumeTopics("t"))
	next := [partitions]int{}
	for seen := 0; seen < sent; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("%d of %d records are there: %v", seen, sent, err)
		}
		for _, r := range fs.Records() {
			if want := next[r.Partition]*partitions + int(r.Partition); string(r.Value) != strconv.Itoa(want) {
				t.Fatalf("partition %d has %s where %d belongs", r.Partition, r.Value, want)
			}
			next[r.Partition]++
			seen++
		}
	}
	t.Logf("%d records, all there", sent)
}
