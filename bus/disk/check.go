package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"
)

// Range is offsets of a partition, from From to before To.
type Range struct {
	Topic     string
	Partition int32
	From, To  int64
}

// String says it in words.
func (r Range) String() string {
	return fmt.Sprintf("topic %q, partition %d, offsets %d to %d", r.Topic, r.Partition, r.From, r.To-1)
}

func rangesText(ranges []Range) string {
	const most = 10
	var text []string
	for _, r := range ranges[:min(len(ranges), most)] {
		text = append(text, r.String())
	}
	if n := len(ranges) - most; n > 0 {
		text = append(text, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(text, "; ")
}

// Report is what [Check] and [Repair] have found.
type Report struct {
	Records uint64   // that are good, ticks included
	Damage  []string // what is wrong, each with the file it was found in
	Lost    []Range  // what cannot be read any more
	Earlier []Range  // what was lost to an earlier repair
	Moved   string   // the folder that a repair has moved the old files to; empty: none
}

// OK tells whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Damage) == 0 && len(r.Lost) == 0 }

// String says it in words, a line for each thing.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d good records\n", r.Records)
	for _, d := range r.Damage {
		fmt.Fprintf(&b, "damaged: %s\n", d)
	}
	for _, l := range r.Lost {
		fmt.Fprintf(&b, "lost: %v\n", l)
	}
	for _, l := range r.Earlier {
		fmt.Fprintf(&b, "lost to an earlier repair: %v\n", l)
	}
	if r.Moved != "" {
		fmt.Fprintf(&b, "the old files are in %s\n", r.Moved)
	}
	return b.String()
}

// Check reads everything in the directory of a DB that is closed and says what is
// damaged. It changes nothing.
func Check(dir string) (*Report, error) { return check(hooks{}.orDefault().fs, dir) }

func check(fs vfs.FS, dir string) (*Report, error) {
	dir, err := realPath(fs, dir)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	lock, err := lockOld(fs, dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	switch err := checkRepair(fs, dir); {
	case errors.Is(err, ErrDamaged): // what lies where is for the repair to know
		return &Report{Damage: []string{err.Error()}}, nil
	case err != nil:
		return nil, err
	}
	s, err := checkLocked(fs, dir, lock)
	if err != nil {
		return nil, err
	}
	return &s.report, nil
}

// checkLocked returns what it has found, with what a repair is to believe of the engine's
// lists.
func checkLocked(fs vfs.FS, dir string, lock *dirLock) (*salvage, error) {
	o := engineOptions(fs)
	o.ReadOnly, o.Lock = true, lock.Lock
	silence(o)
	fresh, format := checkFormat(fs, dir)
	switch {
	case format != nil && !errors.Is(format, ErrDamaged):
		return nil, format
	case fresh:
		return nil, fmt.Errorf("disk: there is no DB in %s: its first Open was cut off, and the next one begins anew", dir)
	}
	db, openErr := pebble.Open(dir, o)
	s := newSalvage(fs, dir)
	if openErr == nil {
		defer func() { _ = db.Close() }()
		s.trust(db)
	}
	if err := s.read(nil); err != nil {
		return nil, err
	}
	// The engine's own lists of files are for the engine to judge.
	err := openErr
	if err == nil {
		if err = s.compare(db); s.live != nil && errors.Is(err, errLess) {
			// They leave out what is there, and so are not to be believed.
			s = newSalvage(fs, dir)
			if err := s.read(nil); err != nil {
				return nil, err
			}
			err = s.compare(db)
		}
		err = errors.Join(db.CheckLevels(nil), err)
	}
	if format != nil {
		s.damage("%s: %v", formatFile, format)
	}
	switch {
	case openErr != nil:
		s.damage("the engine cannot open it: %v", err)
	case err != nil:
		s.damage("as the engine sees it: %v", err)
	}
	return s, nil
}

// trust learns from the engine which tables are of use, and what there is of small
// values. A crash may leave tables that have been replaced: they are whole, and what is
// in them has changed since. Where the engine has less than there was, it has lost a part
// of its list, and all tables are of use.
func (s *salvage) trust(db *pebble.DB) {
	ends, err := readEnds(s.fs, s.dir)
	if err != nil {
		return
	}
	for _, e := range ends {
		for p, end := range e.ends {
			if have, err := engineEnd(db, partID{e.id, int32(p)}); err == nil && have < end {
				return
			}
		}
	}
	levels, err := db.SSTables()
	if err != nil {
		return
	}
	s.live = map[uint64]bool{}
	for _, level := range levels {
		for _, t := range level {
			s.live[uint64(t.BackingSSTNum)] = true
		}
	}
	if s.more(db) {
		s.live = nil
		return
	}
	it, err := db.NewIter(&pebble.IterOptions{UpperBound: []byte{kindRecord}})
	if err != nil {
		return
	}
	small := map[string]version{}
	for it.First(); it.Valid(); it.Next() {
		small[string(it.Key())] = version{value: bytes.Clone(it.Value())}
	}
	if it.Close() == nil {
		s.engine = small
	}
}

// more tells whether a table that the engine does not use has records from behind its
// ends.
func (s *salvage) more(db *pebble.DB) (some bool) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return false
	}
	ends := map[partID]int64{}
	for _, name := range names {
		if kind, number := engineFile(name); kind != "sst" || s.live[number] {
			continue
		}
		told := len(s.report.Damage)
		s.table(name, s.fs.PathJoin(s.dir, name), true, func(v version, key, value []byte) {
			topic, part, offset, ok := parseOffsetKey(key)
			if !ok || v.gone {
				return
			}
			id := partID{topic, part}
			end, known := ends[id]
			if !known {
				if end, err = engineEnd(db, id); err != nil {
					end = math.MaxInt64
				}
				ends[id] = end
			}
			some = some || offset >= end
		})
		s.report.Damage = s.report.Damage[:told] // it is of no use
	}
	return some
}

// engineEnd returns where a partition ends as the engine sees it.
func engineEnd(db *pebble.DB, id partID) (end int64, err error) {
	key := partKey(kindBounds, id.topic, id.part)
	v, c, err := db.Get(key)
	if err == nil {
		var b bounds
		err = b.unseal(key, v)
		end = int64(max(b.first, b.end))
		_ = c.Close()
	}
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return 0, err
	}
	prefix := partKey(kindRecord, id.topic, id.part)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return 0, err
	}
	if it.Last() {
		if _, _, offset, ok := parseOffsetKey(it.Key()); ok {
			end = max(end, offset+1)
		}
	}
	return end, it.Close()
}

// silence lets errors be returned and no more.
func silence(o *pebble.Options) {
	o.Logger = quiet{}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(error) {},
		DataCorruption:  func(pebble.DataCorruptionInfo) {},
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)         {}
func (quiet) Errorf(string, ...any)        {}
func (quiet) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

// salvage reads the files of the engine one by one, whatever its lists of them say if
// they are damaged, and so finds all there is. What is there twice is either a record, which never changes, or
// something small that the newest wins of.
type salvage struct {
	fs     vfs.FS
	dir    string
	dec    *zstd.Decoder
	report Report
	live   map[uint64]bool    // tables that the engine uses; nil: not known
	engine map[string]version // small values as the engine has them; nil: not known
	small  map[string]version
	good   map[partID]*spans
	topics map[uint32]topicEnds // ends: what conclude finds
	noted  map[uint32][]int64
	put    func(key, value []byte) error
	failed error // of put
}

type partID struct {
	topic uint32
	part  int32
}

// version is one value of a key.
type version struct {
	seq, file uint64
	at        int // among those of one batch
	gone      bool
	value     []byte
}

func (v version) before(o version) bool {
	if v.seq != o.seq {
		return v.seq < o.seq
	}
	if v.file != o.file {
		return v.file < o.file
	}
	return v.at < o.at
}

func newSalvage(fs vfs.FS, dir string) *salvage {
	return &salvage{fs: fs, dir: dir, small: map[string]version{}, good: map[partID]*spans{}, topics: map[uint32]topicEnds{}, noted: map[uint32][]int64{}}
}

// engineFile tells what a file is to the engine. kind is empty for one that is not.
func engineFile(name string) (kind string, number uint64) {
	head, ext, _ := strings.Cut(name, ".")
	switch {
	case strings.HasPrefix(name, "MANIFEST-"), strings.HasPrefix(name, "OPTIONS-"), strings.HasPrefix(name, "marker."),
		strings.HasPrefix(name, "temporary."), strings.HasSuffix(name, ".dbtmp"), ext == "blob":
		return "other", 0
	case ext == "sst", ext == "log":
		n, err := strconv.ParseUint(head, 10, 64)
		if err != nil {
			return "", 0
		}
		return ext, n
	}
	return "", 0
}

// read goes through all files; each good record is given to put, if that is not nil.
func (s *salvage) read(put func(key, value []byte) error) (err error) {
	if s.dec, err = newDecoder(); err != nil {
		return err
	}
	defer s.dec.Close()
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	slices.Sort(names)
	// The small values first: they say which partitions there are.
	for _, records := range []bool{false, true} {
		for _, name := range names {
			kind, number := engineFile(name)
			path := s.fs.PathJoin(s.dir, name)
			visit := func(v version, key, value []byte) {
				v.file = number
				switch {
				case len(key) == 0:
				case key[0] != kindRecord && !records:
					if old, ok := s.small[string(key)]; !ok || old.before(v) {
						v.value = bytes.Clone(value)
						s.small[string(key)] = v
					}
				case key[0] == kindRecord && records && !v.gone && s.failed == nil:
					s.record(name, key, value)
				}
			}
			switch kind {
			case "sst":
				if s.live != nil && !s.live[number] {
					continue
				}
				s.table(name, path, records, visit)
			case "log":
				s.wal(name, path, number, !records, visit)
			}
		}
		if !records {
			if s.engine != nil {
				s.small = maps.Clone(s.engine)
			}
			s.know()
			s.note()
		}
		s.put = put
	}
	if s.failed != nil {
		return s.failed
	}
	s.conclude()
	return nil
}

func (s *salvage) damage(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	what = strings.ReplaceAll(what, "\n<corruption detail carrier>", "") // the engine's, with nothing in it
	what = strings.ReplaceAll(what, "\n", "; ")
	s.report.Damage = append(s.report.Damage, what)
}

// record looks at one record.
func (s *salvage) record(file string, key, value []byte) {
	topic, part, offset, ok := parseOffsetKey(key)
	if !ok {
		s.damage("%s: a key that is none: %.50q", file, key)
		return
	}
	id := partID{topic, part}
	if offset < s.first(id) {
		return // removed by retention
	}
	r, err := parse(key, value)
	if err == nil && !r.tick {
		_, err = unpack(s.dec, nil, &r)
	}
	if err != nil {
		s.damage("%s: %v: %v", file, Range{s.topics[topic].name, part, offset, offset + 1}, err)
		return
	}
	g := s.good[id]
	if g == nil {
		g = &spans{}
		s.good[id] = g
	}
	g.add(offset)
	if _, known := s.topics[topic]; s.put != nil && known {
		s.failed = s.put(key, value)
	}
}

// know finds out which topics there are, and drops small values that cannot be read.
func (s *salvage) know() {
	for _, key := range s.keys() {
		v := s.small[key]
		if v.gone {
			delete(s.small, key)
			continue
		}
		if err := readSmall([]byte(key), v.value); err != nil {
			s.damage("%s: %v", describe([]byte(key)), err)
			delete(s.small, key)
			continue
		}
		if key[0] == kindTopic {
			var version, id, n, mark uint64
			_ = unsealInts([]byte(key), v.value, &version, &id, &n, &mark)
			s.topics[uint32(id)] = topicEnds{uint32(id), key[1:], make([]int64, n)}
		}
	}
}

// note reads the file that says where partitions ended, and which there were.
func (s *salvage) note() {
	ends, err := readEnds(s.fs, s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.damage("%s: %v; nothing is lost by that", endsName, err)
	}
	for _, e := range ends {
		s.noted[e.id] = e.ends
		if _, ok := s.topics[e.id]; !ok {
			s.damage("nothing is known about topic %q but what is in %s", e.name, endsName)
			s.topics[e.id] = topicEnds{e.id, e.name, make([]int64, len(e.ends))}
			key := topicKey(e.name)
			s.small[string(key)] = version{value: sealInts(key, 1, uint64(e.id), uint64(len(e.ends)), rand.Uint64())}
		}
	}
}

func (s *salvage) keys() []string {
	keys := make([]string, 0, len(s.small))
	for k := range s.small {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readSmall checks a value that is not a record.
func readSmall(key, value []byte) error {
	var a, b, c, d uint64
	var ok bool
	switch key[0] {
	case kindTopic:
		if err := unsealInts(key, value, &a, &b, &c, &d); err != nil {
			return err
		}
		if ok = a == 1 && b > 0 && b <= math.MaxUint32 && c > 0 && c <= partitionMax; !ok {
			return errValue
		}
		return nil
	case kindType:
		if len(key) != 5 {
			return errValue
		}
		_, err := unseal(key, value)
		return err
	case kindBounds:
		if len(key) != 7 {
			return errValue
		}
		return new(bounds).unseal(key, value)
	case kindHole:
		if _, _, _, ok = parseOffsetKey(key); !ok {
			return errValue
		}
		return unsealInts(key, value, &a)
	case kindMark:
		if _, _, ok = parseMarkKey(key); !ok {
			return errValue
		}
		return unsealInts(key, value, &a)
	case kindPosition:
		_, _, _, err := readPosition(key, value)
		return err
	case kindKept:
		if _, _, _, ok = parseReaderKey(key); !ok {
			return errValue
		}
		_, err := unseal(key, value)
		return err
	}
	return fmt.Errorf("keys that begin with %q are not known", key[:1])
}

// describe says what a key is for.
func describe(key []byte) string {
	switch key[0] {
	case kindTopic:
		return fmt.Sprintf("the topic %q", key[1:])
	case kindType:
		return "the type of the records of a topic"
	case kindBounds:
		return "the bounds of a partition"
	case kindHole:
		return "a hole that a repair had left"
	case kindMark:
		_, reader, _ := parseMarkKey(key)
		return fmt.Sprintf("how far the output of %q has come", reader)
	case kindPosition, kindKept:
		r, p, _, _ := parseReaderKey(key)
		return fmt.Sprintf("the position of %q in partition %d, or what is kept with it", r.name, p)
	}
	return fmt.Sprintf("the key %.50q", key)
}

// bounds returns what is kept of a partition.
func (s *salvage) bounds(id partID) (b bounds) {
	key := partKey(kindBounds, id.topic, id.part)
	if v, ok := s.small[string(key)]; ok {
		_ = b.unseal(key, v.value)
	}
	return b
}

func (s *salvage) first(id partID) int64 {
	return int64(s.bounds(id).first)
}

// conclude finds what is lost.
func (s *salvage) conclude() {
	// A position is never beyond the end.
	reached := map[partID]int64{}
	for key, v := range s.small {
		if key[0] == kindPosition {
			if pos, _, p, err := readPosition([]byte(key), v.value); err == nil {
				id := partID{binary.BigEndian.Uint32([]byte(key)[1:]), p}
				reached[id] = max(reached[id], pos.Next)
			}
		}
	}
	for topic, t := range s.topics {
		for p := range t.ends {
			id := partID{topic, int32(p)}
			b := s.bounds(id)
			from, to := int64(b.first), max(int64(b.first), int64(b.end), reached[id])
			if n := s.noted[topic]; p < len(n) {
				to = max(to, n[p])
			}
			g := s.good[id]
			if g == nil {
				g = &spans{}
			}
			spans := g.sorted()
			if n := len(spans); n > 0 {
				to = max(to, spans[n-1].to)
			}
			for _, sp := range spans {
				s.report.Records += uint64(sp.to - sp.from)
			}
			t.ends[p] = to
			for _, gap := range gaps(spans, from, to) {
				s.lost(t.name, id, gap)
			}
		}
	}
	for id := range s.good {
		if t, ok := s.topics[id.topic]; !ok || int(id.part) >= len(t.ends) {
			s.damage("there are records of a topic that nothing is known about: %d, partition %d", id.topic, id.part)
		}
	}
	slices.SortFunc(s.report.Lost, compareRanges)
	slices.SortFunc(s.report.Earlier, compareRanges)
}

func compareRanges(a, b Range) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	if a.Partition != b.Partition {
		return int(a.Partition - b.Partition)
	}
	return int(min(max(a.From-b.From, -1), 1))
}

// lost notes a gap, but for what an earlier repair has told of.
func (s *salvage) lost(name string, id partID, gap span) {
	var old []span
	prefix := string(partKey(kindHole, id.topic, id.part))
	for key, v := range s.small {
		if strings.HasPrefix(key, prefix) {
			var to uint64
			_, _, from, ok := parseOffsetKey([]byte(key))
			if err := unsealInts([]byte(key), v.value, &to); err == nil && ok && from < gap.to && int64(to) > gap.from {
				old = append(old, span{max(from, gap.from), min(int64(to), gap.to)})
			}
		}
	}
	holes := spans{all: old}
	for _, h := range holes.sorted() {
		s.report.Earlier = append(s.report.Earlier, Range{name, id.part, h.from, h.to})
	}
	for _, g := range gaps(holes.sorted(), gap.from, gap.to) {
		s.report.Lost = append(s.report.Lost, Range{name, id.part, g.from, g.to})
	}
}

// errLess says that the engine does not know of good records.
var errLess = fmt.Errorf("%w: there are records that it does not know of", ErrDamaged)

// compare checks that the engine sees what is in its files.
func (s *salvage) compare(db *pebble.DB) (all error) {
	for id, g := range s.good {
		first := s.first(id)
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: offsetKey(kindRecord, id.topic, id.part, first), UpperBound: after(partKey(kindRecord, id.topic, id.part))})
		if err != nil {
			return errors.Join(all, err)
		}
		var seen spans
		for it.First(); it.Valid(); it.Next() {
			if _, _, offset, ok := parseOffsetKey(it.Key()); ok {
				seen.add(offset)
			}
		}
		if err := it.Close(); err != nil {
			all = errors.Join(all, err)
			continue
		}
		want, got := g.sorted(), seen.sorted()
		if slices.Equal(want, got) {
			continue
		}
		why := ErrDamaged
		for _, w := range want {
			if len(gaps(got, w.from, w.to)) > 0 {
				why = errLess
			}
		}
		all = errors.Join(all, fmt.Errorf("%w: topic %q, partition %d: the files have the offsets %v, and its lists say %v", why, s.topics[id.topic].name, id.part, want, got))
	}
	return all
}

// span is offsets from from to before to.
type span struct{ from, to int64 }

// spans is a set of offsets, most of which come in order.
type spans struct{ all []span }

func (s *spans) add(offset int64) {
	if n := len(s.all); n > 0 && s.all[n-1].to == offset {
		s.all[n-1].to++
		return
	}
	s.all = append(s.all, span{offset, offset + 1})
	if n := len(s.all); n > 1<<16 && n&(n-1) == 0 {
		s.sorted()
	}
}

// sorted returns the spans in order, with nothing between two that touch.
func (s *spans) sorted() []span {
	slices.SortFunc(s.all, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
	out := s.all[:0]
	for _, x := range s.all {
		if n := len(out); n > 0 && x.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, x.to)
		} else {
			out = append(out, x)
		}
	}
	s.all = out
	return out
}

// gaps returns what sorted spans leave out between from and to.
func gaps(sorted []span, from, to int64) (out []span) {
	for _, x := range sorted {
		if x.from > from && from < to {
			out = append(out, span{from, min(x.from, to)})
		}
		from = max(from, x.to)
	}
	if from < to {
		out = append(out, span{from, to})
	}
	return out
}

// table reads what can be read of a table.
func (s *salvage) table(name, path string, records bool, visit func(v version, key, value []byte)) {
	lower, upper := []byte{0}, []byte{kindRecord}
	if records {
		lower, upper = []byte{kindRecord}, []byte{kindRecord + 1}
	}
	told := false
	tell := func(err error) {
		if !told {
			s.damage("%s: %v", name, err)
		}
		told = true
	}
	r, err := openTable(s.fs, path)
	if err != nil {
		tell(err)
		return
	}
	defer func() { _ = r.Close() }()
	// go through from a key on, until the end or damage.
	from := func(start []byte) (last []byte, first []byte, err error) {
		it, err := r.NewIter(sstable.NoTransforms, start, upper, sstable.AssertNoBlobHandles)
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = it.Close() }()
		for kv := it.SeekGE(start, 0); kv != nil; kv = it.Next() {
			value, _, err := kv.Value(nil)
			if err != nil {
				return last, first, err
			}
			if first == nil {
				first = bytes.Clone(kv.K.UserKey)
			}
			last = append(last[:0], kv.K.UserKey...)
			kind := kv.Kind()
			visit(version{seq: uint64(kv.SeqNum()), gone: kind != pebble.InternalKeyKindSet && kind != pebble.InternalKeyKindSetWithDelete}, last, value)
		}
		return last, first, it.Error()
	}
	for start := lower; ; {
		last, _, err := from(start)
		if err == nil {
			return
		}
		tell(err)
		if last == nil {
			last = start
		}
		// Behind the damage is where the next place is that can be read.
		if start = s.behind(last, func(k []byte) bool {
			it, err := r.NewIter(sstable.NoTransforms, k, upper, sstable.AssertNoBlobHandles)
			if err != nil {
				return false
			}
			defer func() { _ = it.Close() }()
			return it.SeekGE(k, 0) != nil || it.Error() == nil
		}); start == nil {
			return
		}
	}
}

// behind returns the first key after last, among those that may be there, from where
// reading is possible.
func (s *salvage) behind(last []byte, readable func(k []byte) bool) []byte {
	topic, part, offset, ok := parseOffsetKey(last)
	if ok && last[0] == kindRecord {
		bad := offset
		for step := int64(1); offset < math.MaxInt64-step; step *= 2 {
			good := offset + step
			if !readable(offsetKey(kindRecord, topic, part, good)) {
				bad = good
				continue
			}
			for bad+1 < good {
				if mid := bad + (good-bad)/2; readable(offsetKey(kindRecord, topic, part, mid)) {
					good = mid
				} else {
					bad = mid
				}
			}
			return offsetKey(kindRecord, topic, part, good)
		}
	}
	for _, k := range s.places() {
		if bytes.Compare(k, last) > 0 && readable(k) {
			return k
		}
	}
	return nil
}

// places are keys where something may begin, in order.
func (s *salvage) places() (places [][]byte) {
	for _, kind := range []byte{kindBounds, kindHole, kindKept, kindMark, kindPosition, kindTopic} {
		places = append(places, []byte{kind})
		for topic := range s.topics {
			for p := range s.topics[topic].ends {
				places = append(places, partKey(kind, topic, int32(p)))
			}
		}
	}
	for topic := range s.topics {
		for p := range s.topics[topic].ends {
			// Within a partition that begins with damage the offsets are tried.
			places = append(places, offsetKey(kindRecord, topic, int32(p), s.first(partID{topic, int32(p)})))
		}
	}
	slices.SortFunc(places, bytes.Compare)
	return places
}

func openTable(fs vfs.FS, path string) (*sstable.Reader, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o := engineOptions(fs)
	silence(o)
	o.EnsureDefaults()
	return sstable.NewReader(context.Background(), readable, o.MakeReaderOptions()) // closes it if it fails
}

const walBlock = 32 << 10 // where a log can be entered again

// wal reads what can be read of a log.
func (s *salvage) wal(name, path string, number uint64, tell bool, visit func(v version, key, value []byte)) {
	f, err := s.fs.Open(path)
	if err != nil {
		s.damage("%s: %v", name, err)
		return
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		s.damage("%s: %v", name, err)
		return
	}
	var batch bytes.Buffer
	for from := int64(0); from < info.Size(); {
		in := &counter{Reader: io.NewSectionReader(f, from, info.Size()-from)}
		r := newRecordReader(in, number)
		good := int64(0) // how far it had read after the last good batch
		for {
			var body io.Reader
			if body, err = r.Next(); err != nil {
				break
			}
			batch.Reset()
			if _, err = io.Copy(&batch, body); err != nil {
				break
			}
			if err = readBatch(batch.Bytes(), visit); err != nil {
				break
			}
			good = in.n
		}
		if errors.Is(err, io.EOF) || errors.Is(err, record.ErrUnexpectedEOF) {
			// The end, or what was being written at the time of a crash: nothing behind it
			// says that it was safe. If it was, offsets are missing.
			return
		}
		if tell {
			s.damage("%s: %v", name, err)
			tell = false
		}
		from += max(good, walBlock)
	}
}

// counter counts what was read.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// newRecordReader has a parameter of a type that has no name here.
func newRecordReader(r io.Reader, number uint64) *record.Reader {
	return withNumber(record.NewReader, r, number)
}

func withNumber[N ~uint64](make func(io.Reader, N) *record.Reader, r io.Reader, number uint64) *record.Reader {
	return make(r, N(number))
}

// readBatch goes through one batch of the engine: a sequence number and a count, then
// for each entry its kind, its key and, by the kind, its value. The engine's own reader
// of it believes lengths, past the end of the bytes.
func readBatch(repr []byte, visit func(v version, key, value []byte)) error {
	const head = 8 + 4
	if len(repr) < head {
		return errValue
	}
	seq, rest := binary.LittleEndian.Uint64(repr), repr[head:]
	text := func() []byte {
		n, k := binary.Uvarint(rest)
		if k <= 0 || uint64(len(rest)-k) < n {
			rest = nil
			return nil
		}
		s := rest[k : k+int(n) : k+int(n)]
		rest = rest[k+int(n):]
		return s
	}
	for at := 0; len(rest) > 0; {
		kind := pebble.InternalKeyKind(rest[0])
		rest = rest[1:]
		key, value := text(), []byte{}
		switch kind {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindRangeDelete:
			value = text()
		case pebble.InternalKeyKindDelete, pebble.InternalKeyKindLogData:
		default:
			return fmt.Errorf("an entry of kind %d, which is never written", kind)
		}
		if key == nil || value == nil {
			return errValue
		}
		switch kind {
		case pebble.InternalKeyKindLogData:
			continue // has no number
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindDelete:
			visit(version{seq: seq, at: at, gone: kind == pebble.InternalKeyKindDelete}, key, value)
		}
		at++
	}
	return nil
}
