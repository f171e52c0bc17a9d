package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/kemi-go/kemi/internal/faults"
)

const childEnv = "KEMI_DISK_TEST_CHILD"

// The test runs itself as another process.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "load":
		childLoad()
	case "wal":
		childWAL()
	case "open":
		childOpen()
	}
}

func child(tb testing.TB, what, dir string, n int) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c := exec.Command(self, dir, strconv.Itoa(n))
	c.Env = append(os.Environ(), childEnv+"="+what)
	return c
}

// childTB is what a world needs of a test in another process.
type childTB struct{ testing.TB }

func (childTB) Helper() {}
func (childTB) Error(args ...any) {
	fmt.Println(append([]any{"error"}, args...)...)
}
func (t childTB) Errorf(f string, args ...any) { t.Error(fmt.Sprintf(f, args...)) }
func (t childTB) Fatal(args ...any)            { t.Error(args...); os.Exit(3) }
func (t childTB) Fatalf(f string, args ...any) { t.Fatal(fmt.Sprintf(f, args...)) }

func childWorld(fs vfs.FS) *world {
	n, _ := strconv.Atoi(os.Args[2])
	w := newWorld(childTB{}, fs, os.Args[1], uint64(n))
	w.clock.Store(time.Date(2026, 1, 1, n, 0, 0, 0, time.UTC).UnixNano())
	for writer := range 4 {
		for host := range 4 {
			w.next[fmt.Sprint("w", writer, "-", host)] = n * 1_000_000
		}
	}
	return w
}

// childLoad writes, reads, and tells what was acknowledged, until it is killed.
func childLoad() {
	w := childWorld(vfs.Default)
	w.pause = 300
	w.told = func(batch []reading) {
		var b []byte
		for _, r := range batch {
			b = fmt.Appendf(b, "acked %s %d\n", r.Host, r.N)
		}
		_, _ = os.Stdout.Write(b)
	}
	if err := w.open(); err != nil {
		w.Fatal(err)
	}
	fmt.Println("running")
	w.run(4)
	select {}
}

// A process that is killed in the middle of its work has lost nothing that it had
// called safe, and what it makes of its input is on the disk once.
func TestFaultKilledProcesses(t *testing.T) {
	kills, seed := max(20, faults.Count(t, 1000)), faults.Seed(t)
	const perWorld = 20
	acknowledged := 0
	var w *world
	for n := range kills {
		if n%perWorld == 0 {
			w = newWorld(t, vfs.Default, t.TempDir(), seed+uint64(n))
		}
		c := child(t, "load", w.dir, n%perWorld)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		c.Stderr = &stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			switch f[0] {
			case "running":
				time.AfterFunc(time.Duration(w.rnd.IntN(60_000))*time.Microsecond, func() { _ = c.Process.Kill() })
			case "acked":
				if len(f) == 3 { // or else the line was cut off
					n, _ := strconv.Atoi(f[2])
					w.acked[reading{Host: f[1], N: n}] = struct{}{}
				}
			default:
				t.Errorf("kill %d: %s", n, lines.Text())
			}
		}
		if err := c.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("kill %d: the process ended by itself: %v: %s", n, err, stderr.Bytes())
		}
		w.clock.Store(time.Date(2026, 1, 1, n%perWorld, 30, 0, 0, time.UTC).UnixNano())
		if err := w.open(); err != nil {
			t.Fatalf("kill %d: %v", n, err)
		}
		w.verify(w.acked, false)
		if n%perWorld == perWorld-1 || n == kills-1 {
			w.run(0)
			w.settle()
			w.stop()
			w.verify(w.acked, true)
			acknowledged += len(w.acked)
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	faults.Report(t, "seed %d: %d processes killed, %d records acknowledged: 0 lost, 0 twice", seed, kills, acknowledged)
}

// childWAL loses its disk at some point.
func childWAL() {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) {
			return errors.New("EIO, as the test has it")
		}
		return nil
	}))
	w := childWorld(fs)
	db, err := open(Config{Dir: w.dir, Ballast: 1}, hooks{fs: fs})
	if err != nil {
		w.Fatal(err)
	}
	topic, err := NewTopic(db, "a", TopicConfig[reading]{Codecs: linesOnly})
	if err != nil {
		w.Fatal(err)
	}
	for n := 1; ; n++ {
		if n == 10 {
			broken.Store(true)
		}
		if err := topic.Write(context.Background(), []reading{{Host: "h", N: n}}); err == nil {
			fmt.Println("acked", n)
		}
	}
}

// The engine says that a write was good when its log could not be written, unless the
// process ends there and then.
func TestAFailedLogEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	c := child(t, "wal", dir, 0)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("the process ended with %v; it said %s", err, stderr.Bytes())
	}
	if got := strings.Count(string(out), "acked"); got != 9 {
		t.Errorf("%d Writes were called safe, and 9 were: %s", got, out)
	}
	if s := stderr.String(); !strings.Contains(s, dir) || !strings.Contains(s, "EIO") {
		t.Errorf("the process says %q: want the directory and the reason", s)
	}
	w := newWorld(t, vfs.Default, dir, 1)
	w.parts = 0 // as there are
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	defer w.db.Close()
	n := 0
	for _, p := range w.a.parts {
		n += len(dump(t, w.db, p))
	}
	if n < 9 {
		t.Errorf("%d records are left", n)
	}
}

func childOpen() {
	db, err := Open(Config{Dir: os.Args[1], Ballast: 1})
	fmt.Println(err)
	if err == nil {
		_ = db.Close()
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Config{Dir: dir, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, here := Open(Config{Dir: dir, Ballast: 1})
	there, err := child(t, "open", dir, 0).Output()
	if err != nil {
		t.Fatal(err)
	}
	for who, got := range map[string]string{"this process": fmt.Sprint(here), "another one": string(there)} {
		if !strings.Contains(got, dir) || !strings.Contains(got, "in use") {
			t.Errorf("%s is told %q: want the directory, and that it is in use", who, got)
		}
	}
	if _, err := Check(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Check of a directory in use: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if there, err := child(t, "open", dir, 0).Output(); err != nil || !strings.HasPrefix(string(there), "<nil>") {
		t.Errorf("after Close: %s, %v", there, err)
	}
}
