package main

import (
	"fmt"
	"io"

	"github.com/kemi-go/kemi/bus/disk"
)

// examine looks for damage in a directory that no process uses, and takes it out if that
// is asked for. It says what it has found, and returns the exit code: 0 when all was
// sound, 1 when something was not, repaired or not.
func examine(dir string, repair bool, out io.Writer) (code int, err error) {
	look := disk.Check
	if repair {
		look = disk.Repair
	}
	r, err := look(dir)
	if r == nil {
		return 1, err
	}
	if r.OK() && r.Moved == "" && err == nil {
		fmt.Fprintf(out, "%s is sound\n%v", dir, r)
		return 0, nil
	}
	switch {
	case !repair || err != nil:
		fmt.Fprintf(out, "%s is damaged\n%v", dir, r)
	default:
		fmt.Fprintf(out, "%s was damaged, and is repaired\n%v", dir, r)
	}
	if len(r.Lost)+len(r.Earlier) == 0 {
		fmt.Fprintln(out, "no record is lost")
	} else {
		fmt.Fprintln(out, "readers go on behind what is lost, and the status counts it as NEVER READ")
	}
	if !repair {
		fmt.Fprintln(out, "-repair takes the damage out and keeps the old files")
	}
	return 1, err
}
