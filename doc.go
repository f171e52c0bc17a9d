/*
Package kemi builds pipelines that meter and watch infrastructure: metrics and logs
come in, are carried from stage to stage, calculated, stored, judged by rules and told
to people. A program composes the stages in code, and the compiler checks that they fit.

	 inventory ─▶ [jobs] ─▶ poller ─▶ [raw] ─▶ calculator ─▶ [metrics] ─┬─▶ time series store
	                                     ▲                              │
	              HTTP push, OTLP, … ────┘                              └─▶ rules ─▶ [alerts] ─▶ people

	[x] is a topic of a bus: the only place where records wait.
	Everything between two topics is one flow.

This package is the vocabulary, the engine under it, and the records ([Metric], [Log],
[Alert], [Job]). It imports the standard library and zap. The stages are in the folders
source, transform, sink and rule, the topics in bus; each is paid for by those who
import it.

# Four nouns

	Source[T]           Run(ctx, out Sink[T]) error                      brings records in
	Sink[T]             Write(ctx, batch []T) error                      takes them away
	Transform[In, Out]  Apply(ctx, dst []Out, src []In) ([]Out, error)   makes some of others
	Rule[T]             a Transform[T, Alert] with a name                judges them

A [Flow] is one hop: a source, perhaps a transform, a sink. [Connect] and [Pipe] make
one, and a [Pipeline] runs a list of them:

	p := kemi.Pipeline{
		Name: "stats",
		Flows: []*kemi.Flow{
			kemi.Connect("poll", poller, raw),
			kemi.Pipe("calculate", raw.Group("calculate"), rates, metrics),
			kemi.Connect("store", metrics.Group("store"), tsdb),
			kemi.Pipe("judge", metrics.All("judge"), rules, alerts),
			kemi.Connect("tell", alerts.Group("tell"), pager),
		},
		DeadLetters: dead,
		Logger:      logger,
	}
	err := p.Run(ctx)

The list is the diagram; [Pipeline.String] draws it. See the example of [Pipeline] for
one that runs.

# The call is the acknowledgement

When [Sink] Write returns nil, the whole batch is safe: stored, handed on, or discarded
on purpose and counted. Then, and not before, a source may commit its offset, answer
204, or acknowledge a chunk. There are no callbacks, no acknowledgement channels and no
queues on the way, so that there is nothing to forget, to reorder or to lose: what is
slow below is felt above as a Write that takes longer. The memory in use is the number
of lanes times the size of a batch.

A batch belongs to its caller and is read-only; whoever is called does not keep it. The
records in it are immutable values, and may be kept. So nothing is cloned when a batch
goes several ways.

# Transforms and lanes

A transform appends its results to a slice, as [strconv.AppendInt] does. It starts no
goroutine, calls nothing below it, and is tested by calling it. What else it may be, it
says by a method: [Forker] if it has state, [Ticker] if it lives by time, [Finisher] if
something is open at the end, [Warmer] if its state depends on past input, [Prover] and
[Keeper] if that state is to be proved and kept, [Aggregator] if it needs all keys at once.

	            ┌─ lane p0 ─▶ fork 0 ─┐
	topic ──────┼─ lane p1 ─▶ fork 1 ─┼─────▶ sink
	            └─ lane p2 ─▶ fork 2 ─┘

A source with partitions opens a [Lane] for each. A lane takes one batch at a time, in
order, through a fork of its own: state needs no locks, goes when its partition goes,
and commits are in order by construction. The number of lanes is the parallelism. A
source without partitions just writes; a transform with state then has one lane, and
one without state is used by as many goroutines as write.

Tick and Apply of one fork never meet, and a lane that waits for its sink is not ticked.
The time is passed in and never read, so that a replay is the first run again: a bus
gives a new owner the input that the state depends on ([Lane] Mute, [Warmer]), muted,
and goes on from what was committed.

# Rewind, mute, prove

On a durable topic the input is all that has to be kept: state is built from it again.
A position has two offsets, the one up to which everything was delivered and the lower
one from which on the state depends on the input ([Warmer]). A lane that starts, after
a crash, a move or a restart, is fed what lies between them with its output muted, its
state is compared with the proof kept in the position ([Prover]), and it goes live. A
difference is an error that names the stage: it depends on something besides its input.
State without a bound, such as since when an alert fires, is kept as it is ([Keeper]).

	log      …──────────┬──────────────────────────┬─────────────▶
	                 rewind          muted       next      live
	                                               └ proof, kept state

Time is input too: a lane of a log is ticked by the times at which records were appended
([LogTicks]). What a flow makes carries where it was made of, from the lane to the topic
behind it, which drops what it has had. So between durable topics each record arrives
once, whatever dies, without transactions, as long as the same input gives the same
output: a transform reads no clock, throws no dice, and follows no order of a map.

# Errors

An error says what the flow is to do about it.

	nil                             the batch is safe
	Partial(batch, failures...)     these records failed, the others are safe
	Permanent(err)                  trying again cannot help
	RetryAfter(err, d)              try again, but not before d
	any other error                 nothing is known to be safe, try the whole batch again

They combine: a failure of a [Partial] may be [Permanent], another [RetryAfter]. The
flow owns what follows, so that a sink has no loop around its request:

  - It tries again with exponential backoff and full jitter, and repeats the sink alone,
    never the transform: state is not fed twice.
  - It looks for the guilty of a batch refused as a whole by halving: one bad record in a
    thousand costs 21 calls and one dead letter.
  - It sends what was refused for good to the dead letters, with its reason, and a
    record on its way there is as safe as any other. Without dead letters it is
    dropped, counted and logged.
  - It makes a panic of a stage a permanent error, with the stack in the dead letter.

It tries until the sink takes the batch, the deadline of the source's context has come
(a request has to be answered), [Attempts] are used up, or the pipeline is stopped hard.
What is given up so is still the source's: it gets the error, and delivers again. A
transform with state then sees those records again too, unless the source closes the
lane first and replays, as a bus does. All this is at least once; sinks that overwrite
and receivers that know a record by its ID make it once.

# The stop

The end of Run's context asks the sources for no new input, flow after flow in listed
order, each drained before the next is asked. Topics between them empty on the way. It
does not reach into a Write: a stage's context carries the values and the deadline of
the source's context, and the cancellation of the hard stop alone, which comes after
[Pipeline].DrainTimeout. So a source may hand on the very context it is stopped with.
What is still running is named in the log every five seconds, and a stage that ignores
even the hard stop is named in Run's error. The first flow to fail stops the others in
the same way.

# The ledger

Every flow counts what it does with every record, and the counts add up at any moment:

	In  = Done + Failed + InFlight
	Out = Written + Dead + Dropped + Abandoned + Pending

[Flow.Stats] reads them, [FlowStats.Balance] asks. A test of a stage of one's own can
end with that question, and so do those of this package, under every fault they know.

# Writing a stage

Implement one method. There is nothing to register.

  - A transform: see the example of [Transform], which has state, time and a horizon.
  - A sink: write the batch; answer with an error from the table above, as the examples
    of [Partial] and [Permanent] do. Pass the context on to the request.
  - A source: write until the context is done, wait for your Writes, return. See the
    example of [Source]. One with partitions: see that of [OpenLane].

Check it with the suite of its kind: sourcetest, transformtest, sinktest, bustest.
*/
package kemi
