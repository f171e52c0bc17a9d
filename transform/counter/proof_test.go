package counter_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
	"github.com/kemi-go/kemi/transform/counter"
	"github.com/kemi-go/kemi/transform/transformtest"
)

var (
	_ kemi.Prover              = (*counter.Rates)(nil)
	_ kemi.Ticker[kemi.Metric] = (*counter.Rates)(nil)
)

// logOf makes a log of any input: the polls of a walk, in which hosts have clocks that
// are wrong by an hour or a day, fall silent, are started anew, stand still, and send
// what is late or was sent before. at is when each batch was appended.
func logOf(rng *rand.Rand, rounds int) (batches [][]kemi.Metric, at []time.Time) {
	skew := map[string]time.Duration{"h0": 0, "h1": time.Hour, "h2": -25 * time.Hour}
	if rng.IntN(2) == 0 {
		skew["h1"] = -time.Hour
	}
	silent := map[string]time.Time{}
	stuck := map[string]bool{}
	var held [][]kemi.Metric
	now := start
	for _, p := range walk(rng, rounds, rng.IntN(2) == 0) {
		host, t := p[0].Host(), p[0].Time
		if d := t.Sub(now); d > 0 {
			now = t
		}
		if now.Before(silent[host]) {
			continue
		}
		switch rng.IntN(40) {
		case 0:
			silent[host] = now.Add(time.Duration(rng.IntN(1500)) * time.Second)
		case 1:
			stuck[host] = !stuck[host] // its clock stands still
		}
		by := skew[host]
		if stuck[host] {
			by += start.Sub(t)
		}
		p = shifted(p, by)
		batches, at = append(batches, p), append(at, now)
		if rng.IntN(8) == 0 {
			held = append(held, p)
		}
		// Now and then what was there before comes again, changed or not, up to half an
		// hour late.
		for len(held) > 0 && rng.IntN(6) == 0 {
			i := rng.IntN(len(held))
			batches, at = append(batches, shifted(held[i], -time.Duration(rng.IntN(3))*30*time.Second)), append(at, now)
			if rng.IntN(2) == 0 || len(held) > 20 {
				held = append(held[:i:i], held[i+1:]...)
			}
		}
	}
	return batches, at
}

func shifted(p []kemi.Metric, by time.Duration) []kemi.Metric {
	out := make([]kemi.Metric, len(p))
	for i, m := range p {
		m.Time = m.Time.Add(by)
		out[i] = m
	}
	return out
}

// TestAReplayGivesTheSameState is the suite's check of a Prover, over input that is
// made to confuse: what is known of a series must never depend on what lies before the
// horizon, be it by a chain of readings that were late or came twice.
func TestAReplayGivesTheSameState(t *testing.T) {
	for seed := range rounds(12) {
		rng := rand.New(rand.NewPCG(seed, 9))
		batches, at := logOf(rng, 60)
		config := counter.Config{KeepCounters: true, Deltas: true, Drops: true}
		if seed%3 == 0 {
			config.MaxGap = 2 * time.Minute
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			transformtest.Prove(t, transformtest.Harness[kemi.Metric, kemi.Metric]{
				New:        func() kemi.Transform[kemi.Metric, kemi.Metric] { return newRates(t, config) },
				Batches:    batches,
				AppendedAt: func(i int) time.Time { return at[i] },
			})
		})
	}
}

func TestTheProofOfAChainOfRates(t *testing.T) {
	batches, at := logOf(rand.New(rand.NewPCG(1, 10)), 60)
	transformtest.Prove(t, transformtest.Harness[kemi.Metric, kemi.Metric]{
		New: func() kemi.Transform[kemi.Metric, kemi.Metric] {
			return transform.Chain(transform.Filter(func(m kemi.Metric) bool { return m.Name != "seconds" }),
				kemi.Transform[kemi.Metric, kemi.Metric](newRates(t, counter.Config{})), transform.Map(func(m kemi.Metric) kemi.Metric { return m }))
		},
		Batches:    batches,
		AppendedAt: func(i int) time.Time { return at[i] },
	})
}

// TestTheProofIsOfTheState: the order in which hosts come does not matter, and any
// number that matters does.
func TestTheProofIsOfTheState(t *testing.T) {
	host := func(name string, v uint64) []kemi.Metric {
		l := kemi.LabelsOf("host", name)
		return poll(kemi.Counter("c", l, at(0), v), kemi.Gauge("agent_uptime_seconds", l, at(0), float64(v)),
			kemi.Gauge("if_speed_bits", l, at(0), float64(v)))
	}
	proof := func(polls ...[]kemi.Metric) kemi.Proof {
		r := newRates(t, counter.Config{})
		feed(t, r, polls...)
		return r.Proof()
	}
	want := proof(host("a", 1), host("b", 2))
	if got := proof(host("b", 2), host("a", 1)); got != want {
		t.Errorf("in another order the proof is %v, want %v", got, want)
	}
	seen := map[uint64]string{want.Hash: "the first"}
	for what, other := range map[string][][]kemi.Metric{
		"nothing": {}, "one host": {host("a", 1)}, "exchanged": {host("a", 2), host("b", 1)}, "another host": {host("a", 1), host("c", 2)},
		"no uptime":    {host("a", 1)[:1], host("b", 2)},
		"another time": {shifted(host("a", 1), 1), host("b", 2)}, "another reading": {host("a", 1), host("b", 2), shifted(host("b", 3), 1)},
		"another speed": {host("a", 1), append(host("b", 2)[:2:2], host("b", 3)[2])},
	} {
		p := proof(other...)
		if before, twice := seen[p.Hash]; twice || p.Version != want.Version {
			t.Errorf("%s: %v, as %s", what, p, before)
		}
		seen[p.Hash] = what
	}
	for _, c := range []counter.Config{{MaxGap: time.Hour}, {Uptime: "x"}, {Limits: map[string]counter.Limit{"x": {Max: 1}}}} {
		if newRates(t, c).Proof().Version == want.Version {
			t.Errorf("%+v has the same version", c)
		}
	}
}

// TestTicksForgetAllKinds: also the references and the uptime of a host.
func TestTicksForgetAllKinds(t *testing.T) {
	batches, at := logOf(rand.New(rand.NewPCG(3, 11)), 30)
	r := newRates(t, counter.Config{}).Fork().(*counter.Rates)
	for i, b := range batches {
		if _, err := r.Tick(t.Context(), nil, at[i]); err != nil {
			t.Fatal(err)
		}
		feed(t, r, b)
	}
	if r.Proof().Hash == 0 {
		t.Fatal("nothing is known")
	}
	end := at[len(at)-1]
	for i := range int(r.Horizon() / time.Second) {
		if _, err := r.Tick(t.Context(), nil, end.Add(time.Duration(i+1)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if h := r.Proof().Hash; h != 0 {
		t.Errorf("%x is left", h)
	}
}
