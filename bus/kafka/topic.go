package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/otlp"
	"github.com/kemi-go/kemi/bus/internal/recovery"
)

// TopicConfig describes a topic. The zero value of every field is usable for a type
// that is [bus.Keyed].
type TopicConfig[T any] struct {
	// Partitions is the number of lanes that all readers of a name have together. 0: 64
	// for a topic that has to be made, and else what it has. It cannot be changed later,
	// as the partition of each key would.
	Partitions int
	// ReplicationFactor is for a topic that has to be made. 0: that of [Config].
	ReplicationFactor int
	// Retain is retention.ms, for a topic that has to be made. 0: 7 days. What lives
	// on input of some time (a rule that looks an hour back) needs twice that time.
	Retain time.Duration
	// RetainBytes is retention.bytes of each partition, for a topic that has to be
	// made. 0: no bound.
	RetainBytes int64
	// Settings are others of Kafka's topic settings, for a topic that has to be made.
	Settings map[string]string

	// Key is the partition key. The default is [bus.KeyOf], which is nil for a type that
	// is not Keyed: then all records are of one key.
	Key bus.Key[T]
	// Codecs is how records are written, and what else can be read. The default writes
	// OTLP for metrics and logs, which other tools read too, and JSON for all other types;
	// it reads what [codec.For] does besides.
	Codecs codec.Set[T]
	// Foreign reads records without the header kemi-codec, which others have written. Nil:
	// they go to the dead letters.
	Foreign bus.Codec[T]
}

// Topic is a [bus.Topic] on Kafka. Make one with [NewTopic]. All methods may be
// called by many goroutines.
type Topic[T any] struct {
	c          *Cluster
	name       string
	partitions int
	id         [16]byte
	retention  time.Duration // 0: for ever
	appendTime bool          // the broker stamps records
	config     TopicConfig[T]
	writes     sync.Pool // of *write[T]

	records, written, failed atomic.Uint64

	mu      sync.Mutex
	readers map[string]*reading
}

var _ bus.Topic[int] = (*Topic[int])(nil)

// NewTopic returns a topic, and makes it on the cluster if it is not there. One that
// is there is looked at: an error says what makes it unusable, the log what makes it
// weaker than it should be.
func NewTopic[T any](c *Cluster, topic string, config TopicConfig[T]) (*Topic[T], error) {
	if err := checkName(topic, 249); err != nil { // as the broker would
		return nil, fmt.Errorf("kafka: topic %.300q: %w", topic, err)
	}
	switch {
	case c == nil:
		return nil, fmt.Errorf("kafka: topic %q: no cluster: give what Open has returned", topic)
	case config.Partitions < 0 || config.Partitions > 1<<14:
		return nil, fmt.Errorf("kafka: topic %q: %d partitions: give 0, which stands for %d, or more", topic, config.Partitions, defaultPartitions)
	case config.ReplicationFactor < 0 || config.ReplicationFactor > math.MaxInt16:
		return nil, fmt.Errorf("kafka: topic %q: a replication factor of %d: give 0, which stands for that of the cluster, or more", topic, config.ReplicationFactor)
	case config.Retain < 0 || config.RetainBytes < 0:
		return nil, fmt.Errorf("kafka: topic %q: Retain and RetainBytes have to be 0, which stands for the default, or more", topic)
	}
	if config.Codecs.Write == nil && config.Codecs.Read == nil {
		config.Codecs = codecs[T]()
	}
	if err := config.Codecs.Check(); err != nil {
		return nil, fmt.Errorf("kafka: topic %q: %w", topic, err)
	}
	if config.Key == nil {
		config.Key = bus.KeyOf[T]()
	}
	config.ReplicationFactor = cmp.Or(config.ReplicationFactor, c.config.ReplicationFactor)
	t := &Topic[T]{c: c, name: topic, config: config, readers: map[string]*reading{}}
	if err := c.prepare(topic, wanted{
		partitions:  config.Partitions,
		replication: config.ReplicationFactor,
		retention:   config.Retain,
		bytes:       config.RetainBytes,
		settings:    config.Settings,
	}, &t.partitions, &t.id, &t.retention, &t.appendTime); err != nil {
		return nil, fmt.Errorf("kafka: topic %q: %w", topic, err)
	}
	t.writes.New = func() any { return newWrite(t) }
	return t, nil
}

// checkName keeps to what Kafka allows in the name of a topic.
func checkName(name string, most int) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	switch {
	case name == "":
		return errors.New("it needs a name")
	case len(name) > most || strings.Trim(name, ".") == "" || strings.Trim(name, allowed) != "":
		return fmt.Errorf("a name has letters, digits, '.', '_' and '-', and is not longer than %d", most)
	}
	return nil
}

// String returns the name in brackets, which is how diagrams draw a topic.
func (t *Topic[T]) String() string { return "[" + t.name + "]" }

// codecs is what a topic uses unless it is told otherwise.
func codecs[T any]() codec.Set[T] {
	set := codec.For[T]()
	var open any
	switch any((*T)(nil)).(type) {
	case *kemi.Metric:
		open = otlp.Metrics()
	case *kemi.Log:
		open = otlp.Logs()
	}
	if c, ok := open.(bus.Codec[T]); ok {
		return set.Writing(c)
	}
	return set
}

// find returns the codec of a name, as readers do.
func (t *Topic[T]) find(name string) bus.Codec[T] {
	if c, err := t.config.Codecs.Find(name); err == nil {
		return c
	}
	switch {
	case name == "" && t.config.Foreign != nil:
		return t.config.Foreign
	case name == "":
		return unreadable[T]{errors.New("it has no header kemi-codec, so kemi has not written it: give TopicConfig.Foreign if such records are meant to be there")}
	case name == tooLarge:
		return unreadable[T]{fmt.Errorf("the batch is larger than Config.MaxBufferedBytes allows when it is unpacked (%d), and was left out", t.c.config.MaxBufferedBytes)}
	}
	return nil
}

// tooLarge stands for a codec where a batch was too large to be unpacked.
const tooLarge = "kafka/batch-too-large"

// unreadable is a codec that reads nothing and says why.
type unreadable[T any] struct{ why error }

func (unreadable[T]) Name() string                                  { return "" }
func (u unreadable[T]) AppendBatch(d []byte, _ []T) ([]byte, error) { return d, u.why }
func (u unreadable[T]) DecodeBatch(d []T, _ []byte) ([]T, error)    { return d, u.why }

// Group returns a source that is a member of the consumer group "<topic>.<name>".
func (t *Topic[T]) Group(name string) kemi.Source[T] {
	return group[T]{source[T]{t, name, t.name + "." + name, t.reading(name, false)}}
}

// All returns a source of every partition, with its positions in the group
// "<topic>.<name>.all", which has no members.
func (t *Topic[T]) All(name string) kemi.Source[T] {
	return all[T]{source[T]{t, name, t.name + "." + name + ".all", t.reading(name, true)}}
}

// reading is what the sources of one name have met together.
type reading struct {
	name   string
	all    bool
	counts recovery.Counts
	ahead  atomic.Uint64 // records of a later time than ours
	ticks  atomic.Uint64 // written for silence
	fails  atomic.Uint64 // commits that failed
	again  atomic.Uint64 // clients that were made anew
	gone   atomic.Uint64 // partitions whose kept state was not there

	mu    sync.Mutex
	parts map[int32]*part
	err   string
	at    time.Time
}

// part is how far a partition was read here.
type part struct {
	next, end atomic.Int64
	owned     atomic.Bool
}

func (t *Topic[T]) reading(name string, all bool) *reading {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := name
	if all {
		key += ".all"
	}
	r := t.readers[key]
	if r == nil {
		r = &reading{name: name, all: all, parts: map[int32]*part{}}
		t.readers[key] = r
	}
	return r
}

func (r *reading) part(p int32) *part {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.parts[p]
	if x == nil {
		x = &part{}
		r.parts[p] = x
	}
	return x
}

func (r *reading) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.at = err.Error(), time.Now()
}
