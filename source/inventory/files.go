package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Files returns a Discoverer of the lists in files: JSON if the name ends in .json,
// YAML otherwise; see the package comment. A path may be a pattern of
// [filepath.Match], which then may match no file; a plain path must exist.
//
// A file is read again when it has changed. One that is wrong or missing is reported,
// and stood in for by what was in it last; but a file that a pattern matches no more
// is gone with its targets.
func Files(paths ...string) Discoverer {
	return &files{paths: slices.Clone(paths), known: map[string]*file{}}
}

type files struct {
	paths []string
	known map[string]*file // what was in each file last
}

type file struct {
	info    os.FileInfo // nil: to be read again
	targets []Target    // nil: never read
}

// Targets returns what is in the files now.
func (f *files) Targets(ctx context.Context) ([]Target, error) {
	if len(f.paths) == 0 {
		return nil, errors.New("inventory: no files are named")
	}
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	var all []Target
	var errs []error
	known := map[string]*file{}
	any := len(names) == 0 // patterns that match nothing are a list, an empty one
	for _, name := range names {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if known[name] != nil {
			continue // two patterns match it
		}
		kept := f.known[name]
		if kept == nil {
			kept = &file{}
		}
		if err := kept.read(name); err != nil {
			errs = append(errs, err)
		}
		known[name] = kept
		any = any || kept.targets != nil
		all = append(all, kept.targets...)
	}
	f.known = known
	if any && all == nil {
		all = []Target{}
	}
	return all, errors.Join(errs...)
}

// names returns the files that there are, in the order of the paths.
func (f *files) names() ([]string, error) {
	var names []string
	for _, p := range f.paths {
		if !strings.ContainsAny(p, `*?[`) {
			names = append(names, p)
			continue
		}
		match, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("inventory: %s: %w", p, err)
		}
		names = append(names, match...)
	}
	return names, nil
}

// settled is how old a change must be before the time of the file is trusted to
// tell of the next one: file systems have times as coarse as two seconds.
const settled = 2 * time.Second

// read reads the file if it has changed. With an error what was read last stays.
func (f *file) read(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	if f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) {
		return nil
	}
	f.info = nil // a file that is wrong is read, and told of, every time
	if !info.Mode().IsRegular() {
		return fmt.Errorf("inventory: %s: not a file", name)
	}
	now := time.Now()
	text, err := readFile(name)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	targets, err := parse(name, text, strings.EqualFold(filepath.Ext(name), ".json"))
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	f.targets = targets
	if now.Sub(info.ModTime()) > settled {
		f.info = info
	}
	return nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxJSON+1)) // parse refuses what is too large
}
