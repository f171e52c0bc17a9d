package origin

import (
	"context"
	"fmt"
	"reflect"
	"testing"
)

func TestPickFollowsTheRecords(t *testing.T) {
	b := &Batch{Source: Source{"t@r", 3}, Marks: []Mark{{2, 5}, {2, 6}, {6, 7}, {9, 8}}}
	ctx := With(context.Background(), b)
	for _, c := range []struct {
		n    int
		at   []int
		want []Mark
	}{
		{9, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}, []Mark{{2, 5}, {6, 7}, {9, 8}}},
		{9, []int{1, 5, 8}, []Mark{{1, 5}, {2, 7}, {3, 8}}},
		{9, []int{6}, []Mark{{1, 8}}},
	} {
		got := Of(Pick(ctx, c.n, c.at, "x@y"))
		if got.Source != (Source{"t@r@x%40y", 3}) || !reflect.DeepEqual(got.Marks, c.want) || !got.Covers(len(c.at)) {
			t.Errorf("at %v: %+v", c.at, got)
		}
	}
	if got := Of(Pick(ctx, 8, []int{1}, "")); got != nil {
		t.Errorf("of a batch that the marks are not about: %+v", got)
	}
	if got := Of(Pick(context.Background(), 8, []int{1}, "")); got != nil {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestNoTwoReadersAreOne(t *testing.T) {
	seen := map[string]string{}
	for _, log := range []string{"a", "a@b", "a@", "a%40b", "", "@"} {
		for _, name := range []string{"b", "c", "b@c", "@b", "", "@", "%40"} {
			for _, all := range []bool{false, true} {
				r, who := ReaderOf(log, name, all), fmt.Sprint(log, "|", name, "|", all)
				if seen[r] != "" {
					t.Errorf("%s is %s and %s", r, seen[r], who)
				}
				seen[r] = who
			}
		}
	}
}

// TestASecondWriteIsASourceOfItsOwn, the same one when the batch is written again.
func TestASecondWriteIsASourceOfItsOwn(t *testing.T) {
	b := &Batch{Source: Source{"t@r", 3}}
	for range 3 {
		b.Begin()
		for i, want := range []Source{{"t@r", 3}, {"t@r@1", 3}, {"t@r@2", 3}} {
			if got := b.Turn("x"); got != want {
				t.Errorf("Write %d: %v, want %v", i, got, want)
			}
		}
		if got := b.Turn("y"); got != b.Source {
			t.Errorf("to another topic: %v", got)
		}
	}
}

func TestStampReadsBack(t *testing.T) {
	for _, s := range []Stamp{
		{Source{"raw@calc", 0}, OfTick(0), 0},
		{Source{"a/b@c/d", 1<<31 - 1}, OfRecord(1 << 62), 1<<32 - 1},
	} {
		text := string(s.Append(nil))
		if got, err := Parse(text); err != nil || got != s {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "/", "///", "r/1/2", "r/1/0/0", "r/-1/1/0", "r/1/1/4294967296", "r/1/+1/0", "r/01/1/0", "/1/1/0"} {
		if s, err := Parse(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("raw@calc/3/12/0")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := Parse(text); err == nil && string(s.Append(nil)) != text {
			t.Errorf("%q reads back as %q", text, s.Append(nil))
		}
	})
}
