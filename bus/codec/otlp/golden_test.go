package otlp_test

import (
	"bytes"
	"flag"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec/otlp"
	"github.com/kemi-go/kemi/internal/conform"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTheFormatStays compares with what was written when the version got its name. A
// file that has to change needs a new name of the codec.
func TestTheFormatStays(t *testing.T) {
	metrics := append(poll("sw1", 2),
		kemi.Gauge("stale", kemi.LabelsOf("host", "sw1"), noon, math.Float64frombits(0x7ff0000000000002)),
		kemi.FloatCounter("cpu_seconds", kemi.LabelsOf("host", "sw1", "a\xff", "b\xff"), time.Unix(-1, 0).UTC(), math.Inf(1)),
		kemi.Counter("huge", kemi.LabelsOf("host", "sw2"), time.Time{}, math.MaxUint64))
	logs := []kemi.Log{line("web1", 0), line("web1", 1), {Host: "web2", Message: "\xff", Observed: time.Unix(-1, 0).UTC(), Fields: []slog.Attr{
		slog.Any("a", []any{nil, true, []byte{0xff}}), slog.Duration("d", time.Second), slog.Group("g", slog.Uint64("u", math.MaxUint64)),
		slog.String("service.name", "s\xff"), slog.Time("t", noon),
	}}}
	golden(t, otlp.Metrics(), same, "metrics.bin", metrics)
	golden(t, otlp.Logs(), sameLog, "logs.bin", logs)
}

func golden[T any](t *testing.T, c bus.Codec[T], same func(a, b T) bool, file string, batch []T) {
	t.Helper()
	file = filepath.Join("testdata", file)
	src, err := c.AppendBatch(nil, batch)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, src, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(src, want) {
		t.Errorf("%s: the codec %s writes\n%q, and wrote\n%q", file, c.Name(), src, want)
	}
	got, err := c.DecodeBatch(nil, want)
	if err != nil || !slices.EqualFunc(got, batch, same) {
		t.Errorf("%s is read as %+v (%v), want\n%+v", file, got, err, batch)
	}
}

// TestASteadyStreamOfMetricsCostsNoAllocation encodes and decodes the polls of a few
// hosts again and again.
func TestASteadyStreamOfMetricsCostsNoAllocation(t *testing.T) {
	if conform.RaceDetector {
		t.Skip("pools are emptied at random")
	}
	c := otlp.Metrics()
	var batches, alive [][]kemi.Metric
	var srcs [][]byte
	for _, host := range []string{"sw1", "sw2", "sw3"} {
		batch := poll(host, 10)
		src, err := c.AppendBatch(nil, batch)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.DecodeBatch(nil, src)
		if err != nil {
			t.Fatal(err)
		}
		batches, alive, srcs = append(batches, batch), append(alive, got), append(srcs, src)
	}
	var i int
	// The least of a few tries: the rest of the program allocates too, and the table of
	// what is remembered grows until all have found a place.
	allocs := func(f func()) float64 {
		n := math.Inf(1)
		for range 5 {
			n = min(n, testing.AllocsPerRun(60, func() {
				f()
				i++
			}))
		}
		return n
	}
	b := make([]byte, 0, 1<<16)
	if n := allocs(func() { b, _ = c.AppendBatch(b[:0], batches[i%3]) }); n > 0 {
		t.Errorf("%v allocations to encode a batch", n)
	}
	dst := make([]kemi.Metric, 0, 100)
	if n := allocs(func() { dst, _ = c.DecodeBatch(dst[:0], srcs[i%3]) }); n > 0 {
		t.Errorf("%v allocations to decode a batch of %d", n, len(alive[0]))
	}
}
