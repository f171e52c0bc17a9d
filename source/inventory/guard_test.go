package inventory

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// directory is a Discoverer whose answer a test sets.
type directory struct {
	mu    sync.Mutex
	list  []Target
	err   error
	panic string
}

func (d *directory) set(list []Target, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list, d.err = list, err
}

func (d *directory) Targets(context.Context) ([]Target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.panic != "" {
		panic(d.panic)
	}
	return d.list, d.err
}

// guarded runs a source over a directory of 100 hosts for two minutes.
func guarded(t *testing.T, cfg Config) (*directory, *Source, *recorder, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.InfoLevel)
	cfg.Logger = zap.New(core)
	d, rec := &directory{list: names(100)}, &recorder{}
	s := newSource(t, d, cfg)
	start(t, s, rec)
	time.Sleep(2*time.Minute + time.Second)
	synctest.Wait()
	rec.take()
	return d, s, rec, logs
}

// polled lets some minutes pass and returns how many hosts were polled in the last.
func polled(rec *recorder, minutes int) int {
	time.Sleep(time.Duration(minutes-1) * time.Minute)
	synctest.Wait()
	rec.take()
	time.Sleep(time.Minute)
	synctest.Wait()
	return len(rec.take())
}

// A list that cannot be read, is empty, or has lost more than half does not blind
// the watch, and is told of once.
func TestLastGoodListStays(t *testing.T) {
	for name, bad := range map[string]struct {
		list []Target
		err  error
		want string
	}{
		"error":   {nil, errors.New("the directory is down"), "the directory is down"},
		"empty":   {[]Target{}, nil, "0 hosts where there were 100"},
		"nil":     {nil, nil, "0 hosts where there were 100"},
		"shrunk":  {names(49), nil, "49 hosts where there were 100"},
		"too big": {names(300), nil, "300 targets, more than MaxTargets, 200"},
		"all bad": {make([]Target, 100), nil, "0 hosts where there were 100"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, s, rec, logs := guarded(t, Config{MaxTargets: 200})
				logs.TakeAll()
				read := s.Stats().Read
				d.set(bad.list, bad.err)
				if n := polled(rec, 10); n != 100 {
					t.Errorf("%d hosts are polled", n)
				}
				st := s.Stats()
				if !strings.Contains(st.Problem, bad.want) || st.Failed+st.Refused != 10 || st.Targets != 100 || st.Read.After(read.Add(time.Minute)) {
					t.Errorf("stats: %+v", st)
				}
				if l := logs.TakeAll(); len(l) != 1 || l[0].Level != zap.WarnLevel {
					t.Errorf("logged %v", l)
				}
				d.set(names(60), nil)
				if n := polled(rec, 2); n != 60 {
					t.Errorf("%d hosts are polled after a good list", n)
				}
				if st := s.Stats(); st.Problem != "" || st.Targets != 60 {
					t.Errorf("stats: %+v", st)
				}
			})
		})
	}
}

func TestAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, _ := guarded(t, Config{})
		d.set([]Target{}, nil)
		if n := polled(rec, 3); n != 100 {
			t.Fatalf("%d hosts are polled", n)
		}
		s.Accept()
		if n := polled(rec, 2); n != 0 {
			t.Errorf("%d hosts are polled after Accept", n)
		}
		d.set(names(100), nil)
		polled(rec, 2)
		d.set(names(10), nil)
		if n := polled(rec, 2); n != 100 {
			t.Errorf("Accept was good for two lists: %d hosts", n)
		}
		if st := s.Stats(); st.Accepted != 1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// AcceptAfter counts lists that are too short, whatever is on them, and only those that
// come one after another.
func TestAcceptAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, _ := guarded(t, Config{AcceptAfter: 5})
		for round := range 3 {
			for i := range 4 {
				d.set(names(10+i%2), nil) // never the same
				if n := polled(rec, 1); n != 100 {
					t.Fatalf("round %d: %d hosts are polled", round, n)
				}
			}
			d.set(names(100), nil)
			polled(rec, 2)
		}
		if st := s.Stats(); st.Accepted != 0 {
			t.Errorf("accepted, though never five times in a row: %+v", st)
		}
		for i := range 4 {
			d.set(names(20+i), nil)
			if n := polled(rec, 1); n != 100 {
				t.Fatalf("%d hosts are polled after %d readings", n, i+1)
			}
		}
		d.set(names(30), nil)
		if n := polled(rec, 2); n != 30 {
			t.Errorf("%d hosts are polled after 6 readings", n)
		}
		if st := s.Stats(); st.Accepted != 1 || st.Problem != "" {
			t.Errorf("stats: %+v", st)
		}
	})
}

// A list that has lost exactly what it may is good.
func TestMaxShrinkIsAllowed(t *testing.T) {
	for share, left := range map[float64]int{0.5: 50, 0.25: 75} {
		synctest.Test(t, func(t *testing.T) {
			d, s, rec, _ := guarded(t, Config{MaxShrink: share})
			d.set(names(left-1), nil)
			if n := polled(rec, 2); n != 100 {
				t.Errorf("MaxShrink %v: %d hosts are polled, %d would be one too few", share, n, left-1)
			}
			d.set(names(left), nil)
			if n := polled(rec, 2); n != left {
				t.Errorf("MaxShrink %v: %d hosts are polled, want %d: %+v", share, n, left, s.Stats())
			}
		})
	}
}

// A first list without hosts is told of, as it blinds the watch from the start, and
// the next is soon asked for.
func TestFirstListIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		d, rec := &directory{list: []Target{}}, &recorder{}
		s := newSource(t, d, Config{Logger: zap.New(core)})
		start(t, s, rec)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st := s.Stats(); st.Refused != 4 || !strings.Contains(st.Problem, "no hosts") { // after 0, 1, 3 and 7 s
			t.Errorf("stats: %+v", st)
		}
		if logs.Len() != 1 {
			t.Errorf("logged %v", logs.All())
		}
		d.set([]Target{{Address: "noport:x"}}, nil)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st := s.Stats(); st.Refused != 5 || !strings.Contains(st.Problem, "the port is not a number") {
			t.Errorf("what is wrong with the only target is not said: %+v", st)
		}
		d.set([]Target{}, nil)
		s.Accept() // there are none yet, and that is right
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if st := s.Stats(); st.Refused != 5 || st.Accepted != 1 || st.Problem != "" {
			t.Errorf("after Accept: %+v", st)
		}
		d.set(names(3), nil)
		if n := polled(rec, 3); n != 3 {
			t.Errorf("%d hosts polled", n)
		}
	})
}

func TestMaxShrinkOfOneAcceptsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, _ := guarded(t, Config{MaxShrink: 1})
		d.set([]Target{}, nil)
		if n := polled(rec, 2); n != 0 {
			t.Errorf("%d hosts are polled, %+v", n, s.Stats())
		}
	})
}

// Without a first list there is nothing to poll, so it is tried for more often.
func TestFirstListIsTriedForSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, rec := &directory{err: errors.New("down")}, &recorder{}
		s := newSource(t, d, Config{FirstInterval: 2 * time.Second})
		start(t, s, rec)
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if n := s.Stats().Failed; n != 4 { // after 0, 1, 3 and 7 s
			t.Errorf("%d readings in 8 s", n)
		}
		d.set(names(3), nil)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(rec.take()); n != 3 {
			t.Errorf("%d hosts polled", n)
		}
	})
}

func TestPanicOfADiscovererIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, _ := guarded(t, Config{})
		d.mu.Lock()
		d.panic = "oh no"
		d.mu.Unlock()
		if n := polled(rec, 2); n != 100 || !strings.Contains(s.Stats().Problem, "oh no") {
			t.Errorf("%d hosts are polled, %+v", n, s.Stats())
		}
	})
}

// A list given with an error is used, and the error is told.
func TestListBesideAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, _ := guarded(t, Config{})
		d.set(names(101), errors.New("half of it is old"))
		if n := polled(rec, 2); n != 101 || s.Stats().Problem != "half of it is old" {
			t.Errorf("%d hosts are polled, %+v", n, s.Stats())
		}
	})
}

// Duplicates and wrong targets cost themselves alone, and are named.
func TestDuplicatesAndWrongTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, s, rec, logs := guarded(t, Config{})
		logs.TakeAll()
		list := names(100)
		for i := range list {
			list[i].Place = "cmdb:7"
		}
		d.set(append(list,
			Target{Address: "web1:1161", Place: "cmdb:107"}, Target{Address: "10.0.0.9", Resource: "web2"},
			Target{Address: "noport:x"}, Target{Address: "a\xff"}, Target{Address: "x", Interval: -1}, Target{Address: "web200", Place: "cmdb:112"}), nil)
		if n := polled(rec, 2); n != 101 {
			t.Errorf("%d hosts are polled", n)
		}
		st := s.Stats()
		if st.Duplicates != 2 || st.Invalid != 3 || st.Targets != 101 {
			t.Errorf("stats: %+v", st)
		}
		for _, want := range []string{`cmdb:107: host "web1" is there already, at cmdb:7: the first one counts (and 1 more like it)`, `target "noport:x": the port is not a number`, "(and 2 more like it)"} {
			if !strings.Contains(st.Problem, want) {
				t.Errorf("%q is not in %q", want, st.Problem)
			}
		}
		if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
			t.Errorf("%d warnings", n)
		}
	})
}

// Join keeps what a part that fails told last.
func TestJoin(t *testing.T) {
	a, b := &directory{list: names(2)}, &directory{err: errors.New("b is down")}
	j := Join(a, b)
	want := func(n int, errText string) {
		t.Helper()
		got, err := j.Targets(t.Context())
		if len(got) != n || (err == nil) != (errText == "") || err != nil && err.Error() != errText {
			t.Errorf("%d targets, %v; want %d, %q", len(got), err, n, errText)
		}
	}
	want(2, "b is down")
	b.set([]Target{{Address: "db"}}, nil)
	want(3, "")
	a.set(nil, errors.New("a is down"))
	want(3, "a is down")
	a.set(nil, nil) // empty, not unknown
	want(1, "")
	if got, err := Join(&directory{err: errors.New("x")}).Targets(t.Context()); got != nil || err == nil {
		t.Errorf("%v, %v: want nothing known", got, err)
	}
	if got, err := Join().Targets(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Interval: time.Millisecond}, {Interval: -1}, {Interval: 48 * time.Hour}, {FirstInterval: 1}, {MaxShrink: 1.5}, {MaxShrink: -1},
		{MaxTargets: -1}, {AcceptAfter: -1}, {MaxBatch: -1},
	} {
		if _, err := New(Static(), cfg); err == nil || !strings.HasPrefix(err.Error(), "inventory: ") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no error without a Discoverer")
	}
}
