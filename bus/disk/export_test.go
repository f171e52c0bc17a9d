package disk

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// OpenOn opens a DB on a file system. A nil now stands for the clock.
func OpenOn(fs vfs.FS, c Config, now func() time.Time) (*DB, error) {
	return open(c, hooks{fs: fs, now: now})
}
