package disk

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

const (
	ballastFile = "BALLAST"
	minFreeMost = 4 << 30
	// The engine puts its memory into a table while a commit is under way, whose log must
	// find room beside it.
	minFreeLeast = 2 * memTable
)

// How the disk is.
const (
	roomy = iota
	full  // Write refuses
	dire  // nothing is written that can wait
)

// guard refuses to write before the disk is full: the engine can do no more than end the
// process when its log has no room.
type guard struct {
	state atomic.Int32
	free  atomic.Int64
	least atomic.Int64 // bytes that are to be free
	since atomic.Int64 // bytes written since free was looked up

	mu      sync.Mutex
	ballast bool // is there
}

// check returns an error when nothing is to be written.
func (g *guard) check(t *topic) error {
	if g.state.Load() == roomy {
		return nil
	}
	t.refused.Add(1)
	return kemi.RetryAfter(fmt.Errorf("disk: topic %q: %w: %d MB are free where %s is, and %d MB are to stay free: make room, or keep less with TopicConfig.Retain",
		t.name, ErrFull, g.free.Load()>>20, t.db.Dir, g.least.Load()>>20), fullAgain)
}

func (d *DB) openGuard() {
	_, err := d.bare.Stat(d.bare.PathJoin(d.Dir, ballastFile))
	d.guard.ballast = err == nil
	d.watchDisk()
}

// wrote looks sooner when much is written.
func (d *DB) wrote(n int) {
	if d.guard.since.Add(int64(n)) > d.guard.least.Load()/8 {
		d.watchDisk()
	}
}

// watchDisk looks how much is free. Where that cannot be known, an error of the file
// system is what tells.
func (d *DB) watchDisk() {
	g := &d.guard
	u, err := d.bare.GetDiskUsage(d.Dir)
	if err != nil || u.TotalBytes == 0 {
		return
	}
	least := d.MinFree
	if least == 0 {
		least = min(int64(u.TotalBytes/20), minFreeMost)
	}
	least = max(least, minFreeLeast)
	free := int64(u.AvailBytes)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since.Store(0)
	g.free.Store(free)
	g.least.Store(least)
	was := g.state.Load()
	now := was
	switch {
	case free < least/4, was == dire && free < least: // what is free now may be what the ballast was
		now = dire
	case free < least:
		now = full
	case was == roomy || free >= least+least/10:
		now = roomy
	}
	g.state.Store(now)
	fields := []zap.Field{zap.Int64("free", free), zap.Int64("least", least)}
	switch {
	case was == roomy && now != roomy:
		d.log.Error("disk: the disk is nearly full: nothing new is written until there is room; reading goes on", fields...)
	case was != roomy && now == roomy:
		d.log.Info("disk: there is room again: writing goes on", fields...)
	}
	if now == roomy && !g.ballast && free > least+d.Ballast+d.Ballast/4 {
		if err := d.makeBallast(); err != nil {
			_ = d.bare.Remove(d.bare.PathJoin(d.Dir, ballastFile))
			d.log.Warn("disk: no ballast", zap.Error(err))
		} else {
			g.ballast = true
		}
	}
}

func (d *DB) makeBallast() error {
	f, err := d.bare.Create(d.bare.PathJoin(d.Dir, ballastFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	// Bytes that differ, as there are file systems that do not store the others.
	chunk := make([]byte, 1<<20)
	x := uint32(1)
	for i := range chunk {
		x = x*1664525 + 1013904223
		chunk[i] = byte(x >> 24)
	}
	for left := d.Ballast; left > 0 && err == nil; left -= int64(len(chunk)) {
		_, err = f.Write(chunk[:min(left, int64(len(chunk)))])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// releaseBallast is called when the disk was full all the same. What failed is tried
// once more after it has returned.
func (d *DB) releaseBallast() {
	d.guard.state.Store(dire)
	err := d.bare.Remove(d.bare.PathJoin(d.Dir, ballastFile))
	if !errors.Is(err, os.ErrNotExist) {
		d.log.Error("disk: the disk is full: the ballast is given up, so that what is under way can be finished", zap.Error(err))
	}
	// watchDisk may hold the lock while it waits for the file system.
	if d.guard.mu.TryLock() {
		d.guard.ballast = false
		d.guard.mu.Unlock()
	}
}

// Guard says how the disk is.
type Guard struct {
	Full    bool   // Write refuses
	Free    int64  // bytes
	Least   int64  // bytes that are to stay free
	Refused uint64 // Writes since Open
}

// often is how often what is under Tick is looked at.
const often = 250 * time.Millisecond

// tend does what has to be done from time to time.
func (d *DB) tend() {
	timer := time.NewTicker(min(often, max(d.Tick/4, time.Millisecond)))
	defer timer.Stop()
	var looked, retained time.Time
	for {
		select {
		case <-d.done:
			return
		case <-timer.C:
		}
		d.giveTicks()
		now := time.Now()
		if now.Sub(looked) >= often {
			looked = now
			d.watchDisk()
		}
		if now.Sub(retained) >= time.Second {
			retained = now
			d.retention()
			if d.guard.state.Load() != dire && d.noted.Swap(false) {
				d.noteEnds()
			}
		}
	}
}

// giveTicks appends a record that only tells the time to every partition that has been
// silent and has a reader that lives by it: all of them in one commit.
func (d *DB) giveTicks() {
	if d.guard.state.Load() == dire {
		return
	}
	now, _ := d.clock.now()
	var ticks []entry
	for _, t := range d.all() {
		for _, p := range t.parts {
			p.mu.Lock()
			due := p.clocked > 0 && now-p.last >= int64(d.Tick)
			p.mu.Unlock()
			if due {
				ticks = append(ticks, entry{p, tickBody, tickSum})
			}
		}
	}
	if len(ticks) > 0 {
		_ = d.wait(&request{entries: ticks}) // fails when the DB is closed
	}
}

// all returns the topics that were opened.
func (d *DB) all() []*topic {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ts []*topic
	for _, t := range d.topics {
		if t.open {
			ts = append(ts, t)
		}
	}
	return ts
}
