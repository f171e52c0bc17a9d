package recovery

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// TestAPositionRightBehindATick takes positions at every moment, not only after Feed. A
// tick that was delivered before the record it belongs to is part of the state then,
// and is not delivered again.
func TestAPositionRightBehindATick(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	in := input(rnd, 400)
	via := &differences{keep: 20 * time.Second}

	// run reads from a position on, and tells of the position at each Write of the sink.
	var lane *Lane[reading]
	run := func(pos *Position, counts *Counts, write func(l *Lane[reading], batch []reading)) {
		src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
			l := Open(out, Config[reading]{Topic: "in", Reader: "r", Find: find, Counts: counts})
			from, err := l.Begin(ctx, pos, nil, in[0].Offset)
			if err != nil {
				return err
			}
			i := 0
			for in[i].Offset < from {
				i++
			}
			lane = l
			return l.Feed(ctx, in[i:], in[len(in)-1].Offset+1)
		})
		to := kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
			write(lane, batch)
			return nil
		})
		if err := (&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe[reading, reading]("f", src, via, to)}}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	type moment struct {
		pos  Position
		done int // records written before
	}
	var moments []moment
	total := 0
	run(nil, new(Counts), func(l *Lane[reading], batch []reading) {
		if pos, _ := l.Position(); pos.Next > 0 {
			moments = append(moments, moment{pos, total})
		}
		total += len(batch)
	})
	behind := 0
	for _, m := range moments {
		counts, again := new(Counts), 0
		run(&m.pos, counts, func(_ *Lane[reading], batch []reading) { again += len(batch) })
		if counts.Mismatched.Load() > 0 || m.done+again != total {
			t.Fatalf("from %+v: %d mismatches, %d records, want %d", m.pos, counts.Mismatched.Load(), again, total-m.done)
		}
		if m.pos.Clock.After(time.Time{}) && counts.Proved.Load() > 0 {
			behind++
		}
	}
	if behind < 10 {
		t.Errorf("only %d of %d moments had a replay", behind, len(moments))
	}
}
