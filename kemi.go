package kemi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/engine"
	"github.com/kemi-go/kemi/internal/intern"
	"github.com/kemi-go/kemi/internal/slogcore"
)

// ---- the four nouns -------------------------------------------------------

// Sink takes batches of records.
//
// A nil error means the whole batch is safe: stored, handed on, or discarded on
// purpose and counted. The caller may forget it, and a source may commit past it.
// Any other error makes no such promise, unless [Failures] says which records it
// is about; the ways to say more are [Partial], [Permanent] and [RetryAfter].
//
// Write must not change the batch, nor keep it after it has returned: the caller
// uses the slice again. The records themselves are immutable values and may be kept.
// Many goroutines may call Write at once.
type Sink[T any] interface {
	Write(ctx context.Context, batch []T) error
}

// Source brings records into a pipeline.
//
// Run feeds out until ctx is done or the input ends, waits for its own Writes to
// return, and only then returns: nil when it was asked to stop or the input ended,
// an error when it cannot go on, which stops the pipeline.
//
// Cancelling ctx asks for no new input. It does not cancel a Write under way, so
// Run may pass its ctx straight on. Give a Write a deadline when the far side
// cannot wait for ever (an HTTP request, a poll interval); without one, Write
// returns when the batch is safe or the pipeline is stopped hard.
type Source[T any] interface {
	Run(ctx context.Context, out Sink[T]) error
}

// Transform turns records of In into records of Out, any number into any number.
//
// Apply appends its results to dst and returns the longer slice, as
// [strconv.AppendInt] does. It keeps neither slice and does not change src. With a
// plain error it must leave no trace in its own state: the same src will come
// again. With an error made by [Partial] of src, the listed records are refused
// for good and dst holds the results of the others.
//
// A Transform is shared by every lane of a flow and must be safe for that, unless
// it is a [Forker].
type Transform[In, Out any] interface {
	Apply(ctx context.Context, dst []Out, src []In) ([]Out, error)
}

// Rule is a Transform that raises alerts and has a name to be known by.
type Rule[T any] interface {
	Name() string
	Transform[T, Alert]
}

// What a Transform may also be. Each has a harmless zero answer, so a wrapper can
// implement them all and never hide one.
type (
	// Forker is a Transform with state. Every lane gets a fork of its own, used by
	// one goroutine at a time, so state needs no locks and dies with its partition.
	// A nil fork means that the Transform has no state after all and is shared; it is
	// either always nil or never. A Fork that panics ends the flow.
	Forker[In, Out any] interface {
		Fork() Transform[In, Out]
	}

	// Ticker is called about once a second, never at the same time as Apply, whether
	// records come or not: absence is news too. now is passed in, so that a replay
	// sees the time its first run saw; a Ticker never reads a clock. A lane that is
	// blocked by its sink is not ticked. Tick appends to dst as Apply does.
	//
	// A Forker hears the time too before the first record has come: a flow whose source
	// has not opened a lane by the first tick gives it one. Not so behind a [Shared]
	// source: one that has nothing may be one of several, and the others have it all.
	Ticker[Out any] interface {
		Tick(ctx context.Context, dst []Out, now time.Time) ([]Out, error)
	}

	// Finisher gives what is still open when the input ends by itself. A stop is not
	// an end: what a stop leaves open is built again from the input next time. An input
	// without a record ends too.
	Finisher[Out any] interface {
		Finish(ctx context.Context, dst []Out) ([]Out, error)
	}

	// Warmer says how much past input its state depends on. A bus replays that much,
	// muted, before it hands over new records. Zero: no state.
	Warmer interface {
		Horizon() time.Duration
	}

	// Prover is a Transform whose state can be compared. A durable topic keeps the proof
	// with the reader's position; after a restart it builds the state again from the
	// input and compares. A difference is counted in [FlowStats].Mismatches and logged:
	// the stage depends on something else than its input.
	//
	// Proof is asked for after each batch and so has to be cheap: a sum over the entries
	// of the state, kept up to date as they change. What has fallen out of the horizon,
	// by the time of the last tick, is not part of it. The zero Proof says nothing.
	Prover interface {
		Proof() Proof
	}

	// Keeper is a Transform with state that no horizon bounds, such as since when an
	// alert has been firing. A durable topic keeps it beside the reader's position.
	//
	// Keep appends what has changed since it was called last. Restore is called with
	// what was kept when the replay of the horizon is over, and before anything is
	// emitted: it corrects what the replay has built. It may be called again with more.
	// A Keeper forks, or it reads its topic with All; Keep and Restore are never called at
	// the same time as Apply of the fork, nor as Tick.
	Keeper interface {
		Keep(dst []Kept) []Kept
		Restore(kept []Kept) error
	}

	// Aggregator combines records of different keys (a sum over hosts). It needs the
	// whole topic, so a flow that feeds it from a source that is [Shared] is refused
	// at start.
	Aggregator interface {
		Aggregates() bool
	}

	// Shared is a Source whose input may be divided among several members, such as a
	// consumer group.
	Shared interface {
		Shares() bool
	}
)

// Proof tells states apart. Two states of one Version that behave alike have one Hash.
type Proof struct {
	Version uint64 // of the rules, the configuration, the code: proofs of two versions are not compared
	Hash    uint64
}

// Kept is an entry of the state of a [Keeper].
type Kept struct {
	Key   string
	Value []byte // nil: forgotten. Not changed after it was handed over
}

// SourceFunc is a function used as a [Source].
type SourceFunc[T any] func(ctx context.Context, out Sink[T]) error

// Run calls f.
func (f SourceFunc[T]) Run(ctx context.Context, out Sink[T]) error { return f(ctx, out) }

// SinkFunc is a function used as a [Sink].
type SinkFunc[T any] func(ctx context.Context, batch []T) error

// Write calls f.
func (f SinkFunc[T]) Write(ctx context.Context, batch []T) error { return f(ctx, batch) }

// TransformFunc is a function used as a stateless [Transform].
type TransformFunc[In, Out any] func(ctx context.Context, dst []Out, src []In) ([]Out, error)

// Apply calls f.
func (f TransformFunc[In, Out]) Apply(ctx context.Context, dst []Out, src []In) ([]Out, error) {
	return f(ctx, dst, src)
}

// ---- errors ---------------------------------------------------------------

// Failure is one record of a batch that failed, by its index in the batch.
type Failure struct {
	Index int
	Err   error
}

// Partial reports that only the listed records of batch failed; the others are
// safe. It returns nil when nothing is listed. The error is about this very slice:
// read against another one, even an equal one, [Failures] does not answer, so an
// index is never applied to the wrong batch. Of several entries with one index the
// first counts. An index outside the batch makes it an ordinary error about the
// whole batch, since then nothing is known to be safe.
//
// Make a new one for each Write: a flow believes each once, since the next batch may
// lie in the same memory. Given again, it is an ordinary error that may pass, about
// the whole batch. A wrapper that translates a Partial makes a new one and so hides
// that it is old: the sink it wraps has to keep to this as well.
//
// Each failure may be marked by itself with [Permanent] or [RetryAfter]; a mark
// around the Partial is about all of them.
func Partial[T any](batch []T, failed ...Failure) error {
	if len(failed) == 0 {
		return nil
	}
	fs := make([]engine.Failure, len(failed))
	for i, f := range failed {
		fs[i] = engine.Failure(f)
	}
	return engine.NewPartial(batch, fs)
}

// Failures returns the failed records, if err was made by [Partial] for this very
// batch. ok is false for any other error, also for a Partial about a batch further
// down.
func Failures[T any](err error, batch []T) (failed []Failure, ok bool) {
	fs, ok := engine.Failures(err, batch)
	if !ok {
		return nil, false
	}
	failed = make([]Failure, len(fs))
	for i, f := range fs {
		failed[i] = Failure(f)
	}
	return failed, true
}

// Permanent marks err as one that trying again cannot help. A flow looks for the
// guilty record by halving the batch, and sends it to the dead letters. Permanent
// of nil is nil.
func Permanent(err error) error { return engine.Permanent(err) }

// IsPermanent tells whether err, or an error it wraps, was made by [Permanent]. Of
// errors joined together each must be: while one of them may pass, trying again may
// help.
func IsPermanent(err error) bool { return engine.IsPermanent(err) }

// RetryAfter marks err as one to be tried again, but not before d has passed.
// RetryAfter of nil is nil.
func RetryAfter(err error, d time.Duration) error { return engine.RetryAfter(err, d) }

// ---- flows ----------------------------------------------------------------

// Flow is one hop: a source, perhaps a transform, a sink. It owns retry,
// bisection, dead letters, lanes and counters. A Flow belongs to one [Pipeline]
// and runs once.
type Flow struct {
	f        engine.Flow
	from, to node
	via      string // empty: no transform
}

// FlowOption tunes a [Flow].
type FlowOption func(*engine.Options)

// Backoff sets the wait between tries of a sink: at random between nothing and a
// bound that starts at min and doubles up to max (full jitter). The default is
// 10 ms to 5 s.
func Backoff(min, max time.Duration) FlowOption {
	return func(o *engine.Options) { o.BackoffMin, o.BackoffMax = min, max }
}

// Attempts bounds how often a record is offered to a stage that fails for reasons
// that may pass. After n tries it goes to the dead letters as if its error were
// [Permanent]; so does, where the stage does not say which record is to blame, the
// whole batch. Offers made to find a guilty record by halving do not count. The
// default, 0, tries until the source's deadline or the hard stop.
func Attempts(n int) FlowOption {
	return func(o *engine.Options) { o.Attempts = n }
}

// TickEvery sets how often a [Ticker] is called. The default is one second.
func TickEvery(d time.Duration) FlowOption {
	return func(o *engine.Options) { o.TickEvery = d }
}

// Connect makes a flow that hands the records of from to the sink to.
func Connect[T any](name string, from Source[T], to Sink[T], opts ...FlowOption) *Flow {
	s := spec[T, T](name, from, to, opts)
	s.Pass = func(batch []T) []T { return batch }
	return &Flow{engine.New(s), nodeOf(from), nodeOf(to), ""}
}

// Pipe makes a flow that hands the records of from through via to the sink to. The
// types are inferred, and one that does not fit does not compile.
func Pipe[In, Out any](name string, from Source[In], via Transform[In, Out], to Sink[Out], opts ...FlowOption) *Flow {
	s := spec[In, Out](name, from, to, opts)
	s.Via = nodeOf(via).name
	if via == nil {
		s.Check = errors.Join(s.Check, fmt.Errorf("kemi: flow %q has no transform: use Connect", name))
	} else {
		s.Shared = opsOf(via)
		s.Fork = forksOf(via)
	}
	sh, ok := any(from).(Shared)
	s.Divided = ok && sh.Shares()
	if ag, ok := any(via).(Aggregator); ok && ag.Aggregates() {
		switch {
		case s.Divided:
			s.Check = errors.Join(s.Check, fmt.Errorf("kemi: flow %q: %s combines records of different keys and needs the whole topic, "+
				"but its source is shared among members and may bring a part only: read the topic with All instead of Group", name, s.Via))
		case s.Fork != nil:
			s.Check = errors.Join(s.Check, fmt.Errorf("kemi: flow %q: %s both aggregates over keys and forks per lane: a fork sees a part only", name, s.Via))
		}
	}
	return &Flow{engine.New(s), nodeOf(from), nodeOf(to), s.Via}
}

func spec[In, Out any](name string, from Source[In], to Sink[Out], opts []FlowOption) *engine.Spec[In, Out] {
	s := &engine.Spec[In, Out]{Name: name, From: nodeOf(from).name, To: nodeOf(to).name}
	if name == "" {
		s.Check = fmt.Errorf("kemi: a flow from %s to %s has no name", s.From, s.To)
	}
	if from == nil {
		s.Check = errors.Join(s.Check, fmt.Errorf("kemi: flow %q has no source", name))
	}
	if to == nil {
		s.Check = errors.Join(s.Check, fmt.Errorf("kemi: flow %q has no sink", name))
	}
	for _, o := range opts {
		o(&s.Options)
	}
	s.Run = func(ctx context.Context, in *engine.Inlet[In, Out]) error { return from.Run(ctx, in) }
	s.Write = func(ctx context.Context, batch []Out) error { return to.Write(ctx, batch) }
	return s
}

// forksOf returns what makes the fork of a lane, nil for a transform without forks.
func forksOf[In, Out any](via Transform[In, Out]) func() engine.Ops[In, Out] {
	fk, ok := via.(Forker[In, Out])
	if !ok {
		return nil
	}
	first := fk.Fork()
	if first == nil {
		return nil
	}
	// The first fork was only made to ask whether there are forks; it becomes the
	// first lane's.
	return func() engine.Ops[In, Out] {
		if t := first; t != nil {
			first = nil
			return opsOf(t)
		}
		t := fk.Fork()
		if t == nil {
			panic("Fork gave a fork before, and now none")
		}
		return opsOf(t)
	}
}

func opsOf[In, Out any](t Transform[In, Out]) engine.Ops[In, Out] {
	o := engine.Ops[In, Out]{Apply: t.Apply}
	if k, ok := any(t).(Ticker[Out]); ok {
		o.Tick = k.Tick
	}
	if f, ok := any(t).(Finisher[Out]); ok {
		o.Finish = f.Finish
	}
	if w, ok := any(t).(Warmer); ok {
		o.Horizon = w.Horizon
	}
	if p, ok := any(t).(Prover); ok {
		o.Proof = func() engine.Proof { return engine.Proof(p.Proof()) }
	}
	if k, ok := any(t).(Keeper); ok {
		o.Keep = func(dst []engine.Kept) []engine.Kept {
			for _, e := range k.Keep(nil) {
				dst = append(dst, engine.Kept(e))
			}
			return dst
		}
		o.Restore = func(kept []engine.Kept) error {
			own := make([]Kept, len(kept))
			for i, e := range kept {
				own[i] = Kept(e)
			}
			return k.Restore(own)
		}
	}
	return o
}

// node is a stage in the topology.
type node struct {
	key  any // the same for the same stage; nil: like no other
	name string
}

// nodeOf calls a stage by its String, if it has one, which also makes it one node: a
// topic gives the same for its writing and its reading side. Any other is called by
// its type, and the same if it is the same pointer.
func nodeOf(stage any) node {
	switch s := stage.(type) {
	case nil:
		return node{nil, "nothing"}
	case fmt.Stringer:
		name := s.String()
		return node{name, name}
	}
	n := node{nil, strings.TrimPrefix(fmt.Sprintf("%T", stage), "*")}
	if reflect.TypeOf(stage).Kind() == reflect.Pointer {
		n.key = stage
	}
	return n
}

// Name returns the name the flow was made with.
func (f *Flow) Name() string { return f.f.Name() }

// Stats returns the flow's counters. It may be called at any time.
func (f *Flow) Stats() FlowStats { return statsOf(f.f.Stats()) }

// FlowStats is the ledger of one flow. Counts are records since the start.
//
//	In  = Done + Failed + InFlight
//	Out = Written + Dead + Dropped + Abandoned + Pending
type FlowStats struct {
	Name string

	In       uint64 // the source handed over
	Done     uint64 // of In: acknowledged
	Failed   uint64 // of In: handed back with an error, or not taken in; they are still the source's
	InFlight uint64 // of In: in a Write now
	Replayed uint64 // fed to state with the output muted; not part of In

	Out       uint64 // results of the transform (for Connect, the input), and what it refused for good
	Written   uint64 // of Out: the sink called them safe
	Dead      uint64 // of Out: in the dead letters
	Dropped   uint64 // of Out: refused for good, with no dead letters to go to; logged
	Abandoned uint64 // of Out: not delivered before a deadline or the hard stop; their input is in Failed
	Pending   uint64 // of Out: on the way
	Rejected  uint64 // of Dead and Dropped: those the transform refused, the rest being the sink's

	Retries     uint64        // tries of the sink, or of the dead letters, after the first
	Mismatches  uint64        // replays that gave another state than the first run: see Prover
	Lanes       int           // open now
	Busy        int           // lanes in a Write now
	OldestWrite time.Duration // how long the longest of those has been waiting
	LastErr     string        // of a stage of this flow; empty when there was none
	LastErrTime time.Time
}

// Balance returns an error that names the difference when the counts do not add up.
// Each count is kept by itself, so that a record lost or counted twice shows; they add
// up at any moment, and after the end nothing is in flight or pending.
func (s FlowStats) Balance() error {
	if got := s.Done + s.Failed + s.InFlight; s.In != got {
		return fmt.Errorf("kemi: flow %q: in %d is not done %d + failed %d + in flight %d", s.Name, s.In, s.Done, s.Failed, s.InFlight)
	}
	if got := s.Written + s.Dead + s.Dropped + s.Abandoned + s.Pending; s.Out != got {
		return fmt.Errorf("kemi: flow %q: out %d is not written %d + dead %d + dropped %d + abandoned %d + pending %d",
			s.Name, s.Out, s.Written, s.Dead, s.Dropped, s.Abandoned, s.Pending)
	}
	return nil
}

func statsOf(s engine.Stats) FlowStats { return FlowStats(s) }

// Pipeline runs flows together. The zero value of every field but Flows is usable.
type Pipeline struct {
	Name         string
	Flows        []*Flow          // listed upstream first; stopped in this order
	DeadLetters  Sink[DeadLetter] // nil: records refused for good are counted and logged
	Logger       *zap.Logger      // nil: silent; see FromSlog
	DrainTimeout time.Duration    // from the request to stop until the hard stop; 0: 30 s
}

// Run runs the flows until ctx is done or every source has ended, and returns when
// they are drained.
//
// When ctx is done, the sources are asked to end, flow after flow in listed order,
// each drained before the next is asked. After DrainTimeout the context inside
// every Write is cancelled; what was not delivered then is counted as abandoned
// and still belongs to its source. The first flow to fail stops the others in the
// same way. The error joins those of the flows, or is nil. Run closes nothing it
// did not open.
func (p *Pipeline) Run(ctx context.Context) error {
	flows := make([]engine.Flow, len(p.Flows))
	for i, f := range p.Flows {
		if f == nil || f.f == nil {
			return fmt.Errorf("kemi: pipeline %q: flow %d is nil", p.Name, i)
		}
		flows[i] = f.f
	}
	env := engine.Env{Name: p.Name, Logger: p.Logger, DrainTimeout: p.DrainTimeout}
	if len(flows) == 0 {
		return fmt.Errorf("kemi: pipeline %q has no flows", p.Name)
	}
	if p.DeadLetters != nil {
		env.Bury = p.bury
	}
	return engine.Run(ctx, env, flows)
}

func (p *Pipeline) bury(ctx context.Context, letters []engine.Letter) error {
	dead := make([]DeadLetter, len(letters))
	for i, l := range letters {
		dead[i] = newDeadLetter(l)
	}
	return engine.Translate(p.DeadLetters.Write(ctx, dead), dead, letters)
}

// Stats returns the ledgers of the flows, in order.
func (p *Pipeline) Stats() []FlowStats {
	s := make([]FlowStats, 0, len(p.Flows))
	for _, f := range p.Flows {
		s = append(s, f.Stats())
	}
	return s
}

// String returns the topology as a Mermaid flowchart: stages are nodes, flows are
// arrows, and a stage that several flows share (a topic) is drawn once.
func (p *Pipeline) String() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := map[any]string{}
	drawn := 0
	draw := func(n node) string {
		if id, ok := ids[n.key]; ok && n.key != nil {
			return id
		}
		id := "n" + strconv.Itoa(drawn)
		drawn++
		ids[n.key] = id
		fmt.Fprintf(&b, "    %s[%q]\n", id, strings.ReplaceAll(n.name, `"`, "'"))
		return id
	}
	for _, f := range p.Flows {
		label := f.Name()
		if f.via != "" {
			label += ": " + f.via
		}
		from, to := draw(f.from), draw(f.to)
		fmt.Fprintf(&b, "    %s -->|%q| %s\n", from, strings.ReplaceAll(label, `"`, "'"), to)
	}
	return b.String()
}

// FromSlog returns a logger for [Pipeline].Logger that writes to l, for programs
// that log with log/slog. A nil l gives nil, which is silent.
func FromSlog(l *slog.Logger) *zap.Logger {
	if l == nil {
		return nil
	}
	return zap.New(slogcore.New(l.Handler()), zap.AddCaller()) // as slog does by itself
}

// ---- for those who write a partitioned source (a bus) -----------------------

// Lane is one ordered line of input through a flow, with its own fork of a
// stateful transform. A partitioned source opens one for each partition it owns
// and uses it from one goroutine at a time; only Close may be called beside the
// others. The interface is implemented by kemi alone and may grow.
type Lane[T any] interface {
	Sink[T]
	// Tick gives the source's time to the transform and delivers what comes of it, as
	// Write does: the values and the deadline of ctx reach the sink. Only a lane opened
	// with [SourceTicks] needs it; any other is ticked by the flow. Of a transform that
	// all lanes share, the first lane opened brings the ticks: its Tick waits until
	// the other lanes have come to that time, and theirs wait for it, so that a replay
	// finds the same input at each tick. That wait ends with ctx. A lane that does not
	// come for 10 seconds, while no other moves either, is no longer waited for. After
	// an error the same tick may be given again.
	Tick(ctx context.Context, now time.Time) error
	// Ticks tells whether the transform waits for ticks of the source.
	Ticks() bool
	// Refuse brings to the dead letters what the source read and cannot make a record
	// of. Error, Type, Format, Payload and Origin are for the source to fill in.
	Refuse(ctx context.Context, letter DeadLetter) error
	// Horizon is how much committed input the state depends on.
	Horizon() time.Duration
	// Mute makes Write and Tick feed the state and emit nothing: a replay.
	Mute(on bool)
	// Proof tells of the state after the last Write or Tick; zero where the transform is
	// no [Prover]. Of state that all lanes share the lane that ticks it tells, as it was
	// after the last tick.
	Proof() Proof
	// Prove compares the state with what was told of it at the same place of the input,
	// counts and logs a difference and returns it.
	Prove(was Proof) error
	// Keep appends what has changed of the state of a [Keeper] since it was called last.
	Keep(dst []Kept) []Kept
	// Restore gives back what was kept.
	Restore(kept []Kept) error
	// Close says that the partition is gone: it cancels a Write under way, waits for
	// it, and drops the state. It always returns nil. When Run returns, the flow closes
	// what is still open, without cutting anything off; a source whose input has ended
	// by itself leaves its lanes open, so that what is still open in a [Finisher] is
	// given out first.
	Close() error
	sealed()
}

// LaneOption tunes a [Lane].
type LaneOption func(*engine.LaneOptions)

// SourceTicks says that the source calls Tick itself, with a time that comes from
// its own records, so that a replay sees the same time.
func SourceTicks() LaneOption { return func(o *engine.LaneOptions) { o.SourceTicks = true } }

// LogTicks is [SourceTicks] for a transform that has a horizon or a proof, and so has to
// hear the same times in a replay. Any other (a poller that looks for late answers) is
// ticked by the flow.
func LogTicks() LaneOption { return func(o *engine.LaneOptions) { o.LogTicks = true } }

// OpenLane opens a lane of the flow behind out. id names the partition in logs and
// should be unique in the source. out has to be the sink that Run was given: around
// it, a wrapper hides the flow. A plain Sink gets a lane without state, so that a
// source can be used and tested without a pipeline.
func OpenLane[T any](out Sink[T], id string, opts ...LaneOption) Lane[T] {
	var o engine.LaneOptions
	for _, opt := range opts {
		opt(&o)
	}
	if in, ok := out.(engine.Opener[T]); ok {
		return lane[T]{in.OpenLane(id, o)}
	}
	gone, leave := context.WithCancel(context.Background())
	return &plainLane[T]{out: out, gone: gone, leave: leave}
}

type lane[T any] struct{ engine.Lane[T] }

func (l lane[T]) Refuse(ctx context.Context, letter DeadLetter) error {
	return l.Lane.Refuse(ctx, letter, errors.New(letter.Error))
}

func (l lane[T]) Proof() Proof          { return Proof(l.Lane.Proof()) }
func (l lane[T]) Prove(was Proof) error { return l.Lane.Prove(engine.Proof(was)) }

func (l lane[T]) Keep(dst []Kept) []Kept {
	for _, e := range l.Lane.Keep(nil) {
		dst = append(dst, Kept(e))
	}
	return dst
}

func (l lane[T]) Restore(kept []Kept) error {
	own := make([]engine.Kept, len(kept))
	for i, e := range kept {
		own[i] = engine.Kept(e)
	}
	return l.Lane.Restore(own)
}

func (lane[T]) sealed() {}

type plainLane[T any] struct {
	out   Sink[T]
	gone  context.Context
	leave context.CancelFunc
	turn  sync.Mutex // held by a Write
	muted bool       // under turn
}

func (l *plainLane[T]) Write(ctx context.Context, batch []T) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.gone.Err() != nil {
		return errors.New("kemi: the lane is closed")
	}
	if l.muted || len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.gone, cancel)()
	return l.out.Write(ctx, batch)
}

func (l *plainLane[T]) Mute(on bool) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.muted = on
}

func (l *plainLane[T]) Close() error {
	l.leave()
	l.turn.Lock() // a Write under way is over then
	defer l.turn.Unlock()
	return nil
}

func (l *plainLane[T]) Refuse(_ context.Context, d DeadLetter) error {
	return Permanent(errors.New(d.Error)) // there are no dead letters
}

func (l *plainLane[T]) Tick(context.Context, time.Time) error { return nil }
func (l *plainLane[T]) Ticks() bool                           { return false }
func (l *plainLane[T]) Horizon() time.Duration                { return 0 }
func (l *plainLane[T]) Proof() Proof                          { return Proof{} }
func (l *plainLane[T]) Prove(Proof) error                     { return nil }
func (l *plainLane[T]) Keep(dst []Kept) []Kept                { return dst }
func (l *plainLane[T]) Restore([]Kept) error                  { return nil }
func (l *plainLane[T]) sealed()                               {}

// ---- records: labels --------------------------------------------------------

// LabelHost is the label that names the resource a record is about. It is on every
// metric, and it is the partition key.
const LabelHost = "host"

// Label is one name and value.
type Label struct {
	Name  string
	Value string
}

// Labels is an immutable set of labels, sorted by name, without empty values. Equal
// sets are the same pointer, so Labels compare with ==, serve as map keys, and cost
// eight bytes in a record. The zero value is the empty set.
type Labels struct {
	s *intern.Set
}

// NewLabels returns the set of the given labels, in any order. A label with an
// empty value is left out, as an absent label and an empty one are the same; of
// several with one name the last counts. The slice is not kept; the strings are, so a
// parser that cuts them out of a large buffer copies them first.
func NewLabels(labels ...Label) Labels {
	var buf [16]intern.Pair
	pairs := buf[:0]
	for _, l := range labels {
		pairs = append(pairs, intern.Pair(l))
	}
	return Labels{intern.Of(pairs)}
}

// LabelsOf is NewLabels of names and values by turns: LabelsOf("host", "web1",
// "disk", "/"). It panics on an odd number of strings.
func LabelsOf(namesAndValues ...string) Labels {
	if len(namesAndValues)%2 != 0 {
		panic("kemi: LabelsOf: a name without a value")
	}
	var buf [16]intern.Pair
	pairs := buf[:0]
	for i := 0; i < len(namesAndValues); i += 2 {
		pairs = append(pairs, intern.Pair{Name: namesAndValues[i], Value: namesAndValues[i+1]})
	}
	return Labels{intern.Of(pairs)}
}

// LabelsOfSet returns Labels of a set that was looked up by bytes, without making
// strings first. It is for the codecs of this module, as nobody else can name what it
// takes: use [NewLabels].
func LabelsOfSet(s *intern.Set) Labels { return Labels{s} }

// Len returns the number of labels.
func (l Labels) Len() int {
	if l.s == nil {
		return 0
	}
	return len(l.s.Pairs)
}

// At returns label i in order of names.
func (l Labels) At(i int) Label { return Label(l.s.Pairs[i]) }

// All goes through the labels in order of names.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if l.s == nil {
			return
		}
		for _, p := range l.s.Pairs {
			if !yield(p.Name, p.Value) {
				return
			}
		}
	}
}

// Get returns the value of a label, or "" when it is not there.
func (l Labels) Get(name string) string {
	if l.s != nil {
		for i := range l.s.Pairs {
			if l.s.Pairs[i].Name == name {
				return l.s.Pairs[i].Value
			}
		}
	}
	return ""
}

// With returns the set with one label set, or removed if value is empty.
func (l Labels) With(name, value string) Labels {
	return l.Merge(Label{name, value})
}

// Merge returns the set with the given labels set or, where the value is empty,
// removed.
func (l Labels) Merge(labels ...Label) Labels {
	var buf [16]intern.Pair
	pairs := buf[:0]
	if l.s != nil {
		pairs = append(pairs, l.s.Pairs...)
	}
	for _, x := range labels {
		pairs = append(pairs, intern.Pair(x))
	}
	return Labels{intern.Of(pairs)}
}

// Without returns the set without the named labels.
func (l Labels) Without(names ...string) Labels {
	if l.s == nil {
		return l
	}
	var buf [16]intern.Pair
	pairs := buf[:0]
	for _, p := range l.s.Pairs {
		if !slices.Contains(names, p.Name) {
			pairs = append(pairs, p)
		}
	}
	return Labels{intern.Of(pairs)}
}

// Hash returns 64 bits that depend on the labels alone: the same on every machine
// and in every version. It is the FNV-1a that Prometheus calls the fingerprint of a
// label set (names and values in order, each followed by the byte 0xff).
func (l Labels) Hash() uint64 {
	if l.s == nil {
		return intern.EmptyHash
	}
	return l.s.Hash
}

// Compare orders sets: by the first label that differs, name before value, a
// shorter set before a longer one.
func (l Labels) Compare(o Labels) int {
	if l == o {
		return 0
	}
	for i := range min(l.Len(), o.Len()) {
		a, b := l.s.Pairs[i], o.s.Pairs[i]
		if c := cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value)); c != 0 {
			return c
		}
	}
	return cmp.Compare(l.Len(), o.Len())
}

// String returns the set as Prometheus writes it: {disk="/", host="web1"}.
func (l Labels) String() string {
	b := []byte{'{'}
	for n, v := range l.All() {
		if len(b) > 1 {
			b = append(b, ", "...)
		}
		b = append(b, n...)
		b = append(b, '=')
		b = strconv.AppendQuote(b, v)
	}
	return string(append(b, '}'))
}

// MarshalJSON writes the set as an object, names in order.
func (l Labels) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for n, v := range l.All() {
		if len(b) > 1 {
			b = append(b, ',')
		}
		for i, s := range [2]string{n, v} {
			q, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			b = append(b, q...)
			if i == 0 {
				b = append(b, ':')
			}
		}
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads an object of strings.
func (l *Labels) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	pairs := make([]intern.Pair, 0, len(m))
	for n, v := range m {
		pairs = append(pairs, intern.Pair{Name: n, Value: v})
	}
	l.s = intern.Of(pairs)
	return nil
}

// ---- records: metrics -------------------------------------------------------

// Kind says how the number of a metric may move.
type Kind uint8

// The kinds of metrics.
const (
	KindGauge        Kind = iota // goes up and down; a float64
	KindCounter                  // only grows, until it is reset; 64 bits
	KindCounter32                // only grows, wraps at 2^32, or is reset; SNMP's Counter32
	KindFloatCounter             // only grows, until it is reset; a float64, such as seconds of CPU time
)

// IsCounter tells whether the number only grows, so that its rate means something.
func (k Kind) IsCounter() bool { return k != KindGauge }

// String returns gauge, counter, counter32 or floatcounter.
func (k Kind) String() string {
	switch k {
	case KindGauge:
		return "gauge"
	case KindCounter:
		return "counter"
	case KindCounter32:
		return "counter32"
	case KindFloatCounter:
		return "floatcounter"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// MarshalText returns String.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *Kind) UnmarshalText(b []byte) error {
	for c := KindGauge; c <= KindFloatCounter; c++ {
		if c.String() == string(b) {
			*k = c
			return nil
		}
	}
	return fmt.Errorf("kemi: unknown kind of metric %q: want gauge, counter, counter32 or floatcounter", b)
}

// Metric is one reading of one series. Make one with [Gauge], [Counter],
// [Counter32] or [FloatCounter]; the number is kept in the form it came, so that a
// counter loses no bits. Metrics of equal instants compare with == if their Times
// were made alike; sources use UTC without a monotonic reading.
type Metric struct {
	Name   string
	Labels Labels
	Time   time.Time
	Kind   Kind
	bits   uint64
}

// Gauge returns the reading v of a gauge.
func Gauge(name string, labels Labels, t time.Time, v float64) Metric {
	return Metric{Name: name, Labels: labels, Time: t, Kind: KindGauge, bits: math.Float64bits(v)}
}

// Counter returns the reading v of a 64-bit counter.
func Counter(name string, labels Labels, t time.Time, v uint64) Metric {
	return Metric{Name: name, Labels: labels, Time: t, Kind: KindCounter, bits: v}
}

// Counter32 returns the reading v of a counter that wraps at 2^32.
func Counter32(name string, labels Labels, t time.Time, v uint32) Metric {
	return Metric{Name: name, Labels: labels, Time: t, Kind: KindCounter32, bits: uint64(v)}
}

// FloatCounter returns the reading v of a counter of fractions.
func FloatCounter(name string, labels Labels, t time.Time, v float64) Metric {
	return Metric{Name: name, Labels: labels, Time: t, Kind: KindFloatCounter, bits: math.Float64bits(v)}
}

// Float returns the number as a float64. A counter above 2^53 is rounded: subtract
// first (see [Metric.Uint]), convert after.
func (m Metric) Float() float64 {
	if m.Kind == KindCounter || m.Kind == KindCounter32 {
		return float64(m.bits)
	}
	return math.Float64frombits(m.bits)
}

// Uint returns the exact number of a Counter or Counter32. For the kinds that hold a
// float it is the float cut to an integer, 0 if it is negative or not a number.
func (m Metric) Uint() uint64 {
	if m.Kind == KindCounter || m.Kind == KindCounter32 {
		return m.bits
	}
	switch f := math.Float64frombits(m.bits); {
	case !(f > 0): // also NaN
		return 0
	case f >= math.MaxUint64:
		return math.MaxUint64
	default:
		return uint64(f)
	}
}

// Host returns the host label.
func (m Metric) Host() string { return m.Labels.Get(LabelHost) }

// PartitionKey is the host: readings of one host stay in order.
func (m Metric) PartitionKey() string { return m.Host() }

// String returns the metric on one line, for people.
func (m Metric) String() string {
	v := strconv.FormatFloat(m.Float(), 'g', -1, 64)
	if m.Kind == KindCounter || m.Kind == KindCounter32 {
		v = strconv.FormatUint(m.bits, 10)
	}
	return m.Name + m.Labels.String() + " " + v + " @" + m.Time.UTC().Format(time.RFC3339Nano)
}

type metricJSON struct {
	Name   string          `json:"name"`
	Labels Labels          `json:"labels"`
	Time   time.Time       `json:"time"`
	Kind   Kind            `json:"kind"`
	Value  json.RawMessage `json:"value"`
}

// MarshalJSON writes name, labels, time (RFC 3339), kind and value: a number, or a
// string where JSON has none (NaN, +Inf, -Inf).
func (m Metric) MarshalJSON() ([]byte, error) {
	var v []byte
	switch f := m.Float(); {
	case m.Kind == KindCounter || m.Kind == KindCounter32:
		v = strconv.AppendUint(v, m.bits, 10)
	case math.IsNaN(f) || math.IsInf(f, 0):
		v = strconv.AppendQuote(v, strconv.FormatFloat(f, 'g', -1, 64))
	default:
		v = strconv.AppendFloat(v, f, 'g', -1, 64)
	}
	return json.Marshal(metricJSON{m.Name, m.Labels, m.Time, m.Kind, v})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Metric) UnmarshalJSON(b []byte) error {
	var j metricJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	s := strings.Trim(string(j.Value), `"`)
	switch j.Kind {
	case KindCounter, KindCounter32:
		bits := 64
		if j.Kind == KindCounter32 {
			bits = 32
		}
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			return fmt.Errorf("kemi: metric %q: %w", j.Name, err)
		}
		*m = Metric{j.Name, j.Labels, j.Time, j.Kind, n}
	default:
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("kemi: metric %q: %w", j.Name, err)
		}
		*m = Metric{j.Name, j.Labels, j.Time, j.Kind, math.Float64bits(f)}
	}
	return nil
}

// ---- records: logs, alerts, jobs, dead letters --------------------------------

// Log is one line of a log.
type Log struct {
	Time     time.Time // when it happened, by the sender's word
	Observed time.Time // when it was received here
	Host     string    // the resource; the partition key
	App      string
	Severity Severity
	Facility uint8 // RFC 5424, 0 to 23
	Message  string
	Fields   []slog.Attr // sorted by Key; read-only
	Tag      string
	ID       string // the same for a redelivered line; empty: not known yet
}

// PartitionKey is the host: lines of one host stay in order.
func (l Log) PartitionKey() string { return l.Host }

type logJSON struct {
	Time     time.Time       `json:"time"`
	Observed time.Time       `json:"observed,omitzero"`
	Host     string          `json:"host"`
	App      string          `json:"app,omitempty"`
	Severity Severity        `json:"severity"`
	Facility uint8           `json:"facility"`
	Message  string          `json:"message"`
	Fields   json.RawMessage `json:"fields,omitempty"`
	Tag      string          `json:"tag,omitempty"`
	ID       string          `json:"id,omitempty"`
}

// MarshalJSON writes the fields as an object, groups as objects in it. As in
// [slog.JSONHandler], a duration is a number of nanoseconds and an error its text.
// What JSON cannot say (NaN, a channel) is a string.
func (l Log) MarshalJSON() ([]byte, error) {
	j := logJSON{l.Time, l.Observed, l.Host, l.App, l.Severity, l.Facility, l.Message, nil, l.Tag, l.ID}
	if len(l.Fields) > 0 {
		j.Fields = appendAttrs(nil, l.Fields)
	}
	return json.Marshal(j)
}

func appendAttrs(b []byte, attrs []slog.Attr) []byte {
	b = append(b, '{')
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		key, _ := json.Marshal(a.Key) // a string has JSON always
		b = append(append(b, key...), ':')
		v := a.Value.Resolve()
		if v.Kind() == slog.KindGroup {
			b = appendAttrs(b, v.Group())
			continue
		}
		x := v.Any()
		switch e := x.(type) {
		case time.Duration:
			x = int64(e)
		case error:
			x = e.Error()
		}
		text, err := json.Marshal(x)
		if err != nil {
			text, _ = json.Marshal(fmt.Sprint(x))
		}
		b = append(b, text...)
	}
	return append(b, '}')
}

// UnmarshalJSON reads what MarshalJSON writes: numbers come back as integers where
// they are, objects as groups. Fields are sorted by key.
func (l *Log) UnmarshalJSON(b []byte) error {
	var j logJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	var fields map[string]any
	if len(j.Fields) > 0 {
		d := json.NewDecoder(bytes.NewReader(j.Fields))
		d.UseNumber()
		if err := d.Decode(&fields); err != nil {
			return err
		}
	}
	*l = Log{j.Time, j.Observed, j.Host, j.App, j.Severity, j.Facility, j.Message, attrsOf(fields), j.Tag, j.ID}
	return nil
}

func attrsOf(fields map[string]any) []slog.Attr {
	var attrs []slog.Attr
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		attrs = append(attrs, slog.Attr{Key: key, Value: valueOf(fields[key])})
	}
	return attrs
}

func valueOf(x any) slog.Value {
	switch x := x.(type) {
	case map[string]any:
		return slog.GroupValue(attrsOf(x)...)
	case json.Number:
		if n, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			return slog.Int64Value(n)
		}
		if n, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return slog.Uint64Value(n)
		}
		if f, err := x.Float64(); err == nil {
			return slog.Float64Value(f)
		}
		return slog.StringValue(x.String())
	}
	return slog.AnyValue(x)
}

// Severity is that of RFC 5424: 0 is the worst.
type Severity uint8

// The severities of RFC 5424, section 6.2.1.
const (
	SeverityEmergency Severity = iota
	SeverityAlert
	SeverityCritical
	SeverityError
	SeverityWarning
	SeverityNotice
	SeverityInfo
	SeverityDebug
)

// String returns the keyword of syslog: emerg, alert, crit, err, warning, notice,
// info or debug.
func (s Severity) String() string {
	names := [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
	if int(s) < len(names) {
		return names[s]
	}
	return "severity(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText returns String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Severity) UnmarshalText(b []byte) error {
	for c := SeverityEmergency; c <= SeverityDebug; c++ {
		if c.String() == string(b) {
			*s = c
			return nil
		}
	}
	return fmt.Errorf("kemi: unknown severity %q: want emerg, alert, crit, err, warning, notice, info or debug", b)
}

// AlertState is where an alert is in its life.
type AlertState uint8

// The states of an alert. One that is inactive is not told.
const (
	StatePending  AlertState = iota + 1 // the condition holds, but not yet for long enough
	StateFiring                         // it has held for long enough
	StateResolved                       // it held, and holds no more
	StateNoData                         // it cannot be said: what it is about has gone silent
)

// String returns pending, firing, resolved or nodata.
func (s AlertState) String() string {
	switch s {
	case StatePending:
		return "pending"
	case StateFiring:
		return "firing"
	case StateResolved:
		return "resolved"
	case StateNoData:
		return "nodata"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText returns String.
func (s AlertState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *AlertState) UnmarshalText(b []byte) error {
	for c := StatePending; c <= StateNoData; c++ {
		if c.String() == string(b) {
			*s = c
			return nil
		}
	}
	return fmt.Errorf("kemi: unknown alert state %q: want pending, firing, resolved or nodata", b)
}

// Fingerprint identifies an alert by its labels, rule name included, on every
// machine and after every restart. It is printed as 16 hexadecimal digits.
type Fingerprint uint64

// String returns 16 hexadecimal digits.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x", uint64(f)) }

// MarshalText returns String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil {
		return fmt.Errorf("kemi: fingerprint %q: %w", b, err)
	}
	*f = Fingerprint(n)
	return nil
}

// Alert is one change in the life of an alert, as judged by a rule.
type Alert struct {
	Rule        string      `json:"rule"`
	Labels      Labels      `json:"labels"` // with alertname, the rule's name
	Annotations Labels      `json:"annotations"`
	State       AlertState  `json:"state,omitzero"`
	Time        time.Time   `json:"time"` // event time of the evaluation that made this change
	StartsAt    time.Time   `json:"startsAt"`
	EndsAt      time.Time   `json:"endsAt,omitzero"` // zero unless resolved
	Value       float64     `json:"value"`
	Fingerprint Fingerprint `json:"fingerprint"` // Labels.Hash
	Evidence    []Evidence  `json:"evidence,omitempty"`
}

// Evidence is a sample of what made an alert fire.
type Evidence struct {
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
	Origin Origin    `json:"origin,omitzero"`
}

// ID is the same for the same change told again, after a replay too, so that a
// receiver may drop what it has seen.
func (a Alert) ID() string {
	return a.Fingerprint.String() + "-" + strconv.FormatInt(a.StartsAt.UnixMilli(), 36) + "-" + a.State.String()
}

// PartitionKey is the fingerprint: changes of one alert stay in order.
func (a Alert) PartitionKey() string { return a.Fingerprint.String() }

// MarshalJSON writes the alert with its value as a number, or as a string where
// JSON has none (NaN, +Inf, -Inf).
func (a Alert) MarshalJSON() ([]byte, error) {
	type plain Alert // without this method
	out := struct {
		plain
		Value any `json:"value"`
	}{plain(a), a.Value}
	if math.IsNaN(a.Value) || math.IsInf(a.Value, 0) {
		out.Value = strconv.FormatFloat(a.Value, 'g', -1, 64)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Alert) UnmarshalJSON(b []byte) error {
	type plain Alert
	in := struct {
		*plain
		Value json.RawMessage `json:"value"`
	}{plain: (*plain)(a)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(strings.Trim(string(in.Value), `"`), 64)
	if err != nil {
		return fmt.Errorf("kemi: value of alert %q: %w", a.Rule, err)
	}
	a.Value = v
	return nil
}

// Job is one poll of one host in one cycle.
type Job struct {
	Target    string        `json:"target"`   // where to poll: host or host:port
	Resource  string        `json:"resource"` // the host it is about; becomes the host label
	Service   string        `json:"service,omitempty"`
	Profiles  []string      `json:"profiles,omitempty"` // what to ask for, by name; read-only
	Auth      string        `json:"auth,omitempty"`     // name of a credential; never the credential
	Labels    Labels        `json:"labels"`             // to be put on every metric
	Scheduled time.Time     `json:"scheduled"`          // when the cycle wants it
	Interval  time.Duration `json:"interval"`           // until the next cycle, in nanoseconds
	Deadline  time.Time     `json:"deadline,omitzero"`  // a job older than this is dropped and counted
}

// PartitionKey is the resource: polls of one host stay in order.
func (j Job) PartitionKey() string { return j.Resource }

// Origin is where on the bus a record stands. The zero Origin is unknown.
type Origin struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// DeadLetter is a record that a stage refused for good, with the reason, so that a
// person can mend it and send it again.
type DeadLetter struct {
	Time    time.Time `json:"time"`
	Flow    string    `json:"flow"`
	Stage   string    `json:"stage"` // the stage that refused it
	Error   string    `json:"error"`
	Stack   string    `json:"stack,omitempty"` // of a panic
	Type    string    `json:"type"`            // of the record, such as kemi.Metric
	Format  string    `json:"format"`          // of Payload: json, text where the record has no JSON, or the codec of bytes that could not be read
	Payload []byte    `json:"payload"`
	Origin  Origin    `json:"origin,omitzero"`
}

func newDeadLetter(l engine.Letter) DeadLetter {
	if d, ok := l.Record.(DeadLetter); ok { // made by the source: see Lane
		d.Time, d.Flow, d.Stage = l.Time, l.Flow, l.Stage
		return d
	}
	d := DeadLetter{
		Time: l.Time, Flow: l.Flow, Stage: l.Stage, Error: l.Err.Error(), Stack: l.Stack,
		Type: fmt.Sprintf("%T", l.Record), Format: "json",
	}
	payload, err := json.Marshal(l.Record)
	if err != nil {
		d.Format, payload = "text", fmt.Appendf(nil, "%+v", l.Record)
	}
	d.Payload = payload
	return d
}
