package disk

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// checkOwn refuses a directory of somebody else, before anything is written to it. One
// that has the file KEMI is ours, whatever else is in it. A first Open that was cut off
// may not have come to that, and left the lock and a part of it.
func checkOwn(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	for _, n := range []string{formatFile, newFile, endsName, repairFile} { // without the first it is ours and damaged
		if slices.Contains(names, n) {
			return nil
		}
	}
	foreign := slices.DeleteFunc(names, func(n string) bool {
		switch n = strings.TrimSuffix(n, tempSuffix); n {
		case formatFile, newFile, lockFile, ballastFile, endsName, repairFile, repairDir, "lost+found", "":
			return true
		}
		kind, _ := engineFile(n)
		return kind != ""
	})
	if len(foreign) == 0 {
		return nil
	}
	const most = 3
	slices.Sort(foreign)
	text := fmt.Sprintf("%.100q", foreign[:min(len(foreign), most)])
	if n := len(foreign) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("disk: the directory %s is not kemi's: it has no file %s, and holds %s: set Config.Dir to one that is empty or not there yet: "+
		"it belongs to the DB alone", dir, formatFile, text)
}
