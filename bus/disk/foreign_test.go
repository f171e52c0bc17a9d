package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// put makes files of a few bytes; a name that ends with a slash is a directory.
func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		path := filepath.Join(dir, n)
		if strings.HasSuffix(n, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("of somebody"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func TestADirectoryOfSomebodyElseIsRefused(t *testing.T) {
	for name, names := range map[string][]string{
		"a home":         {".profile", "mail/"},
		"one file":       {"notes.txt"},
		"a disk in use":  {"lost+found/", "photos/"},
		"another engine": {"CURRENT", "LOCK", "LOG", "MANIFEST-000002", "000003.log"},
		"many":           {"a", "b", "c", "d", "e"},
	} {
		dir := t.TempDir()
		put(t, dir, names...)
		before := list(t, dir)
		db, err := Open(Config{Dir: dir, Ballast: 1})
		if err == nil {
			_ = db.Close()
			t.Errorf("%s: it was opened", name)
			continue
		}
		found := strings.TrimSuffix(names[len(names)-1], "/")
		switch name {
		case "another engine":
			found = "CURRENT"
		case "many":
			found = `["a" "b" "c"] and 2 more`
		}
		for _, want := range []string{dir, found, "is not kemi's", "Config.Dir"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in: %v", name, want, err)
			}
		}
		if errors.Is(err, ErrDamaged) {
			t.Errorf("%s: it is not for disk.Repair: %v", name, err)
		}
		if after := list(t, dir); !slices.Equal(after, before) {
			t.Errorf("%s: there was %v, and is %v", name, before, after)
		}
	}
}

func TestADirectoryOfItsOwnIsOpened(t *testing.T) {
	for name, names := range map[string][]string{
		"empty": {}, "a disk of its own": {"lost+found/"}, "an interrupted start": {"LOCK", "KEMI.tmp"},
	} {
		dir := t.TempDir()
		put(t, dir, names...)
		for range 2 { // the second time it is kemi's, and something has come to it
			db, err := Open(Config{Dir: dir, Ballast: 1})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			put(t, dir, "notes.txt", "damaged-20260101T000000.000/")
		}
	}
}

// A DB that has lost its file KEMI is damaged, and no stranger.
func TestADirectoryWithoutItsHeaderIsDamaged(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Config{Dir: dir, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "notes.txt")
	if err := os.Remove(filepath.Join(dir, formatFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Ballast: 1}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Repair(dir); err != nil {
		t.Errorf("Repair: %v", err)
	}
	if db, err = Open(Config{Dir: dir, Ballast: 1}); err != nil {
		t.Fatalf("after Repair: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// The first Open is cut off before each thing that it writes, by a power cut or the end
// of the process: what it leaves is opened by the next.
func TestAFirstOpenThatWasCutOffIsMadeAgain(t *testing.T) {
	const dir = "var/lib/kemi"
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	type left struct {
		when string
		fs   *vfs.MemFS
	}
	var all []left
	cut := func(when string) {
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			rnd := rand.New(rand.NewPCG(uint64(len(all)), 1))
			all = append(all, left{fmt.Sprintf("%s, %d %% of what was not synced", when, percent),
				mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rnd})})
		}
	}
	watch := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			cut(fmt.Sprintf("before %v of %s", op.Kind, op.Path))
		}
		return nil
	})
	db, err := open(Config{Dir: dir, Ballast: 1}, hooks{fs: errorfs.Wrap(mem, watch)})
	if err != nil {
		t.Fatal(err)
	}
	cut("after it")
	mu.Lock()
	cuts := slices.Clone(all)
	mu.Unlock()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range cuts {
		if _, err := check(l.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}), dir); err != nil && !strings.Contains(err.Error(), "there is no DB") && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: Check: %v", l.when, err)
		}
		db, err := open(Config{Dir: dir, Ballast: 1}, hooks{fs: l.fs})
		if err != nil {
			t.Errorf("%s: %v", l.when, err)
			continue
		}
		if _, err := NewTopic(db, "t", TopicConfig[reading]{Codecs: linesOnly, Partitions: 1}); err != nil {
			t.Errorf("%s: %v", l.when, err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("%s: %v", l.when, err)
		}
	}
	t.Logf("%d cuts", len(cuts))
	if len(cuts) < 30 {
		t.Errorf("%d cuts are too few", len(cuts))
	}
}

// Two programs begin with the same new directory: one has it, and the other is told so,
// and not that the directory is somebody else's.
func TestTwoFirstOpensDoNotTakeEachOtherForStrangers(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "d")
		errs := make(chan error, 2)
		start := make(chan struct{})
		for range 2 {
			go func() {
				<-start
				db, err := Open(Config{Dir: dir, Ballast: 1})
				if err == nil {
					err = db.Close()
				}
				errs <- err
			}()
		}
		close(start)
		for range 2 {
			if err := <-errs; err != nil && !strings.Contains(err.Error(), "in use") {
				t.Error(err)
			}
		}
	}
}
