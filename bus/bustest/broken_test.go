package bustest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/memory"
	"github.com/kemi-go/kemi/internal/engine"
)

type (
	record = bustest.Record
	write  = func(ctx context.Context, batch []record) error
)

// bent is a topic that was good.
type bent struct {
	*memory.Topic[record]
	// Each is nil where the good one stands.
	write  func(ctx context.Context, batch []record, good write) error
	source func(t *memory.Topic[record], name string, all bool) kemi.Source[record]
	lane   func(lane engine.Lane[record]) engine.Lane[record]
	run    func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error
	bare   bool // the sources have a Run and nothing else
}

func (b bent) Write(ctx context.Context, batch []record) error {
	if b.write == nil {
		return b.Topic.Write(ctx, batch)
	}
	return b.write(ctx, batch, b.Topic.Write)
}

func (b bent) Group(name string) kemi.Source[record] {
	return b.bend(b.Topic.Group(name), name, false)
}

func (b bent) All(name string) kemi.Source[record] {
	return b.bend(b.Topic.All(name), name, true)
}

func (b bent) bend(good kemi.Source[record], name string, all bool) kemi.Source[record] {
	switch {
	case b.bare:
		return kemi.SourceFunc[record](good.Run)
	case b.source != nil:
		good = b.source(b.Topic, name, all)
	}
	return bentSource{good, b, !all}
}

type bentSource struct {
	kemi.Source[record]
	bent   bent
	shares bool
}

func (s bentSource) String() string { return s.bent.String() }
func (s bentSource) Shares() bool   { return s.shares }

func (s bentSource) Run(ctx context.Context, out kemi.Sink[record]) error {
	if s.bent.lane != nil {
		out = bentSink{out, s.bent.lane}
	}
	if s.bent.run != nil {
		return s.bent.run(ctx, out, s.Source)
	}
	return s.Source.Run(ctx, out)
}

type bentSink struct {
	kemi.Sink[record]
	lane func(engine.Lane[record]) engine.Lane[record]
}

func (s bentSink) OpenLane(id string, o engine.LaneOptions) engine.Lane[record] {
	return s.lane(s.Sink.(engine.Opener[record]).OpenLane(id, o))
}

// bentLane is a lane whose Write and Mute are bent.
type bentLane struct {
	engine.Lane[record]
	write func(ctx context.Context, batch []record) error
	mute  func(on bool)
}

func (l bentLane) Write(ctx context.Context, batch []record) error {
	if l.write == nil {
		return l.Lane.Write(ctx, batch)
	}
	return l.write(ctx, batch)
}

func (l bentLane) Mute(on bool) {
	if l.mute == nil {
		l.Lane.Mute(on)
		return
	}
	l.mute(on)
}

// lanes bends the Write of each lane; good is the good one.
func lanes(bend func(good write) write) func(engine.Lane[record]) engine.Lane[record] {
	return func(l engine.Lane[record]) engine.Lane[record] { return bentLane{Lane: l, write: bend(l.Write)} }
}

func everyNth(n int64) func() bool {
	var i atomic.Int64
	return func() bool { return i.Add(1)%n == 0 }
}

// broken are topics that break one promise each, and the check that has to say so.
var broken = []struct {
	breaks  string
	caught  string                                  // the check
	because string                                  // part of what it says
	bend    func(b *bent, c *memory.Config[record]) // nil: a topic in memory, which is found again by its name, does not keep what a durable one has to
}{
	{"the sources have no name", "Topology", "two nodes", func(b *bent, _ *memory.Config[record]) {
		b.bare = true
	}},
	{"loses a batch now and then", "OrderPerKey", "lost or out of order", func(b *bent, _ *memory.Config[record]) {
		lose := everyNth(50)
		b.write = func(ctx context.Context, batch []record, good write) error {
			if lose() {
				return nil
			}
			return good(ctx, batch)
		}
	}},
	{"loses the last records of a big batch", "BigBatch", "did not see everything|lost or out of order", func(b *bent, _ *memory.Config[record]) {
		b.write = func(ctx context.Context, batch []record, good write) error {
			if len(batch) > 4096 && batch[0].Key != batch[len(batch)-1].Key {
				last := batch[len(batch)-1]
				batch = slices.DeleteFunc(slices.Clone(batch), func(r record) bool { return r.Key == last.Key })
			}
			return good(ctx, batch)
		}
	}},
	{"writes the second half of a batch first", "OrderPerKey", "lost or out of order", func(b *bent, _ *memory.Config[record]) {
		b.write = func(ctx context.Context, batch []record, good write) error {
			half := len(batch) / 2
			if err := good(ctx, batch[half:]); err != nil || half == 0 {
				return err
			}
			return good(ctx, batch[:half])
		}
	}},
	{"keeps the slice and writes it later", "OrderPerKey", "kept after Write", func(b *bent, _ *memory.Config[record]) {
		var mu sync.Mutex
		before := map[string][]record{} // by writer, so that no two goroutines meet in a slice
		b.write = func(ctx context.Context, batch []record, good write) error {
			mu.Lock()
			defer mu.Unlock()
			writer, _, _ := strings.Cut(batch[0].Key, "-")
			err := good(ctx, before[writer])
			before[writer] = batch
			return err
		}
	}},
	{"changes the batch", "OrderPerKey", "changed the batch", func(b *bent, _ *memory.Config[record]) {
		b.write = func(ctx context.Context, batch []record, good write) error {
			err := good(ctx, batch)
			batch[0].Text = "mine"
			return err
		}
	}},
	{"puts keys where Kafka would not", "OrderPerKey", "belongs to partition", func(_ *bent, c *memory.Config[record]) {
		c.Key = func(r record) string { return r.Key + "!" }
	}},
	{"reads record by record", "OrderPerKey", "read together", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error {
				for i := range batch {
					if err := good(ctx, batch[i:i+1]); err != nil {
						return err
					}
				}
				return nil
			}
		})
	}},
	{"reads a partition with two goroutines", "OrderPerKey", "another call was under way", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error {
				var both sync.WaitGroup
				both.Go(func() { _ = good(ctx, batch) })
				both.Go(func() { _ = good(ctx, batch) })
				both.Wait()
				return nil
			}
		})
	}},
	{"opens no lanes", "OrderPerKey", "see kemi.OpenLane", func(b *bent, _ *memory.Config[record]) {
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			return good.Run(ctx, kemi.SinkFunc[record](out.Write))
		}
	}},
	{"writes empty batches", "EmptyBatch", "an empty batch", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error {
				_ = good(ctx, nil)
				return good(ctx, batch)
			}
		})
	}},
	{"takes all groups for one", "EveryReaderSeesAll", "", func(b *bent, _ *memory.Config[record]) {
		b.source = func(t *memory.Topic[record], name string, all bool) kemi.Source[record] {
			if all {
				return t.All(name)
			}
			return t.Group("one for all")
		}
	}},
	{"takes an All for a Group", "EachRunOfAnAllSeesAll", "do not both read|lost or out of order|did not see everything", func(b *bent, _ *memory.Config[record]) {
		b.source = func(t *memory.Topic[record], name string, _ bool) kemi.Source[record] { return t.Group(name) }
	}},
	{"starts a new name at the end", "NewNameStartsAtTheOldest", "", func(b *bent, _ *memory.Config[record]) {
		var read atomic.Bool
		b.source = func(t *memory.Topic[record], name string, all bool) kemi.Source[record] {
			read.Store(true)
			if all {
				return t.All(name)
			}
			return t.Group(name)
		}
		b.write = func(ctx context.Context, batch []record, good write) error {
			if !read.Load() {
				return nil
			}
			return good(ctx, batch)
		}
	}},
	{"gives every record to every member", "MembersShare", "went to both", func(b *bent, _ *memory.Config[record]) {
		b.source = func(t *memory.Topic[record], name string, _ bool) kemi.Source[record] { return t.All(name) }
	}},
	{"gives everything to one member", "MembersShare", "two members of a group share", func(b *bent, _ *memory.Config[record]) {
		var first atomic.Bool
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			if first.CompareAndSwap(false, true) {
				return good.Run(ctx, out)
			}
			<-ctx.Done()
			return nil
		}
	}},
	{"acknowledges what a member on its way out was given", "Rebalance", "", func(b *bent, _ *memory.Config[record]) {
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			lose := lanes(func(good write) write {
				return func(c context.Context, batch []record) error {
					if ctx.Err() != nil {
						return nil
					}
					return good(c, batch)
				}
			})
			return good.Run(ctx, bentSink{out, lose})
		}
	}},
	{"does not wait for the last owner of a partition", "Rebalance", "", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error {
				late := slices.Clone(batch)
				go func() {
					time.Sleep(time.Millisecond)
					_ = good(ctx, late)
				}()
				return nil
			}
		})
	}},
	{"forgets its position", "PositionIsKept", "again that it had acknowledged", func(b *bent, c *memory.Config[record]) {
		c.Retain = time.Hour
		var n atomic.Int64
		b.source = func(t *memory.Topic[record], name string, all bool) kemi.Source[record] {
			if all {
				return t.All(fmt.Sprint(name, n.Add(1)))
			}
			return t.Group(fmt.Sprint(name, n.Add(1)))
		}
	}},
	{"takes a refusal for an answer", "RefusedComesAgain", "", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error { _ = good(ctx, batch); return nil }
		})
	}},
	{"commits before it has written", "RefusedWaitsForTheNextRun", "", func(b *bent, _ *memory.Config[record]) {
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			early := lanes(func(good write) write {
				return func(c context.Context, batch []record) error {
					for good(c, batch) != nil {
						if ctx.Err() != nil {
							return nil
						}
						time.Sleep(time.Millisecond)
					}
					return nil
				}
			})
			return good.Run(ctx, bentSink{out, early})
		}
	}},
	{"has no bound", "Backpressure", "allowed to be", func(_ *bent, c *memory.Config[record]) { c.Capacity = 0 }},
	{"drops where it should wait", "Backpressure", "", func(b *bent, _ *memory.Config[record]) {
		b.write = func(ctx context.Context, batch []record, good write) error {
			short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			_ = good(short, batch)
			return nil
		}
	}},
	{"waits beyond the deadline", "Backpressure", "of its deadline", func(b *bent, _ *memory.Config[record]) {
		b.write = func(ctx context.Context, batch []record, good write) error {
			return good(context.WithoutCancel(ctx), batch)
		}
	}},
	{"refuses at once when it is full", "Backpressure", "wait until the deadline", func(b *bent, _ *memory.Config[record]) {
		b.write = func(_ context.Context, batch []record, good write) error {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			return good(now, batch)
		}
	}},
	{"leaves records behind when it is stopped", "SoftStopDrains", "after a soft stop", func(b *bent, _ *memory.Config[record]) {
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			deaf := lanes(func(good write) write {
				return func(c context.Context, batch []record) error {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					return good(c, batch)
				}
			})
			_ = good.Run(ctx, bentSink{out, deaf})
			return nil
		}
	}},
	{"drains the last member only", "MembersDrainTogether", "all members were stopped at once", func(b *bent, _ *memory.Config[record]) {
		var members atomic.Int64
		b.run = func(ctx context.Context, out kemi.Sink[record], good kemi.Source[record]) error {
			mine := members.Add(1) % 3
			deaf := lanes(func(good write) write {
				return func(c context.Context, batch []record) error {
					if ctx.Err() != nil && mine != 0 {
						return nil
					}
					return good(c, batch)
				}
			})
			return good.Run(ctx, bentSink{out, deaf})
		}
	}},
	{"loses what a hard stop cut off", "HardStop", "did not see everything|lost or out of order", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error { _ = good(ctx, batch); return nil }
		})
	}},
	{"tries for ever after a hard stop", "HardStop", "did not return|did not stop", func(b *bent, _ *memory.Config[record]) {
		b.lane = lanes(func(good write) write {
			return func(ctx context.Context, batch []record) error {
				for good(ctx, batch) != nil {
					time.Sleep(time.Millisecond)
				}
				return nil
			}
		})
	}},
	{"does not rewind", "WarmUp", "state knew", func(_ *bent, c *memory.Config[record]) { c.Retain = 0 }},
	{"does not rewind the first records", "WarmUp", "lost or out of order|state knew", func(b *bent, _ *memory.Config[record]) {
		b.lane = func(l engine.Lane[record]) engine.Lane[record] {
			muted, first := false, true
			return bentLane{l,
				func(ctx context.Context, batch []record) error {
					if muted && first {
						first = false
						return nil
					}
					return l.Write(ctx, batch)
				},
				func(on bool) { muted = on; l.Mute(on) },
			}
		}
	}},
	{"replays aloud", "WarmUp", "not muted|state knew", func(b *bent, _ *memory.Config[record]) {
		b.lane = func(l engine.Lane[record]) engine.Lane[record] { return bentLane{Lane: l, mute: func(bool) {}} }
	}},
	{"stays mute", "WarmUp", "did not see everything", func(b *bent, _ *memory.Config[record]) {
		b.lane = func(l engine.Lane[record]) engine.Lane[record] {
			return bentLane{Lane: l, mute: func(on bool) {
				if on {
					l.Mute(on)
				}
			}}
		}
	}},
	{"loses everything with the process", "PositionOutlivesTheProcess", "did not see everything|lost or out of order", func(*bent, *memory.Config[record]) {
		// Each Open makes a new topic.
	}},
	{"warms up what has no state", "NoHorizonNoReplay", "was warmed up", func(b *bent, _ *memory.Config[record]) {
		b.lane = func(l engine.Lane[record]) engine.Lane[record] { return eager{l} }
	}},
	{"what a flow has written before is written again", "OnceBetweenTopics", "there twice", nil},
	{"state without a horizon is forgotten", "StateComesBack", "0 entries were given back of", nil},
}

// eager has a horizon whatever the transform has.
type eager struct{ engine.Lane[record] }

func (eager) Horizon() time.Duration { return time.Hour }

// verdict is a testing.TB that keeps what is said of it. It works as the test it
// stands on in all other ways.
type verdict struct {
	testing.TB
	mu       sync.Mutex
	said     []string
	failed   bool
	cleanups []func()
}

func (v *verdict) say(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = true
	v.said = append(v.said, s)
}

func (v *verdict) Failed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

func (v *verdict) Error(args ...any)            { v.say(fmt.Sprint(args...)) }
func (v *verdict) Errorf(f string, args ...any) { v.say(fmt.Sprintf(f, args...)) }
func (v *verdict) Fatal(args ...any)            { v.say(fmt.Sprint(args...)); runtime.Goexit() }
func (v *verdict) Fatalf(f string, args ...any) { v.say(fmt.Sprintf(f, args...)); runtime.Goexit() }
func (v *verdict) FailNow()                     { runtime.Goexit() }
func (v *verdict) Cleanup(f func())             { v.cleanups = append(v.cleanups, f) }

// judge runs f, which may end in Fatal, and what it left to clean up.
func (v *verdict) judge(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	for _, f := range slices.Backward(v.cleanups) {
		f()
	}
}

// A suite is worth what it catches: each of these topics breaks one promise.
func TestBrokenTopicsAreCaught(t *testing.T) {
	caught := map[string]bool{}
	for _, x := range broken {
		caught[x.caught] = true
		t.Run(x.breaks, func(t *testing.T) {
			t.Parallel() // they wait, most of the time
			// A check may be out of patience before it has come to what is broken, and
			// members that come and go at random may do so at harmless moments: then it
			// goes on, with more patience.
			var all string
			for patience := time.Second; patience < 2*time.Minute; patience *= 2 {
				var said bool
				if all, said = judgement(t, x.caught, x.bend, patience); said && says(all, x.because) {
					return
				}
			}
			t.Errorf("%s does not say %q, but: %s", x.caught, x.because, all)
		})
	}
	for _, name := range bustest.CheckNames() {
		if !caught[name] {
			t.Errorf("no broken topic shows that %s can fail", name)
		}
	}
}

// says tells whether one of the parts is in what was said.
func says(all, because string) bool {
	for part := range strings.SplitSeq(because, "|") {
		if strings.Contains(all, part) {
			return true
		}
	}
	return false
}

// judgement is what a check says of a broken topic, if it says something.
func judgement(t *testing.T, name string, bend func(b *bent, c *memory.Config[record]), patience time.Duration) (all string, said bool) {
	opened := map[string]bent{}
	b := bustest.Bus{
		Open: func(_ testing.TB, name string, o bustest.Topic) bus.Topic[record] {
			b, ok := opened[name]
			if ok && bend == nil {
				return b
			}
			c := memory.Config[record]{Partitions: o.Partitions, Capacity: o.Capacity, Retain: o.Retain}
			if bend != nil {
				bend(&b, &c)
			}
			topic, err := memory.NewTopic(name, c)
			if err != nil {
				t.Fatal(err)
			}
			b.Topic = topic
			opened[name] = b
			return b
		},
		Restart: func(testing.TB) {},
		Drains:  true, Bounded: true, Rewinds: true, Recovers: true, Patience: patience,
	}
	v := &verdict{TB: t}
	v.judge(func() { bustest.Check(v, name, b) })
	v.mu.Lock() // some never end
	defer v.mu.Unlock()
	return strings.Join(v.said, "\n"), len(v.said) > 0
}

// The same frame around a good topic changes nothing. One that is found again by its
// name is one that outlives the process.
func TestGoodTopicsPass(t *testing.T) {
	bustest.Run(t, func(testing.TB) bustest.Bus {
		topics := map[string]bus.Topic[record]{}
		return bustest.Bus{
			Open: func(tb testing.TB, name string, o bustest.Topic) bus.Topic[record] {
				if topics[name] == nil {
					topic, err := memory.NewTopic(name, memory.Config[record]{Partitions: o.Partitions, Capacity: o.Capacity, Retain: o.Retain})
					if err != nil {
						tb.Fatal(err)
					}
					topics[name] = bent{Topic: topic, lane: lanes(func(good write) write { return good })}
				}
				return topics[name]
			},
			Restart: func(testing.TB) {},
			Drains:  true, Bounded: true, Rewinds: true,
		}
	})
}
