package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// held are the directories that are locked by this process. The lock of a file is the
// process's: it is no bar to another DB of the same one, and the first of two
// descriptors that is closed drops it. So who comes by another path is to be stopped
// before the file is opened.
var held struct {
	sync.Mutex
	dirs []os.FileInfo
}

// dirLock keeps others away from a directory.
type dirLock struct {
	*pebble.Lock
	dir   os.FileInfo // nil: not on a file system of the machine
	after func() error
}

// Close may be called once.
func (l *dirLock) Close() error {
	err := l.Lock.Close()
	if l.after != nil {
		err = errors.Join(err, l.after())
	}
	l.release()
	return err
}

func (l *dirLock) release() {
	held.Lock()
	defer held.Unlock()
	held.dirs = slices.DeleteFunc(held.dirs, func(d os.FileInfo) bool { return d == l.dir })
}

// hold notes the directory, which must be there.
func (l *dirLock) hold(dir string) (err error) {
	if l.dir, err = os.Stat(dir); err != nil {
		return err
	}
	held.Lock()
	defer held.Unlock()
	if slices.ContainsFunc(held.dirs, func(d os.FileInfo) bool { return os.SameFile(d, l.dir) }) {
		return fmt.Errorf("the directory %s is in use by another DB of this process: close that first", dir)
	}
	held.dirs = append(held.dirs, l.dir)
	return nil
}

// lockDir locks a directory that is there.
func lockDir(fs vfs.FS, dir string) (_ *dirLock, err error) {
	l := &dirLock{}
	if vfs.Root(fs) == vfs.Default {
		if err := l.hold(dir); err != nil {
			return nil, fmt.Errorf("disk: %w", err)
		}
	}
	if l.Lock, err = pebble.LockDirectory(dir, fs); err != nil {
		l.release()
		if path := (*os.PathError)(nil); errors.As(err, &path) { // it did not come as far as to the lock
			return nil, fmt.Errorf("disk: the directory %s cannot be locked, for which a file in it has to be written: %w", dir, err)
		}
		return nil, fmt.Errorf("disk: the directory %s is in use by another process: it belongs to one at a time: %w", dir, err)
	}
	return l, nil
}

// lockOld locks the directory of a DB that is closed, and leaves no trace.
func lockOld(fs vfs.FS, dir string) (*dirLock, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	ours := func(n string) bool {
		kind, _ := engineFile(n)
		return kind != "" || n == formatFile || n == endsName || n == repairFile
	}
	if !slices.ContainsFunc(names, ours) {
		return nil, fmt.Errorf("disk: there is no DB in %s", dir)
	}
	lock, err := lockDir(fs, dir)
	if err == nil && !slices.Contains(names, lockFile) {
		lock.after = func() error { return fs.Remove(fs.PathJoin(dir, lockFile)) }
	}
	return lock, err
}

const lockFile = "LOCK" // the engine's

// realPath is the one path of a directory, or of one that is to be made.
func realPath(fs vfs.FS, dir string) (string, error) {
	if vfs.Root(fs) != vfs.Default {
		return dir, nil
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil // whatever is wrong with it shows soon
}

// makeDir makes a directory that a power cut leaves where it is.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(fs.PathJoin(dir, formatFile)); err == nil {
		return nil
	}
	made := map[string]bool{} // what was not there
	for path := dir; ; path = fs.PathDir(path) {
		if _, err := fs.Stat(path); err == nil || fs.PathDir(path) == path {
			break
		}
		made[path] = true
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Who made one of them before may have been cut off, so all are synced; those above,
	// which may be closed to us, as far as that goes.
	for path := dir; fs.PathDir(path) != path; path = fs.PathDir(path) {
		if err := syncDir(fs, fs.PathDir(path)); err != nil && made[path] {
			return err
		}
	}
	return nil
}
