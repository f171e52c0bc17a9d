package otlp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// TestWhatIsRememberedIsWhatWasPutAndHasABound holds the table against a map, over more
// attributes than it has room for: few that come again, many that do not.
func TestWhatIsRememberedIsWhatWasPutAndHasABound(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	type key struct {
		raw string
		of  kemi.Labels
	}
	m, model := newMemory(minSlots), map[key]kemi.Labels{}
	hosts := []kemi.Labels{{}, kemi.LabelsOf("host", "a"), kemi.LabelsOf("host", "b")}
	again := 0
	for i := range 150_000 {
		n := i // a stranger
		if i%2 == 0 {
			n = r.IntN(100)
		}
		size := n * 7 % 200
		if n%1000 == 999 {
			size = maxRun
		}
		k := key{fmt.Sprint(n, strings.Repeat("x", size)), hosts[n%2+r.IntN(2)]}
		labels := kemi.LabelsOf("n", fmt.Sprint(n), "of", k.of.Get("host"))
		got, ok := m.get(k.raw, k.of)
		if want, known := model[k]; ok && (!known || got != want) {
			t.Fatalf("seed %d, round %d: got %v, want %v (%v)", seed, i, got, want, known)
		}
		if !ok {
			m.put(k.raw, k.of, labels, i%3)
			model[k] = labels
		} else if n < 100 {
			again++
		}
		if m.bytes > maxBytes || len(m.slots) > maxSlots {
			t.Fatalf("seed %d, round %d: %d bytes in %d places", seed, i, m.bytes, len(m.slots))
		}
	}
	if len(m.slots) != maxSlots {
		t.Errorf("seed %d: %d places after so many strangers, want %d", seed, len(m.slots), maxSlots)
	}
	sum := 0
	for _, s := range m.slots {
		if sum += s.cost; len(s.raw) > s.cost || s.cost > maxRun {
			t.Errorf("seed %d: a run of %d bytes costs %d", seed, len(s.raw), s.cost)
		}
	}
	if sum != m.bytes {
		t.Errorf("seed %d: %d bytes, and %d were counted", seed, sum, m.bytes)
	}
	if again < 50_000 {
		t.Errorf("seed %d: only %d of 75,000 that came again were remembered", seed, again)
	}
}

// TestLabelsOfALargeResourceAreNotRemembered: a small run may stand for a lot of memory.
func TestLabelsOfALargeResourceAreNotRemembered(t *testing.T) {
	m := newMemory(minSlots)
	l := kemi.LabelsOf("a", "b")
	m.put("small", l, l, maxRun)
	if _, ok := m.get("small", l); ok || m.bytes != 0 {
		t.Errorf("it is remembered, with %d bytes", m.bytes)
	}
}

// TestNothingOfABatchIsKept overwrites the bytes of a batch after it was decoded. The
// first time nobody has its labels.
func TestNothingOfABatchIsKept(t *testing.T) {
	c := Metrics()
	text := []string{"host", "web1", "disk", "nobody else's", "service", "shop"}
	src, err := c.AppendBatch(nil, []kemi.Metric{kemi.Gauge("disk_used_bytes", kemi.LabelsOf(text...), time.Time{}, 1)})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // the labels are forgotten
	var got []kemi.Metric
	for range 3 {
		b := bytes.Clone(src)
		if got, err = c.DecodeBatch(got, b); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 'x'
		}
		for _, m := range got {
			if m.Name != "disk_used_bytes" || m.Labels != kemi.LabelsOf(text...) || m.Labels.Get("disk") != text[3] {
				t.Fatalf("the metric is now %v", m)
			}
		}
	}
}
