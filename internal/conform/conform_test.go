package conform

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

func TestHashSeesThroughRecords(t *testing.T) {
	now := time.Unix(1_700_000_000, 5).UTC()
	line := func() kemi.Log {
		return kemi.Log{Time: now, Host: "web1", Fields: []slog.Attr{slog.Int("n", 1)}}
	}
	a, b := line(), line()
	if Hash(a) != Hash(b) {
		t.Error("equal records have different hashes")
	}
	b.Time = b.Time.In(time.FixedZone("KST", 9*3600))
	if Hash(a) != Hash(b) {
		t.Error("the zone is part of an instant")
	}
	b.Fields[0] = slog.Int("n", 2)
	if Hash(a) == Hash(b) {
		t.Error("a field behind a slice was changed and the hash was not")
	}
	m := kemi.Gauge("up", kemi.LabelsOf("host", "web1"), now, 1)
	if Hash(m) == Hash(kemi.Gauge("up", kemi.LabelsOf("host", "web1"), now, 0)) {
		t.Error("an unexported field was changed and the hash was not")
	}
	type loop struct {
		next *loop
		m    map[string]int
	}
	l := &loop{m: map[string]int{"a": 1, "b": 2}}
	l.next = l
	before := Hash(l)
	l.m["b"] = 3
	if Hash(l) == before {
		t.Error("a map was changed and the hash was not")
	}
}

func TestFailures(t *testing.T) {
	var order []string
	got := Failures(t, func(tb testing.TB) {
		tb.Cleanup(func() { order = append(order, "first") })
		tb.Cleanup(func() { order = append(order, fmt.Sprint("second, ", tb.Context().Err())) })
		tb.Errorf("one %d", 1)
		tb.Fatal("two")
		tb.Error("never")
	})
	if fmt.Sprint(got) != "[one 1 two]" {
		t.Errorf("got %q", got)
	}
	if fmt.Sprint(order) != "[second, context canceled first]" {
		t.Errorf("cleanups ran as %q", order)
	}
	if got := Failures(t, func(testing.TB) { panic("oh") }); len(got) != 1 {
		t.Errorf("a panic gave %q", got)
	}
	if got := Failures(t, func(tb testing.TB) { tb.Skip("nothing") }); got != nil {
		t.Errorf("a skip gave %q", got)
	}
}

func TestLeaked(t *testing.T) {
	before := Goroutines()
	stop := make(chan struct{})
	go func() { <-stop }()
	if got := Leaked(before, 10*time.Millisecond); !strings.Contains(got, "TestLeaked") {
		t.Errorf("got %q", got)
	}
	close(stop)
	if got := Leaked(before, time.Minute); got != "" {
		t.Errorf("got %q", got)
	}
}
