package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
)

// reading is a record of the tests. N counts for each host, from 1.
type reading struct {
	Host string
	N    int
	Diff int // N less that of the reading before, if that was not long ago
	All  int // how many readings there were of the host, ever
}

func (r reading) PartitionKey() string { return r.Host }

// lines is a codec: a line for each reading.
type lines struct{}

func (lines) Name() string { return "lines/1" }

func (lines) AppendBatch(dst []byte, batch []reading) ([]byte, error) {
	for _, r := range batch {
		if r.Host == "cannot" {
			return dst, errors.New("this one cannot be encoded")
		}
		dst = fmt.Appendf(dst, "%s %d %d %d\n", r.Host, r.N, r.Diff, r.All)
	}
	return dst, nil
}

func (lines) DecodeBatch(dst []reading, src []byte) ([]reading, error) {
	before := dst
	for line := range bytes.Lines(src) {
		f := bytes.Fields(line)
		if len(f) != 4 {
			return before, errors.New("not a line of four")
		}
		r := reading{Host: string(f[0])}
		for i, p := range []*int{&r.N, &r.Diff, &r.All} {
			var err error
			if *p, err = strconv.Atoi(string(f[i+1])); err != nil {
				return before, err
			}
		}
		dst = append(dst, r)
	}
	return dst, nil
}

var linesOnly = codec.Set[reading]{Write: lines{}}

// differences is a transform with state of both kinds: what a horizon bounds, and the
// count of readings, which is kept.
type differences struct {
	now     time.Time
	last    map[string]seen
	all     map[string]int
	changed map[string]bool
	hash    uint64
}

type seen struct {
	n  int
	at time.Time
}

const horizon = 20 * time.Second

func newDifferences() *differences {
	return &differences{last: map[string]seen{}, all: map[string]int{}, changed: map[string]bool{}}
}

func (d *differences) Fork() kemi.Transform[reading, reading] { return newDifferences() }
func (d *differences) Horizon() time.Duration                 { return horizon }
func (d *differences) Proof() kemi.Proof                      { return kemi.Proof{Version: 1, Hash: d.hash} }

func (s seen) hash(host string) uint64 {
	h := uint64(s.n) * 0x9e3779b97f4a7c15
	for i := range len(host) {
		h = (h ^ uint64(host[i])) * 0x100000001b3
	}
	return h
}

func (d *differences) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	for _, r := range src {
		old, ok := d.last[r.Host]
		if ok {
			d.hash ^= old.hash(r.Host)
			r.Diff = r.N - old.n
		}
		d.last[r.Host] = seen{r.N, d.now}
		d.hash ^= d.last[r.Host].hash(r.Host)
		d.all[r.Host]++
		d.changed[r.Host] = true
		r.All = d.all[r.Host]
		dst = append(dst, r)
	}
	return dst, nil
}

// Tick tells of hosts that have gone.
func (d *differences) Tick(_ context.Context, dst []reading, now time.Time) ([]reading, error) {
	d.now = now
	from := len(dst)
	for host, s := range d.last {
		if s.at.Before(now.Add(-horizon)) {
			d.hash ^= s.hash(host)
			delete(d.last, host)
			dst = append(dst, reading{Host: host, N: -s.n})
		}
	}
	slices.SortFunc(dst[from:], func(a, b reading) int { return bytes.Compare([]byte(a.Host), []byte(b.Host)) })
	return dst, nil
}

func (d *differences) Keep(dst []kemi.Kept) []kemi.Kept {
	for host := range d.changed {
		v, _ := json.Marshal(d.all[host])
		dst = append(dst, kemi.Kept{Key: host, Value: v})
	}
	clear(d.changed)
	return dst
}

func (d *differences) Restore(kept []kemi.Kept) error {
	for _, e := range kept {
		var n int
		if err := json.Unmarshal(e.Value, &n); err != nil {
			return err
		}
		d.all[e.Key] = n
	}
	clear(d.changed)
	return nil
}

// logged is one record of a log, or a tick.
type logged struct {
	offset int64
	time   time.Time
	tick   bool
	batch  []reading
}

// dump reads a partition past everything that this package does to read.
func dump(tb testing.TB, db *DB, p *part) (all []logged) {
	tb.Helper()
	it, err := db.engine.NewIter(&pebble.IterOptions{LowerBound: p.key(), UpperBound: after(p.key())})
	if err != nil {
		tb.Fatal(err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		_, _, offset, _ := parseOffsetKey(it.Key())
		s, err := parse(it.Key(), it.Value())
		if err != nil {
			tb.Fatal(err)
		}
		l := logged{offset: offset, time: clockOf(s.time), tick: s.tick}
		if !s.tick {
			raw, err := unpack(db.dec, nil, &s)
			if err == nil {
				l.batch, err = lines{}.DecodeBatch(nil, raw)
			}
			if err != nil {
				tb.Fatal(err)
			}
		}
		all = append(all, l)
	}
	if err := it.Error(); err != nil {
		tb.Fatal(err)
	}
	return all
}

// reference is what has to come of a partition: simple, in one go, without a crash.
func reference(tb testing.TB, log []logged) (out []reading) {
	tb.Helper()
	d := newDifferences()
	var clock time.Time
	var err error
	for _, l := range log {
		if t := l.time.Truncate(time.Second); t.After(clock) {
			clock = t
			if out, err = d.Tick(context.Background(), out, t); err != nil {
				tb.Fatal(err)
			}
		}
		if out, err = d.Apply(context.Background(), out, l.batch); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

// perHost sorts readings by host and keeps the order of each.
func perHost(all []reading) map[string][]reading {
	m := map[string][]reading{}
	for _, r := range all {
		m[r.Host] = append(m[r.Host], r)
	}
	return m
}

// world is a program with two topics and a flow between them, which is cut off now and
// then.
type world struct {
	testing.TB
	rnd   *rand.Rand
	fs    vfs.FS
	dir   string
	clock atomic.Int64
	parts int
	pause int // microseconds, at most, between two Writes of one writer

	mu    sync.Mutex
	next  map[string]int       // by host: the last N that was tried
	acked map[reading]struct{} // what Write has called safe
	db    *DB
	a, b  *Topic[reading]
	stop  func()
	sum   map[string]uint64
	told  func(acked []reading) // nil: nobody wants to know
}

func newWorld(tb testing.TB, fs vfs.FS, dir string, seed uint64) *world {
	w := &world{TB: tb, rnd: rand.New(rand.NewPCG(seed, 1)), fs: fs, dir: dir, parts: 3, pause: 1000, next: map[string]int{}, acked: map[reading]struct{}{}, sum: map[string]uint64{}}
	w.clock.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return w
}

// now runs fast.
func (w *world) now() time.Time { return time.Unix(0, w.clock.Add(int64(20*time.Millisecond))) }

func (w *world) open() error {
	db, err := open(Config{Dir: w.dir, Ballast: 1 << 10, Tick: 20 * time.Millisecond}, hooks{fs: w.fs, now: w.now, exit: func(int) { w.Error("the process would have ended") }})
	if err != nil {
		return err
	}
	w.db = db
	config := TopicConfig[reading]{Partitions: w.parts, Codecs: linesOnly}
	config.Zstd = w.rnd.IntN(2) == 0 // it may change from one start to the next
	if w.a, err = NewTopic(db, "a", config); err != nil {
		return err
	}
	w.b, err = NewTopic(db, "b", config)
	return err
}

// run starts writers and the flow; stop ends them.
func (w *world) run(writers int) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	a, b := w.a, w.b
	for i := range writers {
		rnd := rand.New(rand.NewPCG(w.rnd.Uint64(), 2))
		all.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rnd.IntN(w.pause)) * time.Microsecond)
				batch := make([]reading, 1+rnd.IntN(5))
				w.mu.Lock()
				for j := range batch {
					host := fmt.Sprint("w", i, "-", rnd.IntN(4))
					w.next[host]++
					batch[j] = reading{Host: host, N: w.next[host]}
				}
				w.mu.Unlock()
				if a.Write(ctx, batch) == nil {
					if w.told != nil {
						w.told(batch)
						continue
					}
					w.mu.Lock()
					for _, r := range batch {
						w.acked[r] = struct{}{}
					}
					w.mu.Unlock()
				}
			}
		})
	}
	p := kemi.Pipeline{DrainTimeout: 5 * time.Second, Flows: []*kemi.Flow{
		kemi.Pipe("differences", a.Group("g"), kemi.Transform[reading, reading](newDifferences()), kemi.Sink[reading](b)),
	}}
	all.Go(func() { _ = p.Run(ctx) }) // ends with an error when the DB is closed
	w.stop = func() {
		cancel()
		all.Wait()
		for _, s := range p.Stats() {
			if s.Mismatches > 0 {
				w.Errorf("%d replays gave another state", s.Mismatches)
			}
		}
	}
}

// note sums up what is counted.
func (w *world) note() {
	for _, t := range w.db.Stats().Topics {
		w.sum["duplicates left out"] += t.Duplicates
		for _, r := range t.Readers {
			w.sum["rewinds"] += r.Rewinds
			w.sum["proved"] += r.Proved
			w.sum["mismatched"] += r.Mismatched
			w.sum["replayed"] += r.Replayed
			w.sum["lost"] += r.Lost
		}
	}
}

// verify checks what is on the disk against what was acknowledged before the cut, and b
// against what has to come of a. whole: nothing may be missing in b.
func (w *world) verify(acked map[reading]struct{}, whole bool) {
	w.Helper()
	in := map[reading]bool{}
	want, got, least := map[string][]reading{}, map[string][]reading{}, map[string]int{}
	for p := range w.parts {
		log := dump(w, w.db, w.a.parts[p])
		for i, l := range log {
			if i > 0 && (l.offset != log[i-1].offset+1 || l.time.Before(log[i-1].time)) {
				w.Fatalf("offset %d at %v comes after %d at %v", l.offset, l.time, log[i-1].offset, log[i-1].time)
			}
			for _, r := range l.batch {
				if in[r] {
					w.Fatalf("%v is there twice", r)
				}
				in[r] = true
			}
		}
		for host, rs := range perHost(reference(w, log)) {
			want[host] = rs
		}
		if whole {
			// A tick may have come after the reader had settled, and before it was stopped:
			// what it gives may be there or not.
			next := w.a.reader(readerName{"g", false}).next[p]
			log = slices.DeleteFunc(log, func(l logged) bool { return l.offset >= next })
			for host, rs := range perHost(reference(w, log)) {
				least[host] = len(rs)
			}
		}
		var out []reading
		for _, l := range dump(w, w.db, w.b.parts[p]) {
			out = append(out, l.batch...)
		}
		for host, rs := range perHost(out) {
			got[host] = rs
		}
	}
	for r := range acked {
		if !in[r] {
			w.Fatalf("%v was acknowledged and is lost", r)
		}
	}
	for host, rs := range got {
		if n := len(rs); n > len(want[host]) || !slices.Equal(rs, want[host][:n]) {
			w.Fatalf("host %s: the output is\n%v, and should be\n%v", host, rs, want[host])
		}
	}
	for host, n := range least {
		if len(got[host]) < n {
			w.Fatalf("host %s: %d of %d results", host, len(got[host]), n)
		}
	}
}

// settle waits until all that a has now was read.
func (w *world) settle() {
	w.Helper()
	goal := w.a.stats().Partitions
	r := w.a.reader(readerName{"g", false})
	left := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for p, next := range r.next {
			if next < goal[p].End {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(patience); left(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("the reader is still behind: %+v", w.a.Stats().Readers)
		}
	}
}

func (w *world) ackedNow() map[reading]struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := make(map[reading]struct{}, len(w.acked))
	for r := range w.acked {
		m[r] = struct{}{}
	}
	return m
}
