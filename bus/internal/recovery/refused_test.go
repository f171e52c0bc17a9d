package recovery

import (
	"context"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// TestADeadLetterIsNotADuplicate takes the position at the moment before an unreadable
// record is in the dead letters: whoever goes on from there has to bring it there.
func TestADeadLetterIsNotADuplicate(t *testing.T) {
	good, _ := lines{}.AppendBatch(nil, []reading{{"h", 1}})
	stamp := func(seq origin.Seq) origin.Stamp {
		return origin.Stamp{Source: origin.Source{Reader: "a@b"}, Seq: seq}
	}
	in := []Entry{
		{Offset: 0, Time: time.Unix(1, 0), Codec: "lines/1", Value: good, Stamp: stamp(2)},
		{Offset: 1, Time: time.Unix(1, 0), Codec: "lines/1", Value: []byte("h"), Stamp: stamp(4)},
		{Offset: 2, Time: time.Unix(1, 0), Codec: "lines/1", Value: good, Stamp: stamp(6)},
	}
	var pos *Position
	for _, life := range []string{"the one that dies", "the next"} {
		var lane *Lane[reading]
		letters, first := 0, pos == nil
		src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
			lane = Open(out, Config[reading]{Topic: "in", Reader: "r", Find: find})
			if _, err := lane.Begin(ctx, pos, nil, 0); err != nil {
				return err
			}
			return lane.Feed(ctx, in, 3)
		})
		p := &kemi.Pipeline{
			Flows: []*kemi.Flow{kemi.Connect[reading]("f", src, kemi.SinkFunc[reading](func(context.Context, []reading) error { return nil }))},
			DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, ds []kemi.DeadLetter) error {
				if letters += len(ds); first {
					now, _ := lane.Position()
					pos = reread(t, &now)
				}
				return nil
			}),
		}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if letters != 1 {
			t.Errorf("%s brings %d letters", life, letters)
		}
		if end, _ := lane.Position(); !first && (end.Next != 3 || len(end.Marks) != 1 || end.Marks[0].Seq != 6) {
			t.Errorf("%s ends at %+v", life, end)
		}
	}
	if pos.Next != 1 {
		t.Errorf("the position before the letter is %+v", pos)
	}
}
