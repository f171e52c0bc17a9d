package inventory

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// Config describes a [Source]. The zero value polls every host once a minute.
type Config struct {
	// Interval is the time from poll to poll of a host, and from reading to reading of
	// the list. Default one minute; a Target may have another for its polls.
	Interval time.Duration
	// FirstInterval, if not zero, makes the first two cycles so short, so that there
	// are rates within seconds of the start. It has no effect on hosts with an
	// interval that is as short.
	FirstInterval time.Duration
	// Profiles is for targets that name none. Default "linux".
	Profiles []string
	// Auth is for targets that name none.
	Auth string
	// MaxTargets is how long a list may be; a longer one is refused. Default 200,000.
	MaxTargets int
	// MaxShrink is by how much of its length, more than 0 and up to 1, a list may be
	// shorter than the one before. A shorter one, or an empty one, the first one too, is
	// refused: a broken directory must not blind the watch. To accept such a list, call
	// [Source.Accept], or set AcceptAfter. Default 0.5; 1 accepts every list, an empty
	// one too.
	MaxShrink float64
	// AcceptAfter, if not zero, accepts a list that is too short once so many in a row
	// have been, this one with them, whatever is on them: lists that change all the time
	// are never the same twice. Readings that fail do not count. The default is never.
	AcceptAfter int
	// MaxBatch is how many jobs are written at once. Default 1000.
	MaxBatch int
	// Logger is told of lists that are refused and jobs that are dropped. Nil is silent.
	Logger *zap.Logger
}

func (c *Config) check() error {
	if c.Interval == 0 {
		c.Interval = time.Minute
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		return fmt.Errorf("inventory: Interval %v: want %v to %v", c.Interval, minInterval, maxInterval)
	}
	if c.FirstInterval != 0 && (c.FirstInterval < minInterval || c.FirstInterval > maxInterval) {
		return fmt.Errorf("inventory: FirstInterval %v: want %v to %v, or 0 for none", c.FirstInterval, minInterval, maxInterval)
	}
	if c.MaxShrink == 0 {
		c.MaxShrink = 0.5
	}
	if !(c.MaxShrink > 0 && c.MaxShrink <= 1) {
		return fmt.Errorf("inventory: MaxShrink %v: want more than 0 and up to 1", c.MaxShrink)
	}
	if c.MaxTargets < 0 || c.AcceptAfter < 0 || c.MaxBatch < 0 {
		return errors.New("inventory: MaxTargets, AcceptAfter or MaxBatch is negative")
	}
	if c.MaxTargets == 0 {
		c.MaxTargets = 200_000
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = 1000
	}
	if c.Profiles = slices.Clone(c.Profiles); len(c.Profiles) == 0 {
		c.Profiles = []string{"linux"}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return nil
}

// Stats counts what a [Source] did. Targets, Duplicates and Invalid are about the
// list in use; what follows them counts from the start.
type Stats struct {
	Targets    int       // hosts that are polled
	Duplicates int       // targets left out because their resource was there before
	Invalid    int       // targets left out because they are wrong
	Read       time.Time // when the list was last read and found good
	Problem    string    // with the last reading; empty if there was none

	Reads    int64 // tries to read the list
	Failed   int64 // readings with an error
	Refused  int64 // lists refused for being empty, much too short, or too long
	Accepted int64 // lists taken although they would have been refused
	Jobs     int64 // written
	Stale    int64 // dropped, because the deadline passed before they could be written
}

// Source says when which host is to be polled. Make one with [New]. Its methods may
// be called by many goroutines at once.
type Source struct {
	from    Discoverer
	cfg     Config
	running atomic.Bool
	accept  atomic.Bool

	mu    sync.Mutex // guards stats
	stats Stats

	// What follows belongs to the goroutine that reads the list.
	list     []Target // in use
	refusals int      // of lists that were too short, in a row
	problem  string   // told last
}

var _ kemi.Source[kemi.Job] = (*Source)(nil)

// New returns a source of the jobs for the hosts that from tells. Nothing is read
// before Run.
func New(from Discoverer, cfg Config) (*Source, error) {
	if from == nil {
		return nil, errors.New("inventory: no Discoverer: use Files, HTTP, Static or one of your own")
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Source{from: from, cfg: cfg}, nil
}

// Stats returns the counts so far.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Accept makes the next list be taken however short it is, an empty one too: for a
// person who has looked, and knows that the hosts are gone indeed.
func (s *Source) Accept() { s.accept.Store(true) }

// Run writes a job for each host once every interval, until ctx is done.
//
// The hosts are spread over the first 80 % of the interval, each at a place that
// depends on its resource alone, so that one host is polled at even distances, after
// a restart too, and there is time left for retries. Jobs that are due within the
// same short while are written in one batch.
//
// While Write blocks no jobs pile up: each waits until its deadline, which is when
// the next of its host is due, and is then dropped and counted. A batch is given
// until the last deadline in it. A host never has two jobs in one cycle.
//
// Run returns an error if out gives one, unless that says that a deadline has
// passed. It does not end because a list cannot be read. It runs once at a time.
func (s *Source) Run(ctx context.Context, out kemi.Sink[kemi.Job]) error {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("inventory: the source runs already")
	}
	defer s.running.Store(false)
	ctx, stop := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer stop()
	lists := make(chan []host)
	reader.Go(func() { s.readForever(ctx, lists) })
	return s.write(ctx, lists, out)
}

// write feeds out with the jobs of the lists that come.
func (s *Source) write(ctx context.Context, lists <-chan []host, out kemi.Sink[kemi.Job]) error {
	sched := schedule{first: s.cfg.FirstInterval}
	timer := time.NewTimer(0)
	defer timer.Stop()
	batch := make([]kemi.Job, 0, s.cfg.MaxBatch)
	for {
		timer.Reset(sched.wait(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case hosts := <-lists:
			sched.replace(hosts, time.Now())
			continue
		case <-timer.C:
		}
		if ctx.Err() != nil { // both were ready
			return nil
		}
		var stale int
		batch, stale = sched.take(batch[:0], time.Now())
		s.drop(stale)
		if len(batch) == 0 {
			continue
		}
		err := s.deliver(ctx, out, batch)
		switch {
		case err == nil:
			s.count(func(st *Stats) { st.Jobs += int64(len(batch)) })
		case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
			s.drop(len(batch))
		default:
			return fmt.Errorf("inventory: %w", err)
		}
	}
}

// deliver writes the batch, for as long as any job in it is worth it.
func (s *Source) deliver(ctx context.Context, out kemi.Sink[kemi.Job], batch []kemi.Job) error {
	last := batch[0].Deadline
	for _, j := range batch {
		if j.Deadline.After(last) {
			last = j.Deadline
		}
	}
	// The deadline is a time of the wall clock, which may be set meanwhile.
	ctx, cancel := context.WithTimeout(ctx, time.Until(last))
	defer cancel()
	return out.Write(ctx, batch)
}

func (s *Source) drop(n int) {
	if n == 0 {
		return
	}
	s.count(func(st *Stats) { st.Stale += int64(n) })
	s.cfg.Logger.Warn("poll jobs dropped: they could not be written before their deadline", zap.Int("jobs", n))
}

func (s *Source) count(change func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// ---- reading the list ------------------------------------------------------------

// readForever reads the list once every interval. Until there is a first one it
// tries more often.
func (s *Source) readForever(ctx context.Context, lists chan<- []host) {
	s.list, s.refusals = nil, 0 // of an earlier Run, whose hosts this one does not poll yet
	retry := min(time.Second, s.cfg.Interval)
	for ctx.Err() == nil {
		next := time.Now().Add(s.cfg.Interval)
		if hosts, ok := s.read(ctx); ok {
			select {
			case lists <- hosts:
			case <-ctx.Done():
				return
			}
		} else if s.list == nil {
			next = time.Now().Add(retry)
			retry = min(2*retry, s.cfg.Interval)
		}
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
		}
	}
}

// read reads the list. ok tells whether there is a new one to be used.
func (s *Source) read(ctx context.Context) (hosts []host, ok bool) {
	s.count(func(st *Stats) { st.Reads++ })
	targets, err := s.targets(ctx)
	if ctx.Err() != nil {
		return nil, false
	}
	if err == nil && targets == nil {
		targets = []Target{}
	}
	if err != nil {
		s.count(func(st *Stats) { st.Failed++ })
	}
	if targets == nil {
		s.tell(err)
		return nil, false
	}
	good, left := tidy(targets)
	if refusal := s.judge(good, len(targets)); refusal != nil {
		s.count(func(st *Stats) { st.Refused++ })
		s.tell(errors.Join(err, refusal, left.err))
		return nil, false
	}
	s.refusals = 0
	s.tell(errors.Join(err, left.err))
	s.count(func(st *Stats) {
		st.Targets, st.Duplicates, st.Invalid = len(good), left.duplicates, left.invalid
		if err == nil {
			st.Read = time.Now()
		}
	})
	if s.list != nil && equalTargets(s.list, good) {
		return nil, false
	}
	s.cfg.Logger.Info("inventory: a new list of hosts", zap.Int("hosts", len(good)), zap.Int("before", len(s.list)))
	s.list = good
	return s.hosts(good), true
}

// targets asks the Discoverer, and stands between it and the program if it panics.
func (s *Source) targets(ctx context.Context) (targets []Target, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(s.cfg.Interval, 10*time.Second))
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			targets, err = nil, fmt.Errorf("inventory: the discoverer panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return s.from.Targets(ctx)
}

// leftOut is about targets that are not on the list in the end.
type leftOut struct {
	duplicates, invalid int
	err                 error // names the first of each kind
}

// tidy leaves out targets that are wrong and all but the first of one resource.
func tidy(targets []Target) (good []Target, left leftOut) {
	good = make([]Target, 0, len(targets))
	seen := make(map[string]int, len(targets))
	intervals := map[time.Duration]bool{}
	var invalid, double error
	for _, t := range targets {
		err := t.check()
		if err == nil && t.Interval != 0 && !intervals[t.Interval] {
			if len(intervals) == maxIntervals {
				err = fmt.Errorf("target %s: an interval of %v: there are %d others already", quote(t.Address), t.Interval, maxIntervals)
			} else {
				intervals[t.Interval] = true
			}
		}
		if err != nil {
			if left.invalid++; invalid == nil {
				invalid = at(t.Place, err)
			}
			continue
		}
		if i, there := seen[t.Resource]; there {
			if left.duplicates++; double == nil {
				double = at(t.Place, fmt.Errorf("host %s is there already%s: the first one counts", quote(t.Resource), asIn(good[i].Place)))
			}
			continue
		}
		seen[t.Resource] = len(good)
		good = append(good, t)
	}
	for _, one := range []struct {
		n   int
		err error
	}{{left.invalid, invalid}, {left.duplicates, double}} {
		if one.n > 1 {
			one.err = fmt.Errorf("%w (and %d more like it)", one.err, one.n-1)
		}
		left.err = errors.Join(left.err, one.err)
	}
	return good, left
}

func at(place string, err error) error {
	if place == "" {
		return fmt.Errorf("inventory: %w", err)
	}
	return fmt.Errorf("inventory: %s: %w", place, err)
}

func asIn(place string) string {
	if place == "" {
		return ""
	}
	return ", at " + place
}

// judge tells why a list is not to be used; nil if it is.
func (s *Source) judge(good []Target, all int) error {
	have, n := len(s.list), len(good)
	accept := s.accept.Swap(false)
	if all > s.cfg.MaxTargets {
		s.refusals = 0
		return fmt.Errorf("inventory: the list has %d targets, more than MaxTargets, %d: it is not used", all, s.cfg.MaxTargets)
	}
	switch {
	case s.cfg.MaxShrink == 1, n > 0 && float64(have-n) <= s.cfg.MaxShrink*float64(have):
		return nil
	case n == 0 && have == 0 && s.list != nil: // an empty list is in use
		return nil
	}
	s.refusals++
	if accept || s.cfg.AcceptAfter > 0 && s.refusals >= s.cfg.AcceptAfter {
		s.count(func(st *Stats) { st.Accepted++ })
		return nil
	}
	if s.list == nil {
		return errors.New("inventory: the list has no hosts, so that nothing is polled: add some, or set MaxShrink to 1 if that is right")
	}
	return fmt.Errorf("inventory: the list has %d hosts where there were %d: the last list stays in use, until this one is accepted or has more", n, have)
}

// tell logs a problem when it is new, and the end of one.
func (s *Source) tell(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	s.count(func(st *Stats) { st.Problem = problem })
	switch problem {
	case s.problem:
	case "":
		s.cfg.Logger.Info("inventory: the list is right again")
	default:
		s.cfg.Logger.Warn("inventory: there is something wrong with the list of hosts", zap.Error(err))
	}
	s.problem = problem
}

// hosts makes the jobs of a list, but for their times.
func (s *Source) hosts(targets []Target) []host {
	hosts := make([]host, len(targets))
	for i, t := range targets {
		j := kemi.Job{
			Target: t.Address, Resource: t.Resource, Service: t.Service,
			Profiles: t.Profiles, Auth: t.Auth, Labels: t.Labels, Interval: t.Interval,
		}
		if len(j.Profiles) == 0 {
			j.Profiles = s.cfg.Profiles
		}
		if j.Auth == "" {
			j.Auth = s.cfg.Auth
		}
		if j.Interval == 0 {
			j.Interval = s.cfg.Interval
		}
		hosts[i] = host{place(t.Resource), j}
	}
	slices.SortFunc(hosts, host.compare)
	return hosts
}
