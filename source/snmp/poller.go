package snmp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp/internal/codec"
	"github.com/kemi-go/kemi/source/snmp/internal/engine"
)

// SourceAddress says where an answer may come from. Agents on machines with several
// addresses may answer from another one than was asked.
type SourceAddress uint8

// The choices of SourceAddress, the strictest first.
const (
	SameAddrPort SourceAddress = SourceAddress(engine.SameAddrPort) // the address and port that were asked
	SameAddr     SourceAddress = SourceAddress(engine.SameAddr)     // the address that was asked, any port
	AnyAddr      SourceAddress = SourceAddress(engine.Anywhere)     // any: what is left is the id, and the community or the signature
)

// Config describes a [Poller]. A credential for the jobs is all it needs.
type Config struct {
	// Credentials are known to jobs by name (Job.Auth). DefaultCredential is for jobs that
	// name none. Lookup, if set, is asked for names that are not in Credentials, once for
	// each job, so that secrets may change while the poller runs; it must not block.
	Credentials       map[string]Credential
	DefaultCredential Credential
	Lookup            func(name string) (Credential, bool)

	// Profiles are what jobs may ask for by name; a job that names none asks for the
	// first. The default is [Linux] alone.
	Profiles []Profile

	Patience time.Duration // of Apply; 0: 250 ms; negative: Apply never waits
	Deadline time.Duration // of the poll of one host; 0: 10 s; never more than half the job's interval
	Timeout  time.Duration // how long the last try of a request waits; 0: 3 s
	Retries  int           // tries of a request after the first; 0: 1; negative: none

	MaxInFlight   int // requests on the wire at once; 0: what the receive buffers hold, at most 512 a CPU; they bound a larger number too
	MaxRows       int // of one table; 0: 5000
	SourceAddress SourceAddress
	LocalAddr     netip.Addr    // to send from; zero: any
	Resolver      *net.Resolver // for targets that are names; nil: net.DefaultResolver
	Logger        *zap.Logger   // nil: silent
}

// Poller polls hosts by SNMP: a kemi.Transform from jobs to metrics. Make one with
// [NewPoller] and close it with Close.
//
// Every lane gets a fork with a list of stragglers of its own; the sockets, and what
// is known about each host, are shared by all of them. A Poller may be used by many
// goroutines.
//
// Stragglers come out with the next Apply or Tick of their lane. A flow ticks once a
// second unless it is told to do so more often: kemi.TickEvery(100*time.Millisecond) is
// good for a poll flow, and costs next to nothing.
//
// A job whose deadline has passed is dropped, counted and logged, never polled late. A job for
// a host that is being polled already joins that poll: the host is not asked twice at
// once, and the result goes to the lane that asked last. A job that can never be
// polled (no target, an unknown profile or credential) is refused, with a permanent
// error for this job alone, and its host is said to be down, reason config.
type Poller struct {
	cfg      Config
	log      *zap.Logger
	engine   *engine.Engine
	profiles map[string]Profile
	fallback []string // the profile of a job that names none
	root     *lane
	seed     maphash.Seed

	ctx   context.Context // until Close
	stop  context.CancelFunc
	polls sync.WaitGroup
	count counters

	toldPanic, toldStale seldom

	secrets map[string]*security // of Credentials, and "" for the default; not changed any more

	mu       sync.Mutex
	closed   bool
	hosts    map[hostKey]*state
	swept    time.Time
	plans    map[string]*plan
	lookedUp map[Credential]*security // of Lookup
}

var (
	_ kemi.Transform[kemi.Job, kemi.Metric] = (*Poller)(nil)
	_ kemi.Forker[kemi.Job, kemi.Metric]    = (*Poller)(nil)
	_ kemi.Ticker[kemi.Metric]              = (*Poller)(nil)
)

const (
	readBuffer = 4 << 20
	maxPlans   = 1024 // sets of profiles that were asked for together
	maxSecrets = 4096 // credentials that Lookup has given
)

// NewPoller opens the sockets and returns the poller. Its errors say which field of cfg
// to mend, and hold no secret.
func NewPoller(cfg Config) (*Poller, error) {
	p := &Poller{
		log:      cfg.Logger,
		profiles: map[string]Profile{},
		seed:     maphash.MakeSeed(),
		hosts:    map[hostKey]*state{},
		plans:    map[string]*plan{},
		secrets:  map[string]*security{},
		lookedUp: map[Credential]*security{},
	}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if cfg.DefaultCredential != (Credential{}) {
		s, err := newSecurity(cfg.DefaultCredential)
		if err != nil {
			return nil, fmt.Errorf("snmp: DefaultCredential: %w", err)
		}
		p.secrets[""] = s
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Credentials)) {
		if name == "" {
			return nil, errors.New("snmp: a credential without a name: use DefaultCredential")
		}
		s, err := newSecurity(cfg.Credentials[name])
		if err != nil {
			return nil, fmt.Errorf("snmp: credential %q: %w", name, err)
		}
		p.secrets[name] = s
	}
	if len(cfg.Profiles) == 0 {
		cfg.Profiles = []Profile{Linux()}
	}
	for _, f := range cfg.Profiles {
		if err := checkProfile(f); err != nil {
			return nil, fmt.Errorf("snmp: %w", err)
		}
		if _, ok := p.profiles[f.Name]; ok {
			return nil, fmt.Errorf("snmp: two profiles are called %q", f.Name)
		}
		p.profiles[f.Name] = f
	}
	p.fallback = []string{cfg.Profiles[0].Name}
	if cfg.Deadline < 0 || cfg.Timeout < 0 || cfg.MaxInFlight < 0 || cfg.MaxRows < 0 {
		return nil, errors.New("snmp: Deadline, Timeout, MaxInFlight and MaxRows must not be negative")
	}
	if cfg.SourceAddress > AnyAddr {
		return nil, fmt.Errorf("snmp: unknown SourceAddress %d", cfg.SourceAddress)
	}
	cfg.Patience = cmp.Or(cfg.Patience, 250*time.Millisecond)
	cfg.Deadline = cmp.Or(cfg.Deadline, 10*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 3*time.Second)
	cfg.Retries = max(cmp.Or(cfg.Retries, 1), 0)
	cfg.MaxRows = cmp.Or(cfg.MaxRows, 5000)
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	cfg.Credentials, cfg.DefaultCredential = nil, Credential{} // kept in secrets alone
	p.cfg = cfg

	e, err := engine.New(engine.Config{
		Local:      cfg.LocalAddr,
		Source:     engine.Source(cfg.SourceAddress),
		Window:     cfg.MaxInFlight,
		ReadBuffer: readBuffer,
		ID:         codec.ID,
	})
	if err != nil {
		return nil, err
	}
	p.engine = e
	p.ctx, p.stop = context.WithCancel(context.Background())
	if e.ReadBuffer > 0 && e.ReadBuffer < readBuffer {
		p.log.Info("the kernel grants small receive buffers, which bounds the requests on the wire: raise net.core.rmem_max for more",
			zap.Int("granted_bytes", e.ReadBuffer), zap.Int("wanted_bytes", readBuffer), zap.Int("requests_on_wire", e.Counters().Window))
	}
	p.root = &lane{p: p}
	return p, nil
}

// Close ends all polls, closes the sockets and waits. Results that nobody has taken are
// lost, as those of a crash are.
func (p *Poller) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.stop()
	err := p.engine.Close()
	p.polls.Wait()
	return err
}

// Apply starts the jobs of src at once and appends to dst what is ready when all of
// them are done or the patience has passed, with the results of stragglers of earlier
// calls. It does not wait for hosts whose last poll took longer than that.
func (p *Poller) Apply(ctx context.Context, dst []kemi.Metric, src []kemi.Job) ([]kemi.Metric, error) {
	return p.root.Apply(ctx, dst, src)
}

// Tick appends the results of stragglers.
func (p *Poller) Tick(ctx context.Context, dst []kemi.Metric, now time.Time) ([]kemi.Metric, error) {
	return p.root.Tick(ctx, dst, now)
}

// Fork returns a Transform with a list of stragglers of its own, on the same sockets. It
// needs no closing.
func (p *Poller) Fork() kemi.Transform[kemi.Job, kemi.Metric] { return &lane{p: p} }

// String returns snmp.Poller: nothing about credentials.
func (p *Poller) String() string { return "snmp.Poller" }

// GoString is String.
func (p *Poller) GoString() string { return p.String() }

// begin makes Close wait for one more poll, unless it was called.
func (p *Poller) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.polls.Add(1)
	}
	return !p.closed
}

// lookup returns the credential of a job.
func (p *Poller) lookup(name string) (*security, error) {
	if s, ok := p.secrets[name]; ok {
		return s, nil
	}
	if name == "" {
		return nil, errors.New("the job names no credential and the poller has no DefaultCredential")
	}
	var c Credential
	found := false
	if p.cfg.Lookup != nil {
		c, found = p.cfg.Lookup(name)
	}
	if !found {
		return nil, fmt.Errorf("no credential is called %q: add it to Config.Credentials", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.lookedUp[c]; ok {
		return s, nil
	}
	s, err := newSecurity(c)
	if err != nil {
		return nil, fmt.Errorf("credential %q: %w", name, err)
	}
	if len(p.lookedUp) >= maxSecrets {
		clear(p.lookedUp)
	}
	p.lookedUp[c] = s
	return s, nil
}

// planOf returns the plan of a job's profiles.
func (p *Poller) planOf(names []string) (*plan, error) {
	if len(names) == 0 {
		names = p.fallback
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := strings.Join(names, "\x00")
	if pl, ok := p.plans[key]; ok {
		return pl, nil
	}
	fs := make([]Profile, 0, len(names))
	for _, n := range names {
		f, ok := p.profiles[n]
		if !ok {
			return nil, fmt.Errorf("no profile is called %q: the poller has %q", n, slices.Sorted(maps.Keys(p.profiles)))
		}
		fs = append(fs, f)
	}
	if len(p.plans) >= maxPlans {
		clear(p.plans)
	}
	pl := newPlan(fs)
	p.plans[key] = pl
	return pl, nil
}

// Hosts that no job has named for this long are forgotten.
const (
	sweepEvery  = 5 * time.Minute
	forgetAfter = time.Hour
)

func (p *Poller) host(key hostKey, interval time.Duration, now time.Time) *state {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) > sweepEvery {
		p.swept = now
		maps.DeleteFunc(p.hosts, func(_ hostKey, h *state) bool { return h.idleSince(now) > max(forgetAfter, 3*h.interval) })
	}
	h := p.hosts[key]
	if h == nil {
		h = newState(key, maphash.String(p.seed, key.resource+"\x00"+key.target))
		p.hosts[key] = h
	}
	h.seen, h.interval = now, interval
	return h
}
