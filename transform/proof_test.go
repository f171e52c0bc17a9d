package transform_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
)

// ledger proves and keeps what it has seen, by name.
type ledger struct {
	name    string
	version uint64
	seen    uint64
	given   []kemi.Kept
	forks   bool
	refuse  error
}

func (l *ledger) Apply(_ context.Context, dst, src []string) ([]string, error) {
	l.seen += uint64(len(src))
	return append(dst, src...), nil
}

func (l *ledger) Fork() kemi.Transform[string, string] {
	if !l.forks {
		return nil
	}
	fork := *l
	return &fork
}

func (l *ledger) Proof() kemi.Proof { return kemi.Proof{Version: l.version, Hash: l.seen} }

func (l *ledger) Keep(dst []kemi.Kept) []kemi.Kept {
	return append(dst, kemi.Kept{Key: l.name, Value: fmt.Append(nil, l.seen)})
}

func (l *ledger) Restore(kept []kemi.Kept) error {
	l.given = append(l.given, kept...)
	return l.refuse
}

var _ = [...]any{kemi.Prover(&ledger{}), kemi.Keeper(&ledger{})}

func plainString(s string) string { return s }

func kept(t kemi.Transform[string, string]) (keys []string) {
	for _, e := range t.(kemi.Keeper).Keep([]kemi.Kept{{Key: "before"}}) {
		keys = append(keys, e.Key+"="+string(e.Value))
	}
	return keys
}

func TestAChainWithoutProversSaysNothing(t *testing.T) {
	c := transform.Chain(transform.Map(plainString), transform.Filter(func(string) bool { return true }))
	if p := c.(kemi.Prover).Proof(); p != (kemi.Proof{}) {
		t.Errorf("it proves %v", p)
	}
	if got := kept(c); !slices.Equal(got, []string{"before="}) {
		t.Errorf("it keeps %q", got)
	}
	if err := c.(kemi.Keeper).Restore(nil); err != nil {
		t.Error(err)
	}
}

func TestTheProofOfAChainIsThatOfAllItsParts(t *testing.T) {
	made := func(a, b uint64, version uint64) kemi.Proof {
		return transform.Chain[string](
			&ledger{version: 1, seen: a}, transform.Map(plainString), &ledger{version: version, seen: b},
		).(kemi.Prover).Proof()
	}
	first := made(1, 2, 7)
	if first != made(1, 2, 7) {
		t.Error("the same parts prove something else")
	}
	for _, other := range []kemi.Proof{made(2, 1, 7), made(1, 3, 7), made(0, 2, 7), made(1, 0, 7), made(0, 0, 7)} {
		if other.Version != first.Version || other.Hash == first.Hash {
			t.Errorf("another state proves %v, and the first %v", other, first)
		}
	}
	if other := made(1, 2, 8); other.Version == first.Version {
		t.Error("another version of a part is the same version of the chain")
	}
	if other := made(1, 0, 0); other.Version == first.Version {
		t.Error("a part that says nothing is compared with one that does")
	}
}

func TestAChainKeepsUnderThePlaceOfEachPart(t *testing.T) {
	a, b, c := &ledger{name: "x", seen: 1}, &ledger{name: "x", seen: 2}, &ledger{name: "y", seen: 3}
	chain := transform.Chain[string](a, transform.Map(plainString), b, c)
	if got := kept(chain); !slices.Equal(got, []string{"before=", "1/1/x=1", "1/2/x=2", "2/y=3"}) {
		t.Fatalf("kept %q", got)
	}
	err := chain.(kemi.Keeper).Restore([]kemi.Kept{{Key: "1/1/x"}, {Key: "2/y"}, {Key: "1/2/x"}, {Key: "1/2/z"}, {Key: "gone"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.given) != 1 || len(b.given) != 2 || len(c.given) != 1 || a.given[0].Key != "x" || b.given[1].Key != "z" || c.given[0].Key != "y" {
		t.Errorf("restored %v, %v and %v", a.given, b.given, c.given)
	}
	if got := kept(chain); !slices.Equal(got, []string{"before=", "gone=", "1/1/x=1", "1/2/x=2", "2/y=3"}) {
		t.Errorf("what nobody keeps any more is to be forgotten: kept %q", got)
	}
}

// TestAStageBeforeAKeeperChangesNoKey: who puts one before the rules wants them to
// remember.
func TestAStageBeforeAKeeperChangesNoKey(t *testing.T) {
	l := &ledger{name: "x"}
	chain := transform.Then(transform.Map(plainString), transform.Then(l, transform.Map(plainString)))
	if got := kept(chain); !slices.Equal(got, []string{"before=", "x=0"}) {
		t.Errorf("kept %q", got)
	}
	if err := chain.(kemi.Keeper).Restore([]kemi.Kept{{Key: "x"}}); err != nil || len(l.given) != 1 {
		t.Errorf("restored %v, %v", l.given, err)
	}
	l.refuse = errors.New("no")
	if err := chain.(kemi.Keeper).Restore([]kemi.Kept{{Key: "x"}}); !errors.Is(err, l.refuse) {
		t.Errorf("got %v", err)
	}
}

// TestForksOfAChainKeepWhatTheyShareOnce: and they do not prove it, since it has seen
// the input of all of them.
func TestForksOfAChainKeepWhatTheyShareOnce(t *testing.T) {
	l := &ledger{name: "shared", version: 1}
	chain := transform.Then[string, string, string](&ledger{name: "own", version: 1, forks: true}, l)
	first, second := chain.(kemi.Forker[string, string]).Fork(), chain.(kemi.Forker[string, string]).Fork()
	before := first.(kemi.Prover).Proof()
	if _, err := second.Apply(t.Context(), nil, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if l.seen != 2 {
		t.Fatalf("%d seen", l.seen)
	}
	if after := first.(kemi.Prover).Proof(); after != before {
		t.Errorf("the proof of a lane depends on another lane")
	}
	if before == second.(kemi.Prover).Proof() {
		t.Error("a lane does not prove what it has itself")
	}
	if got := kept(first); !slices.Equal(got, []string{"before=", "1/own=0", "2/shared=2"}) {
		t.Errorf("the first keeps %q", got)
	}
	if got := kept(second); !slices.Equal(got, []string{"before=", "1/own=2"}) {
		t.Errorf("the second keeps %q", got)
	}
	if err := second.(kemi.Keeper).Restore([]kemi.Kept{{Key: "2/shared"}}); err != nil || len(l.given) != 1 {
		t.Errorf("restored %v, %v", l.given, err)
	}
}

// TestAChainInALogIsProved asks the way a bus does.
func TestAChainInALogIsProved(t *testing.T) {
	l := &ledger{name: "x", version: 3, forks: true}
	src := kemi.SourceFunc[string](func(ctx context.Context, out kemi.Sink[string]) error {
		lane := kemi.OpenLane(out, "0", kemi.SourceTicks())
		defer func() { _ = lane.Close() }()
		if err := lane.Write(ctx, []string{"a"}); err != nil {
			return err
		}
		p := lane.Proof()
		if p.Hash == 0 || lane.Prove(p) != nil || lane.Prove(kemi.Proof{Version: p.Version, Hash: p.Hash + 1}) == nil {
			t.Errorf("proof %v", p)
		}
		if got := lane.Keep(nil); len(got) != 1 || got[0].Key != "x" {
			t.Errorf("kept %v", got)
		}
		return nil
	})
	via := transform.Then[string, string, string](transform.Map(plainString), l)
	to := kemi.SinkFunc[string](func(context.Context, []string) error { return nil })
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("f", src, via, to)}}).Run(ctx); err != nil {
		t.Fatal(err)
	}
}
