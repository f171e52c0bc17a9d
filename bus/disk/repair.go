package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A repair builds a new DB beside the old one and then puts it in its place. The file
// REPAIR says which of the two steps of that was begun, so that one that was cut off is
// taken up again.
const (
	repairFile = "REPAIR"
	repairDir  = "repair.tmp"
	stepOut    = "move the old files to "
	stepIn     = "move the new files in, the old ones are in "
)

// Repair makes a directory usable again whose data is damaged: it writes all that can be
// read anew, moves the old files to a folder beside, and says what is lost. Readers go on
// behind the holes and count them. The DB must be closed; as much room is needed as the
// good records take. Where nothing is wrong nothing is done.
//
// One that was cut off is gone on with by the next call, which says what was lost as
// [Report.Earlier].
//
// Where the positions of readers are among what is lost, those readers begin with the
// oldest record again, and what they make of it may come twice.
func Repair(dir string) (*Report, error) { return repair(hooks{}.orDefault().fs, dir, time.Now()) }

func repair(fs vfs.FS, dir string, now time.Time) (*Report, error) {
	dir, err := realPath(fs, dir)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	lock, err := lockOld(fs, dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	step, err := readFile(fs, fs.PathJoin(dir, repairFile), 1<<10)
	interrupted := err == nil
	var found *salvage
	if !interrupted {
		found, err = checkLocked(fs, dir, lock)
		if err != nil {
			return nil, err
		}
		if found.report.OK() {
			return &found.report, nil
		}
	}
	var report *Report
	if interrupted {
		report = &Report{}
	} else {
		if report, err = rebuild(fs, dir, found); err != nil {
			return report, fmt.Errorf("disk: repairing %s: %w", dir, err)
		}
		step = []byte(stepOut + "damaged-" + now.UTC().Format("20060102T150405.000") + "\n")
		if err := writeFile(fs, dir, repairFile, step); err != nil {
			return report, err
		}
	}
	folder, in := strings.CutPrefix(strings.TrimSuffix(string(step), "\n"), stepIn)
	if !in {
		folder = strings.TrimPrefix(folder, stepOut)
	}
	if !strings.HasPrefix(folder, "damaged-") {
		return report, fmt.Errorf("disk: the file %s in %s says %.100q: remove it and repair again", repairFile, dir, step)
	}
	report.Moved = fs.PathJoin(dir, folder)
	if !in {
		if err := fs.MkdirAll(report.Moved, 0o755); err != nil {
			return report, err
		}
		if err := moveEngine(fs, dir, report.Moved); err != nil {
			return report, err
		}
		if err := writeFile(fs, dir, repairFile, []byte(stepIn+folder+"\n")); err != nil {
			return report, err
		}
	}
	if err := moveEngine(fs, fs.PathJoin(dir, repairDir), dir); err != nil {
		return report, err
	}
	_ = fs.Remove(fs.PathJoin(dir, endsName)) // it is of before
	if err := writeFormat(fs, dir); err != nil {
		return report, err
	}
	if err := fs.Remove(fs.PathJoin(dir, repairFile)); err != nil {
		return report, err
	}
	err = errors.Join(fs.RemoveAll(fs.PathJoin(dir, repairDir)), syncDir(fs, dir))
	if err != nil || !interrupted {
		return report, err
	}
	// What the one that was cut off had found is told by the holes it has left.
	if found, err = checkLocked(fs, dir, lock); err != nil {
		return report, err
	}
	found.report.Moved = report.Moved
	return &found.report, nil
}

// moveEngine moves the files of the engine.
func moveEngine(fs vfs.FS, from, to string) error {
	names, err := fs.List(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if kind, _ := engineFile(n); kind == "" {
			continue
		}
		if err := fs.Rename(fs.PathJoin(from, n), fs.PathJoin(to, n)); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(fs, to), syncDir(fs, from))
}

// rebuild writes what is good into a new DB of the engine. found is what a check has.
func rebuild(fs vfs.FS, dir string, found *salvage) (_ *Report, err error) {
	path := fs.PathJoin(dir, repairDir)
	if err := fs.RemoveAll(path); err != nil {
		return nil, err
	}
	o := engineOptions(fs)
	silence(o)
	o.DisableWAL = true // it is of use as a whole or not at all
	db, err := pebble.Open(path, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	b := db.NewBatch()
	flush := func() error {
		if b.Empty() {
			return nil
		}
		err := errors.Join(b.Commit(pebble.NoSync), b.Close())
		b = db.NewBatch()
		return err
	}
	tails := map[partID]bounds{}
	s := newSalvage(fs, dir)
	s.live, s.engine = found.live, found.engine
	err = s.read(func(key, value []byte) error {
		topic, part, offset, _ := parseOffsetKey(key)
		if r, err := parse(key, value); err == nil { // as it was checked
			t := tails[partID{topic, part}]
			t.seen(offset, &r)
			tails[partID{topic, part}] = t
		}
		_ = b.Set(key, value, nil)
		if b.Len() > groupMax {
			return flush()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for key, v := range s.small {
		_ = b.Set([]byte(key), v.value, nil)
	}
	ids := map[string]uint32{}
	for id, t := range s.topics {
		ids[t.name] = id
		for p, end := range t.ends {
			pid := partID{id, int32(p)}
			was, tail := s.bounds(pid), tails[pid]
			is := bounds{was.first, uint64(end), max(was.size, tail.size), max(was.time, tail.time), max(was.count, tail.count)}
			key := partKey(kindBounds, id, int32(p))
			_ = b.Set(key, is.seal(key), nil)
		}
	}
	for _, l := range s.report.Lost {
		id := ids[l.Topic]
		key := offsetKey(kindHole, id, l.Partition, l.From)
		_ = b.Set(key, sealInts(key, uint64(l.To)), nil)
	}
	if err := errors.Join(flush(), b.Close(), db.Flush()); err != nil {
		return nil, err
	}
	err = db.Close()
	db = nil
	return &s.report, err
}

// checkRepair refuses a directory whose repair was cut off.
func checkRepair(fs vfs.FS, dir string) error {
	text, err := readFile(fs, fs.PathJoin(dir, repairFile), 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return damaged(dir, fmt.Errorf("a repair was cut off (%q): call disk.Repair again, which goes on", bytes.TrimSpace(text)))
}
