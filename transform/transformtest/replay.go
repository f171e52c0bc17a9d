package transformtest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/conform"
)

// replayed is a transform that is fed from a log, see Harness.AppendedAt.
type replayed[In, Out any] struct {
	*run[In, Out]
	t      kemi.Transform[In, Out]
	shared bool      // by all lanes: it is asked for its proof after ticks only
	clock  time.Time // of the last tick
	last   kemi.Proof
}

func (p *replayed[In, Out]) at(i int) time.Time {
	if p.AppendedAt != nil {
		return p.AppendedAt(i).Truncate(time.Second)
	}
	return p.TickAt(i).Truncate(time.Second)
}

// play feeds batch i, with the tick before it.
func (p *replayed[In, Out]) play(i int) []Out {
	var out []Out
	if t := p.at(i); t.After(p.clock) {
		out = p.tickTo(out, t)
	}
	return p.apply(p.t, out, slices.Clone(p.Batches[i]))
}

func (p *replayed[In, Out]) tickTo(dst []Out, t time.Time) []Out {
	p.clock = t
	if k, ok := p.t.(kemi.Ticker[Out]); ok {
		dst = p.tick(k, dst, t)
	}
	p.last = p.proof()
	return dst
}

func (p *replayed[In, Out]) proof() kemi.Proof {
	if pr, ok := p.t.(kemi.Prover); ok {
		return pr.Proof()
	}
	return kemi.Proof{}
}

// told is the proof that goes with a position.
func (p *replayed[In, Out]) told() kemi.Proof {
	if p.shared {
		return p.last
	}
	return p.proof()
}

func (p *replayed[In, Out]) keep(kept map[string][]byte) {
	k, ok := p.t.(kemi.Keeper)
	if !ok {
		return
	}
	for _, e := range k.Keep(nil) {
		if e.Value == nil {
			delete(kept, e.Key)
		} else {
			kept[e.Key] = slices.Clone(e.Value)
		}
	}
}

// Prove is the check of [Run] that is about a Prover and a Keeper, by itself: for
// inputs that are made to confuse, and many of them. Only New, Batches and AppendedAt of
// h are looked at.
func Prove[In, Out any](tb testing.TB, h Harness[In, Out]) {
	tb.Helper()
	check[In, Out]{"", provesReplay[In, Out]}.run(tb, func(testing.TB) Harness[In, Out] { return h })
}

// cuts is after how many batches a replay is tried.
const cuts = 40

// provesReplay stops after some batch, as a crash does, and builds the state again
// from a horizon of input. The proof has to be what it was, and so has the output
// after it, once the state that was kept is restored.
func provesReplay[In, Out any](r *run[In, Out]) {
	open := func() *replayed[In, Out] {
		t := r.New()
		if f, ok := t.(kemi.Forker[In, Out]); ok {
			if fork := f.Fork(); fork != nil {
				return &replayed[In, Out]{run: r, t: fork}
			}
		}
		return &replayed[In, Out]{run: r, t: t, shared: true}
	}
	live := open()
	_, proves := live.t.(kemi.Prover)
	_, keeps := live.t.(kemi.Keeper)
	if !proves && !keeps {
		r.Skip("neither a Prover nor a Keeper")
	}
	type moment struct {
		clock time.Time
		proof kemi.Proof
		kept  map[string][]byte
		out   []Out
	}
	var moments []moment
	kept := map[string][]byte{}
	hashes := map[uint64]bool{}
	for i := range r.Batches {
		m := moment{out: live.play(i)}
		m.clock, m.proof = live.clock, live.told()
		live.keep(kept)
		m.kept = maps.Clone(kept)
		hashes[m.proof.Hash] = true
		moments = append(moments, m)
	}
	silent := len(hashes) == 1 && moments[0].proof == (kemi.Proof{})
	if silent && len(kept) == 0 {
		r.Skip("it proves and keeps nothing")
	}
	if !silent && len(hashes) == 1 {
		r.Errorf("Proof has one Hash for every state: it tells nothing apart")
	}
	var horizon time.Duration
	if w, ok := live.t.(kemi.Warmer); ok {
		horizon = w.Horizon()
	}
	dice := rand.New(rand.NewPCG(1, 1))
	at := dice.Perm(len(r.Batches) - 1)
	slices.Sort(at[:min(len(at), cuts)])
	for _, cut := range at[:min(len(at), cuts)] {
		was := moments[cut]
		for _, slack := range []time.Duration{0, 15 * time.Second} {
			// From the last tick on that lies far enough back. The lane hears its time.
			from, need := 0, was.clock.Add(-horizon-slack)
			for i := 1; i <= cut; i++ {
				if !live.at(i).After(need) && live.at(i).After(live.at(i-1)) {
					from = i
				}
			}
			again := open()
			if from > 0 {
				again.tickTo(nil, live.at(from))
			}
			for i := from; i <= cut; i++ {
				again.play(i)
			}
			if is := again.told(); is != was.proof && (is != kemi.Proof{}) && (was.proof != kemi.Proof{}) {
				r.Errorf("after a replay of batches %d to %d, the horizon being %v, the proof is %x, and was %x: "+
					"the state depends on something else than the input of its horizon", from, cut, horizon, is, was.proof)
				return
			}
			if k, ok := again.t.(kemi.Keeper); ok && len(was.kept) > 0 {
				again.keep(map[string][]byte{}) // a replay keeps nothing
				var kept []kemi.Kept
				for _, key := range slices.Sorted(maps.Keys(was.kept)) {
					kept = append(kept, kemi.Kept{Key: key, Value: slices.Clone(was.kept[key])})
				}
				if err := k.Restore(kept); err != nil {
					r.Errorf("Restore of what was kept after batch %d: %v", cut, err)
					return
				}
			}
			for i := cut + 1; i < len(r.Batches); i++ {
				if diff := conform.Diff(moments[i].out, again.play(i)); diff != "" {
					r.Errorf("after a replay of batches %d to %d, the horizon being %v, what comes of batch %d is something else: %s", from, cut, horizon, i, diff)
					return
				}
			}
		}
	}
}
