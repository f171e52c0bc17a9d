package disk

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A crash may leave tables that a compaction has replaced. Nothing is wrong with that,
// and a repair, be it for another reason, takes nothing from them.
func TestTablesThatWereReplacedAreOfNoUse(t *testing.T) {
	for _, harm := range []bool{false, true} {
		fs := vfs.NewMem()
		now := at(newYear)
		clock := func() time.Time { return time.Unix(0, now.Load()) }
		db, err := open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs, now: clock})
		if err != nil {
			t.Fatal(err)
		}
		in, out := one(t, db, "in"), one(t, db, "out")
		step := func(limit int) {
			for range 10 {
				now.Add(int64(time.Second))
				write(t, in, 1)
			}
			read(t, in, out, "g")
			if err := in.removeBefore(newYear.Add(time.Duration(limit)*time.Second), 0); err != nil {
				t.Fatal(err)
			}
			if err := db.engine.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		step(3)
		saved := map[string][]byte{}
		names, _ := fs.List("data")
		for _, n := range names {
			if strings.HasSuffix(n, ".sst") {
				saved[n], _ = readFile(fs, "data/"+n, 1<<20)
			}
		}
		step(15)
		if err := db.engine.Compact(context.Background(), []byte{0}, []byte{255}, false); err != nil {
			t.Fatal(err)
		}
		if harm {
			step(15)
			bad := offsetKey(kindRecord, in.id, 0, 20)
			if err := db.engine.Set(bad, []byte("rubbish"), pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}
		position, _, err := in.reader(readerName{"g", false}).load(in.parts[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		back := 0
		for n, text := range saved {
			if _, err := fs.Stat("data/" + n); err == nil {
				continue
			}
			f, err := fs.Create("data/"+n, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(text); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			back++
		}
		if back == 0 {
			t.Fatal("no table was replaced")
		}
		if r, err := check(fs, "data"); err != nil || r.OK() == harm {
			t.Errorf("harm %v: %v %v", harm, r, err)
		}
		if r, err := repair(fs, "data", newYear); err != nil || (r.Moved != "") != harm {
			t.Errorf("harm %v: %v %v", harm, r, err)
		}
		if db, err = open(Config{Dir: "data", Ballast: 1}, hooks{fs: fs, now: clock}); err != nil {
			t.Fatal(err)
		}
		in = one(t, db, "in")
		pos, _, err := in.reader(readerName{"g", false}).load(in.parts[0])
		if err != nil || pos == nil || pos.Next != position.Next {
			t.Errorf("harm %v: the position was %d and is %+v, %v", harm, position.Next, pos, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
