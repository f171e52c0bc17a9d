// Package opentsdb stores metrics in OpenTSDB, or in what speaks its HTTP put.
//
// # What nil means
//
// A Write that answers nil means that every point is stored: the sink asks OpenTSDB
// for ?details&sync, waits for the flush, and judges by the counts in the answer's
// body, since the status says 200 for points that the storage has lost. A point that
// was not stored is named with [kemi.Partial]: for good ([kemi.Permanent]) if the
// server refused it for what it is, else to be tried again. When the answer does not
// say for certain which points failed, none is taken for stored.
//
// Servers without these answers (VictoriaMetrics) answer 204, or 200 and nothing.
// That counts as stored, if it is certain that nothing was all there was to come; what
// such a server drops in silence, nobody is told.
//
// # Speed
//
// A synchronous put waits until the server flushes: after a second, or after 1024
// points, whichever is first (hbase.rpcs.buffered_flush_interval). So write large
// batches, with sink.Coalesce in front; a Write of more than one request sends them
// in parallel, on up to Config.Connections connections.
//
// # One encoding per series
//
// OpenTSDB refuses to read a series that has, in one second, two values of different
// encodings, as a record that is delivered twice can leave behind. So the encoding
// depends on the kind of the metric alone: gauges and counters of fractions are
// always floats, integer counters always integers (Config.FloatCounters makes them
// floats too), and a counter above 2^63-1 is refused, not written otherwise. Of several points
// of one series in one second of a batch only the last is sent. Set
// tsd.storage.fix_duplicates = true on the server all the same: it also settles two
// values of one second that come in two batches.
//
// # Names
//
// OpenTSDB takes letters, digits and -_./ in names and tag values, and breaks on
// letters outside ISO-8859-1. [Escape] brings anything into that form, reversibly.
package opentsdb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// Config describes a server and how to write to it. Only URL is needed.
type Config struct {
	// URL is the server's address, such as http://tsd:4242. A path is kept as a
	// prefix; api/put is added if it is not there. A user and password in it become
	// basic authorization, and are shown nowhere.
	URL string

	// Authorize, if set, is called for each request and may set headers, for example
	// from a secret that changes. Its error makes the request fail, to be tried again.
	Authorize func(*http.Request) error

	// TLS is the configuration for https; nil is the default one.
	TLS *tls.Config

	// MaxBytes bounds the body of a request as it travels. 0 is 8000: a server as it
	// comes takes 8192 bytes. With tsd.http.request.enable_chunked = true it takes
	// tsd.http.request.max_chunk. A limit that proves too high is lowered by the sink.
	MaxBytes int

	// MaxPoints bounds the points of a request. 0 is 500.
	MaxPoints int

	// Plain sends bodies without gzip. A request then holds a tenth of the points.
	Plain bool

	// Connections bounds the requests under way at once, over all Writes. 0 is 8: enough
	// full requests to fill the server's buffer of 1024 points again and again, so that
	// it does not wait for its clock.
	Connections int

	// MaxTags is how many tags the server takes, tsd.storage.max_tags. 0 is 8. A
	// metric with more labels is refused for good, unless TagPriority is set.
	MaxTags int

	// TagPriority makes a metric with too many labels lose some instead: host is kept,
	// then those listed here, in this order, then the others by name. Two series may
	// become one by it. Empty: such a metric is refused.
	TagPriority []string

	// Milliseconds stores times in milliseconds. The default is seconds, which take
	// less room; OpenTSDB reads a series that has both slowly.
	Milliseconds bool

	// FloatCounters stores integer counters as floats: all of 64 bits then fit, and
	// those above 2^53 are rounded.
	FloatCounters bool

	// SyncTimeout is how long the server may take to store the points of a request. 0
	// is 10 s. Those not stored by then are tried again.
	SyncTimeout time.Duration

	// Timeout bounds a whole request, for a server that does not keep its own limit:
	// one whose HBase is gone. 0 is SyncTimeout and 5 s more.
	Timeout time.Duration

	// DialTimeout bounds making a connection. 0 is 5 s.
	DialTimeout time.Duration

	// Logger is told when the sink changes its own limit. Nil is silent.
	Logger *zap.Logger
}

// String shows the server's address, and nothing secret.
func (c Config) String() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "opentsdb"
	}
	return "opentsdb " + show(u)
}

// Format prints String, whatever the verb, so that none of them shows what is secret.
func (c Config) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), c.String()) }

// Sink writes metrics to an OpenTSDB. Make one with [New].
type Sink struct {
	cfg       Config
	name      string // for errors and the topology
	put       string
	query     string // of the URL as it was given
	user      *url.Userinfo
	transport *http.Transport
	log       *zap.Logger
	seats     chan struct{} // one per request under way

	limit  atomic.Int64 // bytes of a body; starts at MaxBytes
	passed atomic.Int64 // the largest body that was answered
	ratio  atomic.Int64 // bytes on the wire per thousand bytes of JSON
	tell   sync.Once    // that the limit was lowered

	points, requests, bytes, superseded, trimmed atomic.Uint64

	plans   sync.Pool // *plan
	zippers sync.Pool // *zipper
}

const (
	defaultBytes = 8000
	minBytes     = 1000
	// anyServer is the largest body that every OpenTSDB takes, whatever its settings:
	// Netty's HTTP decoder hands it on in one piece, so neither enable_chunked nor
	// max_chunk is asked (seen on 2.4.1). One point has to fit into it.
	anyServer = 8192
)

// New returns a sink. It makes no connection yet.
func New(cfg Config) (*Sink, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		// The text of the error has the URL in it, with its password.
		return nil, errors.New("opentsdb: the URL cannot be parsed: want http://host:4242")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("opentsdb: URL %q: want http://host:4242 or https://…", show(u))
	}
	for _, f := range []struct {
		name     string
		value    *int
		zero     int
		min, max int
	}{
		{"MaxBytes", &cfg.MaxBytes, defaultBytes, minBytes, 1 << 30},
		{"MaxPoints", &cfg.MaxPoints, 500, 1, 1 << 20},
		{"Connections", &cfg.Connections, 8, 1, 1 << 10},
		{"MaxTags", &cfg.MaxTags, 8, 1, 1 << 10},
	} {
		if *f.value == 0 {
			*f.value = f.zero
		}
		if *f.value < f.min || *f.value > f.max {
			return nil, fmt.Errorf("opentsdb: %s is %d: want %d to %d, or 0 for %d", f.name, *f.value, f.min, f.max, f.zero)
		}
	}
	if cfg.SyncTimeout == 0 {
		cfg.SyncTimeout = 10 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = cfg.SyncTimeout + 5*time.Second
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	if cfg.SyncTimeout < time.Millisecond || cfg.DialTimeout < 0 {
		return nil, errors.New("opentsdb: SyncTimeout and DialTimeout must be positive, a millisecond at least")
	}
	if cfg.Timeout <= cfg.SyncTimeout {
		return nil, fmt.Errorf("opentsdb: Timeout %v must be longer than SyncTimeout %v, or every slow answer comes too late", cfg.Timeout, cfg.SyncTimeout)
	}
	s := &Sink{cfg: cfg, name: "opentsdb " + show(u), user: u.User, query: u.RawQuery, log: cfg.Logger, seats: make(chan struct{}, cfg.Connections)}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	u.User = nil
	if !strings.HasSuffix(u.Path, "/api/put") {
		u = u.JoinPath("api", "put")
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "details&sync&sync_timeout=" + strconv.FormatInt(cfg.SyncTimeout.Milliseconds(), 10)
	s.put = u.String()
	s.limit.Store(int64(cfg.MaxBytes))
	s.ratio.Store(1000)
	if !cfg.Plain {
		s.ratio.Store(100)
	}
	s.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: cfg.DialTimeout}).DialContext,
		TLSClientConfig:     cfg.TLS,
		TLSHandshakeTimeout: cfg.DialTimeout,
		MaxIdleConnsPerHost: cfg.Connections,
		IdleConnTimeout:     30 * time.Second,
	}
	return s, nil
}

// show is a URL without user, password and query, all of which may be secret.
func show(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// String returns the server's address, without credentials.
func (s *Sink) String() string { return s.name }

// Format prints String, whatever the verb, so that none of them shows what is secret.
func (s *Sink) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), s.name) }

// Close closes idle connections. The sink may be used again after it.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Stats are counts since the sink was made.
type Stats struct {
	Points     uint64 // stored
	Requests   uint64 // sent, answered or not
	Bytes      uint64 // of their bodies, as they travelled
	Superseded uint64 // not sent: a later point of the batch had the same series and time
	Trimmed    uint64 // metrics that lost labels by TagPriority
	MaxBytes   int    // the limit now: Config.MaxBytes, or lower if the server refused that
}

// Stats returns the counts. It may be called at any time.
func (s *Sink) Stats() Stats {
	return Stats{
		Points: s.points.Load(), Requests: s.requests.Load(), Bytes: s.bytes.Load(),
		Superseded: s.superseded.Load(), Trimmed: s.trimmed.Load(), MaxBytes: int(s.limit.Load()),
	}
}

var _ kemi.Sink[kemi.Metric] = (*Sink)(nil)
