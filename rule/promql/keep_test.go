package promql

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// lastingRules have alerts that last for longer than the horizon, go on from one short
// time to the next, look at each other and at themselves, and are too many for a limit.
const lastingRules = manyRules + `
- name: lasting
  interval: 5s
  rules:
  - {alert: Warm, expr: 'service:cpu:avg > 20', for: 1m, labels: {severity: low}, annotations: {v: '{{ $value }}'}}
  - {alert: Sticky, expr: 'cpu > 60', for: 10s, keep_firing_for: 20s}
  - {alert: Old, expr: 'ALERTS_FOR_STATE{alertname="Warm"} * 0 + time() - ALERTS_FOR_STATE{alertname="Warm"} > 100'}
  - {record: 'ever', expr: 'max(cpu) > max(ever) or max(ever) or max(cpu)'}
  - {alert: Ever, expr: 'ever > 99'}
  - {alert: Silent, expr: 'absent(cpu{host="web07"})'}
- name: few
  interval: 10s
  limit: 2
  rules:
  - {alert: Few, expr: 'cpu > 50'}
`

func rulesOfText(t testing.TB, text string, files ...string) *Rules {
	t.Helper()
	fsys := fstest.MapFS{"r.yml": {Data: []byte(text)}}
	for i := 0; i+1 < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	r, err := New(Config{Files: []string{"*.yml"}, FS: fsys, Lookback: 30 * time.Second, MaxAhead: 20 * time.Second, Delay: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// logReader feeds rules as the lanes of a topic do: its partitions at their own pace, but
// none beyond a tick before the others have come to it. A step is what was appended
// after one tick and before the next.
type logReader struct {
	t     testing.TB
	rules *Rules
	dice  *rand.Rand
	kept  map[string][]byte
	told  []kemi.Alert
}

func (p *logReader) tick(now time.Time) {
	p.t.Helper()
	out, err := p.rules.Tick(context.Background(), nil, now)
	if err != nil {
		p.t.Fatal(err)
	}
	p.told = append(p.told, out...)
}

// feed gives what hosts have sent, in batches of one host, the hosts by turns at random:
// only the order of a host is that of the log.
func (p *logReader) feed(ms []kemi.Metric) {
	p.t.Helper()
	byHost := map[string][]kemi.Metric{}
	for _, m := range ms {
		byHost[m.Host()] = append(byHost[m.Host()], m)
	}
	hosts := slices.Sorted(maps.Keys(byHost))
	for len(hosts) > 0 {
		i := p.dice.IntN(len(hosts))
		q := byHost[hosts[i]]
		n := 1 + p.dice.IntN(len(q))
		if _, err := p.rules.Apply(context.Background(), nil, q[:n]); err != nil {
			p.t.Fatal(err)
		}
		if byHost[hosts[i]] = q[n:]; n == len(q) {
			hosts = slices.Delete(hosts, i, i+1)
		}
	}
}

func (p *logReader) keep() {
	for _, e := range p.rules.Keep(nil) {
		if e.Value == nil {
			if _, there := p.kept[e.Key]; !there {
				p.t.Errorf("%s is forgotten and was never kept", e.Key)
			}
			delete(p.kept, e.Key)
		} else {
			p.kept[e.Key] = e.Value
		}
	}
}

func keptOf(m map[string][]byte) (kept []kemi.Kept) {
	for k, v := range m {
		kept = append(kept, kemi.Kept{Key: k, Value: v})
	}
	return kept
}

// second is what a log has for one tick and what follows it.
type second struct {
	tick    time.Time
	metrics []kemi.Metric
}

// secondsOf brings steps into the form of a log: a tick and what comes after it. Hours
// in which nothing was appended, since nobody ran, are left out at random.
func secondsOf(steps []step) (log []second) {
	for _, s := range steps {
		if !s.tick.IsZero() || len(log) == 0 {
			tick := s.tick
			if tick.IsZero() {
				tick = epoch
			}
			log = append(log, second{tick: tick.Truncate(time.Second)})
		}
		last := &log[len(log)-1]
		last.metrics = append(last.metrics, s.metrics...)
	}
	return log
}

// restarts stops rules at any moment of an input, builds the state again from a horizon of
// the log and what was kept, and goes on.
func restarts(t *testing.T, text string, seed uint64, times int) (told []kemi.Alert, proofs int) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 7))
	log := secondsOf(inputOf(dice, 900))
	live := &logReader{t: t, rules: rulesOfText(t, text), dice: dice, kept: map[string][]byte{}}
	type moment struct {
		proof kemi.Proof
		kept  map[string][]byte
		told  int
	}
	var moments []moment
	for _, s := range log {
		live.tick(s.tick)
		m := moment{proof: live.rules.Proof()}
		live.feed(s.metrics)
		live.keep()
		m.kept, m.told = maps.Clone(live.kept), len(live.told)
		moments = append(moments, m)
	}
	horizon := live.rules.Horizon()
	for range times {
		cut := len(log)/4 + dice.IntN(len(log)*3/4)
		was := moments[cut]
		from := 0
		for i := range cut {
			if !log[i].tick.After(log[cut].tick.Add(-horizon)) {
				from = i
			}
		}
		again := &logReader{t: t, rules: rulesOfText(t, text), dice: dice, kept: maps.Clone(was.kept)}
		var is kemi.Proof
		for _, s := range log[from : cut+1] {
			again.tick(s.tick)
			is = again.rules.Proof()
			again.feed(s.metrics)
		}
		if is != was.proof {
			t.Fatalf("seed %d: from %d to %d the proof is %x, and was %x", seed, from, cut, is, was.proof)
		}
		if is.Hash != 0 {
			proofs++
		}
		if err := again.rules.Restore(keptOf(was.kept)); err != nil {
			t.Fatal(err)
		}
		again.told = nil
		for i, s := range log[cut+1:] {
			again.tick(s.tick)
			if p := again.rules.Proof(); p != moments[cut+1+i].proof {
				t.Fatalf("seed %d: restarted at %d, from %d, the proof at %d is another", seed, cut, from, cut+1+i)
			}
			again.feed(s.metrics)
			again.keep()
		}
		sameAlerts(t, fmt.Sprintf("seed %d: restarted at %d of %d, from %d", seed, cut, len(log), from), again.told, live.told[was.told:])
		if got, want := again.kept, moments[len(moments)-1].kept; !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("seed %d: restarted at %d, what is kept in the end is\n%q\nwant\n%q", seed, cut, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
	return live.told, proofs
}

// TestARestartShowsNowhere: what is told after a stop is what would have been told
// without it, to the last annotation: an alert that fires goes on to fire, is not told
// twice, and is resolved once.
func TestARestartShowsNowhere(t *testing.T) {
	proofs, told := 0, map[string]int{}
	for seed := range rounds(3) {
		as, n := restarts(t, lastingRules, seed, 8)
		proofs += n
		for _, a := range as {
			told[a.Rule]++
		}
	}
	if least := int(6 * rounds(3)); proofs < least {
		t.Errorf("only %d proofs were compared", proofs)
	}
	for _, rule := range []string{"Hot", "Lost", "Traffic", "Busy", "Warm", "Sticky", "Old", "Few", "Silent", "Ever"} {
		if told[rule] == 0 && !conform.RaceDetector {
			t.Errorf("%s is never told: it is not tried", rule)
		}
	}
}

// TestTheHorizonOfEachRuleIsEnough is the same with one rule at a time, or two, whose
// horizon is not made longer by others.
func TestTheHorizonOfEachRuleIsEnough(t *testing.T) {
	for i, rules := range []string{
		"{alert: A, expr: 'cpu > 50'}",
		"{alert: A, expr: 'cpu > 50', for: 20s}",
		"{alert: A, expr: 'cpu > 70', keep_firing_for: 20s}",
		"{alert: A, expr: 'cpu > 60', for: 10s, keep_firing_for: 20s}",
		"{alert: A, expr: 'sum(sum_over_time(cpu[20s])) > 1500', for: 10s}",
		"{alert: A, expr: 'sum(rate(octets[30s] offset 10s)) > 900'}",
		"{alert: A, expr: 'absent(cpu{host=\"web03\"}) or absent(cpu{host=\"web06\"})'}",
		"{record: r, expr: 'sum(cpu)'}\n  - {alert: A, expr: 'avg_over_time(r[30s]) > 550', for: 10s}",
		"{alert: A, expr: 'cpu > 50', for: 10s}\n  - {alert: B, expr: 'count(count_over_time(ALERTS{alertstate=\"firing\"}[20s])) > 4'}",
		"{alert: A, expr: 'cpu > 50', for: 10s}\n  - {alert: B, expr: 'time() - max(ALERTS_FOR_STATE) > 20'}",
	} {
		told, _ := restarts(t, "groups:\n- name: g\n  interval: 5s\n  rules:\n  - "+rules+"\n", uint64(100+i), int(rounds(8)))
		if len(told) < 4 {
			t.Errorf("%s tells %d alerts", rules, len(told))
		}
	}
}
