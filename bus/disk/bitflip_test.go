package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faults"
)

// library is a directory to be damaged, with what is in it.
type library struct {
	fs    *vfs.MemFS
	parts map[int32][]logged
	next  map[int32]int64 // where the group "some" is
}

// makeLibrary writes for some lives. The last one ends with Close, or with a crash.
func makeLibrary(t *testing.T, rnd *rand.Rand, crash bool) *library {
	l := &library{fs: vfs.NewCrashableMem(), parts: map[int32][]logged{}, next: map[int32]int64{}}
	for life := range 4 {
		w := newWorld(t, l.fs, "data", rnd.Uint64())
		w.clock.Store(time.Date(2026, 1, 1, life, 0, 0, 0, time.UTC).UnixNano())
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			batch := make([]reading, 1+rnd.IntN(80))
			for i := range batch {
				batch[i] = reading{Host: fmt.Sprint("h", rnd.IntN(9)), N: rnd.Int()}
			}
			if err := w.a.Write(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		if life == 1 {
			w.readAll("some")
		}
		if life == 3 {
			for p := range w.parts {
				l.parts[int32(p)] = dump(t, w.db, w.a.parts[p])
			}
			if crash {
				w.quiet(t)
				w.db.noteEnds()
				was := l.fs
				l.fs = was.CrashClone(vfs.CrashCloneCfg{})
			}
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// quiet waits until what marks the end stands behind the log.
func (w *world) quiet(t *testing.T) {
	t.Helper()
	var last uint64 // bytes of the log, with the last that is written here
	err := w.db.wait(&request{write: func(b *pebble.Batch) {
		_ = b.LogData([]byte("last"), nil)
		last = w.db.engine.Metrics().WAL.BytesIn + uint64(b.Len())
	}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the end is marked", func() bool { return w.db.engine.Metrics().WAL.BytesIn > last })
	if err := w.db.wait(&request{}); err != nil { // and is synced
		t.Fatal(err)
	}
}

func (l *library) clone() *vfs.MemFS {
	return l.fs.CrashClone(vfs.CrashCloneCfg{}) // all is synced
}

// readAll reads a with a group until the end, or damage, of each partition.
func (w *world) readAll(group string) (got map[string][]int, damage map[int32]error) {
	w.Helper()
	got = map[string][]int{}
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- w.a.Group(group).Run(ctx, kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range batch {
				got[r.Host] = append(got[r.Host], r.N)
			}
			return nil
		}))
	}()
	r := w.a.reader(readerName{group, false})
	left := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for p, next := range r.next {
			if max(next, 0) < w.a.parts[p].end && r.damage[int32(p)] == nil {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(patience); left(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not read to the end: %+v", w.a.Stats())
		}
	}
	cancel()
	err := <-done
	damage = w.a.Stats().Readers[slices.IndexFunc(w.a.Stats().Readers, func(s ReaderStats) bool { return s.Name == group })].Damage
	if (err != nil) != (len(damage) > 0) || err != nil && !errors.Is(err, ErrDamaged) {
		w.Errorf("Run returned %v, and the damage is %v", err, damage)
	}
	return got, damage
}

// want is what readAll gives of the records that are not lost.
func (l *library) want(lost []Range) map[string][]int {
	m := map[string][]int{}
	for p := range int32(len(l.parts)) {
		for _, e := range l.parts[p] {
			if slices.ContainsFunc(lost, func(r Range) bool {
				return r.Topic == "a" && r.Partition == p && r.From <= e.offset && e.offset < r.To
			}) {
				continue
			}
			for _, r := range e.batch {
				m[r.Host] = append(m[r.Host], r.N)
			}
		}
	}
	return m
}

func equal(a, b map[string][]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if !slices.Equal(a[k], b[k]) {
			return false
		}
	}
	return true
}

// flip flips a bit somewhere and says where.
func flip(t *testing.T, fs *vfs.MemFS, rnd *rand.Rand) string {
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	size := map[string]int{}
	total := 0
	for _, n := range names {
		if b, err := fs.UnsafeGetFileDataBuffer(path.Join("data", n)); err == nil && n != ballastFile {
			size[n] = len(b)
			total += len(b)
		}
	}
	at := rnd.IntN(total)
	var name string
	if rnd.IntN(2) == 0 { // small files too
		for name = ""; size[name] == 0; {
			name = names[rnd.IntN(len(names))]
		}
		at = rnd.IntN(size[name])
	} else {
		for _, n := range names {
			if name = n; at < size[n] {
				break
			}
			at -= size[n]
		}
	}
	b, err := fs.UnsafeGetFileDataBuffer(path.Join("data", name))
	if err != nil {
		t.Fatal(err)
	}
	bit := rnd.IntN(8)
	b[at] ^= 1 << bit
	return fmt.Sprintf("%s, byte %d of %d, bit %d", name, at, len(b), bit)
}

// A flipped bit is harmless, or found; and what a repair does not bring back it names.
func TestFaultBitFlips(t *testing.T) {
	bitflips, seed := max(40, faults.Count(t, 1000)), faults.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	sum := map[string]int{}
	for n := range bitflips {
		if n%50 == 0 && n > 0 {
			t.Logf("after %d: %v", n, sum)
		}
		crash := n%2 == 1
		l := librariesOf(t, rnd, n)[n%2]
		fs := l.clone()
		where := flip(t, fs, rnd)
		fail := func(format string, args ...any) {
			t.Errorf("flip %d (crash %v), %s: %s", n, crash, where, fmt.Sprintf(format, args...))
		}
		w := newWorld(t, fs, "data", 1)
		w.clock.Store(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixNano())
		loud := ""
		if err := w.open(); err != nil {
			loud = "open"
			if !errors.Is(err, ErrDamaged) && !strings.Contains(err.Error(), "newer kemi") {
				fail("Open says %v", err)
			}
		} else {
			got, damage := w.readAll("new")
			for _, err := range damage {
				if !strings.Contains(err.Error(), "offsets") || !strings.Contains(err.Error(), `topic "a", partition`) {
					fail("the damage is not told with its place: %v", err)
				}
			}
			switch {
			case len(damage) > 0:
				loud = "read"
			case !equal(got, l.want(nil)):
				fail("SILENT: what is read is not what was written")
			}
			if err := w.db.Close(); err != nil {
				loud = "close"
			}
		}
		report, err := repair(fs, "data", time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC))
		if err != nil {
			if strings.Contains(err.Error(), "newer kemi") {
				sum["open: looks newer"]++
				continue
			}
			fail("Repair: %v", err)
			continue
		}
		if loud != "" && report.OK() && report.Moved == "" {
			fail("loud in %s, and Repair found nothing", loud)
		}
		if err := w.open(); err != nil {
			fail("after Repair, which said %v: %v", report, err)
			continue
		}
		got, damage := w.readAll("newer")
		if len(damage) > 0 || !equal(got, l.want(report.Lost)) {
			fail("after Repair, which said %v: damage %v, or not what was said", report, damage)
		}
		lost := uint64(0)
		for _, r := range report.Lost {
			if r.Topic == "a" {
				lost += uint64(r.To - r.From)
			}
		}
		for _, r := range w.a.Stats().Readers {
			if r.Name == "newer" && r.Lost != lost {
				fail("%d offsets are lost, and the reader has counted %d", lost, r.Lost)
			}
		}
		if err := w.db.Close(); err != nil {
			fail("Close after Repair: %v", err)
		}
		if again, err := check(fs, "data"); err != nil || !again.OK() {
			fail("Check after Repair: %v, %v", again, err)
		}
		switch {
		case loud == "" && report.OK():
			sum["harmless"]++
		case loud == "":
			sum["found by Check alone"]++
		default:
			sum[loud]++
		}
		if len(report.Lost) > 0 {
			sum["of which with a loss"]++
		}
	}
	faults.Report(t, "seed %d: %d flips, 0 silent: %v", seed, bitflips, sum)
}

var libraries [2]*library

// librariesOf returns the two, made anew now and then.
func librariesOf(t *testing.T, rnd *rand.Rand, n int) [2]*library {
	if n%100 == 0 {
		libraries = [2]*library{makeLibrary(t, rnd, false), makeLibrary(t, rnd, true)}
	}
	return libraries
}
