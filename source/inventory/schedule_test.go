package inventory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
)

// written is a job with the time at which it reached the sink.
type written struct {
	kemi.Job
	at time.Time
}

// recorder is a sink that keeps what it was given.
type recorder struct {
	mu      sync.Mutex
	jobs    []written
	batches int
	block   chan struct{} // if not nil, Write waits for it or its ctx
	err     error
}

func (r *recorder) Write(ctx context.Context, batch []kemi.Job) error {
	r.mu.Lock()
	block, err := r.block, r.err
	r.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches++
	for _, j := range batch {
		r.jobs = append(r.jobs, written{j, time.Now()})
	}
	return nil
}

func (r *recorder) set(block chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.block, r.err = block, err
}

// take returns what was written since the last call, by resource.
func (r *recorder) take() map[string][]written {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := map[string][]written{}
	for _, j := range r.jobs {
		by[j.Resource] = append(by[j.Resource], j)
	}
	r.jobs = nil
	return by
}

func newSource(t testing.TB, from Discoverer, cfg Config) *Source {
	t.Helper()
	s, err := New(from, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs s until the test ends, or stop is called, and then expects no error.
func start(t *testing.T, s *Source, out kemi.Sink[kemi.Job]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, out) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func names(n int) []Target {
	targets := make([]Target, n)
	for i := range targets {
		targets[i].Address = fmt.Sprintf("web%d", i)
	}
	return targets
}

// Every host gets one job in every interval, at even distances, hardly late, and
// within the first 80 % of the cycle; and the jobs are spread.
func TestOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		stop := start(t, newSource(t, Static(names(1000)...), Config{}), rec)
		time.Sleep(10 * time.Minute)
		stop()
		batches := rec.batches
		perSecond := map[int]int{}
		all := rec.take()
		if len(all) != 1000 {
			t.Fatalf("%d hosts were polled", len(all))
		}
		for host, jobs := range all {
			if len(jobs) != 10 {
				t.Fatalf("%s: %d jobs in 10 minutes", host, len(jobs))
			}
			for i, j := range jobs {
				in := j.Scheduled.Sub(j.Scheduled.Truncate(time.Minute))
				if in >= 48*time.Second || j.Interval != time.Minute || !j.Deadline.Equal(j.Scheduled.Add(time.Minute)) {
					t.Fatalf("%s: %v into its cycle, interval %v, deadline %v", host, in, j.Interval, j.Deadline)
				}
				if late := j.at.Sub(j.Scheduled); late < 0 || late > slot {
					t.Fatalf("%s: written %v after its time", host, late)
				}
				if i > 0 && j.Scheduled.Sub(jobs[i-1].Scheduled) != time.Minute {
					t.Fatalf("%s: %v after the job before", host, j.Scheduled.Sub(jobs[i-1].Scheduled))
				}
			}
			perSecond[int(jobs[0].Scheduled.Sub(jobs[0].Scheduled.Truncate(time.Minute))/time.Second)]++
		}
		for s := range 48 { // about 21 in each
			if n := perSecond[s]; n < 4 || n > 60 {
				t.Errorf("%d of 1000 hosts in second %d", n, s)
			}
		}
		if batches > 10*480 {
			t.Errorf("%d batches for 10000 jobs: more than one in a slot", batches)
		}
	})
}

// A restart leaves every host its place in the cycle.
func TestRestartKeepsTheTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		stop := start(t, newSource(t, Static(names(50)...), Config{}), rec)
		time.Sleep(2 * time.Minute)
		stop()
		before := rec.take()
		time.Sleep(17 * time.Second)
		start(t, newSource(t, Static(names(50)...), Config{}), rec)
		time.Sleep(time.Minute)
		synctest.Wait()
		for host, jobs := range rec.take() {
			gap := jobs[0].Scheduled.Sub(before[host][0].Scheduled)
			if gap%time.Minute != 0 {
				t.Fatalf("%s: polled %v after its first time", host, gap)
			}
		}
	})
}

// With FirstInterval there are two jobs of each host at once, and then the normal
// cycle.
func TestFirstInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(25 * time.Second) // not at the begin of a cycle
		began := time.Now()
		rec := &recorder{}
		start(t, newSource(t, Static(names(20)...), Config{FirstInterval: 3 * time.Second}), rec)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for host, jobs := range rec.take() {
			first, second, third := jobs[0].at.Sub(began), jobs[1].at.Sub(began), jobs[2].Scheduled.Sub(began)
			if first > 2500*time.Millisecond || second < 3*time.Second || second > 5500*time.Millisecond {
				t.Errorf("%s: first after %v, second after %v", host, first, second)
			}
			if third < 6*time.Second || third > 66*time.Second {
				t.Errorf("%s: third after %v", host, third)
			}
			if jobs[0].Interval != 3*time.Second || jobs[2].Interval != time.Minute {
				t.Errorf("%s: intervals %v and %v", host, jobs[0].Interval, jobs[2].Interval)
			}
			for i := 3; i < len(jobs); i++ {
				if d := jobs[i].Scheduled.Sub(jobs[i-1].Scheduled); d != time.Minute {
					t.Errorf("%s: %v between jobs", host, d)
				}
			}
		}
	})
}

func TestIntervalOfATarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		start(t, newSource(t, Static(
			Target{Address: "slow", Interval: 5 * time.Minute}, Target{Address: "normal"}, Target{Address: "fast", Interval: 10 * time.Second},
		), Config{}), rec)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		got := rec.take()
		if len(got["slow"]) != 2 || len(got["normal"]) != 10 || len(got["fast"]) != 60 {
			t.Errorf("%d, %d, %d jobs", len(got["slow"]), len(got["normal"]), len(got["fast"]))
		}
	})
}

func TestJobHasWhatTheTargetHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		start(t, newSource(t, Static(
			Target{Address: "10.0.0.1:1161", Resource: "db1", Service: "shop", Profiles: []string{"disks"}, Auth: "dba",
				Labels: kemi.LabelsOf("rack", "r7", "host", "x", "service", "y", "__meta", "z")},
			Target{Address: "[::1]:161"},
		), Config{Profiles: []string{"base", "linux"}, Auth: "all"}), rec)
		time.Sleep(time.Minute)
		synctest.Wait()
		got := rec.take()
		j := got["db1"][0].Job
		if j.Target != "10.0.0.1:1161" || j.Service != "shop" || !slices.Equal(j.Profiles, []string{"disks"}) || j.Auth != "dba" || j.Labels != kemi.LabelsOf("rack", "r7") {
			t.Errorf("got %+v", j)
		}
		j = got["::1"][0].Job
		if j.Target != "[::1]:161" || !slices.Equal(j.Profiles, []string{"base", "linux"}) || j.Auth != "all" {
			t.Errorf("got %+v", j)
		}
		if j.Scheduled.Location() != time.UTC || j.Scheduled != j.Scheduled.Round(0) {
			t.Errorf("scheduled %v: want UTC without a monotonic reading", j.Scheduled)
		}
	})
}

// A sink that stands still makes jobs stale, and not a heap of them.
func TestBlockedSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, ignoresDeadline := range []bool{false, true} {
			rec := &recorder{}
			var out kemi.Sink[kemi.Job] = rec
			if ignoresDeadline {
				out = kemi.SinkFunc[kemi.Job](func(ctx context.Context, b []kemi.Job) error { return rec.Write(context.WithoutCancel(ctx), b) })
			}
			s := newSource(t, Static(names(500)...), Config{MaxBatch: 64})
			stop := start(t, s, out)
			time.Sleep(2*time.Minute + 10*time.Second)
			synctest.Wait()
			rec.take()
			gate := make(chan struct{})
			rec.set(gate, nil)
			time.Sleep(time.Hour)
			rec.set(nil, nil)
			close(gate)
			opened := time.Now()
			synctest.Wait()
			time.Sleep(slot)
			synctest.Wait()
			sum := 0
			for host, jobs := range rec.take() {
				sum += len(jobs)
				for i, j := range jobs {
					// Only the batch that was under way may be old: it is given until the last deadline
					// in it, and a sink that does not heed deadlines keeps it for ever.
					if !ignoresDeadline && j.Deadline.Before(opened.Add(-10*time.Second)) || j.Deadline.Before(j.at) && !j.at.Equal(opened) || i > 0 && !j.Scheduled.After(jobs[i-1].Scheduled) {
						t.Fatalf("%s: job %d of %v at %v", host, i, j.Scheduled, j.at)
					}
				}
			}
			if sum > 600 {
				t.Errorf("%d jobs at once for 500 hosts", sum)
			}
			st := s.Stats()
			if total := int64(62 * 500); st.Stale < 55*500 || st.Jobs+st.Stale > total+500 {
				t.Errorf("%d written and %d stale of about %d", st.Jobs, st.Stale, total)
			}
			stop()
		}
	})
}

// Whatever happens to the list and to the sink, no host has two jobs in one cycle,
// and no job is written late.
func TestNeverTwiceInACycle(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			from := DiscovererFunc(func(context.Context) ([]Target, error) {
				mu.Lock()
				defer mu.Unlock()
				list := names(100)
				rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				return list[:60+rng.IntN(40)], nil
			})
			rec := &recorder{}
			slow := kemi.SinkFunc[kemi.Job](func(ctx context.Context, b []kemi.Job) error {
				mu.Lock()
				d := time.Duration(rng.ExpFloat64() * float64(300*time.Millisecond))
				if rng.IntN(50) == 0 {
					d += time.Duration(rng.IntN(90)) * time.Second
				}
				mu.Unlock()
				time.Sleep(d)
				return rec.Write(ctx, b)
			})
			// The list is read at odd times of the cycle, as with a slow directory.
			late := DiscovererFunc(func(ctx context.Context) ([]Target, error) {
				mu.Lock()
				d := time.Duration(rng.IntN(8000)) * time.Millisecond
				mu.Unlock()
				time.Sleep(d)
				return from(ctx)
			})
			s := newSource(t, late, Config{Interval: 10 * time.Second, MaxBatch: 10 + rng.IntN(30)})
			start(t, s, slow)
			all := map[string][]written{}
			for round := 0; round == 0 || len(all) < 100 && round < 50; round++ { // a host may be missing from many lists
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				for host, jobs := range rec.take() {
					all[host] = append(all[host], jobs...)
				}
			}
			if len(all) != 100 {
				t.Errorf("seed %d, batches of %d: %d hosts were polled, %+v", seed, s.cfg.MaxBatch, len(all), s.Stats())
			}
			for host, jobs := range all {
				for i := 1; i < len(jobs); i++ {
					if d := jobs[i].Scheduled.Sub(jobs[i-1].Scheduled); d < 10*time.Second || d%(10*time.Second) != 0 {
						t.Fatalf("seed %d, %s: two jobs within %v", seed, host, d)
					}
				}
			}
		})
	}
}

// A host that had its turn and leaves the list for a while has not its turn again in the
// same cycle, also if nobody who is left had it.
func TestAHostThatIsBackWaitsForTheNextCycle(t *testing.T) {
	list, _ := tidy(names(10))
	hosts := newSource(t, Static(), Config{}).hosts(list)
	start := time.Unix(0, 0)
	for passed := 1; passed < len(hosts); passed++ {
		var s schedule
		s.replace(hosts, start)
		now := start.Add(phase(hosts[passed-1].place, time.Minute))
		if jobs, _ := s.take(make([]kemi.Job, 0, 100), now); len(jobs) != passed {
			t.Fatalf("%d hosts had their turn, want %d", len(jobs), passed)
		}
		s.replace(hosts[passed:], now) // none of them is left
		s.replace(hosts, now)
		if jobs, _ := s.take(make([]kemi.Job, 0, 100), now); len(jobs) != 0 {
			t.Fatalf("%s has its turn again", jobs[0].Resource)
		}
		for i, want := range []int{len(hosts) - passed, len(hosts)} {
			end := start.Add(time.Duration(i+1)*time.Minute - time.Second)
			if jobs, _ := s.take(make([]kemi.Job, 0, 100), end); len(jobs) != want {
				t.Fatalf("%d jobs to the end of cycle %d, want %d", len(jobs), i, want)
			}
		}
	}
}

// A host that is new is polled within an interval after the list was read, one that
// is gone is polled no more, and the others do not notice.
func TestListChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		list := names(10)
		rec := &recorder{}
		start(t, newSource(t, DiscovererFunc(func(context.Context) ([]Target, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(list), nil
		}), Config{}), rec)
		time.Sleep(3*time.Minute + 30*time.Second)
		synctest.Wait()
		old := rec.take()
		mu.Lock()
		list = append(list[1:], Target{Address: "new"})
		mu.Unlock()
		time.Sleep(30*time.Second + time.Millisecond) // read at minute 4
		rec.take()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		got := rec.take()
		if len(got["web0"]) != 0 || len(got["new"]) != 2 {
			t.Errorf("%d jobs of the host that is gone, %d of the new one", len(got["web0"]), len(got["new"]))
		}
		for _, tt := range list[:9] {
			jobs := got[tt.Address]
			if len(jobs) != 2 || jobs[0].Scheduled.Sub(old[tt.Address][0].Scheduled)%time.Minute != 0 {
				t.Errorf("%s: %v", tt.Address, jobs)
			}
		}
	})
}

// A stop is prompt, and lets a Write under way end.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		s := newSource(t, Static(names(5)...), Config{})
		stop := start(t, s, rec)
		time.Sleep(90 * time.Second)
		before := time.Now()
		stop()
		if d := time.Since(before); d > 0 {
			t.Errorf("stopping took %v", d)
		}
		// Again, and while the list is being read and a Write is under way.
		gate := make(chan struct{})
		rec.set(gate, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- s.Run(ctx, kemi.SinkFunc[kemi.Job](func(_ context.Context, b []kemi.Job) error { return rec.Write(t.Context(), b) }))
		}()
		time.Sleep(time.Minute)
		if err := s.Run(ctx, rec); err == nil {
			t.Error("it ran twice at once")
		}
		cancel()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("Run returned before its Write")
		default:
		}
		close(gate)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An error of the sink ends Run, unless it is about a deadline.
func TestSinkError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		rec := &recorder{err: broken}
		if err := newSource(t, Static(names(1)...), Config{}).Run(t.Context(), rec); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		rec.set(nil, fmt.Errorf("not delivered: %w", context.DeadlineExceeded))
		s := newSource(t, Static(names(1)...), Config{})
		start(t, s, rec)
		time.Sleep(2*time.Minute + 30*time.Second)
		rec.set(nil, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Stale != 2 || st.Jobs != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}
