package kemi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// dice is a source of chance that many goroutines may use.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

// seeded returns dice whose seed is in the output of a failed test.
func seeded(t *testing.T, seed uint64) *dice {
	t.Helper()
	t.Logf("seed %d", seed)
	return &dice{r: rand.New(rand.NewPCG(seed, 0))}
}

func (d *dice) roll() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Float64()
}

func (d *dice) intn(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// quarters refuses a quarter of the batches whole, and of another quarter a fifth of
// the records.
func quarters(d *dice) func(context.Context, []item) error {
	return func(_ context.Context, batch []item) error {
		switch r := d.roll(); {
		case r < 0.25:
			return errDown
		case r < 0.5:
			var failed []kemi.Failure
			for i := range batch {
				if d.roll() < 0.2 {
					failed = append(failed, kemi.Failure{Index: i, Err: errDown})
				}
			}
			if err := kemi.Partial(batch, failed...); err != nil {
				return fmt.Errorf("store: %w", err)
			}
		}
		return nil
	}
}

// watch asks the ledger for its balance all the time until done is closed.
func watch(t *testing.T, done <-chan struct{}, flows ...*kemi.Flow) {
	for {
		select {
		case <-done:
			return
		default:
		}
		for _, f := range flows {
			if err := f.Stats().Balance(); err != nil {
				t.Errorf("while it runs: %v", err)
				return
			}
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// TestNothingIsLostToAFailingSink writes from many writers, with and without lanes,
// into a sink that fails half of the time. Each record is in the sink once in the
// end, and the ledger says the same as the sink.
func TestNothingIsLostToAFailingSink(t *testing.T) {
	const (
		writers = 8
		batches = 60
		size    = 25
	)
	// writing writes one writer's share.
	writing := func(ctx context.Context, t *testing.T, out kemi.Sink[item], writer int) {
		for b := range batches {
			batch := items((writer*batches+b)*size, size)
			if err := out.Write(ctx, batch); err != nil {
				t.Errorf("writer %d: %v", writer, err)
			}
		}
	}
	free := func(t *testing.T) kemi.Source[item] {
		return source(func(ctx context.Context, out kemi.Sink[item]) {
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() { writing(ctx, t, out, w) })
			}
			wg.Wait()
		})
	}
	lanes := func(t *testing.T) kemi.Source[item] {
		return source(func(ctx context.Context, out kemi.Sink[item]) {
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					l := kemi.OpenLane(out, fmt.Sprint("partition ", w))
					defer l.Close()
					writing(ctx, t, l, w)
				})
			}
			wg.Wait()
		})
	}
	for _, from := range []struct {
		name string
		src  func(*testing.T) kemi.Source[item]
	}{{"writers", free}, {"lanes", lanes}} {
		for _, via := range []struct {
			name string
			flow func(kemi.Source[item], kemi.Sink[item]) *kemi.Flow
		}{
			{"connect", func(s kemi.Source[item], to kemi.Sink[item]) *kemi.Flow {
				return kemi.Connect("f", s, to, fast())
			}},
			{"stateless", func(s kemi.Source[item], to kemi.Sink[item]) *kemi.Flow {
				return kemi.Pipe("f", s, pass[item](), to, fast())
			}},
			{"stateful", func(s kemi.Source[item], to kemi.Sink[item]) *kemi.Flow {
				return kemi.Pipe("f", s, &seen{}, to, fast())
			}},
		} {
			t.Run(from.name+"/"+via.name, func(t *testing.T) {
				for _, seed := range []uint64{1, rand.Uint64()} {
					to := &store{fault: quarters(seeded(t, seed))}
					f := via.flow(from.src(t), to)
					done := make(chan struct{})
					var watching sync.WaitGroup
					watching.Go(func() { watch(t, done, f) })
					s := run(t, f)[0]
					close(done)
					watching.Wait()

					const want = writers * batches * size
					distinct, total, _ := to.count()
					if distinct != want || total != want {
						t.Errorf("the sink holds %d records, %d with repetitions, want %d once each", distinct, total, want)
					}
					if s.In != want || s.Done != want || s.Out != want || s.Written != want || s.Retries == 0 {
						t.Errorf("the ledger says %+v, want %d in, done, out and written, after retries", s, want)
					}
				}
			})
		}
	}
}

// seen is a transform with state: it panics if a record comes twice.
type seen struct {
	ids map[int]bool
}

func (*seen) Fork() kemi.Transform[item, item] { return &seen{ids: map[int]bool{}} }
func (s *seen) Apply(_ context.Context, dst, src []item) ([]item, error) {
	for _, x := range src {
		if s.ids[x.ID] {
			panic(fmt.Sprintf("item %d was fed twice", x.ID))
		}
		s.ids[x.ID] = true
		dst = append(dst, x)
	}
	return dst, nil
}

// TestEveryAcknowledgedRecordIsSomewhere lets everything go wrong at once: a
// transform that refuses, fails and panics, a sink that does all that an error can
// say, dead letters that fail too, writers without patience, and a hard stop in the
// middle. What a writer was told is safe is in the sink, in the dead letters, or was
// refused by both; and the ledger counts what the stages really did.
func TestEveryAcknowledgedRecordIsSomewhere(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3, rand.Uint64()} {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			d := seeded(t, seed)
			trouble := func() error {
				switch d.intn(12) {
				case 0:
					return kemi.Permanent(errDown)
				case 1:
					return kemi.RetryAfter(errDown, time.Millisecond)
				case 2:
					panic("out of order")
				default:
					return errDown
				}
			}
			to := &store{fault: func(_ context.Context, batch []item) error {
				switch r := d.roll(); {
				case r < 0.2:
					return trouble()
				case r < 0.5:
					var failed []kemi.Failure
					for i := range batch {
						if r := d.roll(); r < 0.1 {
							failed = append(failed, kemi.Failure{Index: i, Err: errDown})
						} else if r < 0.15 {
							failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(errDown)})
						}
					}
					return kemi.Partial(batch, failed...)
				}
				return nil
			}}
			via := kemi.TransformFunc[item, item](func(_ context.Context, dst, src []item) ([]item, error) {
				if d.roll() < 0.1 {
					return dst, trouble()
				}
				var failed []kemi.Failure
				for i, x := range src {
					if d.roll() < 0.02 {
						failed = append(failed, kemi.Failure{Index: i, Err: errDown})
					} else {
						dst = append(dst, x)
					}
				}
				return dst, kemi.Partial(src, failed...)
			})
			var (
				mu            sync.Mutex
				buried, spurn = map[int]bool{}, map[int]bool{}
				dead          int
			)
			graveyard := kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
				if d.roll() < 0.3 {
					return errDown
				}
				mu.Lock()
				defer mu.Unlock()
				var failed []kemi.Failure
				for i, l := range batch {
					var x item
					if _, err := fmt.Sscanf(string(l.Payload), `{"ID":%d}`, &x.ID); err != nil {
						t.Errorf("payload %s: %v", l.Payload, err)
					}
					switch r := d.roll(); {
					case r < 0.1:
						failed = append(failed, kemi.Failure{Index: i, Err: errDown})
					case r < 0.2:
						failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(errDown)})
						spurn[x.ID] = true
					default:
						buried[x.ID] = true
						dead++
					}
				}
				return kemi.Partial(batch, failed...)
			})
			var (
				acked   []int
				answers int
			)
			src := source(func(ctx context.Context, out kemi.Sink[item]) {
				var wg sync.WaitGroup
				for w := range 6 {
					wg.Go(func() {
						for b := 0; ctx.Err() == nil; b++ {
							batch := items((w*100_000+b)*20, 20)
							c, cancel := ctx, context.CancelFunc(func() {})
							if b%3 == 0 {
								c, cancel = context.WithTimeout(ctx, time.Millisecond)
							}
							err := out.Write(c, batch)
							cancel()
							mu.Lock()
							answers += len(batch)
							if err == nil {
								for _, x := range batch {
									acked = append(acked, x.ID)
								}
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
			})
			f := kemi.Pipe("f", src, via, to, fast(), kemi.Attempts(5))
			p := &kemi.Pipeline{Flows: []*kemi.Flow{f}, DeadLetters: graveyard, DrainTimeout: time.Millisecond}
			ctx, cancel := context.WithCancel(t.Context())
			var watching sync.WaitGroup
			done := make(chan struct{})
			watching.Go(func() { watch(t, done, f) })
			watching.Go(func() { // the stop comes when everything has gone wrong that is to
				defer cancel()
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
					if s := f.Stats(); s.Done >= 20_000 && s.Dead > 0 && s.Dropped > 0 && s.Abandoned > 0 && s.Failed > 0 && s.Rejected > 0 {
						return
					}
				}
			})
			if err := p.Run(ctx); err != nil {
				t.Fatal(err) // the source answers nil whatever its Writes said
			}
			close(done)
			watching.Wait()

			s := closed(t, p)[0]
			_, total, _ := to.count()
			if int(s.Written) != total || int(s.Dead) != dead || int(s.In) != answers || int(s.Done) != len(acked) {
				t.Errorf("the ledger says %d written, %d dead, %d in, %d done; the stages saw %d, %d, %d, %d",
					s.Written, s.Dead, s.In, s.Done, total, dead, answers, len(acked))
			}
			lost := 0
			for _, id := range acked {
				if to.held[id] == 0 && !buried[id] && !spurn[id] {
					lost++
				}
			}
			if lost > 0 {
				t.Errorf("%d of %d acknowledged records are nowhere", lost, len(acked))
			}
			if s.Dead == 0 || s.Dropped == 0 || s.Abandoned == 0 || s.Failed == 0 || s.Rejected == 0 {
				t.Errorf("not everything went wrong that was to: %+v", s)
			}
		})
	}
}

// TestBalanceNamesTheDifference shows that the ledger can be out of balance, and what
// is said then.
func TestBalanceNamesTheDifference(t *testing.T) {
	good := kemi.FlowStats{
		Name: "f", In: 10, Done: 5, Failed: 2, InFlight: 3,
		Out: 21, Written: 1, Dead: 2, Dropped: 3, Abandoned: 4, Pending: 11,
	}
	if err := good.Balance(); err != nil {
		t.Error(err)
	}
	for name, break1 := range map[string]func(*kemi.FlowStats){
		"done":      func(s *kemi.FlowStats) { s.Done-- },
		"in flight": func(s *kemi.FlowStats) { s.InFlight++ },
		"written":   func(s *kemi.FlowStats) { s.Written++ },
		"pending":   func(s *kemi.FlowStats) { s.Pending-- },
	} {
		bad := good
		break1(&bad)
		if err := bad.Balance(); err == nil || !strings.Contains(err.Error(), `"f"`) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s off by one: %v", name, err)
		}
	}
}
