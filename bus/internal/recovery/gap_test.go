package recovery

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/origin"
)

// TestAWriteThatFailedInItsMiddleLeavesNothingOut: of the records 1, 2 and 3 of one
// source the second is not there at first, and then all of them are written again.
func TestAWriteThatFailedInItsMiddleLeavesNothingOut(t *testing.T) {
	made := origin.Source{Reader: "raw@calc", Partition: 3}
	record := func(offset int64, n, after int) Entry {
		e := Entry{
			Offset: offset, Time: time.Unix(1000, 0), Codec: (lines{}).Name(), Value: fmt.Appendf(nil, "h %d\n", n),
			Stamp: origin.Stamp{Source: made, Seq: origin.Seq(n)},
		}
		if after > 0 {
			e.After = origin.Stamp{Source: made, Seq: origin.Seq(after)}
		}
		return e
	}
	for _, c := range []struct {
		name  string
		pos   *Position
		first int64
		log   []Entry
		want  []int
		gaps  uint64
	}{
		{"a gap", nil, 0, []Entry{record(0, 1, 0), record(1, 3, 2), record(2, 1, 0), record(3, 2, 1), record(4, 3, 2)}, []int{1, 2, 3}, 1},
		{"at the very beginning", nil, 0, []Entry{record(0, 3, 2), record(1, 2, 0), record(2, 3, 2)}, []int{2, 3}, 1},
		{"none", nil, 0, []Entry{record(0, 1, 0), record(1, 2, 1), record(2, 2, 0), record(3, 3, 2)}, []int{1, 2, 3}, 0},
		{"the log has lost its beginning", nil, 7, []Entry{record(7, 3, 2), record(8, 4, 3)}, []int{3, 4}, 0},
		{"the log has lost what nobody read", &Position{Next: 2, Rewind: 2, Marks: marks{{Source: made, Seq: 1}}}, 7,
			[]Entry{record(7, 3, 2), record(8, 4, 3)}, []int{3, 4}, 0},
		{"somebody has set the position into the middle of a Write", &Position{Next: 7, Rewind: 7, Torn: true}, 0,
			[]Entry{record(7, 3, 2), record(8, 4, 3), record(9, 6, 5), record(10, 5, 4), record(11, 6, 5)}, []int{3, 4, 5, 6}, 1},
	} {
		var got []int
		var counts Counts
		out := kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
			for _, r := range batch {
				got = append(got, r.N)
			}
			return nil
		})
		l := Open(out, Config[reading]{Topic: "t", Reader: "r", Find: find, Counts: &counts})
		if _, err := l.Begin(t.Context(), c.pos, nil, c.first); err != nil {
			t.Fatal(err)
		}
		if err := l.Feed(t.Context(), c.log, c.log[len(c.log)-1].Offset+1); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if !slices.Equal(got, c.want) || counts.Gaps.Load() != c.gaps {
			t.Errorf("%s: got %v with %d gaps, want %v with %d", c.name, got, counts.Gaps.Load(), c.want, c.gaps)
		}
	}
}
