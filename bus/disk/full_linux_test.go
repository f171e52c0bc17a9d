package disk

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faults"
)

// small returns a file system of its own, or skips the test.
func small(t *testing.T, options string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no file system of its own: %v", err)
	}
	t.Cleanup(func() {
		// An engine that could not be opened has files for as long as the process lives.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the room that is left but for some bytes. The file may be there.
func fill(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	if leave == 0 {
		chunk = make([]byte, 4<<20) // at one go, so that nobody gets between
	}
	for {
		u, err := vfs.Default.GetDiskUsage(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		if int64(u.AvailBytes) <= leave {
			return
		}
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func logFiles(t *testing.T, dir string) {
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			t.Logf("%9d %s", info.Size(), path)
		}
		return nil
	})
}

// Somebody else fills the disk. Write refuses in good time, the process lives even when
// there is no byte left, reading goes on, and when there is room again so does writing.
func TestFaultDiskFull(t *testing.T) {
	fulls, slowest := max(3, faults.Count(t, 30)), time.Duration(0)
	mount := small(t, "size=300m")
	dir, other := filepath.Join(mount, "db"), filepath.Join(mount, "other")
	const least = 72 << 20 // of which a quarter is more than the engine needs at once
	db, err := open(Config{Dir: dir, MinFree: least, Ballast: 4 << 20}, hooks{})
	if err != nil {
		t.Fatal(err)
	}
	config := TopicConfig[reading]{Partitions: 2, Codecs: linesOnly, RetainBytes: 16 << 20}
	topic, err := NewTopic(db, "a", config)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan int, 1<<16)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- topic.Group("g").Run(ctx, kemi.SinkFunc[reading](func(_ context.Context, batch []reading) error {
			for _, r := range batch {
				read <- r.N
			}
			return nil
		}))
	}()
	t.Cleanup(func() { _ = db.Close() }) // before its disk is gone, and full or not
	n := 0
	write := func() error {
		noise := make([]byte, 50_000) // does not compress
		_, _ = rand.Read(noise)
		err := topic.Write(t.Context(), []reading{{Host: "h" + hex.EncodeToString(noise), N: n + 1}})
		if err == nil {
			n++
		}
		return err
	}
	for cycle := range fulls {
		for range 40 {
			if err := write(); err != nil {
				t.Fatalf("cycle %d: %v; %+v", cycle, err, db.Stats().Guard)
			}
		}
		// The engine removes what it no longer needs, which makes room: that is taken too.
		var full error
		until(t, "Write refuses, as the disk is nearly full", func() bool {
			fill(t, other, least+2<<20)
			full = write()
			return full != nil
		})
		if !errors.Is(full, ErrFull) || kemi.IsPermanent(full) {
			t.Fatalf("cycle %d: the disk is nearly full, and Write says %v", cycle, full)
		}
		if g := db.Stats().Guard; !g.Full || g.Refused == 0 {
			t.Errorf("cycle %d: the guard says %+v", cycle, g)
		}
		// And then there is no byte left, for a while. The ballast helps one who has to
		// write before the guard has seen that, but not two: it is seen first. When the
		// engine has made room, Write may go on, and all is done again.
		for begin := time.Now(); ; {
			until(t, "the guard has seen that there is hardly any room", func() bool {
				fill(t, other, least/4-1<<20)
				return db.Stats().Guard.Free < least/4
			})
			fill(t, other, 0)
			for empty := time.Now(); errors.Is(full, ErrFull) && time.Since(empty) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
				was := db.Stats().Guard.Full
				if full = write(); full == nil && was && db.Stats().Guard.Full {
					t.Fatalf("cycle %d: the disk is full, and Write takes what it is given", cycle)
				}
			}
			if full != nil {
				break
			}
			if full = ErrFull; time.Since(begin) > patience {
				t.Fatalf("cycle %d: the disk is full, and Write takes what it is given now and then", cycle)
			}
		}
		if !errors.Is(full, ErrFull) {
			t.Fatalf("cycle %d: the disk is full, and Write says %v", cycle, full)
		}
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for err := write(); err != nil; err = write() {
			if time.Since(begin) > patience {
				logFiles(t, mount)
				t.Fatalf("cycle %d: there is room again for %v, and Write says %v; %+v", cycle, patience, err, db.Stats().Guard)
			}
			time.Sleep(10 * time.Millisecond)
		}
		slowest = max(slowest, time.Since(begin))
	}
	for got := 0; got < n; got++ { // each once, whatever the order of the two partitions
		select {
		case <-read:
		case <-time.After(patience):
			t.Fatalf("%d of %d records were read: %+v", got, n, topic.Stats().Readers)
		}
	}
	faults.Report(t, "%d times full, %d records acknowledged: 0 lost; writing again after %v at most", fulls, n, slowest.Round(time.Millisecond))
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := Check(dir); err != nil || !report.OK() {
		t.Errorf("%v, %v", report, err)
	}
}

// A process that is started again and again while the disk is full is told so, and lives.
func TestOpenOnAFullDiskIsAnError(t *testing.T) {
	mount := small(t, "size=100m")
	dir := filepath.Join(mount, "db")
	db, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := NewTopic(db, "a", TopicConfig[reading]{Partitions: 2, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	const records = 100
	for n := range records {
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: n}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(mount, "other")
	failed := 0
	for i := range 5 {
		fill(t, other+strconv.Itoa(i), 0) // the ballast has gone in between
		db, err := Open(Config{Dir: dir})
		if err != nil {
			if failed++; !errors.Is(err, ErrFull) {
				t.Errorf("Open %d: %v", i, err)
			}
			continue
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	if failed == 0 {
		t.Error("it was never full")
	}
	for i := range 5 {
		if err := os.Remove(other + strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if db, err = Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if topic, err = NewTopic(db, "a", TopicConfig[reading]{Codecs: linesOnly}); err != nil {
		t.Fatal(err)
	}
	if s := topic.Stats(); s.Partitions[0].End+s.Partitions[1].End != records {
		t.Errorf("%+v", s)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// A program that is stopped while the disk is full ends, and what was called safe is
// there when it comes back.
func TestCloseOnAFullDiskReturns(t *testing.T) {
	mount := small(t, "size=100m")
	dir, other := filepath.Join(mount, "db"), filepath.Join(mount, "other")
	db, err := Open(Config{Dir: dir, Ballast: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := NewTopic(db, "a", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly})
	if err != nil {
		t.Fatal(err)
	}
	write(t, topic, 100)
	fill(t, other, 0)
	db.releaseBallast() // as the engine would
	fill(t, other, 0)
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		if err != nil && !vfs.IsNoSpaceError(err) {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close hangs")
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(Config{Dir: dir, Ballast: 1}); err != nil {
		t.Fatal(err)
	}
	if topic, err = NewTopic(db, "a", TopicConfig[reading]{Codecs: linesOnly}); err != nil {
		t.Fatal(err)
	}
	if end := topic.Stats().Partitions[0].End; end != 100 {
		t.Errorf("%d of 100 records are there", end)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
