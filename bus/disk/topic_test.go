package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec"
)

// opened returns a DB in memory whose clock stands at *now.
func opened(t *testing.T, now *atomic.Int64, c Config) (*DB, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	c.Dir, c.Ballast, c.Logger = "data", 1, zap.New(core)
	db, err := open(c, hooks{fs: vfs.NewMem(), now: func() time.Time { return time.Unix(0, now.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, logs
}

func at(t time.Time) *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(t.UnixNano())
	return n
}

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// patience is how long is waited for what has to happen: only what hangs takes so long.
const patience = 2 * time.Minute

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestConfigErrorsSayWhatToDo(t *testing.T) {
	if _, err := Open(Config{}); err == nil || !strings.Contains(err.Error(), "Dir") {
		t.Errorf("no Dir: %v", err)
	}
	db, _ := opened(t, at(newYear), Config{})
	if _, err := NewTopic(db, "sixteen", TopicConfig[reading]{Partitions: 16, Codecs: linesOnly}); err != nil {
		t.Fatal(err)
	}
	for want, make := range map[string]func() error{
		"has a name":     func() error { _, err := NewTopic(db, "", TopicConfig[reading]{}); return err },
		"-1 partitions":  func() error { _, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: -1}); return err },
		"-1ns":           func() error { _, err := NewTopic(db, "t", TopicConfig[reading]{Retain: -1}); return err },
		"-1 bytes":       func() error { _, err := NewTopic(db, "t", TopicConfig[reading]{RetainBytes: -1}); return err },
		"up to -1 bytes": func() error { _, err := NewTopic(db, "t", TopicConfig[reading]{MaxRecord: -1}); return err },
		"open already":   func() error { _, err := NewTopic(db, "sixteen", TopicConfig[reading]{}); return err },
		"has no DB":      func() error { _, err := NewTopic(nil, "t", TopicConfig[reading]{}); return err },
		"are called": func() error {
			return topicWith(db, codec.Set[reading]{Write: lines{}, Read: []bus.Codec[reading]{lines{}}})
		},
	} {
		if err := make(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, have %v", want, err)
		}
	}
}

func TestTheNumberOfPartitionsIsFixed(t *testing.T) {
	fs := vfs.NewMem()
	for n, want := range []string{"", "has 16 partitions and not 8"} {
		db, err := open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs})
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewTopic(db, "t", TopicConfig[reading]{Partitions: 16 >> n, Codecs: linesOnly})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", n, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is wrong with one record is told of that record, and the others are safe.
func TestARecordThatCannotBeStoredIsNamed(t *testing.T) {
	db, _ := opened(t, at(newYear), Config{})
	topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 4, Codecs: linesOnly, MaxRecord: 1000})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2000)
	batch := []reading{{Host: "a", N: 1}, {Host: long, N: 2}, {Host: "cannot", N: 3}, {Host: "a", N: 4}, {Host: "b", N: 5}}
	for n := range 100 { // more than fits in one piece
		batch = append(batch, reading{Host: "many", N: 100_000_000 + n})
	}
	err = topic.Write(t.Context(), batch)
	failed, ok := kemi.Failures(err, batch)
	if !ok || len(failed) != 2 {
		t.Fatalf("Write: %v", err)
	}
	for _, f := range failed {
		if !kemi.IsPermanent(f.Err) || (f.Index == 1) != errors.Is(f.Err, ErrTooLarge) || f.Index != 1 && f.Index != 2 {
			t.Errorf("record %d: %v", f.Index, f.Err)
		}
		if len(f.Err.Error()) > 500 {
			t.Errorf("the error is as long as the record")
		}
	}
	got := map[string][]int{}
	for _, p := range topic.parts {
		for _, l := range dump(t, db, p) {
			for _, r := range l.batch {
				got[r.Host] = append(got[r.Host], r.N)
			}
		}
	}
	if len(got["a"]) != 2 || len(got["b"]) != 1 || len(got["many"]) != 100 || len(got) != 3 {
		t.Errorf("%v is on the topic", got)
	}
	for i, n := range got["many"] {
		if n != 100_000_000+i {
			t.Fatalf("record %d of those in pieces is %d", i, n)
		}
	}
}

// Two topics with a flow between: what no codec reads is in the dead letters, with its
// bytes, and what comes after it is delivered.
func TestForeignRecordsAreDeadLetters(t *testing.T) {
	fs := vfs.NewMem()
	var letters []kemi.DeadLetter
	for life, c := range []codec.Set[reading]{{Write: stranger{}}, linesOnly} {
		db, err := open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs})
		if err != nil {
			t.Fatal(err)
		}
		topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 1, Codecs: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: life}}); err != nil {
			t.Fatal(err)
		}
		if life == 1 {
			ctx, stop := context.WithCancel(t.Context())
			p := kemi.Pipeline{
				Flows: []*kemi.Flow{kemi.Connect("f", topic.Group("g"), kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
					if len(batch) != 1 || batch[0].N != 1 {
						t.Errorf("delivered: %v", batch)
					}
					stop()
					return nil
				}))},
				DeadLetters: kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, d []kemi.DeadLetter) error {
					letters = append(letters, d...)
					return nil
				}),
			}
			if err := p.Run(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(letters) != 1 || string(letters[0].Payload) != "?" || letters[0].Origin != (kemi.Origin{Topic: "t"}) || !strings.Contains(letters[0].Error, "strange/1") {
		t.Errorf("the dead letters: %+v", letters)
	}
}

type stranger struct{ lines }

func (stranger) Name() string { return "strange/1" }

func (stranger) AppendBatch(dst []byte, _ []reading) ([]byte, error) { return append(dst, '?'), nil }

// A directory of a newer kemi, one with a damaged header, and one that has none.
func TestTheHeaderIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"kemi bus/disk, format 2\n":  "newer kemi",
		"kemi bus/disk, format 1":    "damaged",
		"kemi bus/dizk, format 1\n":  "damaged",
		"":                           "damaged",
		"kemi bus/disk, format -1\n": "damaged",
		"none":                       "damaged",
	} {
		fs := vfs.NewMem()
		w := newWorld(t, fs, "data", 1)
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		if err := w.a.Write(t.Context(), []reading{{Host: "h", N: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := fs.Remove("data/" + formatFile); err != nil {
			t.Fatal(err)
		}
		if text != "none" {
			if err := writeFile(fs, "data", formatFile, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		err := w.open()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "data") || errors.Is(err, ErrDamaged) != (want == "damaged") {
			t.Errorf("%q: %v", text, err)
		}
		report, err := repair(fs, "data", newYear)
		if want == "newer kemi" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: Repair: %v, %v", text, report, err)
			}
			continue
		}
		if err != nil || len(report.Lost) > 0 || report.Records != 1 {
			t.Errorf("%q: Repair: %v, %v", text, report, err)
		}
		if err := w.open(); err != nil {
			t.Errorf("%q: after Repair: %v", text, err)
		} else if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Records go when they are too old, or too many; a reader that was away for longer is
// warned, loses them, and that is counted and logged.
func TestRetention(t *testing.T) {
	now := at(newYear)
	db, logs := opened(t, now, Config{Tick: 4 * time.Millisecond})
	config := TopicConfig[reading]{Partitions: 2, Codecs: linesOnly, Retain: time.Hour}
	topic, err := NewTopic(db, "t", config)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	write := func(count int) {
		t.Helper()
		for range count {
			n++
			now.Add(int64(time.Minute))
			if err := topic.Write(t.Context(), []reading{{Host: "h", N: n}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	lag := func() ReaderStats { return topic.Stats().Readers[0] }
	read := func() (got []int) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error)
		go func() {
			done <- topic.Group("g").Run(ctx, kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
				for _, r := range batch {
					got = append(got, r.N)
				}
				return nil
			}))
		}()
		until(t, "all is read", func() bool { return len(topic.Stats().Readers) > 0 && lag().Running > 0 && lag().Lag == 0 })
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return got
	}
	write(30)
	if got := read(); len(got) != 30 {
		t.Fatalf("%v was read", got)
	}
	write(300)
	part := func() PartitionStats {
		for _, p := range topic.Stats().Partitions {
			if p.End > 0 {
				return p
			}
		}
		return PartitionStats{}
	}
	until(t, "what is old is gone", func() bool { return part().First >= 265 })
	db.retention() // it may have been there while the last were written
	if p := part(); p.First > 271 || p.End != 330 {
		t.Fatalf("an hour is to be kept, and there is %+v", p)
	}
	first := part().First
	got := read()
	if len(got) != int(330-first) || got[0] != int(first)+1 {
		t.Errorf("the rest is read as %v", got)
	}
	if s := lag(); s.Lost != uint64(first)-30 {
		t.Errorf("%d offsets are lost, and %d are counted", first-30, s.Lost)
	}
	if logs.FilterMessageSnippet("has lost records").Len() != 1 {
		t.Errorf("the log says %v", logs.All())
	}
	small, err := NewTopic(db, "small", TopicConfig[reading]{Partitions: 4, Codecs: linesOnly, RetainBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		now.Add(int64(time.Second))
		if err := small.Write(t.Context(), []reading{{Host: fmt.Sprint("h", n%7), N: n}}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "what is too much is gone", func() bool { return small.Stats().Bytes <= 10_000 })
	if b := small.Stats().Bytes; b < 8_500 {
		t.Errorf("10,000 bytes are to be kept, and there are %d", b)
	}
	kept := 0
	for _, p := range small.Stats().Partitions {
		kept += int(p.End - p.First)
	}
	oldest, newest := 0, 0
	look := func() {
		oldest, newest = 1000, 0
		for _, p := range small.parts {
			for _, l := range dump(t, db, p) {
				oldest, newest = min(oldest, l.batch[0].N), max(newest, l.batch[0].N)
			}
		}
	}
	// Readers are told where a partition begins a moment before the rest is removed.
	for end := time.Now().Add(patience); kept != 1000-oldest && time.Now().Before(end); time.Sleep(time.Millisecond) {
		look()
	}
	if newest != 999 || kept != 1000-oldest {
		t.Errorf("%d records from %d to %d are kept: the oldest are to go first, of whatever partition", kept, oldest, newest)
	}
}

// A partition that nobody writes to has a time all the same, where a reader lives by it.
func TestSilentPartitionsAreGivenTheTime(t *testing.T) {
	now := at(newYear)
	db, _ := opened(t, now, Config{Tick: 4 * time.Millisecond})
	topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 3, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	gone := make(chan reading, 10)
	p := kemi.Pipeline{Flows: []*kemi.Flow{
		kemi.Pipe("f", topic.Group("g"), kemi.Transform[reading, reading](newDifferences()), kemi.Sink[reading](kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
			for _, r := range batch {
				gone <- r
			}
			return nil
		}))),
	}}
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	if err := topic.Write(ctx, []reading{{Host: "h", N: 1}}); err != nil {
		t.Fatal(err)
	}
	if r := <-gone; r.N != 1 {
		t.Fatalf("%v came", r)
	}
	now.Add(int64(time.Second))
	until(t, "every partition has a tick", func() bool {
		for _, p := range topic.Stats().Partitions {
			if p.End == 0 {
				return false
			}
		}
		return true
	})
	now.Add(int64(horizon + 5*time.Second))
	if r := <-gone; r.N != -1 {
		t.Errorf("%v came, and not that the host is gone", r)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, p := range topic.Stats().Partitions {
		if p.End > 5 {
			t.Errorf("the time was told %d times in 26 s of which 24 passed at once", p.End)
		}
	}
}

// A reader that is behind is told by what it has to do, which ticks are not: also after
// a restart, when it does not run.
func TestLagIsWithoutTicks(t *testing.T) {
	now := at(newYear)
	fs := vfs.NewMem()
	var db *DB
	var topic *Topic[reading]
	reopen := func() {
		var err error
		if db, err = open(Config{Dir: "data", Ballast: 1, Tick: 4 * time.Millisecond}, hooks{fs: fs, now: func() time.Time { return time.Unix(0, now.Load()) }}); err != nil {
			t.Fatal(err)
		}
		if topic, err = NewTopic(db, "t", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	write := func() {
		t.Helper()
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	lag := func() int64 {
		if r := topic.Stats().Readers; len(r) > 0 {
			return r[0].Lag
		}
		return -1
	}
	ticks := func(n int64) {
		p := topic.parts[0]
		p.mu.Lock()
		p.clocked++
		p.mu.Unlock()
		for end := topic.Stats().Partitions[0].End + n; topic.Stats().Partitions[0].End < end; now.Add(int64(time.Second)) {
			time.Sleep(time.Millisecond)
		}
		p.mu.Lock()
		p.clocked--
		p.mu.Unlock()
	}
	write()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- topic.Group("g").Run(ctx, kemi.SinkFunc[reading](func(context.Context, []reading) error { return nil }))
	}()
	until(t, "it has read", func() bool { return lag() == 0 })
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 3; n++ {
		ticks(5)
		write()
		if got := lag(); got != n {
			t.Errorf("after %d records and %d ticks the lag is %d", n, 5*n, got)
		}
	}
	ticks(5)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lag(); got < 3 {
		t.Errorf("when the DB is closed the lag is %d", got)
	}
	reopen()
	if got := lag(); got != 3 {
		t.Errorf("after a restart the lag is %d, and not 3", got)
	}
	now.Add(int64(8 * 24 * time.Hour))
	until(t, "what is old is gone, and counts no more", func() bool { return lag() == 0 })
	write()
	if got := lag(); got != 1 {
		t.Errorf("the lag is %d, and all but one record is gone", got)
	}
}

// A reader that does not hear the time passes ticks, and that costs no sync of its own.
func TestTicksNobodyHearsArePassedWithoutASync(t *testing.T) {
	now := at(newYear)
	var syncs atomic.Int64
	counting := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync {
			if strings.HasSuffix(op.Path, ".log") {
				syncs.Add(1)
			}
		}
		return nil
	})
	db, err := open(Config{Dir: "data", Ballast: 1, Tick: time.Second}, hooks{fs: errorfs.Wrap(vfs.NewMem(), counting), now: func() time.Time { return time.Unix(0, now.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 16, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range topic.parts {
		p.mu.Lock()
		p.clocked++
		p.mu.Unlock()
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- topic.Group("g").Run(ctx, kemi.SinkFunc[reading](func(context.Context, []reading) error { return nil }))
	}()
	r := topic.reader(readerName{"g", false})
	kept := func(least int64) func() bool {
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Min(r.next) >= least
		}
	}
	passed := func(n int64) func() bool {
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.pools) == 1 && !slices.ContainsFunc(r.pools[0].lanes, func(l *lane) bool {
				if l == nil || !l.begun.Load() {
					return true
				}
				pos, _ := l.from.Position()
				return pos.Next < n
			})
		}
	}
	tick := func(n int64) {
		now.Add(int64(time.Second))
		until(t, "every partition has a tick", func() bool {
			return !slices.ContainsFunc(topic.Stats().Partitions, func(p PartitionStats) bool { return p.End < n })
		})
		until(t, "the reader has passed it", passed(n))
		time.Sleep(2 * flushEvery) // for those who would sync what nobody asked for
	}
	tick(1)
	before := syncs.Load()
	const rounds = 6
	for n := int64(2); n < 2+rounds; n++ {
		tick(n)
	}
	// Once for the ticks of all partitions, and once at most for what marks the end, be it
	// that of the round before.
	if n := syncs.Load() - before; n < rounds || n > 2*rounds+1 {
		t.Errorf("%d times the ticks of 16 partitions were synced %d times", rounds, n)
	}
	if !kept(rounds)() {
		t.Errorf("positions do not ride along with ticks: they are %v", r.next)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !kept(1 + rounds)() {
		t.Errorf("it has ended, and the positions are %v", r.next)
	}
}

// The clock was ahead and is set back: times do not go back but on, and somebody is told.
func TestAClockThatIsSetBack(t *testing.T) {
	now := at(newYear)
	db, logs := opened(t, now, Config{})
	topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	for n, step := range []time.Duration{0, -time.Hour, time.Second, 2 * time.Hour} {
		now.Add(int64(step))
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: n}}); err != nil {
			t.Fatal(err)
		}
	}
	var times []time.Duration
	for _, l := range dump(t, db, topic.parts[0]) {
		times = append(times, l.time.Sub(newYear))
	}
	if want := []time.Duration{0, 0, 990 * time.Millisecond, 2*time.Hour*99/100 + 990*time.Millisecond}; fmt.Sprint(times) != fmt.Sprint(want) {
		t.Errorf("the times are %v, want %v", times, want)
	}
	if n := logs.FilterMessageSnippet("from the future").Len(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestForgetIsForGood(t *testing.T) {
	fs := vfs.NewMem()
	w := newWorld(t, fs, "data", 1)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if err := w.a.Write(t.Context(), []reading{{Host: "h", N: 1}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, _ := w.readAll("g"); len(got["h"]) != 1 {
			t.Errorf("read after Forget: %v", got)
		}
		if err := w.a.Forget("g"); err != nil {
			t.Fatal(err)
		}
		if len(w.a.Stats().Readers) != 0 {
			t.Errorf("%+v", w.a.Stats().Readers)
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.a.Write(t.Context(), []reading{{Host: "h", N: 1}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Write to a DB that is closed: %v", err)
	}
	if err := w.a.Group("g").Run(t.Context(), kemi.SinkFunc[reading](nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("Run on a DB that is closed: %v", err)
	}
}

func topicWith(db *DB, c codec.Set[reading]) error {
	_, err := NewTopic(db, "t", TopicConfig[reading]{Codecs: c})
	return err
}

// Close does not wait for flows that nobody has stopped, and they find out.
func TestCloseUnderLoad(t *testing.T) {
	for range 20 {
		w := newWorld(t, vfs.NewMem(), "data", 1)
		w.pause = 10
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		stuck := make(chan struct{}, 1)
		hung := make(chan error, 1)
		go func() {
			hung <- w.a.Group("hung").Run(context.Background(), kemi.SinkFunc[reading](func(ctx context.Context, _ []reading) error {
				select {
				case stuck <- struct{}{}:
				default:
				}
				<-ctx.Done()
				return ctx.Err()
			}))
		}()
		w.run(2)
		<-stuck
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-hung; !errors.Is(err, ErrClosed) {
			t.Fatalf("Run returned %v", err)
		}
		w.stop()
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		w.verify(w.acked, false)
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
