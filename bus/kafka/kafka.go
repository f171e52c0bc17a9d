// Package kafka has topics on Apache Kafka, for what outgrows one machine.
//
// A program moves here from bus/disk by its constructors alone:
//
//	c, err := kafka.Open(kafka.Config{Brokers: []string{"kafka1:9092", "kafka2:9092"}})
//	raw, err := kafka.NewTopic[kemi.Metric](c, "raw", kafka.TopicConfig[kemi.Metric]{})
//	…
//	c.Close()
//
// A record of Kafka is one batch of one key, such as a poll of one host. It has the
// headers
//
//	kemi-codec    the format of its value, such as json/1
//	kemi-origin   what it was made of: "<topic>.<id>@<reader>/<partition>/<seq>/<ordinal>"
//	kemi-after    what of that came just before it: "<seq>/<ordinal>"
//	kemi-tick     it has no value but its time
//
// and its partition is that of any client's default partitioner, murmur2 of the key.
//
// A reader that is called "calculate" is the consumer group "<topic>.calculate", or
// for All "<topic>.calculate.all", so that Kafka's own tools show how far it has come.
// What a lane needs to go on after a crash is the metadata of the commit, and for the
// state of a [kemi.Keeper] a compacted topic beside the others.
//
// Between topics every record comes through once, whoever crashes, freezes or is
// believed dead: a member that takes a partition over builds the state again and
// writes the same records with the same origin, and readers drop those they have had.
// This needs brokers that do not lose what they acknowledged: replication.factor 3,
// min.insync.replicas 2, unclean.leader.election.enable false.
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
)

// Config says how to reach a cluster. The zero value of every field but Brokers is
// usable. Where Kafka's clients have a setting of that kind, its name stands beside
// it.
type Config struct {
	Brokers  []string    // bootstrap.servers, as host:port
	ClientID string      // client.id; "": kemi
	TLS      *tls.Config // nil: plain text. Not changed, and not to be changed afterwards
	SASL     *SASL       // nil: nobody has to log in
	Logger   *zap.Logger // nil: silent

	// Linger is linger.ms: how long a record waits for others to be sent with it. 0: 20
	// ms; negative: not at all.
	Linger time.Duration
	// BatchMaxBytes is batch.size, in bytes before compression: how much is sent, stored
	// and replicated together, and at the same time the largest record. A topic whose
	// max.message.bytes is less has that as its bound. 0: 1,000,000. All writers of a
	// topic should have the same.
	BatchMaxBytes int
	// Compression is compression.type, in order of preference: none, gzip, snappy, lz4 or
	// zstd. Empty: zstd, lz4, snappy, none.
	Compression []string
	// BufferMemory is buffer.memory: bytes that wait to be acknowledged. A Write beyond it
	// blocks. 0: 64 MiB.
	BufferMemory int

	// FetchMaxBytes is fetch.max.bytes, of one answer of one broker, and
	// FetchMaxPartitionBytes max.partition.fetch.bytes; both are counted compressed, and a
	// batch that is larger alone comes all the same. 0: 16 MiB and 1 MiB.
	FetchMaxBytes, FetchMaxPartitionBytes int
	FetchMinBytes                         int           // fetch.min.bytes; 0: 1
	FetchMaxWait                          time.Duration // fetch.max.wait.ms; 0: 500 ms
	// MaxBufferedBytes bounds what a reader has fetched and not delivered, unpacked. 0: 64
	// MiB. A batch that is larger when it is unpacked goes to the dead letters.
	MaxBufferedBytes int

	// SessionTimeout is session.timeout.ms: after this long without a word from a member
	// its partitions are given to others. 0: 15 s. HeartbeatInterval is
	// heartbeat.interval.ms; 0: a fifth of it. RebalanceTimeout is max.poll.interval.ms: how long
	// a member may take to let go of its partitions. 0: 30 s.
	SessionTimeout, HeartbeatInterval, RebalanceTimeout time.Duration
	// CommitInterval is auto.commit.interval.ms: how often positions are committed.
	// What was delivered since is delivered again after a crash; a topic behind it drops
	// that. 0: 1 s.
	CommitInterval time.Duration

	// Tick is how long a partition may be silent before a reader that lives by time
	// appends a record of nothing but the time. 0: 2 s.
	Tick time.Duration
	// StateTopic is the compacted topic of state that no horizon bounds. "": kemi-state. It
	// is made when it is first needed.
	StateTopic string
	// ReplicationFactor is that of topics to be made. 0: the broker's
	// default.replication.factor.
	ReplicationFactor int
	// RequestTimeout is request.timeout.ms: how long a broker that does not answer is
	// waited for, before the question is asked again, of another broker if that has taken
	// over; a record that is sent again is stored once. It is how long a broker that
	// freezes holds up everything on it. Raise it where an answer may take longer, or
	// nothing comes through. 0: 4 s.
	RequestTimeout time.Duration
	// Timeout bounds each question to the cluster outside of reading and writing, such as
	// those of [Open] and [NewTopic]. 0: 30 s.
	Timeout time.Duration

	// For tests:
	dial func(ctx context.Context, network, host string) (net.Conn, error)
	hook kgo.Hook
}

func (c *Config) check() error {
	if len(c.Brokers) == 0 {
		return errors.New("kafka: no brokers: give Config.Brokers, such as localhost:9092")
	}
	for _, b := range c.Brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("kafka: broker %.100q: want host:port, such as localhost:9092", b)
		}
	}
	for name, n := range map[string]int{
		"BatchMaxBytes": c.BatchMaxBytes, "BufferMemory": c.BufferMemory, "FetchMaxBytes": c.FetchMaxBytes,
		"FetchMaxPartitionBytes": c.FetchMaxPartitionBytes, "FetchMinBytes": c.FetchMinBytes,
		"MaxBufferedBytes": c.MaxBufferedBytes, "ReplicationFactor": c.ReplicationFactor,
	} {
		if n < 0 || n > math.MaxInt32 {
			return fmt.Errorf("kafka: Config.%s is %d: give 0, which stands for the default, or up to %d", name, n, math.MaxInt32)
		}
	}
	for name, d := range map[string]time.Duration{
		"FetchMaxWait": c.FetchMaxWait, "SessionTimeout": c.SessionTimeout, "HeartbeatInterval": c.HeartbeatInterval,
		"RebalanceTimeout": c.RebalanceTimeout, "CommitInterval": c.CommitInterval, "Tick": c.Tick, "Timeout": c.Timeout,
		"RequestTimeout": c.RequestTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("kafka: Config.%s is %v: give 0, which stands for the default, or more", name, d)
		}
	}
	if c.BatchMaxBytes != 0 && c.BatchMaxBytes < batchMin {
		return fmt.Errorf("kafka: Config.BatchMaxBytes is %d: give %d or more", c.BatchMaxBytes, batchMin)
	}
	c.ClientID = cmp.Or(c.ClientID, "kemi")
	c.StateTopic = cmp.Or(c.StateTopic, "kemi-state")
	c.Linger = cmp.Or(c.Linger, 20*time.Millisecond)
	c.BatchMaxBytes = cmp.Or(c.BatchMaxBytes, 1_000_000)
	c.BufferMemory = cmp.Or(c.BufferMemory, 64<<20)
	c.FetchMaxBytes = cmp.Or(c.FetchMaxBytes, 16<<20)
	c.FetchMaxPartitionBytes = cmp.Or(c.FetchMaxPartitionBytes, 1<<20)
	c.FetchMinBytes = cmp.Or(c.FetchMinBytes, 1)
	c.FetchMaxWait = cmp.Or(c.FetchMaxWait, 500*time.Millisecond)
	c.MaxBufferedBytes = cmp.Or(c.MaxBufferedBytes, 64<<20)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, 15*time.Second)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, c.SessionTimeout/5)
	c.RebalanceTimeout = cmp.Or(c.RebalanceTimeout, 30*time.Second)
	c.CommitInterval = cmp.Or(c.CommitInterval, time.Second)
	c.Tick = cmp.Or(c.Tick, 2*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 4*time.Second)
	if c.RequestTimeout < requestMin {
		return fmt.Errorf("kafka: Config.RequestTimeout is %v: give %v or more, or 0, which stands for the default", c.RequestTimeout, requestMin)
	}
	if c.HeartbeatInterval >= c.SessionTimeout {
		return fmt.Errorf("kafka: a HeartbeatInterval of %v would miss a SessionTimeout of %v: give a fifth of it", c.HeartbeatInterval, c.SessionTimeout)
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return nil
}

const (
	batchMin   = 4 << 10
	requestMin = 200 * time.Millisecond
)

// Cluster is a connection to a cluster, shared by its topics. Make one with [Open].
// All methods may be called by many goroutines.
type Cluster struct {
	config   Config
	common   []kgo.Opt // of all clients
	producer *kgo.Client
	admin    *kadm.Client
	memory   memory
	limits   sync.Map // topic to the largest batch it takes
	state    store
	watch    watch
	patience time.Duration // of the watchdog
	still    stillness
}

// Open connects to a cluster. An error says what is wrong with the way there: nobody
// answers, TLS, the login.
func Open(c Config) (*Cluster, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cl := &Cluster{config: c, patience: 2 * time.Minute, still: stillness{after: 5*time.Second + 2*c.RequestTimeout}}
	cl.memory.free = c.BufferMemory
	cl.watch.logger = c.Logger
	cl.state.Cluster = cl
	codecs, err := compression(c.Compression)
	if err != nil {
		return nil, err
	}
	cl.common = []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("kemi", "1"),
		kgo.WithLogger(kzap.New(c.Logger, kzap.Level(kgo.LogLevelWarn))),
		kgo.WithHooks(&cl.watch),
		kgo.DisableClientMetrics(),
		kgo.RequestTimeoutOverhead(c.RequestTimeout / 2),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
	}
	if c.dial == nil {
		cl.common = append(cl.common, kgo.DialTimeout(c.RequestTimeout))
	}
	if c.TLS != nil {
		cl.common = append(cl.common, kgo.DialTLSConfig(c.TLS.Clone()))
	}
	if c.dial != nil {
		cl.common = append(cl.common, kgo.Dialer(c.dial))
	}
	if c.hook != nil {
		cl.common = append(cl.common, kgo.WithHooks(c.hook, &cl.watch))
	}
	if c.SASL != nil {
		login, err := c.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		cl.common = append(cl.common, kgo.SASL(login))
	}
	// What waits is bounded by memory, before it comes to the client: the client's own
	// bound holds up a Write that has handed over half of its records.
	cl.producer, err = kgo.NewClient(append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProduceRequestTimeout(c.RequestTimeout / 2), // the overhead comes on top
		kgo.ProducerLinger(max(c.Linger, 0)),
		kgo.ProducerBatchMaxBytesFn(cl.limit),
		kgo.ProducerBatchCompression(codecs...),
		kgo.MaxBufferedRecords(math.MaxInt32),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, cl.common...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	cl.admin = kadm.NewClient(cl.producer)
	cl.admin.SetTimeoutMillis(int32(c.Timeout / time.Millisecond))
	ctx, cancel := cl.within(context.Background())
	defer cancel()
	if err := cl.producer.Ping(ctx); err != nil {
		cl.producer.Close()
		return nil, fmt.Errorf("kafka: brokers %s: %w", strings.Join(c.Brokers, ", "), cl.explain(err, ""))
	}
	return cl, nil
}

// Close closes the connections. Sources of its topics have to have ended before, and
// a Write that is under way ends with an error.
func (c *Cluster) Close() error {
	c.producer.Close()
	return nil
}

// within bounds a question to the cluster.
func (c *Cluster) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.config.Timeout)
}

// limit is the largest batch of a topic.
func (c *Cluster) limit(topic string) int32 {
	n := int32(c.config.BatchMaxBytes)
	if most, ok := c.limits.Load(topic); ok {
		n = min(n, most.(int32))
	}
	return n
}

func backoff(tries int) time.Duration {
	return min(25*time.Millisecond<<min(tries, 6), time.Second)
}

func compression(names []string) ([]kgo.CompressionCodec, error) {
	if len(names) == 0 {
		names = []string{"zstd", "lz4", "snappy", "none"}
	}
	known := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codecs := make([]kgo.CompressionCodec, len(names))
	for i, name := range names {
		c, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("kafka: unknown compression %.50q: want none, gzip, snappy, lz4 or zstd", name)
		}
		codecs[i] = c
	}
	return codecs, nil
}

// memory is what records may take up that wait to be acknowledged.
type memory struct {
	mu    sync.Mutex
	free  int // below 0: taken by one that is larger than all
	queue []*claim
}

type claim struct {
	n     int
	ready chan struct{}
}

// take waits for n bytes, first come, first served. One that asks for more than there
// ever is gets it when nobody else has any.
func (m *memory) take(ctx context.Context, n, all int) error {
	m.mu.Lock()
	if len(m.queue) == 0 && m.free >= min(n, all) {
		m.free -= n
		m.mu.Unlock()
		return nil
	}
	c := &claim{n, make(chan struct{})}
	m.queue = append(m.queue, c)
	m.mu.Unlock()
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, q := range m.queue {
		if q == c {
			m.queue = append(m.queue[:i], m.queue[i+1:]...)
			m.serve(all) // those behind it may be smaller
			return context.Cause(ctx)
		}
	}
	m.free += n // it came at the same time
	m.serve(all)
	return context.Cause(ctx)
}

func (m *memory) give(n, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += n
	m.serve(all)
}

func (m *memory) serve(all int) {
	for len(m.queue) > 0 && m.free >= min(m.queue[0].n, all) {
		c := m.queue[0]
		m.queue = m.queue[1:]
		m.free -= c.n
		close(c.ready)
	}
}
