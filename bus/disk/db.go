package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/origin"
)

const (
	format     = 1
	formatFile = "KEMI"     // says what the directory is, and of which format
	newFile    = "KEMI.new" // stands for it until the first Open has come to its end
	formatText = "kemi bus/disk, format "
	tempSuffix = ".tmp" // of a file that is being written

	// engineFormat is that of Pebble. A newer one cannot be undone, so it changes with
	// the format above alone. This one has checksums in footers of tables, and logs that
	// tell a torn end from damage.
	engineFormat = pebble.FormatTableFormatV6

	defaultBallast = 16 << 20
	defaultCache   = 32 << 20
	defaultTick    = time.Second
	memTable       = 16 << 20 // five logs of that size may be there, to be used again
)

var (
	// ErrFull says that the disk is nearly full. What was to be written is not; a source
	// that is pushed to answers with 429, and a flow tries again by itself.
	ErrFull = errors.New("the disk is nearly full")
	// ErrClosed says that the DB was closed.
	ErrClosed = errors.New("disk: closed")
	// ErrDamaged says that something on the disk is not what was written. See [Repair].
	ErrDamaged = errors.New("the data is damaged")
	// ErrTooLarge says that a record is larger than TopicConfig.MaxRecord.
	ErrTooLarge = errors.New("the record is too large")
)

// Config describes a DB. The zero value of every field but Dir is usable.
type Config struct {
	// Dir is the directory, which is made if it is not there. It belongs to the DB alone:
	// one that holds anything else is refused, but for the lost+found of a disk of its
	// own; and to one process at a time.
	Dir string
	// Logger is told what somebody should know. Nil: nobody, but for the end of the
	// process, which is told on standard error.
	Logger *zap.Logger
	// MinFree is how many bytes of the disk are left to others: with less free, Write
	// returns ErrFull. The default is a twentieth of the disk, and at most 4 GiB. It is 32
	// MiB at least, as the engine needs some room for what was written before.
	MinFree int64
	// Ballast is the size of a file that is there to be removed when the disk is full
	// all the same, so that what is under way can be finished. The default is 16 MiB.
	Ballast int64
	// Cache is how much memory, in bytes, holds what was read. The default is 32 MiB.
	Cache int64
	// Tick is for how long a partition may be silent, where a reader lives by its time,
	// until it is given a record that only tells the time. The default is a second.
	Tick time.Duration
}

// DB is a directory with topics. Make one with [Open]. All methods may be called by
// many goroutines.
type DB struct {
	Config
	hooks  hooks
	fs     vfs.FS // to write to
	bare   vfs.FS // without a look at errors
	log    *zap.Logger
	engine *pebble.DB
	lock   *dirLock
	state  atomic.Int32 // how far Open has come
	fatal  chan error   // why the engine cannot be opened
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	guard  guard

	queue   queue
	done    chan struct{} // closed by Close
	ended   sync.WaitGroup
	closing sync.Once
	closed  error
	gate    sync.RWMutex // held by those who read from the engine, but for load and tend
	shut    bool         // under gate: the engine is closed

	mu     sync.Mutex // of the next two; held while a topic is made
	topics map[string]*topic
	ids    uint32

	runsMu sync.Mutex
	runs   map[*member]struct{} // readers whose positions are to be kept

	ends    endsFile
	noted   atomic.Bool // an append since the last endsFile
	trailed bool        // the committer's: nothing was appended since the last trailer

	clock clock
	slow  bool // the committer's: the clock of the machine is behind, and that was told
}

// hooks is what tests put in.
type hooks struct {
	fs   vfs.FS
	exit func(code int)
	now  func() time.Time
}

// Open opens a directory, and makes it if it is not there. It is an error if another
// process has it open, if it holds what is not kemi's, if it was made by a newer kemi, and
// if it is damaged in a way that shows at once.
func Open(c Config) (*DB, error) { return open(c, hooks{}) }

func (c Config) check() error {
	switch {
	case c.Dir == "":
		return errors.New("disk: Config.Dir is empty: say which directory is to hold the topics")
	case c.MinFree < 0:
		return fmt.Errorf("disk: a MinFree of %d bytes: give 0, which stands for a twentieth of the disk, or more", c.MinFree)
	case c.Ballast < 0:
		return fmt.Errorf("disk: a Ballast of %d bytes: give 0, which stands for %d, or more", c.Ballast, defaultBallast)
	case c.Cache < 0:
		return fmt.Errorf("disk: a Cache of %d bytes: give 0, which stands for %d, or more", c.Cache, defaultCache)
	case c.Tick < 0:
		return fmt.Errorf("disk: a Tick of %v: give 0, which stands for %v, or more", c.Tick, defaultTick)
	}
	return nil
}

func (h hooks) orDefault() hooks {
	if h.fs == nil {
		h.fs = vfs.Default
	}
	if h.exit == nil {
		h.exit = os.Exit
	}
	if h.now == nil {
		h.now = time.Now
	}
	return h
}

func open(c Config, h hooks) (_ *DB, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Ballast, c.Cache, c.Tick = cmp.Or(c.Ballast, defaultBallast), cmp.Or(c.Cache, defaultCache), cmp.Or(c.Tick, defaultTick)
	h = h.orDefault()
	d := &DB{
		Config: c, hooks: h, bare: h.fs,
		log:    c.Logger,
		done:   make(chan struct{}),
		fatal:  make(chan error, 1),
		clock:  clock{machine: h.now},
		topics: map[string]*topic{},
		runs:   map[*member]struct{}{},
	}
	if d.log == nil {
		d.log = zap.NewNop()
	}
	d.log = d.log.With(zap.String("dir", c.Dir))
	d.queue.wake = make(chan struct{}, 1)
	d.fs = vfs.OnDiskFull(d.bare, d.releaseBallast)

	defer func() {
		if vfs.IsNoSpaceError(err) && !errors.Is(err, ErrFull) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
	}()
	if err := makeDir(d.fs, c.Dir); err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	if c.Dir, err = realPath(d.fs, c.Dir); err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	d.Dir = c.Dir
	if err := checkOwn(d.fs, c.Dir); err != nil {
		return nil, err
	}
	if d.lock, err = lockDir(d.fs, c.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = d.lock.Close()
		}
	}()
	if err := checkRepair(d.fs, c.Dir); err != nil {
		return nil, err
	}
	fresh, err := checkFormat(d.fs, c.Dir)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := beginAnew(d.fs, c.Dir); err != nil {
			return nil, err
		}
	} else {
		_ = d.fs.Remove(d.fs.PathJoin(c.Dir, newFile)) // of one that was cut off right before its end
	}
	if d.enc, err = newEncoder(); err != nil {
		return nil, err
	}
	if d.dec, err = newDecoder(); err != nil {
		return nil, err
	}

	cache := pebble.NewCache(c.Cache)
	defer cache.Unref()
	late := &lateRemoval{FS: d.fs}
	o := engineOptions(late)
	o.Lock, o.Cache = d.lock.Lock, cache
	o.Logger = engineLogger{d}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			d.log.Error("disk: the engine could not do its work and will try again", zap.Error(err))
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			d.log.Error("disk: damaged file: run disk.Check", zap.Stringer("damage", i))
		},
		FlushEnd: func(pebble.FlushInfo) { d.noted.Store(true) },
	}
	if err = d.start(late, func() (err error) {
		if d.engine, err = pebble.Open(c.Dir, o); err != nil {
			return openError(c.Dir, err)
		}
		if err = d.load(); err == nil {
			err = d.checkEnds()
		}
		if err == nil && fresh {
			err = writeFormat(d.fs, c.Dir)
		}
		if err != nil {
			err = errors.Join(err, d.engine.Close())
		}
		return err
	}); err != nil {
		return nil, err
	}
	late.allow()
	if at, now := d.clock.now(); at > now+slowByClock {
		d.tellSlow(at, now)
	}
	d.openGuard()
	d.ended.Go(d.commits)
	d.ended.Go(d.tend)
	return d, nil
}

// engineOptions are those that reading a directory needs too.
func engineOptions(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          engineFormat,
		MemTableSize:                memTable,
		LBaseMaxBytes:               1 << 30, // what is appended is seldom in the way of what is there
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		FlushDelayDeleteRange:       10 * time.Second,
		MaxOpenFiles:                500,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },
	}
	// A table is written again when there is something new of one of its partitions: so
	// it has few of them.
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 4 << 20
	}
	// Values are compressed already.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return o
}

// How far Open has come.
const (
	opening = iota
	running
	failed
)

// start runs what opens the engine. What would end the process later comes back as an
// error here, as nothing was called safe yet: the goroutine of the engine that has met
// it stands still for ever, and so may the one of do.
func (d *DB) start(late *lateRemoval, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	var err error
	select {
	case err = <-done:
		if err != nil || d.state.CompareAndSwap(opening, running) {
			return err
		}
		err = <-d.fatal
	case err = <-d.fatal:
	}
	late.cut()
	_ = d.lock.Lock.Close() // once for the engine, which does not come to that
	return err
}

func newEncoder() (*zstd.Encoder, error) {
	// It is used by EncodeAll alone, for topics that want it; this many do so at a time.
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(1<<20))
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(rawMax), zstd.IgnoreChecksum(true))
}

// openError says in words what the engine says in its own.
func openError(dir string, err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "unknown format major version"):
		return newer(dir, err)
	case pebble.IsCorruptionError(err), strings.Contains(text, "corrupt"),
		strings.Contains(text, "from file"),                                           // a setting that is always the same here
		errors.Is(err, os.ErrNotExist), strings.Contains(text, "file does not exist"): // one that the list of files names
		return damaged(dir, err)
	}
	return fmt.Errorf("disk: %s cannot be opened: %w", dir, err)
}

func newer(dir string, err error) error {
	return fmt.Errorf("disk: %s was written by a newer kemi, whose format this one does not know: use that version or a later one: %w", dir, err)
}

func damaged(dir string, err error) error {
	return fmt.Errorf("disk: %s: %w: disk.Check says what is, disk.Repair takes it out: %w", dir, ErrDamaged, err)
}

// checkFormat reads the file that says what the directory is. fresh: there is none yet.
func checkFormat(fs vfs.FS, dir string) (fresh bool, err error) {
	path := fs.PathJoin(dir, formatFile)
	text, err := readFile(fs, path, 1<<10)
	switch {
	case errors.Is(err, os.ErrNotExist):
		names, err := fs.List(dir)
		if err != nil {
			return false, fmt.Errorf("disk: %w", err)
		}
		if slices.Contains(names, newFile) && !slices.Contains(names, endsName) {
			return true, nil
		}
		for _, n := range names {
			if kind, _ := engineFile(n); kind != "" {
				return false, damaged(dir, fmt.Errorf("there is data, and the file %s that says of which format is not (if the data is of another program that uses Pebble, leave it and set Config.Dir to another directory)", formatFile))
			}
		}
		return true, nil
	case err != nil:
		return false, fmt.Errorf("disk: %w", err)
	}
	var n int
	if k, err := fmt.Sscanf(string(text), formatText+"%d\n", &n); k != 1 || err != nil || n < 1 || string(text) != fmt.Sprintf("%s%d\n", formatText, n) {
		return false, damaged(dir, fmt.Errorf("the file %s should say %q, and says %.100q", formatFile, formatText+"1", text))
	}
	if n > format {
		return false, newer(dir, fmt.Errorf("it is of format %d, and this program knows %d", n, format))
	}
	return false, nil
}

// beginAnew prepares a directory for its first Open. One that was cut off has called
// nothing safe, and may have left the files of the engine in a way that it does not
// understand.
func beginAnew(fs vfs.FS, dir string) error {
	if err := writeFile(fs, dir, newFile, nil); err != nil {
		return err
	}
	names, err := fs.List(dir)
	for _, n := range names {
		if kind, _ := engineFile(n); kind != "" {
			err = errors.Join(err, fs.Remove(fs.PathJoin(dir, n)))
		}
	}
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

// writeFormat writes what checkFormat reads.
func writeFormat(fs vfs.FS, dir string) error {
	if err := writeFile(fs, dir, formatFile, fmt.Appendf(nil, "%s%d\n", formatText, format)); err != nil {
		return err
	}
	if err := fs.Remove(fs.PathJoin(dir, newFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

// readFile reads a small file.
func readFile(fs vfs.FS, path string, most int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, most))
}

// writeFile writes a file whole or not at all.
func writeFile(fs vfs.FS, dir, name string, text []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("disk: writing %s: %w", name, err)
		}
	}()
	path := fs.PathJoin(dir, name)
	f, err := fs.Create(path+tempSuffix, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(slices.Clone(text)) // a file may make rubbish of it
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(path+tempSuffix, path); err != nil {
		return err
	}
	return syncDir(fs, dir)
}

func syncDir(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lateRemoval keeps what the engine believes to be of no more use until we know that it
// has understood the directory: after a flipped bit in its list of files it takes good
// files for old ones.
type lateRemoval struct {
	vfs.FS
	mu    sync.Mutex
	sure  bool
	later []string
	over  bool
}

// cut has an engine that nobody waits for any more make no more files.
func (l *lateRemoval) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
}

func (l *lateRemoval) Create(path string, c vfs.DiskWriteCategory) (vfs.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil, ErrClosed
	}
	return l.FS.Create(path, c)
}

func (l *lateRemoval) Remove(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sure {
		return l.FS.Remove(path)
	}
	l.later = append(l.later, path)
	return nil
}

func (l *lateRemoval) allow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sure = true
	for _, path := range l.later {
		_ = l.FS.Remove(path) // if not now, then after the next start
	}
	l.later = nil
}

// engineLogger is the engine's voice.
type engineLogger struct{ d *DB }

func (l engineLogger) Infof(format string, args ...any) {
	if l.d.log.Core().Enabled(zap.DebugLevel) {
		l.d.log.Debug("disk: engine: " + fmt.Sprintf(format, args...))
	}
}

func (l engineLogger) Errorf(format string, args ...any) {
	l.d.log.Error("disk: engine: " + fmt.Sprintf(format, args...))
}

// Fatalf is called when the log of the engine cannot be written. It must not return:
// what was to be written would be called safe.
func (l engineLogger) Fatalf(format string, args ...any) {
	if l.d.state.CompareAndSwap(opening, failed) {
		why := fmt.Errorf(format, args...)
		for _, a := range args {
			if err, ok := a.(error); ok && vfs.IsNoSpaceError(err) {
				why = fmt.Errorf("%w: %w", ErrFull, why)
			}
		}
		l.d.fatal <- openError(l.d.Dir, why)
	}
	if l.d.state.Load() == failed {
		select {} // not to return, and not to end the process
	}
	l.d.die(fmt.Sprintf(format, args...))
}

// die ends the process.
func (d *DB) die(why string) {
	why = "disk: " + d.Dir + " cannot be written any more, and the process ends so that nothing is called safe that is not: " + why
	fmt.Fprintln(os.Stderr, why)
	d.log.Error(why)
	_ = d.log.Sync()
	d.hooks.exit(1)
	select {} // exit may be a test's, and this must not return
}

// load reads what is there.
func (d *DB) load() error {
	it, err := d.engine.NewIter(&pebble.IterOptions{LowerBound: []byte{kindTopic}, UpperBound: []byte{kindTopic + 1}})
	if err != nil {
		return openError(d.Dir, err)
	}
	defer func() { _ = it.Close() }()
	for it.First(); it.Valid(); it.Next() {
		name := string(it.Key()[1:])
		var version, id, n, mark uint64
		if err := unsealInts(it.Key(), it.Value(), &version, &id, &n, &mark); err != nil || version != 1 || n == 0 || n > partitionMax || id == 0 || id > math.MaxUint32 {
			return damaged(d.Dir, fmt.Errorf("what is kept about topic %q cannot be read: %w", name, cmp.Or(err, errValue)))
		}
		t := newTopic(d, name, uint32(id), mark, int(n))
		if err := t.load(); err != nil {
			return err
		}
		d.topics[name] = t
		d.ids = max(d.ids, t.id)
	}
	if err := it.Error(); err != nil {
		return openError(d.Dir, err)
	}
	return nil
}

// enter lets the caller read from the engine until it calls the gate's RUnlock.
func (d *DB) enter() error {
	d.gate.RLock()
	if d.shut {
		d.gate.RUnlock()
		return ErrClosed
	}
	return nil
}

// Close closes the DB. Sources that still run end with [ErrClosed], and so do Writes.
func (d *DB) Close() error {
	d.closing.Do(func() {
		close(d.done)
		d.ended.Wait()
		err := d.flush()
		d.noteEnds()
		d.gate.Lock() // lanes may still be on their way out
		defer d.gate.Unlock()
		d.shut = true
		err = errors.Join(err, d.engine.Close())
		_ = d.enc.Close()
		d.dec.Close()
		err = errors.Join(err, d.lock.Close())
		if err != nil {
			d.closed = fmt.Errorf("disk: closing %s: %w", d.Dir, err)
		}
	})
	return d.closed
}

// flush puts all into tables, so that a bit that flips while nobody looks is one of those
// that have a checksum and not one at the end of the log. The engine would wait for ever
// where the disk is full: then the log has to do.
func (d *DB) flush() error {
	flushed, err := d.engine.AsyncFlush()
	if err != nil {
		return err
	}
	look := time.NewTicker(often)
	defer look.Stop()
	for {
		select {
		case <-flushed:
			return nil
		case <-look.C:
			if d.watchDisk(); d.guard.state.Load() != roomy {
				return nil
			}
		}
	}
}

func (d *DB) tellSlow(at, now int64) {
	d.slow = true
	d.log.Warn("disk: the newest record is from the future: was the clock ahead, and has been set back? For records and readers time goes on from there, "+
		"a little slower until the clock has caught up",
		zap.Time("newest", clockOf(at)), zap.Time("now", clockOf(now)), zap.Duration("ahead", time.Duration(at-now)))
}

// topic is what of a topic does not depend on the type of its records.
type topic struct {
	db      *DB
	name    string
	id      uint32
	mark    uint64 // no other topic has it, of this DB or another
	parts   []*part
	record  string // the type of its records; "": not known. Under the DB's lock, as is …
	claimed bool   // by a Topic, and …
	open    bool

	retain      time.Duration
	retainBytes int64

	marks map[origin.Source]origin.Seq // the committer's, after load

	readersMu sync.Mutex
	readers   map[readerName]*reader

	appended   atomic.Uint64 // records since Open
	duplicates atomic.Uint64
	refused    atomic.Uint64 // Writes, because the disk was full
}

func newTopic(d *DB, name string, id uint32, mark uint64, n int) *topic {
	t := &topic{db: d, name: name, id: id, mark: mark, parts: make([]*part, n), marks: map[origin.Source]origin.Seq{}, readers: map[readerName]*reader{}}
	for p := range t.parts {
		t.parts[p] = &part{topic: t, number: int32(p)}
	}
	return t
}

// log is what the topic goes by in the origin of what is made of it. One that is made
// anew begins with offset 0 again, and is another.
func (t *topic) log() string { return t.name + "#" + strconv.FormatUint(t.mark, 36) }

// load reads how far the partitions and the readers have come.
func (t *topic) load() error {
	for _, p := range t.parts {
		if err := p.load(); err != nil {
			return damaged(t.db.Dir, fmt.Errorf("topic %q, partition %d: %w", t.name, p.number, err))
		}
		t.db.clock.appended(p.time)
	}
	key := typeKey(t.id)
	v, err := t.db.get(key)
	if err == nil && v != nil {
		v, err = unseal(key, v)
	}
	if err != nil {
		return damaged(t.db.Dir, fmt.Errorf("topic %q: the type of its records cannot be read: %w", t.name, err))
	}
	t.record = string(v)
	err = t.db.scan(markKey(t.id, 0, "")[:5], func(k, v []byte) error {
		from, reader, ok := parseMarkKey(k)
		var seq uint64
		if err := unsealInts(k, v, &seq); err != nil || !ok {
			return damaged(t.db.Dir, fmt.Errorf("topic %q: what is kept of the reader %.100q cannot be read: %w", t.name, reader, cmp.Or(err, errValue)))
		}
		t.marks[origin.Source{Reader: reader, Partition: from}] = origin.Seq(seq)
		return nil
	})
	if err != nil {
		return err
	}
	return t.loadReaders()
}

// scan goes through all keys that begin with prefix.
func (d *DB) scan(prefix []byte, do func(k, v []byte) error) error {
	it, err := d.engine.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return openError(d.Dir, err)
	}
	defer func() { _ = it.Close() }()
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return openError(d.Dir, err)
		}
		if err := do(it.Key(), v); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return openError(d.Dir, err)
	}
	return nil
}

// get reads one key. A nil value: it is not there.
func (d *DB) get(key []byte) ([]byte, error) {
	v, c, err := d.engine.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return slices.Clone(v), nil
}

// part is one partition.
type part struct {
	topic  *topic
	number int32

	// The committer's: what was written, be it synced or not yet.
	next    int64
	written uint64
	count   uint64 // records, ticks left out
	time    int64

	clocked int // lanes that want ticks; under mu

	mu    sync.Mutex
	first int64  // offsets from here …
	end   int64  // … to before here can be read
	last  int64  // time of the newest record
	base  uint64 // the end of the record before first, in bytes
	begun int64  // time of the record at first; 0: not known
	size  uint64 // the end of the newest record
	// counted is how many records there have ever been, ticks left out.
	counted uint64
	lanes   map[*doze]struct{}
}

// doze is where a lane waits for records.
type doze struct{ wake chan struct{} }

func (w *doze) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (p *part) key() []byte { return partKey(kindRecord, p.topic.id, p.number) }

func (p *part) load() error {
	d := p.topic.db
	key := partKey(kindBounds, p.topic.id, p.number)
	var b bounds
	switch v, err := d.get(key); {
	case err != nil:
		return err
	case v != nil:
		if err := b.unseal(key, v); err != nil {
			return fmt.Errorf("its bounds cannot be read: %w", err)
		}
	}
	p.first, p.next, p.written, p.time, p.count = int64(b.first), int64(max(b.first, b.end)), b.size, int64(b.time), b.count
	p.base = b.size
	it, err := d.engine.NewIter(&pebble.IterOptions{LowerBound: offsetKey(kindRecord, p.topic.id, p.number, p.first), UpperBound: after(p.key())})
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	if it.First() {
		// One that is damaged is for the reader to tell of; this is about how many bytes
		// there are.
		if s, err := parse(it.Key(), it.Value()); err == nil {
			p.base = s.end - min(s.end, uint64(len(it.Value())))
		}
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		_, _, offset, valid := parseOffsetKey(it.Key())
		if !valid {
			return fmt.Errorf("a key that is none: %.50q", it.Key())
		}
		p.next = max(p.next, offset+1)
		if s, err := parse(it.Key(), it.Value()); err == nil {
			p.written, p.time, p.count = max(p.written, s.end), max(p.time, s.time), max(p.count, s.count)
			break
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	p.end, p.last, p.size, p.counted = p.next, p.time, p.written, p.count
	return nil
}
