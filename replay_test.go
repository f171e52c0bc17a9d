package kemi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// summing is a transform that all lanes share: each tick gives the sum of what has
// come since the one before.
type summing struct {
	mu  sync.Mutex
	sum int
	at  []string
}

func (s *summing) Apply(_ context.Context, dst, src []item) ([]item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range src {
		s.sum += r.ID
	}
	return dst, nil
}

func (s *summing) Tick(_ context.Context, dst []item, now time.Time) ([]item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, fmt.Sprint(now.Unix(), ":", s.sum))
	dst = append(dst, item{s.sum})
	s.sum = 0
	return dst, nil
}

func (s *summing) Proof() kemi.Proof { return kemi.Proof{Version: 1, Hash: uint64(len(s.at))} }

// TestTicksOfASharedTransformFindTheSameInput reads partitions at random speeds. What
// a tick finds is decided by what lies before it in the partitions, and by nothing
// else.
func TestTicksOfASharedTransformFindTheSameInput(t *testing.T) {
	const lanes, ticks = 5, 20
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			via := &summing{}
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				var ls []kemi.Lane[item]
				for p := range lanes {
					ls = append(ls, kemi.OpenLane(out, fmt.Sprint(p), kemi.SourceTicks()))
				}
				var all sync.WaitGroup
				for p, l := range ls {
					all.Go(func() {
						rnd := rand.New(rand.NewPCG(seed, uint64(p)))
						for i := range ticks {
							time.Sleep(rand.N(100 * time.Millisecond)) // never near as long as it is waited for
							if err := l.Write(ctx, []item{{1}, {p + 1}}); err != nil {
								t.Error(err)
							}
							if rnd.IntN(4) == 0 && p != 0 { // a silent partition leaves times out
								continue
							}
							if err := l.Tick(ctx, sec(i+1)); err != nil {
								t.Error(err)
							}
							if proof := l.Proof(); p == 0 && proof.Hash != uint64(i+1) || p != 0 && proof != (kemi.Proof{}) {
								t.Errorf("lane %d has proof %v after tick %d", p, proof, i+1)
							}
						}
						_ = l.Tick(ctx, sec(ticks+1))
					})
				}
				all.Wait()
			})
			run(t, kemi.Pipe("f", src, via, nowhere[item]()))
			// Where a lane leaves a tick out, it is not known when it came to it; all it wrote
			// is there by the next that it does not. So the sums are compared with those of
			// a reader that goes through the same input in order of time.
			want := inOrder(seed, lanes, ticks)
			if got := via.at[:ticks]; !slices.Equal(got, want) {
				t.Errorf("seed %d: ticks found\n%v, want\n%v", seed, got, want)
			}
		})
	}
}

// inOrder goes through the input of all lanes: between two ticks that a lane has,
// what it wrote belongs to the second.
func inOrder(seed uint64, lanes, ticks int) []string {
	sums := make([]int, ticks+2)
	for p := range lanes {
		rnd := rand.New(rand.NewPCG(seed, uint64(p)))
		before := 0 // the last tick that the lane had: its records come before the next tick of the leader
		for i := range ticks {
			sums[before+1] += 1 + p + 1
			if rnd.IntN(4) == 0 && p != 0 {
				continue
			}
			before = i + 1
		}
	}
	var want []string
	for i := 1; i <= ticks; i++ {
		want = append(want, fmt.Sprint(i, ":", sums[i]))
	}
	return want
}

// TestALaneThatDoesNotComeIsNotWaitedForForEver has one partition that cannot be read.
func TestALaneThatDoesNotComeIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &summing{}
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			a, b := kemi.OpenLane(out, "a", kemi.SourceTicks()), kemi.OpenLane(out, "b", kemi.SourceTicks())
			began := time.Now()
			for i := range 10 {
				if err := a.Tick(ctx, sec(i+1)); err != nil {
					t.Error(err)
				}
			}
			if d := time.Since(began); d != 10*time.Second {
				t.Errorf("ten ticks without the other lane took %v, want ten seconds for the first and nothing for the others", d)
			}
			if err := b.Tick(ctx, sec(3)); err != nil { // long done
				t.Error(err)
			}
			asked, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			if err := a.Tick(asked, sec(11)); !errors.Is(err, context.Canceled) {
				t.Errorf("a tick that waits when the source is asked to stop: %v", err)
			}
		})
		s := run(t, kemi.Pipe("f", src, via, nowhere[item]()))[0]
		if len(via.at) != 10 || s.LastErr == "" {
			t.Errorf("ticks %v, last error %q", via.at, s.LastErr)
		}
	})
}

// TestResultsTellWhereTheyComeFrom writes what came of several places of the bus at
// once: what a transform makes of each is known by it, and so is what a tick gives.
func TestResultsTellWhereTheyComeFrom(t *testing.T) {
	from := origin.Batch{Source: origin.Source{Reader: "t@r", Partition: 7}}
	var got []string
	to := kemi.SinkFunc[item](func(ctx context.Context, batch []item) error {
		b := origin.Of(ctx)
		if !b.Covers(len(batch)) {
			t.Errorf("%+v is not about %v", b, batch)
			return nil
		}
		got = append(got, fmt.Sprint(b.Source, batch, b.Marks))
		return nil
	})
	odd := kemi.TransformFunc[item, item](func(_ context.Context, dst, src []item) ([]item, error) {
		for _, r := range src {
			if r.ID == 13 {
				return dst, kemi.Partial(src, kemi.Failure{Index: slices.Index(src, r), Err: kemi.Permanent(errDown)})
			}
			for range r.ID % 3 {
				dst = append(dst, r)
			}
		}
		return dst, nil
	})
	write := func(ctx context.Context, l kemi.Lane[item], marks ...origin.Mark) {
		from.Marks = marks
		if err := l.Write(origin.With(ctx, &from), items(0, marks[len(marks)-1].End)); err != nil {
			t.Error(err)
		}
	}
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		l := kemi.OpenLane(out, "p", kemi.SourceTicks())
		write(ctx, l, origin.Mark{End: 3, Seq: 2}, origin.Mark{End: 4, Seq: 4}, origin.Mark{End: 6, Seq: 6})
		from.Marks = []origin.Mark{{Seq: 7}}
		if err := l.Tick(origin.With(ctx, &from), sec(1)); err != nil {
			t.Error(err)
		}
	})
	run(t, kemi.Pipe("f", src, odd, to))
	run(t, kemi.Connect("g", src, to))
	run(t, kemi.Pipe("h", src, kemi.Transform[item, item](&summing{}), to))
	want := []string{
		"{t@r 7} [{1} {2} {2} {4} {5} {5}] [{3 2} {3 4} {6 6}]",
		"{t@r 7} [{0} {1} {2} {3} {4} {5}] [{3 2} {4 4} {6 6}]",
		"{t@r 7} [{15}] [{1 7}]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the sinks saw\n%q, want\n%q", got, want)
	}
}

// TestARecordThatCannotBeReadGoesToTheDeadLetters with the bytes it came with.
func TestARecordThatCannotBeReadGoesToTheDeadLetters(t *testing.T) {
	var letters []kemi.DeadLetter
	bad := kemi.DeadLetter{Error: "no such codec", Type: "x", Format: "odd/1", Payload: []byte{1, 2, 3}, Origin: kemi.Origin{Topic: "t", Partition: 1, Offset: 5}}
	p := &kemi.Pipeline{
		Flows: []*kemi.Flow{kemi.Connect("f", source(func(ctx context.Context, out kemi.Sink[item]) {
			l := kemi.OpenLane(out, "t/1")
			for _, muted := range []bool{false, true} { // in a replay it has been brought there before
				l.Mute(muted)
				if err := l.Refuse(ctx, bad); err != nil {
					t.Error(err)
				}
			}
		}), nowhere[item]())},
		DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
			letters = append(letters, batch...)
			return nil
		}),
	}
	s := runPipeline(t, p)[0]
	if len(letters) != 1 || s.In != 1 || s.Done != 1 || s.Dead != 1 || s.Rejected != 1 {
		t.Fatalf("letters %v, ledger %+v", letters, s)
	}
	got := letters[0]
	if got.Flow != "f" || got.Stage == "" || got.Time.IsZero() {
		t.Errorf("letter %+v", got)
	}
	got.Flow, got.Stage, got.Time = "", "", time.Time{}
	if a, _ := json.Marshal(got); string(a) != func() string { b, _ := json.Marshal(bad); return string(b) }() {
		t.Errorf("letter %s", a)
	}
}

// proving is a stateful transform whose state is a number.
type proving struct {
	kemi.Transform[item, item]
	version, state uint64
}

func (p *proving) Fork() kemi.Transform[item, item] { return &proving{version: p.version} }
func (p *proving) Proof() kemi.Proof                { return kemi.Proof{Version: p.version, Hash: p.state} }

func (p *proving) Apply(_ context.Context, dst, src []item) ([]item, error) {
	for _, r := range src {
		p.state += uint64(r.ID)
	}
	return dst, nil
}

func (p *proving) Keep(dst []kemi.Kept) []kemi.Kept {
	return append(dst, kemi.Kept{Key: "n", Value: fmt.Append(nil, p.state)})
}

func (p *proving) Restore(kept []kemi.Kept) error {
	if len(kept) != 1 {
		return errDown
	}
	_, err := fmt.Sscan(string(kept[0].Value), &p.state)
	return err
}

func TestAReplayIsProved(t *testing.T) {
	src := source(func(ctx context.Context, out kemi.Sink[item]) {
		a, b := kemi.OpenLane(out, "a"), kemi.OpenLane(out, "b")
		if err := a.Write(ctx, items(1, 5)); err != nil {
			t.Error(err)
		}
		b.Mute(true)
		if err := b.Write(ctx, items(1, 4)); err != nil {
			t.Error(err)
		}
		if err := b.Prove(a.Proof()); err == nil {
			t.Error("another state went through")
		}
		for _, other := range []kemi.Proof{{}, {Version: 8, Hash: 1}} {
			if err := b.Prove(other); err != nil {
				t.Errorf("%v does not say the same, and nothing else: %v", other, err)
			}
		}
		if err := b.Restore(a.Keep(nil)); err != nil {
			t.Error(err)
		}
		if err := b.Prove(a.Proof()); err != nil {
			t.Errorf("after Restore: %v", err)
		}
		if err := b.Restore(make([]kemi.Kept, 2)); !errors.Is(err, errDown) {
			t.Errorf("Restore of nonsense: %v", err)
		}
	})
	s := run(t, kemi.Pipe("f", src, kemi.Transform[item, item](&proving{version: 7}), nowhere[item]()))[0]
	if s.Mismatches != 1 || s.LastErr == "" {
		t.Errorf("ledger %+v", s)
	}
}

func sec(n int) time.Time { return time.Unix(int64(n), 0).UTC() }

// stateless ticks and has nothing that a replay would have to build again.
type stateless struct{ *summing }

func (stateless) Proof() kemi.Proof { return kemi.Proof{} }

// TestLogTicksAreForStateOnly opens lanes of a log: state hears the time of the log, and
// what only looks now and then whether something has come, that of the clock.
func TestLogTicksAreForStateOnly(t *testing.T) {
	for _, state := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			sum := &summing{}
			via := kemi.Transform[item, item](sum)
			if !state {
				via = stateless{sum}
			}
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				l := kemi.OpenLane(out, "p", kemi.LogTicks())
				if l.Ticks() != state {
					t.Errorf("with state %v: Ticks %v", state, l.Ticks())
				}
				time.Sleep(3500 * time.Millisecond)
				if err := l.Tick(ctx, sec(9)); err != nil {
					t.Error(err)
				}
			})
			run(t, kemi.Pipe("f", src, via, nowhere[item]()))
			if state && !slices.Equal(sum.at, []string{"9:0"}) || !state && len(sum.at) < 3 {
				t.Errorf("with state %v: ticks %v", state, sum.at)
			}
		})
	}
}

// TestATickWaitsForASinkThatIsAway: what a tick gives does not depend on how long the
// sink took, however much longer that is than a lane that does not come is waited for.
func TestATickWaitsForASinkThatIsAway(t *testing.T) {
	var want []int
	for _, away := range []time.Duration{0, 5 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			var got []int
			to := kemi.SinkFunc[item](func(_ context.Context, batch []item) error {
				if len(got) == 0 {
					time.Sleep(away)
				}
				for _, r := range batch {
					got = append(got, r.ID)
				}
				return nil
			})
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				var all sync.WaitGroup
				var ls []kemi.Lane[item]
				for p := range 3 {
					ls = append(ls, kemi.OpenLane(out, fmt.Sprint(p), kemi.SourceTicks()))
				}
				for _, l := range ls {
					all.Go(func() {
						for i := range 5 {
							if err := l.Tick(ctx, sec(i+1)); err != nil {
								t.Error(err)
							}
							if err := l.Write(ctx, items(i, 1)); err != nil {
								t.Error(err)
							}
						}
					})
				}
				all.Wait()
			})
			run(t, kemi.Pipe("f", src, kemi.Transform[item, item](&summing{}), to))
			if want == nil {
				want = got
			}
			if len(got) != 5 || !slices.Equal(got, want) {
				t.Errorf("a sink that is away for %v gets %v, want %v", away, got, want)
			}
		})
	}
}

// exploding panics in one of its powers.
type exploding struct {
	proving
	in string
}

func (e *exploding) Fork() kemi.Transform[item, item] { return e }

func (e *exploding) boom(in string) {
	if e.in == in {
		panic("boom")
	}
}

func (e *exploding) Proof() kemi.Proof                { e.boom("Proof"); return e.proving.Proof() }
func (e *exploding) Keep(dst []kemi.Kept) []kemi.Kept { e.boom("Keep"); return e.proving.Keep(dst) }
func (e *exploding) Restore(kept []kemi.Kept) error {
	e.boom("Restore")
	return e.proving.Restore(kept)
}

// TestAPanicInAPowerEndsTheFlow, and not the process: the source is on its own
// goroutine there.
func TestAPanicInAPowerEndsTheFlow(t *testing.T) {
	for _, in := range []string{"Proof", "Keep", "Restore"} {
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			l := kemi.OpenLane(out, "p")
			if err := l.Write(ctx, items(1, 3)); err != nil {
				t.Error(err)
			}
			l.Proof()
			_ = l.Restore(l.Keep([]kemi.Kept{{Key: "n", Value: []byte("1")}})[:1])
			<-ctx.Done()
			return nil
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", kemi.Source[item](src), kemi.Transform[item, item](&exploding{in: in}), nowhere[item]())}}
		if err := p.Run(t.Context()); err == nil || !kemi.IsPermanent(err) {
			t.Errorf("a panic in %s: Run says %v", in, err)
		}
		closed(t, p)
	}
}
