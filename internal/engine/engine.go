// Package engine moves batches from a source through a transform to a sink. It owns
// what the stages do not have to: lanes and forks, retry, bisection, dead letters,
// counters, ticks and the two-phase stop.
//
// It is written over function types, called once per batch, and does not know the
// interfaces of the root package.
//
//	source ─▶ Inlet ─▶ worker ─▶ apply ─▶ outlet ─▶ write
//	             │        ▲                  │ ├─ retry: the sink only, never the transform
//	             └─ Lane ─┘ (own fork,       │ └─ halve a refused batch
//	                one at a time, ticked)   ▼
//	                                      outlet ─▶ dead letters
//
// A worker counts what it does in an account of its own; the ledger is their sum.
package engine

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// Ops are the functions of one transform. All but Apply may be nil.
type Ops[In, Out any] struct {
	Apply   func(ctx context.Context, dst []Out, src []In) ([]Out, error)
	Tick    func(ctx context.Context, dst []Out, now time.Time) ([]Out, error)
	Finish  func(ctx context.Context, dst []Out) ([]Out, error)
	Horizon func() time.Duration
	Proof   func() Proof
	Keep    func(dst []Kept) []Kept
	Restore func(kept []Kept) error
}

// Proof tells states apart. The root package documents it, and Kept.
type Proof struct{ Version, Hash uint64 }

// Kept is an entry of state that no horizon bounds.
type Kept struct {
	Key   string
	Value []byte
}

// Options are what a user may tune.
type Options struct {
	BackoffMin, BackoffMax time.Duration
	Attempts               int
	TickEvery              time.Duration
}

// Spec describes one flow.
type Spec[In, Out any] struct {
	Name          string
	From, Via, To string // the stages, as the topology calls them
	Check         error  // what is wrong with the flow; refused at start

	Run    func(ctx context.Context, in *Inlet[In, Out]) error
	Write  func(ctx context.Context, batch []Out) error
	Pass   func(batch []In) []Out // set: there is no transform
	Shared Ops[In, Out]           // the transform, where there are no forks
	Fork   func() Ops[In, Out]    // set: the transform has state, one fork for a lane

	// Divided: the source may bring a part of the input, or nothing of it, because the
	// rest is another member's. Having no lane says nothing then.
	Divided bool
	Options
}

// Letter is one record on its way to the dead letters.
type Letter struct {
	Time        time.Time
	Flow, Stage string
	Record      any
	Err         error
	Stack       string
}

// Env is what the flows of one pipeline share.
type Env struct {
	Name         string
	Logger       *zap.Logger
	DrainTimeout time.Duration
	Bury         func(ctx context.Context, letters []Letter) error // answers as a sink does; nil: no dead letters
}

// Stats is the ledger of one flow. The root package documents the fields.
type Stats struct {
	Name string

	In, Done, Failed, InFlight, Replayed uint64

	Out, Written, Dead, Dropped, Abandoned, Pending, Rejected uint64

	Retries     uint64
	Mismatches  uint64
	Lanes       int
	Busy        int
	OldestWrite time.Duration
	LastErr     string
	LastErrTime time.Time
}

// Flow is a flow without its types.
type Flow interface {
	Name() string
	Stats() Stats

	check() error                                     // what is wrong with it
	start(env *env) error                             // once
	run(soft context.Context, failed func(err error)) // until it is drained
	busy() []waiting
}

// Lane is one ordered line of input. The root package documents the methods.
type Lane[In any] interface {
	Write(ctx context.Context, batch []In) error
	Tick(ctx context.Context, now time.Time) error
	Refuse(ctx context.Context, record any, why error) error
	Ticks() bool
	Horizon() time.Duration
	Mute(on bool)
	Proof() Proof
	Prove(was Proof) error
	Keep(dst []Kept) []Kept
	Restore(kept []Kept) error
	Close() error
}

// LaneOptions tune a lane.
type LaneOptions struct {
	SourceTicks bool
	LogTicks    bool
}

// Opener is an inlet, seen by a source that has partitions.
type Opener[In any] interface {
	OpenLane(id string, o LaneOptions) Lane[In]
}

// waiting is work under way, for the log of a slow stop.
type waiting struct {
	lane, stage string
	since       time.Duration
	lastErr     string
}
