package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestAFileThatIsMissingIsDamage: what the list of files names and is not there was
// taken away, or the list is damaged; a repair helps with both.
func TestAFileThatIsMissingIsDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	db, err := Open(Config{Dir: dir, Ballast: 1})
	if err != nil {
		t.Fatal(err)
	}
	topic, err := NewTopic(db, "a", TopicConfig[reading]{Codecs: linesOnly, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := topic.Write(t.Context(), []reading{{Host: "h", N: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, f := range tables {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if db, err := Open(Config{Dir: dir, Ballast: 1}); !errors.Is(err, ErrDamaged) {
		if err == nil {
			_ = db.Close()
		}
		t.Fatalf("Open without its tables says %v", err)
	}
	report, err := Repair(dir)
	if err != nil || report.OK() && report.Moved == "" {
		t.Fatalf("%v, %v", report, err)
	}
	if db, err = Open(Config{Dir: dir, Ballast: 1}); err != nil {
		t.Fatalf("Open after Repair, which said %v: %v", report, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
