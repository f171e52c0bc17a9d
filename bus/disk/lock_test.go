package disk

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Whichever way a directory is called, one DB has it, and who is turned away does not
// take the lock from it.
func TestADirectoryBelongsToOneByEveryPath(t *testing.T) {
	base := t.TempDir()
	dir, link := filepath.Join(base, "d"), filepath.Join(base, "l")
	db, err := Open(Config{Dir: dir, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(base)
	for _, alias := range []string{dir, link, dir + "/.", dir + "/", "d", "l"} {
		_, opened := Open(Config{Dir: alias, Ballast: 1})
		_, checked := Check(alias)
		_, repaired := Repair(alias)
		for what, err := range map[string]error{"Open": opened, "Check": checked, "Repair": repaired} {
			if err == nil || !strings.Contains(err.Error(), "in use by another DB of this process") {
				t.Errorf("%s of %s: %v", what, alias, err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(Config{Dir: link, Ballast: 1}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsOfDirectoriesSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "forbidden", lockFile), 0o755); err != nil { // for root too
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, open := Open(Config{Dir: filepath.Join(dir, "forbidden"), Ballast: 1})
	_, empty := Check(filepath.Join(dir, "empty"))
	_, none := Check(filepath.Join(dir, "none"))
	for want, err := range map[string]error{"cannot be locked": open, "there is no DB in": empty, "no such file": none} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "in use") {
			t.Errorf("want an error with %q, have %v", want, err)
		}
	}
}

func TestCheckLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Config{Dir: dir, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, lockFile)); err != nil {
		t.Fatal(err)
	}
	names := func() (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	before := strings.Join(names(), " ")
	if r, err := Check(dir); err != nil || !r.OK() {
		t.Fatal(r, err)
	}
	if after := strings.Join(names(), " "); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
}

// Open makes all folders of the path; what is acknowledged in them stays.
func TestAPowerCutLeavesNewFoldersWhereTheyAre(t *testing.T) {
	for _, dir := range []string{"data", "var/lib/kemi"} {
		mem := vfs.NewCrashableMem()
		db, err := open(Config{Dir: dir, Ballast: 1}, hooks{fs: mem})
		if err != nil {
			t.Fatal(err)
		}
		topic, err := NewTopic(db, "t", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly})
		if err != nil {
			t.Fatal(err)
		}
		if err := topic.Write(t.Context(), []reading{{Host: "h", N: 1}}); err != nil {
			t.Fatal(err)
		}
		after := mem.CrashClone(vfs.CrashCloneCfg{RNG: rand.New(rand.NewPCG(1, 3))})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err = open(Config{Dir: dir, Ballast: 1}, hooks{fs: after}); err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if topic, err = NewTopic(db, "t", TopicConfig[reading]{Partitions: 1, Codecs: linesOnly}); err != nil {
			t.Fatal(err)
		}
		if end := topic.Stats().Partitions[0].End; end != 1 {
			t.Errorf("%s: an acknowledged record is lost", dir)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
