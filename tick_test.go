package kemi_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
)

// ticker is a transform that passes items on and emits one at each tick. It finds out
// whether it is used by two at once; its plain fields let the race detector find out
// too.
type ticker struct {
	forks    bool
	slow     time.Duration // an Apply or a Tick takes so long
	onFinish func()
	tickErr  func() error
	root     *ticker // of a fork

	inside  atomic.Int32
	overlap atomic.Bool
	mu      sync.Mutex // for what the test reads
	ticks   []time.Time
	made    []*ticker // forks
	fed     int       // under no lock, on purpose
}

const tickID = 1_000_000 // items made by a tick have an ID from here

func (k *ticker) Fork() kemi.Transform[item, item] {
	if !k.forks {
		return nil
	}
	f := &ticker{slow: k.slow, tickErr: k.tickErr, root: k}
	k.mu.Lock()
	k.made = append(k.made, f)
	k.mu.Unlock()
	return f
}

func (k *ticker) Apply(_ context.Context, dst, src []item) ([]item, error) {
	if !k.forks && k.root == nil { // shared: many Applies may meet, but no Tick
		if k.inside.Load() < 0 {
			k.overlap.Store(true)
		}
		k.inside.Add(1)
		defer k.inside.Add(-1)
	} else {
		if k.inside.Add(1) != 1 {
			k.overlap.Store(true)
		}
		defer k.inside.Add(-1)
		k.fed += len(src)
	}
	time.Sleep(k.slow)
	return append(dst, src...), nil
}

func (k *ticker) Tick(_ context.Context, dst []item, now time.Time) ([]item, error) {
	if !k.inside.CompareAndSwap(0, -1000) {
		k.overlap.Store(true)
	} else {
		defer k.inside.Store(0)
	}
	k.fed++
	time.Sleep(k.slow)
	if k.tickErr != nil {
		if err := k.tickErr(); err != nil {
			return dst, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ticks = append(k.ticks, now)
	return append(dst, item{tickID + len(k.ticks)}), nil
}

func (k *ticker) Finish(_ context.Context, dst []item) ([]item, error) {
	if k.onFinish != nil {
		k.onFinish()
	}
	return append(dst, item{-1}), nil
}

func (k *ticker) ticked() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]time.Time(nil), k.ticks...)
}

func (k *ticker) forked() []*ticker {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*ticker(nil), k.made...)
}

// TestTickNeverMeetsApply lets lanes work and tick as fast as they can, until each has
// been ticked a few times.
func TestTickNeverMeetsApply(t *testing.T) {
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			const lanes, enough = 4, 10
			via := &ticker{forks: forks, slow: 20 * time.Microsecond}
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				ticked := func() bool { return len(via.ticked()) >= enough }
				if forks {
					ticked = func() bool {
						for _, f := range via.forked() {
							if len(f.ticked()) < enough {
								return false
							}
						}
						return true
					}
				}
				var ls []kemi.Lane[item]
				for w := range lanes {
					ls = append(ls, kemi.OpenLane(out, fmt.Sprint(w)))
				}
				var wg sync.WaitGroup
				end := time.Now().Add(time.Minute)
				for _, l := range ls {
					wg.Go(func() {
						for i := 0; i < 200 || !ticked() && time.Now().Before(end); i++ {
							if err := l.Write(ctx, items(0, 3)); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				if !ticked() {
					t.Error("a lane that always works was not ticked")
				}
			})
			run(t, kemi.Pipe("f", src, via, &store{}, kemi.TickEvery(time.Millisecond)))
			for _, f := range append(via.forked(), via) {
				if f.overlap.Load() {
					t.Error("Tick met Apply, or two met in one fork")
				}
			}
		})
	}
}

// TestALaneThatAlwaysWorksIsTicked has a source that never lets its lane rest.
func TestALaneThatAlwaysWorksIsTicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &ticker{forks: true, slow: 90 * time.Millisecond}
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			l := kemi.OpenLane(out, "p0")
			for ctx.Err() == nil {
				if err := l.Write(ctx, items(0, 3)); err != nil {
					return err
				}
			}
			return nil
		})
		stop := background(&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, nowhere[item]())}})
		time.Sleep(10500 * time.Millisecond)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := len(via.made[0].ticked()); n != 10 {
			t.Errorf("%d ticks in 10 s, want one a second", n)
		}
		if via.made[0].overlap.Load() {
			t.Error("Tick met Apply")
		}
	})
}

func TestTicksComeWithoutRecords(t *testing.T) {
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				via, to := &ticker{forks: forks}, &store{}
				src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
					kemi.OpenLane(out, "p0")
					<-ctx.Done()
					return nil
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
				began := time.Now()
				stop := background(p)
				time.Sleep(10*time.Second + time.Millisecond)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				k := via
				if forks {
					k = via.made[0]
				}
				ticks := k.ticked()
				if len(ticks) != 10 {
					t.Fatalf("%d ticks in 10 s, want one a second", len(ticks))
				}
				for i, now := range ticks {
					if want := began.Add(time.Duration(i+1) * time.Second).UTC().Round(0); now != want {
						t.Errorf("tick %d has the time %v, want %v, in UTC and without a monotonic part", i, now, want)
					}
				}
				if s := closed(t, p)[0]; s.In != 0 || s.Out != 10 || s.Written != 10 {
					t.Errorf("ledger %+v", s)
				}
			})
		})
	}
}

// TestTicksComeBeforeTheFirstRecord of a source without lanes: absence is news too.
// The first record finds the state that was ticked.
func TestTicksComeBeforeTheFirstRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via, to := &ticker{forks: true}, &store{}
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			time.Sleep(5*time.Second + time.Millisecond)
			if err := out.Write(ctx, items(0, 3)); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return nil
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
		began := time.Now()
		stop := background(p)
		time.Sleep(10*time.Second + time.Millisecond)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if len(via.made) != 1 || via.made[0].fed != 13 {
			t.Fatalf("%d forks, want one that was fed 3 records and 10 ticks", len(via.made))
		}
		for i, now := range via.made[0].ticked() {
			if want := began.Add(time.Duration(i+1) * time.Second).UTC().Round(0); now != want {
				t.Errorf("tick %d has the time %v, want %v", i, now, want)
			}
		}
		if s := closed(t, p)[0]; s.Written != 13 {
			t.Errorf("ledger %+v", s)
		}
	})
}

// TestAnInputWithoutRecordsIsFinished by a transform with state as by any other.
func TestAnInputWithoutRecordsIsFinished(t *testing.T) {
	for _, forks := range []bool{true, false} {
		to := &store{}
		run(t, kemi.Pipe("f", once[item](), &ticker{forks: forks}, to))
		if to.total != 1 || to.held[-1] != 1 {
			t.Errorf("forks=%v: the sink holds %v, want what Finish gave", forks, to.held)
		}
	}
}

// TestALaneThatNobodyOpenedGivesWay to those of a source that is slow to open its own,
// together with what it had under way.
func TestALaneThatNobodyOpenedGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via, to := &ticker{forks: true}, &store{}
		to.fault = func(ctx context.Context, batch []item) error {
			if batch[0].ID <= tickID {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		f := kemi.Pipe("f", source(func(ctx context.Context, out kemi.Sink[item]) {
			time.Sleep(1500 * time.Millisecond)
			l := kemi.OpenLane(out, "p0", kemi.SourceTicks())
			if err := l.Write(ctx, items(0, 3)); err != nil {
				t.Error(err)
			}
			if err := out.Write(ctx, items(3, 1)); err != nil { // a lane of its own
				t.Error(err)
			}
		}), via, to)
		s := run(t, f)[0]
		// The first tick opened a lane, and was stuck with it. Of the two lanes after it
		// each gave what was open at the end.
		if len(via.made) != 3 || len(via.made[0].ticked()) != 1 || to.total != 6 || to.held[-1] != 2 || s.Abandoned != 1 {
			t.Errorf("%d forks, the sink holds %v, ledger %+v", len(via.made), to.held, s)
		}
	})
}

// member is a source that shares its input with others, and has nothing of it.
type member struct{ kemi.SourceFunc[item] }

func (member) Shares() bool { return true }

// TestAMemberWithoutLanesSaysNothing: that it has no input is not news.
func TestAMemberWithoutLanesSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &ticker{forks: true}
		src := member{func(context.Context, kemi.Sink[item]) error { time.Sleep(10 * time.Second); return nil }}
		if s := run(t, kemi.Pipe("f", kemi.Source[item](src), via, nowhere[item]()))[0]; s.Out != 0 {
			t.Errorf("ledger %+v", s)
		}
	})
}

// TestAMutedLaneIsNotTickedByTheTimer: in a replay, the time of the clock is wrong.
func TestAMutedLaneIsNotTickedByTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &ticker{forks: true}
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			l := kemi.OpenLane(out, "p0")
			l.Mute(true)
			time.Sleep(5500 * time.Millisecond)
			if n := len(via.made[0].ticked()); n != 0 {
				t.Errorf("%d ticks while muted", n)
			}
			l.Mute(false)
			time.Sleep(2 * time.Second)
			if n := len(via.made[0].ticked()); n != 2 {
				t.Errorf("%d ticks after that, want 2", n)
			}
		})
		run(t, kemi.Pipe("f", src, via, nowhere[item]()))
	})
}

func TestASharedTransformIsTickedOnceForAllLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &ticker{}
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			for i := range 8 {
				kemi.OpenLane(out, fmt.Sprint(i))
			}
			<-ctx.Done()
			return nil
		})
		stop := background(&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, nowhere[item](), kemi.TickEvery(100*time.Millisecond))}})
		time.Sleep(1050 * time.Millisecond)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if n := len(via.ticked()); n != 10 {
			t.Errorf("%d ticks, want 10", n)
		}
	})
}

// TestABlockedLaneIsNotTicked has two lanes, one of which waits for its sink: what a
// tick brought would have nowhere to go.
func TestABlockedLaneIsNotTicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		via := &ticker{forks: true}
		release := make(chan struct{})
		to := kemi.SinkFunc[item](func(_ context.Context, batch []item) error {
			if batch[0].ID == 1 {
				<-release
			}
			return nil
		})
		src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
			blocked := kemi.OpenLane(out, "blocked")
			kemi.OpenLane(out, "free")
			if err := blocked.Write(ctx, items(1, 1)); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return nil
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
		stop := background(p)
		time.Sleep(5500 * time.Millisecond)
		s := p.Stats()[0]
		if s.Busy != 1 || s.Lanes != 2 || s.OldestWrite != 5500*time.Millisecond || s.InFlight != 1 || s.Pending != 1 {
			t.Errorf("stats %+v, want one of two lanes in a Write for 5.5 s", s)
		}
		blocked, free := via.made[0], via.made[1]
		if a, b := len(blocked.ticked()), len(free.ticked()); a != 0 || b != 5 {
			t.Errorf("the blocked lane was ticked %d times, the free one %d; want 0 and 5", a, b)
		}
		close(release)
		time.Sleep(2 * time.Second)
		if n := len(blocked.ticked()); n != 2 {
			t.Errorf("%d ticks after it was free again, want 2", n)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestASourceMayBringTheTime replays with the ticks of the first run.
func TestASourceMayBringTheTime(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				via, to := &ticker{forks: forks}, &store{}
				src := source(func(ctx context.Context, out kemi.Sink[item]) {
					a := kemi.OpenLane(out, "a", kemi.SourceTicks())
					b := kemi.OpenLane(out, "b", kemi.SourceTicks())
					time.Sleep(time.Minute) // no timer ticks
					a.Mute(true)
					for _, step := range []error{a.Tick(ctx, at(100)), a.Write(ctx, items(0, 2)), a.Tick(ctx, at(110))} {
						if step != nil {
							t.Error(step)
						}
					}
					if n, _, _ := to.count(); n != 0 {
						t.Errorf("a muted lane emitted %d records", n)
					}
					a.Mute(false)
					for _, step := range []error{b.Tick(ctx, at(110)), a.Tick(ctx, at(120)), b.Tick(ctx, at(120))} {
						if step != nil {
							t.Error(step)
						}
					}
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}
				s := runPipeline(t, p)[0]
				want := []time.Time{at(100), at(110), at(120)} // a shared transform hears each once
				got, made := via.ticked(), 1
				if forks {
					got, made = via.made[0].ticked(), 3 // 120 of a, 110 and 120 of b
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("ticks %v, want %v", got, want)
				}
				finished := made
				if forks {
					finished += 2 // lanes
				} else {
					finished++
				}
				if s.Replayed != 2 || s.In != 0 || int(s.Written) != finished {
					t.Errorf("ledger %+v, want %d written by ticks and at the end", s, finished)
				}
			})
		})
	}
}

// TestATickOfASourceHasItsContext shows that the values and the deadline a source
// gives with a tick reach the sink, as with a Write: a bus tells so where what comes
// of a tick has its origin.
func TestATickOfASourceHasItsContext(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var origin any
		to := kemi.SinkFunc[item](func(ctx context.Context, batch []item) error {
			if batch[0].ID > tickID {
				origin = ctx.Value(key{})
			}
			return errDown
		})
		src := source(func(ctx context.Context, out kemi.Sink[item]) {
			l := kemi.OpenLane(out, "a", kemi.SourceTicks())
			c, cancel := context.WithTimeout(context.WithValue(ctx, key{}, "offset 7"), 3*time.Second)
			defer cancel()
			if err := l.Tick(c, time.Unix(1, 0)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) {
				t.Errorf("Tick: %v", err)
			}
		})
		p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, &ticker{}, to)}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(4 * time.Second)
		if s := p.Stats()[0]; s.Abandoned != 1 {
			t.Errorf("ledger %+v", s)
		}
		cancel() // what Finish gave is cut off by the hard stop
		<-done
		closed(t, p)
		if origin != "offset 7" {
			t.Errorf("the sink saw %v", origin)
		}
	})
}

// TestATickThatFailsIsNotTheEnd counts ticks that panic or fail between good ones.
func TestATickThatFailsIsNotTheEnd(t *testing.T) {
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				via := &ticker{forks: forks, tickErr: func() error {
					switch n++; n % 3 {
					case 1:
						panic("a bug")
					case 2:
						return errDown
					}
					return nil
				}}
				src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
					kemi.OpenLane(out, "p0")
					<-ctx.Done()
					return nil
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, nowhere[item]())}}
				stop := background(p)
				time.Sleep(9500 * time.Millisecond)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if s := closed(t, p)[0]; s.Written != 3 || s.LastErr == "" {
					t.Errorf("ledger %+v, want 3 of 9 ticks", s)
				}
			})
		})
	}
}

// TestOnlyARealEndFinishes shows that a stop does not flush what is open.
func TestOnlyARealEndFinishes(t *testing.T) {
	for _, forks := range []bool{true, false} {
		t.Run(fmt.Sprintf("forks=%v", forks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := &store{}
				run(t, kemi.Pipe("f", once(items(0, 2)), &ticker{forks: forks}, to))
				if to.held[-1] != 1 || to.total != 3 {
					t.Errorf("after the end the sink holds %v, want what Finish gave", to.held)
				}

				to = &store{}
				src := kemi.SourceFunc[item](func(ctx context.Context, out kemi.Sink[item]) error {
					err := out.Write(ctx, items(0, 2))
					<-ctx.Done()
					return err
				})
				p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, &ticker{forks: forks}, to)}}
				stop := background(p)
				time.Sleep(time.Millisecond)
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				if to.held[-1] != 0 || to.total != 2 {
					t.Errorf("after a stop the sink holds %v", to.held)
				}
			})
		})
	}
}
