package promql

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// maxFiles bounds how many files the patterns may match.
const maxFiles = 10_000

// files is what was read of the rule files.
type files struct {
	mu      sync.Mutex // one reload at a time
	read    map[string]*file
	refused atomic.Pointer[string] // the error of the last reload, or nothing
}

// file is one rule file: what it holds, and the groups of the last content that
// passed.
type file struct {
	content []byte
	err     error // of content
	groups  []*groupSpec
}

// Reload reads the rule files again and puts those that have changed into force. A
// file that does not pass stays as it was; the error names file, line and reason.
// The alerts of rules that are gone come as resolved with the next Tick.
//
// A pattern that matches no file is an error, and changes nothing: rules do not end
// because a directory was away for a moment.
func (r *Rules) Reload() error { return r.reload(r.contents()) }

func (r *Rules) reload(now map[string][]byte, err error) error {
	r.files.mu.Lock()
	defer r.files.mu.Unlock()
	if err == nil {
		err = r.take(now)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.files.refused.Store(&text)
	return err
}

// take puts the contents of the rule files into force.
func (r *Rules) take(now map[string][]byte) error {
	initial := r.files.read == nil
	next := make(map[string]*file, len(now))
	changed := len(now) != len(r.files.read)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(now)) {
		old := r.files.read[name]
		if old != nil && bytes.Equal(old.content, now[name]) {
			next[name] = old
			errs = append(errs, old.err)
			continue
		}
		f := &file{content: now[name]}
		rd := &reader{
			file: name, scope: r.scope, parser: r.parser,
			interval: r.conf.EvaluationInterval, lookback: r.conf.Lookback, longest: r.conf.MaxLookback,
		}
		if f.groups, f.err = rd.read(f.content); f.err != nil && old != nil {
			f.groups = old.groups
		} else {
			changed = true
		}
		next[name] = f
		errs = append(errs, f.err)
	}
	err := errors.Join(errs...)
	if initial && err != nil {
		return fmt.Errorf("promql: the rules were not taken:\n%w", err)
	}
	r.files.read = next
	if changed {
		var specs []*groupSpec
		for _, name := range slices.Sorted(maps.Keys(next)) {
			specs = append(specs, next[name].groups...)
		}
		r.install(specs)
		if !initial {
			r.log.Info("metric rules were reloaded", zap.Int("files", len(next)), zap.Int("groups", len(specs)))
		}
	}
	if err != nil {
		return fmt.Errorf("promql: a rule file was refused, what it held before is still in force:\n%w", err)
	}
	return nil
}

// contents reads the rule files.
func (r *Rules) contents() (map[string][]byte, error) {
	all := map[string][]byte{}
	for _, pattern := range r.conf.Files {
		names, err := r.glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("promql: %q is not a pattern of files: %w", pattern, err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("promql: no rule file matches %q", pattern)
		}
		for _, name := range names {
			if all[name], err = r.content(name); err != nil {
				return nil, fmt.Errorf("promql: a rule file cannot be read: %w", err)
			}
		}
		if len(all) > maxFiles {
			return nil, fmt.Errorf("promql: the patterns match more than %d rule files", maxFiles)
		}
	}
	return all, nil
}

func (r *Rules) glob(pattern string) ([]string, error) {
	if r.conf.FS != nil {
		return fs.Glob(r.conf.FS, path.Clean(pattern))
	}
	return filepath.Glob(pattern)
}

// content reads a file, up to a byte more than a rule file may have.
func (r *Rules) content(name string) ([]byte, error) {
	var f fs.File
	var err error
	if r.conf.FS != nil {
		f, err = r.conf.FS.Open(name)
	} else {
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// install puts groups into force. A rule takes over the state of the old rule of the
// same file, group, kind, name and labels. What is left then goes by all but the file,
// as groups are moved from one to another.
func (r *Rules) install(specs []*groupSpec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	groups := make([]*group, 0, len(specs))
	var needs []need
	for _, spec := range specs {
		g := &group{groupSpec: spec}
		for _, rs := range spec.rules {
			x := newRule(rs, g, r.scope)
			g.rules = append(g.rules, x)
			needs = append(needs, rs.needs...)
		}
		groups = append(groups, g)
	}
	for g, old := range heirs(r.groups, groups, func(g *group) spot { return spot{g.file, g.name, ""} }) {
		g.last = old.last
		if old.interval == g.interval {
			g.next = old.next
		}
	}
	before := rulesOf(r.groups)
	kept := map[*rule]bool{}
	for x, old := range heirs(before, rulesOf(groups), func(x *rule) spot { return spot{x.group.file, x.group.name, x.key()} }) {
		kept[old] = true
		x.active, x.written = old.active, old.written
		x.evaluations, x.failures, x.err, x.logged = old.evaluations, old.failures, old.err, old.logged
		x.result, x.unsure = old.result, old.unsure
	}
	for _, x := range before {
		if !kept[x] {
			r.bid(x)
		}
	}
	r.groups = groups
	r.store.plan(newPlan(needs))
	longest := horizon(groups)
	if len(groups) > 0 {
		longest += r.conf.lead()
	}
	r.horizon.Store(int64(longest))
	r.version = versionOf(&r.conf, groups)
	r.changed, r.unkept = r.store.now.Load(), true
	r.publish()
}

// spot is where a group or a rule stands.
type spot struct{ file, group, rule string }

// heirs says which of the old ones each new one takes over from: one at the same
// spot, else one at the same spot of another file. The first of several takes over
// from the first.
func heirs[T comparable](olds, news []T, at func(T) spot) map[T]T {
	from, taken := map[T]T{}, map[T]bool{}
	for _, anyFile := range []bool{false, true} {
		where := func(x T) spot {
			s := at(x)
			if anyFile {
				s.file = ""
			}
			return s
		}
		left := map[spot][]T{}
		for _, x := range olds {
			if !taken[x] {
				left[where(x)] = append(left[where(x)], x)
			}
		}
		for _, x := range news {
			_, has := from[x]
			if l := left[where(x)]; len(l) > 0 && !has {
				left[where(x)] = l[1:]
				from[x], taken[l[0]] = l[0], true
			}
		}
	}
	return from
}

func rulesOf(groups []*group) (xs []*rule) {
	for _, g := range groups {
		xs = append(xs, g.rules...)
	}
	return xs
}

// bid lets a rule go: its firing alerts are resolved, its series end.
func (r *Rules) bid(x *rule) {
	var gone []kemi.Alert
	for _, a := range x.active {
		if a.firing {
			gone = append(gone, a.resolved(x.name, x.group.last))
		}
	}
	slices.SortFunc(gone, func(a, b kemi.Alert) int { return a.Labels.Compare(b.Labels) })
	r.farewell = append(r.farewell, r.once(gone)...)
	x.end(r.store, x.group.last, nil)
}

// horizon returns the longest time that an alert depends on.
func horizon(groups []*group) time.Duration {
	byName := map[string][]*rule{}
	for _, g := range groups {
		for _, x := range g.rules {
			if x.alert {
				byName[alertsName] = append(byName[alertsName], x)
				byName[forStateName] = append(byName[forStateName], x)
			} else {
				byName[x.name] = append(byName[x.name], x)
			}
		}
	}
	writers := func(n need) (ws []*rule) {
		if n.name != "" {
			return byName[n.name]
		}
		for name, x := range byName {
			if newWant(n).names(name) {
				ws = append(ws, x...)
			}
		}
		return ws
	}
	known := map[*rule]time.Duration{}
	open := map[*rule]bool{} // under way
	var of func(x *rule) time.Duration
	of = func(x *rule) time.Duration {
		if d, ok := known[x]; ok {
			return d
		}
		known[x] = 0 // a rule that looks at itself depends on all the past: it gets one look-back
		open[x], x.bounded = true, true
		var most time.Duration
		for _, n := range x.needs {
			most = max(most, n.back)
			for _, w := range writers(n) {
				most = max(most, n.back+of(w))
				// What it says of its alerts since when, for how long, and which of them, may
				// go back further than any look does.
				endless := w.alert && (w.hold > 0 && w.keepFiring > 0 || w.group.limit > 0 || n.name != alertsName)
				x.bounded = x.bounded && w.bounded && !open[w] && !endless
			}
		}
		delete(open, x)
		known[x] = most + x.hold + x.keepFiring + x.group.interval
		return known[x]
	}
	var most time.Duration
	for _, g := range groups {
		for _, x := range g.rules {
			most = max(most, of(x))
		}
	}
	return most
}
