//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaJars is Apache Kafka. It does not run without some log4j.
var kafkaJars = javaServer{name: "kafka", jars: []string{
	"org.apache.kafka:kafka_2.13:4.1.2",
	"org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
	"org.apache.logging.log4j:log4j-core:2.25.3",
}}

// Who may log in at a kafka that is Secure, with PLAIN and both SCRAM.
const (
	kafkaUser     = "alice"
	kafkaPassword = "alice-pw"
)

// kafkaOptions describes a cluster. The zero value is one plain broker.
type kafkaOptions struct {
	Nodes int // 1 or 3; 0 is 1. With 3, topics have 3 replicas and min.insync.replicas=2 by default.

	// Secure adds the listeners SASL, TLS, SASLTLS and MutualTLS to the plain one, and
	// an authorizer: who comes to the plain listener is the super user and may make
	// ACLs; everybody may do everything until then.
	Secure bool

	// Properties are added to server.properties of each broker, and win over what is
	// there. Topics are not made by being asked for (auto.create.topics.enable=false).
	Properties map[string]string
}

// kafka is a cluster of real brokers (KRaft, each a controller too) on loopback. It
// ends with the test. Brokers are numbered from 0; broker i has the node ID i+1.
//
// Kill, Restart, Freeze and Thaw are for one goroutine at a time; those that wait
// (Restart, AwaitInSync) may fail the test, so they belong to the goroutine of the test.
type kafka struct {
	// CA has signed the brokers' certificates, which are for 127.0.0.1 and localhost.
	// ForeignCA has not. Both are nil unless Secure.
	CA, ForeignCA *x509.CertPool
	// ClientCert lets in at MutualTLS, as CN=client. ForeignCert is one of ForeignCA.
	ClientCert, ForeignCert tls.Certificate

	t     testing.TB
	nodes []*kafkaNode
}

type kafkaNode struct {
	*process
	addrs map[string]string // of each listener
	down  bool              // killed, or frozen
}

// kafkaListeners are the listeners of a Secure broker with their protocols.
var kafkaListeners = map[string]string{
	"PLAINTEXT": "PLAINTEXT", "SASL": "SASL_PLAINTEXT", "TLS": "SSL", "STLS": "SASL_SSL", "MTLS": "SSL",
}

// startKafka starts a cluster and returns when every broker knows all. One broker
// takes about 4 s, three about 10.
func startKafka(t testing.TB, o kafkaOptions) *kafka {
	t.Helper()
	java, classPath := needServer(t, kafkaJars)
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	names := []string{"PLAINTEXT"}
	if o.Secure {
		names = slices.Sorted(maps.Keys(kafkaListeners))
	}
	k := &kafka{t: t}
	dir := t.TempDir()
	if o.Secure {
		k.certify(dir)
	}
	per := len(names) + 1
	ports := steadyPorts(t, "tcp", o.Nodes*per)
	var voters []string
	for i := range o.Nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[i*per]))
	}
	flags := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classPath}
	var formats sync.WaitGroup
	errs := make([]error, o.Nodes)
	files := make([]string, o.Nodes)
	for i := range o.Nodes {
		n := &kafkaNode{addrs: map[string]string{}}
		for l, name := range names {
			n.addrs[name] = fmt.Sprintf("127.0.0.1:%d", ports[i*per+1+l])
		}
		k.nodes = append(k.nodes, n)
		files[i] = filepath.Join(dir, fmt.Sprintf("broker%d.properties", i))
		controller := fmt.Sprintf("127.0.0.1:%d", ports[i*per])
		text := properties(kafkaProperties(o, i, dir, controller, strings.Join(voters, ","), n.addrs))
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		format := slices.Concat([]string{"-Xmx96m"}, flags, []string{
			"kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", files[i],
		})
		if o.Secure {
			for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
				format = append(format, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", m, kafkaUser, kafkaPassword))
			}
		}
		formats.Go(func() { errs[i] = runIn(t, dir, java, format...) })
	}
	formats.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i, n := range k.nodes {
		n.process = launch(t, nil, java, slices.Concat([]string{"-Xmx256m"}, flags, []string{"kafka.Kafka", files[i]})...)
		// Asked together to end, the last ones wait for a quorum that is gone.
		t.Cleanup(n.kill)
	}
	for i := range k.nodes {
		k.awaitNode(i)
	}
	return k
}

func kafkaProperties(o kafkaOptions, i int, dir, controller, voters string, addrs map[string]string) map[string]string {
	var listeners, protocols []string
	for _, name := range slices.Sorted(maps.Keys(addrs)) {
		listeners = append(listeners, name+"://"+addrs[name])
		protocols = append(protocols, name+":"+kafkaListeners[name])
	}
	insync := max(1, o.Nodes-1)
	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        fmt.Sprint(i + 1),
		"listeners":                      strings.Join(listeners, ",") + ",CONTROLLER://" + controller,
		"advertised.listeners":           strings.Join(listeners, ","),
		"listener.security.protocol.map": strings.Join(protocols, ",") + ",CONTROLLER:PLAINTEXT",
		"controller.listener.names":      "CONTROLLER",
		"controller.quorum.voters":       voters,
		"inter.broker.listener.name":     "PLAINTEXT",
		"log.dirs":                       filepath.Join(dir, fmt.Sprintf("data%d", i)),

		"default.replication.factor":                       fmt.Sprint(o.Nodes),
		"min.insync.replicas":                              fmt.Sprint(insync),
		"offsets.topic.replication.factor":                 fmt.Sprint(o.Nodes),
		"offsets.topic.num.partitions":                     fmt.Sprint(o.Nodes),
		"transaction.state.log.replication.factor":         fmt.Sprint(o.Nodes),
		"transaction.state.log.min.isr":                    fmt.Sprint(insync),
		"transaction.state.log.num.partitions":             fmt.Sprint(o.Nodes),
		"share.coordinator.state.topic.replication.factor": fmt.Sprint(o.Nodes),
		"share.coordinator.state.topic.min.isr":            fmt.Sprint(insync),

		"auto.create.topics.enable":        "false",
		"group.initial.rebalance.delay.ms": "0",
		// A broker that was killed is forgotten, and may come back, after this long.
		"broker.heartbeat.interval.ms": "500",
		"broker.session.timeout.ms":    "3000",
		// The cleaner's buffer is 128 MiB otherwise, of a heap of 256.
		"log.cleaner.dedupe.buffer.size": "2097152",
	}
	if o.Secure {
		p["sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
		const security = "org.apache.kafka.common.security."
		for _, l := range []string{"sasl", "stls"} {
			l = "listener.name." + l + "."
			p[l+"plain.sasl.jaas.config"] = fmt.Sprintf("%splain.PlainLoginModule required user_%s=%q;", security, kafkaUser, kafkaPassword)
			p[l+"scram-sha-256.sasl.jaas.config"] = security + "scram.ScramLoginModule required;"
			p[l+"scram-sha-512.sasl.jaas.config"] = security + "scram.ScramLoginModule required;"
			// Takes tokens without a signature, as kafkaToken makes them.
			p[l+"oauthbearer.sasl.jaas.config"] = security + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
		}
		p["ssl.keystore.type"], p["ssl.truststore.type"] = "PEM", "PEM"
		p["ssl.keystore.location"] = filepath.Join(dir, "server.pem")
		p["ssl.truststore.location"] = filepath.Join(dir, "ca.pem")
		p["listener.name.mtls.ssl.client.auth"] = "required"
		p["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		p["super.users"] = "User:ANONYMOUS"
		p["allow.everyone.if.no.acl.found"] = "true"
	}
	maps.Copy(p, o.Properties)
	return p
}

// properties writes a Java properties file.
func properties(p map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(p[name], `\`, `\\`))
	}
	return b.String()
}

// Brokers returns the addresses without any security, those of dead brokers too.
func (k *kafka) Brokers() []string { return k.listener("PLAINTEXT") }

// SASL returns the addresses of the listeners for PLAIN, SCRAM and OAUTHBEARER.
func (k *kafka) SASL() []string { return k.listener("SASL") }

// TLS returns the addresses of the listeners for TLS without a client's certificate.
func (k *kafka) TLS() []string { return k.listener("TLS") }

// SASLTLS returns the addresses of the listeners for SASL within TLS.
func (k *kafka) SASLTLS() []string { return k.listener("STLS") }

// MutualTLS returns the addresses of the listeners that want a client's certificate.
func (k *kafka) MutualTLS() []string { return k.listener("MTLS") }

func (k *kafka) listener(name string) []string {
	var addrs []string
	for _, n := range k.nodes {
		if n.addrs[name] == "" {
			k.t.Fatalf("no listener %s: start kafka with Secure", name)
		}
		addrs = append(addrs, n.addrs[name])
	}
	return addrs
}

// Kill ends broker i with kill -9.
func (k *kafka) Kill(i int) {
	k.nodes[i].kill()
	k.nodes[i].down = true
}

// Restart starts broker i after a Kill and returns when it answers and knows of all
// brokers that run: some 5 s. Its replicas may not have caught up yet: see AwaitInSync.
// With only one of three running there is no quorum; it then returns at once, and the
// Restart of the second waits for both.
func (k *kafka) Restart(i int) {
	k.t.Helper()
	k.nodes[i].run()
	k.nodes[i].down = false
	k.awaitNode(i)
}

// Freeze stops broker i in its tracks (SIGSTOP): connections stay open, nothing is
// said, and after 3 s the others go on without it. Thaw lets it go on.
func (k *kafka) Freeze(i int) {
	k.nodes[i].freeze()
	k.nodes[i].down = true
}

// Thaw ends a Freeze.
func (k *kafka) Thaw(i int) {
	k.nodes[i].thaw()
	k.nodes[i].down = false
}

// awaitNode returns when broker i says that it and all others that run are there. With
// too few for a quorum no broker says anything, and nothing is waited for.
func (k *kafka) awaitNode(i int) {
	k.t.Helper()
	n := k.nodes[i]
	running := 0
	for _, n := range k.nodes {
		if !n.down {
			running++
		}
	}
	if 2*running <= len(k.nodes) {
		return
	}
	n.await(hang, func() error {
		if err := dial(n.addrs["PLAINTEXT"]); err != nil {
			return err
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(n.addrs["PLAINTEXT"]))
		if err != nil {
			return err
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		known, err := kadm.NewClient(cl).ListBrokers(ctx)
		if err != nil {
			return err
		}
		for j, m := range k.nodes {
			if !m.down && !slices.Contains(known.NodeIDs(), int32(j+1)) {
				return fmt.Errorf("broker %d knows of the nodes %v only", i, known.NodeIDs())
			}
		}
		return nil
	})
}

// AwaitInSync returns when every replica of the topics is in sync.
func (k *kafka) AwaitInSync(topics ...string) {
	k.t.Helper()
	k.awaitReplicas("replicas in sync", topics, func(p kadm.PartitionDetail) bool {
		return len(p.ISR) == len(p.Replicas)
	})
}

// AwaitOutOfSync returns when broker i, killed or frozen, counts no more for the
// topics: it is in sync nowhere, and others lead.
func (k *kafka) AwaitOutOfSync(i int, topics ...string) {
	k.t.Helper()
	k.awaitReplicas("leaders elsewhere", topics, func(p kadm.PartitionDetail) bool {
		return !slices.Contains(p.ISR, int32(i+1)) && p.Leader != int32(i+1)
	})
}

func (k *kafka) awaitReplicas(what string, topics []string, holds func(kadm.PartitionDetail) bool) {
	k.t.Helper()
	// What the client knows may be no older than this, and it may meet one that is frozen.
	admin := kadm.NewClient(k.Client(kgo.MetadataMinAge(100*time.Millisecond), kgo.RequestTimeoutOverhead(time.Second)))
	defer admin.Close()
	eventually(k.t, hang, what, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		all, err := admin.ListTopics(ctx, topics...)
		if err != nil {
			return err
		}
		for _, topic := range topics {
			if all[topic].Err != nil {
				return all[topic].Err
			}
			for _, p := range all[topic].Partitions {
				if p.Leader < 0 || !holds(p) {
					return fmt.Errorf("%s/%d: replicas %v, in sync %v, leader %d", topic, p.Partition, p.Replicas, p.ISR, p.Leader)
				}
			}
		}
		return nil
	})
}

// Client returns a client of the plain listeners, or of others if the options say so.
// It is closed with the test.
func (k *kafka) Client(opts ...kgo.Opt) *kgo.Client {
	k.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.Brokers()...)}, opts...)...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(cl.Close)
	return cl
}

// CreateTopic makes a topic. configs are names and values, such as
// "message.timestamp.type", "LogAppendTime".
func (k *kafka) CreateTopic(name string, partitions int, configs ...string) {
	k.t.Helper()
	set := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		set[configs[i]] = &configs[i+1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if _, err := kadm.NewClient(k.Client()).CreateTopic(ctx, int32(partitions), -1, set, name); err != nil {
		k.t.Fatal(err)
	}
}

// certify makes the certificates.
func (k *kafka) certify(dir string) {
	ca, foreign := newAuthority(k.t, "kemi test"), newAuthority(k.t, "foreign")
	k.CA, k.ForeignCA = ca.pool(), foreign.pool()
	k.ClientCert, k.ForeignCert = ca.issue(k.t, "client"), foreign.issue(k.t, "client")
	for name, text := range map[string][]byte{
		"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}),
		// Kafka wants the key, as PKCS#8, before the certificate.
		"server.pem": pemOf(k.t, ca.issue(k.t, "server")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			k.t.Fatal(err)
		}
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) authority {
	a := authority{}
	template := &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, key := a.sign(t, name, template)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// sign makes a certificate and its key; the zero authority lets it sign itself.
func (a authority) sign(t testing.TB, name string, c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	c.Subject = pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if a.cert == nil {
		a.cert, a.key = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue makes a certificate for a server on loopback, or a client.
func (a authority) issue(t testing.TB, name string) tls.Certificate {
	der, key := a.sign(t, name, &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// pemOf writes key and certificate.
func pemOf(t testing.TB, c tls.Certificate) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
}
