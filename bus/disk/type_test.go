package disk

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
)

// during opens a DB for as long as do takes.
func during(t *testing.T, fs vfs.FS, do func(db *DB)) {
	t.Helper()
	db, err := open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs})
	if err != nil {
		t.Fatal(err)
	}
	do(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// opens opens a topic. want: what the error has to say; none: there is to be none.
func opens[T any](t *testing.T, db *DB, name string, c TopicConfig[T], want ...string) {
	t.Helper()
	_, err := NewTopic(db, name, c)
	if (err != nil) != (len(want) > 0) {
		t.Errorf("a topic of %T: %v", *new(T), err)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no %q in: %v", w, err)
		}
	}
}

type order struct{ Shop string }

type purchase struct{ Shop, Customer string }

func TestATopicIsOfOneType(t *testing.T) {
	fs := vfs.NewMem()
	first := func(db *DB) {
		opens(t, db, "m", TopicConfig[kemi.Metric]{Partitions: 1})
		opens(t, db, "o", TopicConfig[order]{Partitions: 1})
	}
	during(t, fs, first)
	for range 2 { // nor does it become another's by being asked for
		during(t, fs, func(db *DB) {
			opens(t, db, "m", TopicConfig[kemi.Log]{}, `"m"`, "kemi.Metric", "kemi.Log", "another name")
			opens(t, db, "m", TopicConfig[kemi.Alert]{}, "kemi.Metric", "kemi.Alert")
			opens(t, db, "m", TopicConfig[order]{}, "kemi.Metric", "kemi/bus/disk.order")
			opens(t, db, "o", TopicConfig[kemi.Metric]{}, "kemi/bus/disk.order", "kemi.Metric")
			first(db) // it is not taken by those that were refused
		})
	}
	during(t, fs, func(db *DB) {
		opens(t, db, "m", TopicConfig[kemi.Metric]{Codecs: codec.For[kemi.Metric]().Writing(jsonl.Codec[kemi.Metric]())})
		opens(t, db, "o", TopicConfig[purchase]{}) // it was renamed, or may have been
	})
}

// Those that were made before the type was kept are taken as they are, once.
func TestATopicWithoutATypeGetsTheFirst(t *testing.T) {
	fs := vfs.NewMem()
	during(t, fs, func(db *DB) {
		topic, err := NewTopic(db, "t", TopicConfig[kemi.Metric]{Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.wait(&request{write: func(b *pebble.Batch) { _ = b.Delete(typeKey(topic.id), nil) }}); err != nil {
			t.Fatal(err)
		}
	})
	during(t, fs, func(db *DB) { opens(t, db, "t", TopicConfig[kemi.Log]{}) })
	during(t, fs, func(db *DB) { opens(t, db, "t", TopicConfig[kemi.Metric]{}, "kemi.Log", "kemi.Metric") })
}

// A repair keeps the type, unless that is what is damaged.
func TestARepairKeepsTheType(t *testing.T) {
	fs := vfs.NewMem()
	spoil := func(key func(id uint32) []byte) {
		during(t, fs, func(db *DB) {
			if err := db.wait(&request{write: func(b *pebble.Batch) { _ = b.Set(key(db.topics["t"].id), []byte("spoilt"), nil) }}); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("Open: %v", err)
		}
		if report, err := repair(fs, "data", time.Now()); err != nil || report.OK() {
			t.Fatalf("%v, %v", report, err)
		}
	}
	during(t, fs, func(db *DB) { opens(t, db, "t", TopicConfig[kemi.Metric]{Partitions: 1}) })
	spoil(func(id uint32) []byte { return partKey(kindBounds, id, 0) })
	during(t, fs, func(db *DB) { opens(t, db, "t", TopicConfig[kemi.Log]{}, "kemi.Metric", "kemi.Log") })
	spoil(typeKey)
	during(t, fs, func(db *DB) { opens(t, db, "t", TopicConfig[kemi.Log]{}) })
}
