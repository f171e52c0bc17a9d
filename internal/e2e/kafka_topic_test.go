//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec"
	kafkabus "github.com/kemi-go/kemi/bus/kafka"
)

// busConfig is that of a topic of kemi on k, for a test.
func busConfig(t testing.TB, brokers []string) kafkabus.Config {
	return kafkabus.Config{
		Brokers: brokers, Linger: time.Millisecond, CommitInterval: 50 * time.Millisecond, FetchMaxWait: 50 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 200 * time.Millisecond, Tick: 200 * time.Millisecond,
		Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
	}
}

func openBus(t testing.TB, c kafkabus.Config) *kafkabus.Cluster {
	t.Helper()
	cl, err := kafkabus.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// TestKafkaTopic holds the topics of kemi against the contract, on one real broker and
// on three.
func TestKafkaTopic(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			k := startKafka(t, kafkaOptions{Nodes: nodes})
			n := 0
			bustest.Run(t, func(tb testing.TB) bustest.Bus {
				n++
				prefix := fmt.Sprintf("check%d-", n)
				config := busConfig(t, k.Brokers())
				c := openBus(tb, config)
				return bustest.Bus{
					Open: func(tb testing.TB, name string, t bustest.Topic) bus.Topic[bustest.Record] {
						topic, err := kafkabus.NewTopic(c, prefix+name, kafkabus.TopicConfig[bustest.Record]{
							Partitions: t.Partitions, Codecs: codec.Set[bustest.Record]{Write: bustest.Codec()},
						})
						if err != nil {
							tb.Fatal(err)
						}
						return topic
					},
					Restart: func(tb testing.TB) {
						_ = c.Close()
						c = openBus(tb, config)
					},
					Rewinds: true, Recovers: true,
					Churn: 6, Patience: 90 * time.Second,
				}
			})
		})
	}
}

// TestKafkaLogin logs in to a real broker in every way there is, and is kept out.
func TestKafkaLogin(t *testing.T) {
	k := startKafka(t, kafkaOptions{Secure: true})
	login := func(mechanism, password string) *kafkabus.SASL {
		return &kafkabus.SASL{Mechanism: mechanism, User: kafkaUser, Password: password}
	}
	trusted := &tls.Config{RootCAs: k.CA}
	known := &tls.Config{RootCAs: k.CA, Certificates: []tls.Certificate{k.ClientCert}}
	for _, c := range []struct {
		name string
		to   []string
		tls  *tls.Config
		sasl *kafkabus.SASL
		want error
	}{
		{"plain", k.Brokers(), nil, nil, nil},
		{"PLAIN", k.SASL(), nil, login("PLAIN", kafkaPassword), nil},
		{"SCRAM-SHA-256", k.SASL(), nil, login("SCRAM-SHA-256", kafkaPassword), nil},
		{"SCRAM-SHA-512 over TLS", k.SASLTLS(), trusted, login("SCRAM-SHA-512", kafkaPassword), nil},
		{"mutual TLS", k.MutualTLS(), known, nil, nil},
		{"wrong password", k.SASL(), nil, login("PLAIN", kafkaPassword+"x"), kafkabus.ErrLogin},
		{"wrong password, SCRAM", k.SASL(), nil, login("SCRAM-SHA-512", kafkaPassword+"x"), kafkabus.ErrLogin},
		{"no login", k.SASL(), nil, nil, kafkabus.ErrUnreached},
		{"foreign authority", k.TLS(), &tls.Config{RootCAs: k.ForeignCA}, nil, kafkabus.ErrTLS},
		{"no certificate", k.MutualTLS(), trusted, nil, kafkabus.ErrTLS},
		{"a certificate of a stranger", k.MutualTLS(), &tls.Config{RootCAs: k.CA, Certificates: []tls.Certificate{k.ForeignCert}}, nil, kafkabus.ErrTLS},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := busConfig(t, c.to)
			config.TLS, config.SASL, config.Timeout = c.tls, c.sasl, 5*time.Second
			cl, err := kafkabus.Open(config)
			if err == nil {
				_ = cl.Close()
			}
			t.Log(err)
			if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("Open: %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), kafkaPassword) {
				t.Error("the password is told")
			}
		})
	}
}

// TestKafkaTopicGoes: a topic is deleted under a reader, or deleted and made again
// before it starts.
func TestKafkaTopicGoes(t *testing.T) {
	k := startKafka(t, kafkaOptions{})
	for _, again := range []bool{false, true} {
		name := fmt.Sprint("gone-", again)
		topic, err := kafkabus.NewTopic(openBus(t, busConfig(t, k.Brokers())), name, kafkabus.TopicConfig[kemi.Job]{Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Write(t.Context(), []kemi.Job{{Resource: "a"}}); err != nil {
			t.Fatal(err)
		}
		remove := func() {
			if _, err := kadm.NewClient(k.Client()).DeleteTopic(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		want := kafkabus.ErrNoTopic
		if again {
			want = kafkabus.ErrRecreated
			remove()
			time.Sleep(time.Second) // the name is free some time after the answer
			k.CreateTopic(name, 2)
		}
		came := make(chan bool, 100)
		done := make(chan error, 1)
		go func() {
			done <- topic.Group("g").Run(t.Context(), kemi.SinkFunc[kemi.Job](func(context.Context, []kemi.Job) error { came <- true; return nil }))
		}()
		if !again {
			<-came
			remove()
		}
		select {
		case err := <-done:
			if !errors.Is(err, want) {
				t.Errorf("Run returned %v, want %v", err, want)
			}
		case <-time.After(90 * time.Second):
			t.Errorf("Run does not return: %+v", topic.Stats())
		}
	}
}
