package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// certificate returns one for loopback that its own authority has signed.
func certificate(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(signed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// nobody is an address where nothing listens, and nothing will: a client has its port.
func nobody(tb testing.TB, somebody string) string {
	tb.Helper()
	c, err := net.Dial("tcp", somebody)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

const secret = "s3cr3t-pw"

// TestWhatKeepsUsOutIsSaidInWords, and never with a password.
func TestWhatKeepsUsOutIsSaidInWords(t *testing.T) {
	cert, trusted := certificate(t)
	_, other := certificate(t)
	users := []kfake.Opt{
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "bob", secret), kfake.Superuser("SCRAM-SHA-256", "bob", secret), kfake.Superuser("SCRAM-SHA-512", "bob", secret),
	}
	plain, login := fake(t), fake(t, users...)
	encrypted := fake(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	addr := nobody(t, plain.ListenAddrs()[0])

	bob := func(mechanism, password string) *SASL {
		return &SASL{Mechanism: mechanism, User: "bob", Password: password}
	}
	for _, c := range []struct {
		name string
		to   []string
		tls  *tls.Config
		sasl *SASL
		want error // nil: it comes about
		say  string
	}{
		{"plain", plain.ListenAddrs(), nil, nil, nil, ""},
		{"PLAIN", login.ListenAddrs(), nil, bob("PLAIN", secret), nil, ""},
		{"SCRAM-SHA-256", login.ListenAddrs(), nil, bob("SCRAM-SHA-256", secret), nil, ""},
		{"SCRAM-SHA-512", login.ListenAddrs(), nil, bob("SCRAM-SHA-512", secret), nil, ""},
		{"TLS", encrypted.ListenAddrs(), &tls.Config{RootCAs: trusted}, nil, nil, ""},
		// A real broker says that the login was refused; the fake hangs up.
		{"wrong password", login.ListenAddrs(), nil, bob("PLAIN", secret+"x"), ErrUnreached, "login as PLAIN as bob"},
		{"wrong password, SCRAM", login.ListenAddrs(), nil, bob("SCRAM-SHA-256", secret+"x"), ErrUnreached, "login as SCRAM-SHA-256 as bob"},
		{"no login", login.ListenAddrs(), nil, nil, ErrUnreached, "Config.SASL"},
		{"foreign authority", encrypted.ListenAddrs(), &tls.Config{RootCAs: other}, nil, ErrTLS, "RootCAs"},
		{"plain text to TLS", encrypted.ListenAddrs(), nil, nil, ErrUnreached, ""},
		{"TLS to plain text", plain.ListenAddrs(), &tls.Config{RootCAs: trusted}, nil, nil, "*"},
		{"nobody there", []string{addr}, nil, nil, ErrUnreached, addr},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			config := quick(t, plain)
			config.Brokers, config.TLS, config.SASL, config.Logger = c.to, c.tls, c.sasl, zap.New(core)
			if c.say == "*" { // the fake waits for the rest
				config.Timeout = time.Second
			}
			cl, err := Open(config)
			if err == nil {
				_ = cl.Close()
			}
			switch {
			case c.say == "*":
				if err == nil {
					t.Error("it came about")
				}
			case c.want == nil && err != nil, c.want != nil && !errors.Is(err, c.want), err != nil && !strings.Contains(err.Error(), c.say):
				t.Errorf("Open: %v, want %v with %q", err, c.want, c.say)
			}
			text := fmt.Sprint(err, fmt.Sprintf("%v %+v %#v", config.SASL, config, config))
			for _, e := range logs.All() {
				text += e.Message + fmt.Sprint(e.ContextMap())
			}
			if strings.Contains(text, secret) {
				t.Errorf("the password is told: %s", text)
			}
		})
	}
}

func TestConfigsAreChecked(t *testing.T) {
	token := func(context.Context) (string, error) { return "", errors.New("no token") }
	for _, c := range []struct {
		config Config
		say    string
	}{
		{Config{}, "Config.Brokers"},
		{Config{Brokers: []string{"localhost"}}, "host:port"},
		{Config{Brokers: []string{"a:1"}, Linger: -1, FetchMaxBytes: -1}, "FetchMaxBytes"},
		{Config{Brokers: []string{"a:1"}, BatchMaxBytes: 10}, "BatchMaxBytes"},
		{Config{Brokers: []string{"a:1"}, SessionTimeout: -time.Second}, "SessionTimeout"},
		{Config{Brokers: []string{"a:1"}, HeartbeatInterval: time.Minute}, "HeartbeatInterval"},
		{Config{Brokers: []string{"a:1"}, Compression: []string{"rar"}}, "rar"},
		{Config{Brokers: []string{"a:1"}, SASL: &SASL{Mechanism: "GSSAPI", User: "u", Password: secret}}, "GSSAPI"},
		{Config{Brokers: []string{"a:1"}, SASL: &SASL{Mechanism: "PLAIN", User: "u"}}, "User and Password"},
		{Config{Brokers: []string{"a:1"}, SASL: &SASL{Mechanism: "OAUTHBEARER"}}, "Token"},
		{Config{Brokers: []string{"127.0.0.1:1"}, SASL: &SASL{Mechanism: "OAUTHBEARER", Token: token}, Timeout: 100 * time.Millisecond}, "no broker answers"},
	} {
		cl, err := Open(c.config)
		if err == nil {
			_ = cl.Close()
			t.Errorf("%+v was taken", c.config)
			continue
		}
		if !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v, want %q in it", err, c.say)
		}
	}
}

// TestBrokersThatAreGoneHoldUpAndLoseNothing: nobody can be reached for a while.
func TestBrokersThatAreGoneHoldUpAndLoseNothing(t *testing.T) {
	f := fake(t)
	var w wire
	config := quick(t, f)
	config.dial = w.dial
	topic := topicOf[sample](t, open(t, config), "in")
	r := collect(t, topic.Group("g"))
	put(t, topic, sample{Key: "a", Seq: 1})
	eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got == 1 })

	w.kill()
	late, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := topic.Write(late, []sample{{Key: "a", Seq: 2}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Write without brokers: %v", err)
	}
	written := make(chan error, 1)
	go func() { written <- topic.Write(context.Background(), []sample{{Key: "a", Seq: 3}}) }()
	eventually(t, "it is not told", func() bool { s := topic.Stats(); return s.Unreached > 0 && s.LastErr != "" })
	w.mu.Lock()
	w.cut = false
	w.mu.Unlock()
	if err := <-written; err != nil {
		t.Errorf("Write: %v", err)
	}
	// 2 was with the client; what came before may come again, as it may not have been committed.
	eventually(t, "what was written meanwhile did not come", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		seen := map[int]bool{}
		for _, s := range r.got {
			seen[s.Seq] = true
		}
		return len(seen) == 3
	})
	if err := r.stop(t); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeftRunning after Run and Close, though records come all the time.
func TestNothingIsLeftRunning(t *testing.T) {
	f := fake(t)
	c, err := Open(quick(t, f))
	if err != nil {
		t.Fatal(err)
	}
	busy := topicOf[sample](t, c, "in")
	writing, quiet := context.WithCancel(t.Context())
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := 0; writing.Err() == nil; i++ {
			_ = busy.Write(context.Background(), []sample{{Key: fmt.Sprint(i % 20), Seq: i}})
		}
	}()
	for range 4 {
		c, err := Open(quick(t, f))
		if err != nil {
			t.Fatal(err)
		}
		topic := topicOf[sample](t, c, "in")
		put(t, topic, sample{Key: "a", Seq: 1})
		var rs []*collected
		for _, name := range []string{"g", "h"} {
			rs = append(rs, collect(t, topic.Group(name)), collect(t, topic.All(name)))
		}
		for _, r := range rs {
			eventually(t, "nothing came", func() bool { got, _ := r.counts(); return got > 0 })
			if err := r.stop(t); err != nil {
				t.Error(err)
			}
		}
		_ = c.Close()
	}
	quiet()
	<-wrote
	_ = c.Close()
	var left []string
	for end := time.Now().Add(hang); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = running(); len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
}

// running returns the stacks of goroutines that are ours or the client's, and no test.
func running() []string {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for ; n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	return slices.DeleteFunc(strings.Split(string(buf[:n]), "\n\n"), func(stack string) bool {
		ours := strings.Contains(stack, "github.com/kemi-go/kemi") || strings.Contains(stack, "franz-go/pkg/kgo")
		return !ours || strings.Contains(stack, "testing.tRunner") || strings.Contains(stack, "franz-go/pkg/kfake")
	})
}
