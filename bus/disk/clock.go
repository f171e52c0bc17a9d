package disk

import (
	"sync"
	"time"
)

// clock is the time of the log: that of the machine, but never before the newest record.
// When the clock of the machine has been ahead and is set back, time goes on from the
// newest record, a hundredth slower than it passes, until the machine has caught up:
// ticks are given and records grow old as ever.
type clock struct {
	machine func() time.Time // where it has a monotonic reading, that is what passes

	mu     sync.Mutex
	newest int64 // record
	passed time.Duration
	seen   time.Time // up to when that was counted
}

// now returns the time of the log, and of the machine, in nanoseconds since 1970.
func (c *clock) now() (log, machine int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.machine()
	if !c.seen.IsZero() {
		c.passed += max(0, t.Sub(c.seen)) / 100 * 99
	}
	c.seen = t
	machine = t.UnixNano()
	return max(machine, c.newest+int64(c.passed)), machine
}

// appended says that there is a record of a time that now has told.
func (c *clock) appended(at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at > c.newest {
		c.passed = max(0, c.passed-time.Duration(at-c.newest))
		c.newest = at
	}
}

// last is the time of the newest record.
func (c *clock) last() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newest
}
