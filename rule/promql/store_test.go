package promql

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/kemi-go/kemi"
)

// TestRingHoldsWhatAListWould compares a ring with a sorted list.
func TestRingHoldsWhatAListWould(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 9))
		limit := 8 + dice.IntN(60)
		var r ring
		var list []sample
		from := millis(0)
		counts := map[fate]int{}
		for now := millis(100); now < 2000; now += millis(dice.IntN(20)) {
			s := sample{now - millis(dice.IntN(1+dice.IntN(150))), dice.Float64()}
			x := extra{}
			if seed%2 == 1 {
				x.st = s.t + 1
			}
			f := r.put(s, x, from, limit)
			counts[f]++
			i, there := slices.BinarySearchFunc(list, s.t, func(a sample, t millis) int { return int(a.t - t) })
			switch {
			case s.t < from:
				if f != late {
					t.Fatalf("%d is before %d: %d", s.t, from, f)
				}
			case there:
				list[i] = s
				if f != replaced {
					t.Fatalf("there was a sample at %d: %d", s.t, f)
				}
			default:
				list = slices.Insert(list, i, s)
			}
			if f == displaced {
				list = list[len(list)-limit:]
			}
			if dice.IntN(20) == 0 {
				from = max(from, now-millis(100+dice.IntN(400)))
				if dice.IntN(2) == 0 {
					r.trim(from)
					r.shrink()
				}
			}
			// The ring may still hold what is not needed any more; it is never asked for it.
			lo, hi := from+millis(dice.IntN(200)), now-millis(dice.IntN(100))
			got, more := r.window(nil, nil, lo, hi)
			want := slices.DeleteFunc(slices.Clone(list), func(s sample) bool { return s.t < lo || s.t > hi })
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: from %d to %d: %v, want %v", seed, lo, hi, got, want)
			}
			for i := range more {
				if more[i].st != got[i].t+1 {
					t.Fatalf("seed %d: the extra of %d is %v", seed, got[i].t, more[i])
				}
			}
			last := r.latest(nil, lo, hi)
			if len(want) > 0 && (len(last) != 1 || last[0] != want[len(want)-1]) || len(want) == 0 && len(last) > 0 {
				t.Fatalf("seed %d: latest from %d to %d: %v, want the last of %v", seed, lo, hi, last, want)
			}
		}
		if counts[stored]+counts[displaced] < 20 {
			t.Fatalf("seed %d: %v", seed, counts)
		}
	}
}

// TestIngestMeetsEvaluation runs everything at once, for the race detector.
func TestIngestMeetsEvaluation(t *testing.T) {
	fsys := fstest.MapFS{"r.yml": {Data: []byte(manyRules)}}
	r, err := New(Config{Files: []string{"r.yml"}, FS: fsys, Delay: -1})
	if err != nil {
		t.Fatal(err)
	}
	other := fstest.MapFS{"r.yml": {Data: []byte(hotAndCold)}}
	ctx := t.Context()
	var lanes, others sync.WaitGroup
	stop := make(chan struct{})
	for lane := range 4 {
		lanes.Go(func() {
			for sec := range 300 {
				var ms []kemi.Metric
				for h := range 5 {
					ls := kemi.LabelsOf("host", fmt.Sprintf("web%d-%d", lane, h+sec/100), "service", "s")
					at := epoch.Add(time.Duration(sec) * time.Second)
					ms = append(ms, kemi.Gauge("cpu", ls, at, float64(sec)), kemi.Counter("octets", ls, at, uint64(sec*100)), kemi.Gauge("x", ls, at, 1))
				}
				if _, err := r.Apply(ctx, nil, ms); err != nil {
					t.Error(err)
				}
			}
		})
	}
	loop := func(f func(i int)) {
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	var told []kemi.Alert
	loop(func(i int) { told, _ = r.Tick(ctx, told, epoch.Add(time.Duration(i)*time.Second)) })
	loop(func(int) { r.Active(); r.Status(); r.Horizon() })
	loop(func(i int) {
		from := []fstest.MapFS{fsys, other}[i%2]
		if err := r.reload(map[string][]byte{"r.yml": from["r.yml"].Data}, nil); err != nil {
			t.Error(err)
		}
	})
	lanes.Wait()
	close(stop)
	others.Wait()
	// 4 lanes x 7 hosts of cpu, octets, and ALERTS of Hot, pending and firing; beside them the
	// average. Which rules came last, and when, decides how many of them are held.
	if s := r.Status().Store; s.Seen != 4*300*15 || s.Series > 4*7*4+1 {
		t.Fatalf("%+v", s)
	}
}

// TestSeriesAreCountedThroughReloads reloads while metrics come in: in the end no
// rule selects them, and none are counted.
func TestSeriesAreCountedThroughReloads(t *testing.T) {
	rules := func(expr string) []byte {
		return []byte(`{groups: [{name: g, interval: 5s, rules: [{alert: A, expr: '` + expr + `'}]}]}`)
	}
	b := newBench(t, string(rules("cpu")))
	ctx := t.Context()
	for round := range 20 {
		var lanes sync.WaitGroup
		for lane := range 4 {
			lanes.Go(func() {
				for i := range 300 {
					at := epoch.Add(time.Duration(i) * 10 * time.Millisecond)
					host := kemi.LabelsOf("host", fmt.Sprint(round, lane, i))
					_, _ = b.rules.Apply(ctx, nil, []kemi.Metric{kemi.Gauge("cpu", host, at, 1), kemi.Gauge(fmt.Sprint("m", i), host, at, 1)})
				}
			})
		}
		for i := range 10 {
			expr := []string{"cpu", "mem", `{__name__=~"m[0-9]+"}`}[i%3]
			if err := b.rules.reload(map[string][]byte{"r.yml": rules(expr)}, nil); err != nil {
				t.Fatal(err)
			}
			b.rules.store.sweep()
		}
		lanes.Wait()
		if err := b.rules.reload(map[string][]byte{"r.yml": rules("other")}, nil); err != nil {
			t.Fatal(err)
		}
		if s := b.rules.Status().Store; s.Series != 0 {
			t.Fatalf("%d series are counted and none are held", s.Series)
		}
	}
}

func TestALooseSelectorSeesANameAfterAnyNumberOfOthers(t *testing.T) {
	b := newBench(t, `{groups: [{name: g, interval: 5s, rules: [{alert: Hot, expr: '{__name__=~"cpu.*"} > 90'}]}]}`)
	b.now = b.now.Add(time.Second)
	junk := func() {
		var ms []kemi.Metric
		for i := range maxMisses + 10 {
			ms = append(ms, gauge(fmt.Sprint("junk_", i), 1))
		}
		b.feed(ms...)
	}
	junk()
	b.run(10*time.Second, every(5*time.Second, "cpu_new", between(0, time.Hour), "web1"))
	b.want("5 Hot firing web1")
	ix := b.rules.store.index.Load()
	cached := func() (n int) {
		ix.byLoose.Range(func(any, any) bool { n++; return true })
		return n
	}
	if n := cached(); n > maxMisses+1 {
		t.Fatalf("%d names are remembered", n)
	}
	// They are forgotten with the next sweeps, and so is a metric without series.
	b.run(10*time.Minute, nil)
	if n := cached(); n > 2 || ix.misses.Load() > 2 { // ALERTS and ALERTS_FOR_STATE
		t.Fatalf("%d names are remembered, %d misses", n, ix.misses.Load())
	}
}

func TestNamesOfRefusedSeriesAreNotHeld(t *testing.T) {
	b := newBench(t, `{groups: [{name: g, interval: 5s, rules: [{alert: Hot, expr: '{__name__=~"cpu.*"} > 90'}]}]}`,
		func(c *Config) { c.MaxSeries = 10 })
	for i := range 100 {
		b.feed(gauge(fmt.Sprint("cpu_", i), 1))
	}
	if s := b.rules.Status().Store; s.Series != 10 || s.Refused != 90 || len(b.rules.store.metrics(b.rules.store.index.Load())) != 10 {
		t.Fatalf("%+v", s)
	}
}

func TestAKnownSeriesCostsNoAllocation(t *testing.T) {
	r := benchRules(t, `cpu > 90`)
	batch := hostsBatch(100, "cpu")
	at := epoch
	feed := func() {
		at = at.Add(15 * time.Second)
		for i := range batch {
			batch[i].Time = at
		}
		r.store.base.Store(at.UnixMilli())
		_, _ = r.Apply(context.Background(), nil, batch)
	}
	for range 200 {
		feed()
	}
	if n := testing.AllocsPerRun(100, feed); n != 0 {
		t.Fatalf("%v allocations a batch", n)
	}
	if s := r.Status().Store; s.Series != 100 {
		t.Fatalf("%+v", s)
	}
}

func TestSelectGivesSeriesInOrder(t *testing.T) {
	e := newEverything()
	dice := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		for _, i := range dice.Perm(200) {
			e.write(labels.FromStrings("__name__", fmt.Sprintf("m%d", i%3), "Z", strconv.Itoa(i%7), "host", strconv.Itoa(i)), sample{1000, 1}, extra{})
		}
		q, _ := e.Querier(0, 2000)
		for _, m := range []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "__name__", "m1"), labels.MustNewMatcher(labels.MatchRegexp, "host", ".*1.*"),
		} {
			set := q.Select(context.Background(), false, nil, m)
			var before labels.Labels
			n := 0
			for ; set.Next(); n++ {
				ls := set.At().Labels()
				if n > 0 && labels.Compare(before, ls) >= 0 {
					t.Fatalf("%v before %v", before, ls)
				}
				before = ls
			}
			if n < 20 {
				t.Fatalf("%d series", n)
			}
		}
		names, _, _ := q.LabelNames(context.Background(), nil)
		hosts, _, _ := q.LabelValues(context.Background(), "host", nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m0"))
		if !slices.Equal(names, []string{"Z", "__name__", "host"}) || len(hosts) != 67 || !slices.IsSorted(hosts) {
			t.Fatalf("names %v, hosts %v", names, hosts)
		}
	}
}
