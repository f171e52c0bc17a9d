package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/origin"
)

// reading is one record of the tests: a host and a number.
type reading struct {
	Host string
	N    int
}

// lines is a codec: a line for each reading.
type lines struct{}

func (lines) Name() string { return "lines/1" }

func (lines) AppendBatch(dst []byte, batch []reading) ([]byte, error) {
	for _, r := range batch {
		dst = fmt.Appendf(dst, "%s %d\n", r.Host, r.N)
	}
	return dst, nil
}

func (lines) DecodeBatch(dst []reading, src []byte) ([]reading, error) {
	for line := range bytes.Lines(src) {
		host, n, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		v, err := strconv.Atoi(n)
		if !ok || err != nil {
			return dst, errors.New("not a line")
		}
		dst = append(dst, reading{host, v})
	}
	return dst, nil
}

func find(name string) bus.Codec[reading] {
	if name == (lines{}).Name() {
		return lines{}
	}
	return nil
}

// differences gives the difference of two readings of a host, if they are not too far
// apart, and on a tick how many hosts are there.
type differences struct {
	keep time.Duration
	now  time.Time
	last map[string]seen
	hash uint64
	dirt *uint64 // where set: state that does not come from the input

	version uint64
}

type seen struct {
	n  int
	at time.Time
}

func (d *differences) Fork() kemi.Transform[reading, reading] {
	return &differences{keep: d.keep, last: map[string]seen{}, dirt: d.dirt, version: d.version}
}

func (d *differences) Horizon() time.Duration { return d.keep }

func (d *differences) Proof() kemi.Proof {
	h := d.hash
	if d.dirt != nil {
		*d.dirt++
		h += *d.dirt
	}
	return kemi.Proof{Version: d.version + 1, Hash: h}
}

func (s seen) hash(host string) uint64 {
	h := uint64(s.n) * 0x9e3779b97f4a7c15
	for i := range len(host) {
		h = (h ^ uint64(host[i])) * 0x100000001b3
	}
	return h
}

func (d *differences) put(host string, s seen) {
	if old, ok := d.last[host]; ok {
		d.hash ^= old.hash(host)
	}
	d.last[host] = s
	d.hash ^= s.hash(host)
}

func (d *differences) Apply(_ context.Context, dst, src []reading) ([]reading, error) {
	for _, r := range src {
		if old, ok := d.last[r.Host]; ok {
			dst = append(dst, reading{r.Host, r.N - old.n})
		}
		d.put(r.Host, seen{r.N, d.now})
	}
	return dst, nil
}

func (d *differences) Tick(_ context.Context, dst []reading, now time.Time) ([]reading, error) {
	d.now = now
	for host, s := range d.last {
		if s.at.Before(now.Add(-d.keep)) {
			d.hash ^= s.hash(host)
			delete(d.last, host)
		}
	}
	if now.Unix()%10 == 0 {
		dst = append(dst, reading{"hosts", len(d.last)})
	}
	return dst, nil
}

// world is two partitions on disk or on brokers: in, and out with what lanes made of
// it, perhaps twice.
type world struct {
	in   []Entry
	mu   sync.Mutex
	out  []Entry
	pos  *Position
	lost int // Writes that failed after they were written
}

func (w *world) Write(ctx context.Context, batch []reading) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := origin.Of(ctx)
	if !b.Covers(len(batch)) {
		return kemi.Permanent(fmt.Errorf("no origin for %v: %+v", batch, b))
	}
	at := 0
	for _, m := range b.Marks {
		seg := batch[at:m.End]
		at = m.End
		for i, r := range seg { // one record each, to have ordinals
			v, _ := lines{}.AppendBatch(nil, []reading{r})
			w.out = append(w.out, Entry{
				Offset: int64(len(w.out)), Time: time.Unix(int64(len(w.out)/50), 0), Codec: "lines/1", Value: v,
				Stamp: origin.Stamp{Source: b.Source, Seq: m.Seq, Ordinal: uint32(i)},
			})
		}
	}
	if w.lost > 0 && rand.IntN(10) == 0 {
		w.lost--
		return errors.New("the answer was lost")
	}
	return nil
}

// input is a partition with hosts that come and go, silence, ticks of silence,
// duplicates of another source, and a clock that jumps ahead.
func input(rnd *rand.Rand, n int) []Entry {
	var in []Entry
	now := time.Unix(1000, 0)
	counts := map[string]int{}
	var seq [2]origin.Seq
	for len(in) < n {
		now = now.Add(time.Duration(rnd.IntN(400)) * time.Millisecond)
		if rnd.IntN(500) == 0 {
			now = now.Add(time.Hour)
		}
		e := Entry{Offset: int64(len(in)) + 100, Time: now}
		if rnd.IntN(200) == 0 && len(in) > 0 { // an offset that holds nothing
			e.Offset++
		}
		if k := len(in); k > 0 && e.Offset <= in[k-1].Offset {
			e.Offset = in[k-1].Offset + 1
		}
		switch rnd.IntN(20) {
		case 0:
			e.Tick = true
			in = append(in, e)
			continue
		case 1:
			if len(in) > 10 { // a zombie writes again what was written before
				old := in[len(in)-1-rnd.IntN(10)]
				old.Offset, old.Time = e.Offset, e.Time
				if old.Stamp.Seq != 0 {
					in = append(in, old)
					continue
				}
			}
		}
		var batch []reading
		host := "host" + strconv.Itoa(rnd.IntN(30))
		for range 1 + rnd.IntN(4) {
			counts[host] += rnd.IntN(10)
			batch = append(batch, reading{host, counts[host]})
		}
		e.Codec = "lines/1"
		e.Value, _ = lines{}.AppendBatch(nil, batch)
		if s := rnd.IntN(3); s < 2 {
			seq[s] += origin.Seq(1 + rnd.IntN(3))
			e.Stamp = origin.Stamp{Source: origin.Source{Reader: "a@b", Partition: int32(s)}, Seq: seq[s], Ordinal: uint32(rnd.IntN(3))}
		}
		in = append(in, e)
	}
	return in
}

// life runs a flow over the input from where the world is, and dies somewhere. The
// position that is kept may be an old one.
func (w *world) life(t *testing.T, rnd *rand.Rand, via kemi.Transform[reading, reading], counts *Counts, die bool) {
	t.Helper()
	stopAt := len(w.in)
	if die {
		stopAt = rnd.IntN(len(w.in))
	}
	src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
		l := Open(out, Config[reading]{Topic: "in", Reader: "diff", Find: find, Counts: counts})
		defer func() { _ = l.Close() }()
		from, err := l.Begin(ctx, w.pos, nil, w.in[0].Offset)
		if err != nil {
			return err
		}
		i, _ := slices.BinarySearchFunc(w.in, from, func(e Entry, o int64) int { return int(e.Offset - o) })
		for i < len(w.in) {
			n := min(1+rnd.IntN(50), len(w.in)-i)
			part := w.in[i : i+n]
			if err := l.Feed(ctx, part, part[n-1].Offset+1); err != nil {
				return err
			}
			i += n
			if !die || rnd.IntN(3) == 0 {
				if pos, _ := l.Position(); w.pos == nil || pos.Next >= w.pos.Next {
					w.pos = reread(t, &pos)
				}
			}
			if i >= stopAt {
				return nil // dead: what was not kept is forgotten
			}
		}
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe[reading, reading]("diff", src, via, w, kemi.Backoff(time.Nanosecond, time.Microsecond))}}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := p.Stats()[0]
	if err := s.Balance(); err != nil || s.Dead+s.Dropped > 0 {
		t.Fatalf("ledger %+v: %v", s, err)
	}
}

// reread keeps a position as a room does.
func reread(t *testing.T, p *Position) *Position {
	t.Helper()
	var b, x Position
	if err := b.UnmarshalBinary(p.AppendBinary(nil)); err != nil {
		t.Fatal(err)
	}
	if err := x.ParseText(p.Text()); err != nil || !reflect.DeepEqual(b, x) {
		t.Fatalf("as text: %+v, as bytes: %+v, %v", x, b, err)
	}
	return &b
}

// read reads out as another lane would: what was delivered before is dropped.
func (w *world) read(t *testing.T) (got []reading) {
	t.Helper()
	counts := new(Counts)
	src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
		l := Open(out, Config[reading]{Topic: "out", Reader: "r", Find: find, Counts: counts})
		if _, err := l.Begin(ctx, nil, nil, 0); err != nil {
			return err
		}
		return l.Feed(ctx, w.out, int64(len(w.out)))
	})
	to := kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
		got = append(got, batch...)
		return nil
	})
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{kemi.Connect[reading]("read", src, to)}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestCrashesShowNowhere kills a flow again and again: what comes out is what comes
// out of one run without a fault, each once, and every replay is proved.
func TestCrashesShowNowhere(t *testing.T) {
	lives, proved := 0, uint64(0)
	// Where the horizon is short there is nothing to prove: it goes on until there was.
	for n := 0; n < 40 || proved < 100 && n < 1000; n++ {
		seed := rand.Uint64()
		rnd := rand.New(rand.NewPCG(seed, 0))
		in := input(rnd, 1500)
		keep := []time.Duration{0, 5 * time.Second, time.Minute, 10 * time.Minute}[rnd.IntN(4)]
		via := &differences{keep: max(keep, time.Nanosecond)}

		calm := &world{in: in}
		calm.life(t, rnd, via, new(Counts), false)
		for i := range calm.out { // nothing came twice
			calm.out[i].Stamp = origin.Stamp{}
		}
		want := calm.read(t)

		w := &world{in: in, lost: 20}
		counts := new(Counts)
		for range 12 {
			w.life(t, rnd, via, counts, true)
			lives++
		}
		w.life(t, rnd, via, counts, false)
		got := w.read(t)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d records came out, want %d", seed, len(got), len(want))
		}
		if counts.Mismatched.Load() != 0 {
			t.Fatalf("seed %d: %d replays of %d gave another state", seed, counts.Mismatched.Load(), counts.Rewinds.Load())
		}
		if !reflect.DeepEqual(w.pos, calm.pos) {
			t.Fatalf("seed %d: the position is %+v, want %+v", seed, w.pos, calm.pos)
		}
		proved += counts.Proved.Load()
	}
	if proved < 100 {
		t.Errorf("only %d replays of %d lives were proved", proved, lives)
	}
}

// TestAStageThatCannotBeReplayedIsNoticed has state that does not come from the input.
func TestAStageThatCannotBeReplayedIsNoticed(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	w := &world{in: input(rnd, 500)}
	counts, dirt := new(Counts), uint64(0)
	via := &differences{keep: time.Minute, dirt: &dirt}
	for range 5 {
		w.life(t, rnd, via, counts, true)
	}
	if n := counts.Mismatched.Load(); n == 0 || counts.Proved.Load() > 0 {
		t.Errorf("%d mismatches, %d proved", n, counts.Proved.Load())
	}
}

// TestAnotherVersionIsNotCompared: a stage that was changed proves nothing, and is no
// mismatch.
func TestAnotherVersionIsNotCompared(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	w := &world{in: input(rnd, 500)}
	counts := new(Counts)
	for version := range uint64(5) {
		w.life(t, rnd, &differences{keep: time.Minute, version: version}, counts, false)
	}
	if counts.Rewinds.Load() != 4 || counts.Proved.Load() != 0 || counts.Mismatched.Load() != 0 {
		t.Errorf("%d rewinds, %d proved, %d mismatches", counts.Rewinds.Load(), counts.Proved.Load(), counts.Mismatched.Load())
	}
}

// TestWhatTheLogHasLostIsCounted starts with a position that lies before the log, and
// with a replay that does.
func TestWhatTheLogHasLostIsCounted(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	in := input(rnd, 500)
	whole := &world{in: in[:300]}
	via := &differences{keep: 20 * time.Second}
	whole.life(t, rnd, via, new(Counts), false)
	if whole.pos.Rewind == whole.pos.Next {
		t.Fatalf("nothing to rewind: %+v", whole.pos)
	}
	for _, c := range []struct {
		first           int
		lost, shortened uint64
	}{{299, 0, 1}, {310, uint64(in[310].Offset - whole.pos.Next), 0}} {
		counts := new(Counts)
		w := &world{in: in[c.first:], pos: whole.pos}
		w.life(t, rnd, via, counts, false)
		if counts.Lost.Load() != c.lost || counts.Shortened.Load() != c.shortened || counts.Mismatched.Load() > 0 {
			t.Errorf("from %d: lost %d, shortened %d, mismatched %d, want %+v", c.first, counts.Lost.Load(), counts.Shortened.Load(), counts.Mismatched.Load(), c)
		}
	}
}

// TestWhatCannotBeReadIsRefusedOnce feeds foreign records between good ones.
func TestWhatCannotBeReadIsRefusedOnce(t *testing.T) {
	good := func(o int64) Entry {
		v, _ := lines{}.AppendBatch(nil, []reading{{"h", int(o)}})
		return Entry{Offset: o, Time: time.Unix(o, 0), Codec: "lines/1", Value: v}
	}
	in := []Entry{
		good(0), {Offset: 1, Time: time.Unix(1, 0), Codec: "", Value: []byte("who knows")},
		good(2), {Offset: 3, Time: time.Unix(3, 0), Codec: "lines/1", Value: []byte("h 1\nh")}, good(4),
	}
	var letters []kemi.DeadLetter
	var got []reading
	var pos *Position
	counts := new(Counts)
	for range 2 { // the second time they come in a replay
		src := kemi.SourceFunc[reading](func(ctx context.Context, out kemi.Sink[reading]) error {
			l := Open(out, Config[reading]{Topic: "in", Reader: "r", Partition: 3, Find: find, Counts: counts})
			if _, err := l.Begin(ctx, pos, nil, 0); err != nil {
				return err
			}
			if err := l.Feed(ctx, in, 5); err != nil {
				return err
			}
			p, _ := l.Position()
			pos = &p
			return nil
		})
		p := &kemi.Pipeline{
			Flows: []*kemi.Flow{kemi.Pipe[reading, reading]("f", src, &differences{keep: time.Hour}, kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
				got = append(got, batch...)
				return nil
			}))},
			DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, ds []kemi.DeadLetter) error {
				letters = append(letters, ds...)
				return nil
			}),
		}
		if err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(letters) != 2 || counts.Refused.Load() != 2 {
		t.Fatalf("%d letters, %d counted: %+v", len(letters), counts.Refused.Load(), letters)
	}
	for i, want := range []kemi.DeadLetter{
		{Payload: []byte("who knows"), Origin: kemi.Origin{Topic: "in", Partition: 3, Offset: 1}},
		{Payload: []byte("h 1\nh"), Format: "lines/1", Origin: kemi.Origin{Topic: "in", Partition: 3, Offset: 3}},
	} {
		if d := letters[i]; !bytes.Equal(d.Payload, want.Payload) || d.Origin != want.Origin || d.Format != want.Format || !strings.Contains(d.Error, "in/3") {
			t.Errorf("letter %+v, want %+v", d, want)
		}
	}
	if n := len(got); n != 2+0 && n != 3 { // two differences, and hosts where a tick says so
		t.Errorf("got %v", got)
	}
}

func FuzzPosition(f *testing.F) {
	p := Position{
		Next: 1 << 40, Clock: time.Unix(5, 6), Rewind: 77, RewindClock: time.Unix(1, 0), Proof: kemi.Proof{Version: 1, Hash: 2},
		Marks:       marks{{Source: origin.Source{Reader: "a@b", Partition: 1}, Seq: 9, Ordinal: 2}, {Source: origin.Source{Reader: "a@b", Partition: 2}, Seq: 5}},
		RewindMarks: marks{{Source: origin.Source{Reader: "a@b", Partition: 1}, Seq: 4, Ordinal: 7}},
	}
	f.Add(p.AppendBinary(nil))
	f.Add((&Position{}).AppendBinary(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		var p, q Position
		if p.UnmarshalBinary(src) != nil {
			return
		}
		if err := q.UnmarshalBinary(p.AppendBinary(nil)); err != nil || !reflect.DeepEqual(p, q) {
			t.Errorf("%+v reads back as %+v, %v", p, q, err)
		}
	})
}
