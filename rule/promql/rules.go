package promql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// Config describes a set of rules. Only Files is needed.
type Config struct {
	// Name is what the rules are called in topologies and logs. Default: promql.
	Name string
	// Files are paths or patterns (as path.Match) of rule files, "rules/*.yml". Each has
	// to match at least one file.
	Files []string
	// FS is where Files are. Default: the files of the operating system. An embed.FS
	// serves rules that are part of a program.
	FS fs.FS
	// Logger tells of failing rules and of reloads. Default: silent.
	Logger *zap.Logger

	// EvaluationInterval is that of groups that say none, and the step of subqueries
	// that say none. Default: 15 s.
	EvaluationInterval time.Duration
	// Lookback is how old the newest sample of a series may be to count as its value.
	// Default: 5 min.
	Lookback time.Duration
	// MaxLookback is the furthest that an expression may look back, by ranges, offsets
	// and subqueries. It bounds memory. Default: 24 h.
	MaxLookback time.Duration

	// Delay is how long after a time, by the newest metric, an evaluation at that time
	// waits for metrics of other hosts. Default: 1 s. Negative: none.
	Delay time.Duration
	// MaxDelay is how long an evaluation waits when no metric comes. Ticks that are
	// further apart than that, and than they were before, are a gap: nobody looked
	// meanwhile. Default: 15 s.
	MaxDelay time.Duration
	// MaxAhead is how far beyond the tick after it the time of a metric may lie.
	// Default: 1 min.
	MaxAhead time.Duration
	// MaxCatchUp is how many evaluations a group that fell behind makes up for.
	// Default: 240.
	MaxCatchUp int

	// MaxSeries is how many series are held; new ones above that are refused and
	// counted. Default: 1 000 000, about 500 MB with ten samples each.
	MaxSeries int
	// MaxSamples is how many samples one expression may load. Default: 20 000 000.
	MaxSamples int
	// Timeout is how long one evaluation of a rule may take, its templates included. It is measured with a real clock, and
	// is the one thing that may make two runs differ. Default: 30 s.
	Timeout time.Duration

	// ExternalLabels are $externalLabels in templates. They are not put on alerts.
	ExternalLabels kemi.Labels
	// ExternalURL is $externalURL in templates: where people find this kemi.
	ExternalURL string
}

// Rules is a set of metric rules in work: a kemi.Rule, and a Ticker, Finisher, Warmer,
// Prover, Keeper and Aggregator. All methods may be called by many goroutines at once; metrics are
// taken in while rules are evaluated.
type Rules struct {
	conf   Config
	log    *zap.Logger
	engine *prom.Engine
	parser parser.Parser
	store  *store
	scope  *scope

	files   files // what was read
	horizon atomic.Int64
	shown   atomic.Pointer[snapshot] // for Active and Status

	mu       sync.Mutex // an evaluation, or a new set of groups
	groups   []*group   // in order of files, and in files
	farewell []kemi.Alert
	firing   map[kemi.Labels]*firing // what was told as firing and not yet as resolved

	started   bool
	first     millis // the first tick
	seen      millis // the newest metric, and the tick that first knew of it
	moved     millis
	pace      millis // between the last two ticks
	blind     hole
	gaps      uint64
	evaluated millis // everything up to here is
	swept     millis
	skipped   uint64

	version uint64 // of the rules and the configuration
	changed millis // the tick before the last reload; 0: none

	kept       map[markKey]mark // as of the last Keep
	keptClock  reckoning
	unkept     bool     // some alert may have changed since
	orphans    []string // what is kept and of no use
	unreadable uint64   // entries that were dropped by Restore
	restored   bool
}

// New reads the rule files and returns the rules. The error names every file and
// line that is wrong.
func New(conf Config) (*Rules, error) {
	conf.Name = cmp.Or(conf.Name, "promql")
	conf.EvaluationInterval = cmp.Or(conf.EvaluationInterval, 15*time.Second)
	conf.Lookback = cmp.Or(conf.Lookback, 5*time.Minute)
	conf.MaxLookback = cmp.Or(conf.MaxLookback, 24*time.Hour)
	conf.Delay = max(0, cmp.Or(conf.Delay, time.Second))
	conf.MaxDelay = cmp.Or(conf.MaxDelay, 15*time.Second)
	conf.MaxAhead = cmp.Or(conf.MaxAhead, time.Minute)
	conf.MaxCatchUp = cmp.Or(conf.MaxCatchUp, 240)
	conf.MaxSeries = cmp.Or(conf.MaxSeries, 1_000_000)
	conf.MaxSamples = cmp.Or(conf.MaxSamples, 20_000_000)
	conf.Timeout = cmp.Or(conf.Timeout, 30*time.Second)
	if conf.Logger == nil {
		conf.Logger = zap.NewNop()
	}
	external, err := check(conf)
	if err != nil {
		return nil, err
	}
	p := parser.NewParser(parser.Options{})
	r := &Rules{
		conf:   conf,
		log:    conf.Logger.With(zap.String("rules", conf.Name)),
		parser: p,
		scope:  &scope{externalURL: external, externalLabels: map[string]string{}},
		engine: prom.NewEngine(prom.EngineOpts{
			MaxSamples:               conf.MaxSamples,
			Timeout:                  conf.Timeout,
			LookbackDelta:            conf.Lookback,
			NoStepSubqueryIntervalFn: func(int64) int64 { return conf.EvaluationInterval.Milliseconds() },
			EnableAtModifier:         true,
			EnableNegativeOffset:     true,
			Parser:                   p,
		}),
		seen: never, firing: map[kemi.Labels]*firing{}, kept: map[markKey]mark{},
	}
	for n, v := range conf.ExternalLabels.All() {
		r.scope.externalLabels[n] = v
	}
	// A series may hold one sample a second of what evaluations to come may ask for,
	// and some more.
	behind := int64(conf.MaxCatchUp) * conf.EvaluationInterval.Milliseconds()
	r.store = newStore(conf.MaxSeries, conf.Lookback.Milliseconds(), conf.MaxAhead.Milliseconds(),
		func(keep millis) int { return int((keep+behind)/1000) + 64 })
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

func check(conf Config) (*url.URL, error) {
	if len(conf.Files) == 0 {
		return nil, errors.New("promql: Config.Files is empty: name the rule files, such as rules/*.yml")
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"EvaluationInterval", conf.EvaluationInterval}, {"Lookback", conf.Lookback}, {"MaxLookback", conf.MaxLookback},
		{"MaxDelay", conf.MaxDelay}, {"MaxAhead", conf.MaxAhead}, {"Timeout", conf.Timeout},
	} {
		if d.v < time.Millisecond {
			return nil, fmt.Errorf("promql: Config.%s is %v: want at least a millisecond, or nothing for the default", d.name, d.v)
		}
	}
	for _, n := range []struct {
		name string
		v    int
	}{{"MaxCatchUp", conf.MaxCatchUp}, {"MaxSeries", conf.MaxSeries}, {"MaxSamples", conf.MaxSamples}} {
		if n.v < 1 {
			return nil, fmt.Errorf("promql: Config.%s is %d: want at least 1, or nothing for the default", n.name, n.v)
		}
	}
	u, err := url.Parse(conf.ExternalURL)
	if err != nil {
		return nil, errors.New("promql: Config.ExternalURL is not a URL: want something like https://kemi.example.com/")
	}
	return u, nil
}

// Name returns Config.Name.
func (r *Rules) Name() string { return r.conf.Name }

// String returns Config.Name.
func (r *Rules) String() string { return r.conf.Name }

// Aggregates is true: an expression may combine the metrics of any hosts.
func (r *Rules) Aggregates() bool { return true }

// Horizon is the longest that an alert depends on the past: the look-back of its
// expression, what the recorded series in it look back in turn, for, and
// keep_firing_for; and how far metrics may come before the time they are about, and
// evaluations after it. It changes with a reload. What lies further back is the business
// of Keep.
func (r *Rules) Horizon() time.Duration { return time.Duration(r.horizon.Load()) }

// Apply takes metrics in. It gives no alerts, they come with Tick, and never fails:
// what cannot be used is counted in [Status].
func (r *Rules) Apply(_ context.Context, dst []kemi.Alert, src []kemi.Metric) ([]kemi.Alert, error) {
	r.store.ingest(src)
	return dst, nil
}

// Tick evaluates the groups that are due and appends the alerts that began to fire
// or were resolved, in order of time, groups, rules and labels.
func (r *Rules) Tick(ctx context.Context, dst []kemi.Alert, now time.Time) ([]kemi.Alert, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.clock(now.UnixMilli())
	r.store.tick(t)
	dst = r.step(ctx, dst, r.due(t))
	r.look(t)
	return dst, nil
}

// Finish evaluates what the metrics have reached, without a delay: no more come. A
// metric may be MaxAhead beyond the last tick and the newest metric before it. If
// there was no tick, the times that most metrics agree on count.
func (r *Rules) Finish(ctx context.Context, dst []kemi.Alert) ([]kemi.Alert, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reach := max(r.store.now.Load(), r.store.newest.Load())
	if !r.started {
		reach = r.store.reach(r.conf.MaxLookback.Milliseconds())
	}
	r.store.settle(reach+r.conf.MaxAhead.Milliseconds(), reach)
	return r.step(ctx, dst, r.store.newest.Load()), nil
}

func (r *Rules) step(ctx context.Context, dst []kemi.Alert, due millis) []kemi.Alert {
	before := r.evaluated
	dst = append(dst, r.farewell...)
	told := len(r.farewell) > 0
	r.farewell = nil
	dst = r.advance(ctx, dst, due)
	if told || r.evaluated != before {
		r.unkept = true
		r.publish()
	}
	return dst
}
