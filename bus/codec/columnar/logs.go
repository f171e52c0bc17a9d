package columnar

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

var logsHead = head{"kcol-logs", "kcl", 1}

// Logs returns the codec kcol-logs/1. Use one for a topic: it remembers the names it
// has read, so that it need not make them again.
func Logs() bus.Codec[kemi.Log] { return new(logs) }

type logs struct {
	writers sync.Pool // of *logsWriter
	readers sync.Pool // of *texts
}

func (*logs) Name() string { return logsHead.codec() }

// ---- writing ----------------------------------------------------------------

type logsWriter struct {
	strings              table[string]
	hosts, apps, tags    []int64
	priorities           []int64
	times, observed      instants
	idLens, ids          []byte
	messageLens, message []byte
	fields               []byte
}

func (c *logs) AppendBatch(dst []byte, batch []kemi.Log) ([]byte, error) {
	w, _ := c.writers.Get().(*logsWriter)
	if w == nil {
		w = new(logsWriter)
	}
	w.reset()
	out, err := w.append(dst, batch)
	if cap(w.message)+cap(w.fields)+cap(w.ids) <= 4<<20 && len(batch) <= 1<<14 {
		w.reset() // so that it holds no records while it waits
		c.writers.Put(w)
	}
	return out, err
}

func (w *logsWriter) reset() {
	w.strings.reset()
	w.times.reset()
	w.observed.reset()
	w.hosts, w.apps, w.tags, w.priorities = w.hosts[:0], w.apps[:0], w.tags[:0], w.priorities[:0]
	w.idLens, w.ids = w.idLens[:0], w.ids[:0]
	w.messageLens, w.message = w.messageLens[:0], w.message[:0]
	w.fields = w.fields[:0]
}

func (w *logsWriter) append(dst []byte, batch []kemi.Log) ([]byte, error) {
	for i := range batch {
		l := &batch[i]
		w.hosts = append(w.hosts, w.string(l.Host))
		w.apps = append(w.apps, w.string(l.App))
		w.tags = append(w.tags, w.string(l.Tag))
		w.priorities = append(w.priorities, int64(l.Facility)<<8|int64(l.Severity))
		w.times.add(l.Time)
		w.observed.add(l.Observed)
		w.idLens = binary.AppendUvarint(w.idLens, uint64(len(l.ID)))
		w.ids = append(w.ids, l.ID...)
		w.messageLens = binary.AppendUvarint(w.messageLens, uint64(len(l.Message)))
		w.message = append(w.message, l.Message...)
		if err := w.attrs(l.Fields, 1); err != nil {
			return dst, fmt.Errorf("columnar: log %d of %q: %w", i, l.Host, err)
		}
	}
	dst = binary.AppendUvarint(logsHead.append(dst), uint64(len(batch)))
	if len(batch) == 0 {
		return dst, nil
	}
	dst = appendStrings(dst, w.strings.all)
	dst = appendColumn(dst, w.hosts)
	dst = appendColumn(dst, w.apps)
	dst = appendColumn(dst, w.tags)
	dst = appendColumn(dst, w.priorities)
	dst = w.times.append(dst)
	dst = w.observed.append(dst)
	for _, b := range [][]byte{w.idLens, w.ids, w.messageLens, w.message, w.fields} {
		dst = append(dst, b...)
	}
	return dst, nil
}

func (w *logsWriter) string(s string) int64 {
	ref, _ := w.strings.ref(s)
	return ref
}

// ---- reading ----------------------------------------------------------------

func (c *logs) DecodeBatch(dst []kemi.Log, src []byte) ([]kemi.Log, error) {
	r, err := logsHead.begin(src)
	if err != nil {
		return dst, err
	}
	t, _ := c.readers.Get().(*texts)
	if t == nil {
		t = new(texts)
	}
	out := readLogs(dst, &r, t)
	t.forget()
	c.readers.Put(t)
	if err := r.end(); err != nil {
		clear(out[len(dst):])
		return dst, err
	}
	return out, nil
}

func readLogs(dst []kemi.Log, r *reader, t *texts) []kemi.Log {
	n := r.count("number of logs", 3) // the lengths and the number of fields take a byte each
	if n == 0 {
		return dst
	}
	t.read(r)
	had := len(dst)
	dst = slices.Grow(dst, n)[:had+n]
	out := dst[had:]
	clear(out)

	for _, col := range [...]struct {
		what string
		of   func(*kemi.Log) *string
	}{
		{"host column", func(l *kemi.Log) *string { return &l.Host }},
		{"app column", func(l *kemi.Log) *string { return &l.App }},
		{"tag column", func(l *kemi.Log) *string { return &l.Tag }},
	} {
		for c := r.column(n, col.what); c.next(); {
			for i, v := c.from, c.first; i < c.to; i, v = i+1, v+c.diff {
				if uint64(v) >= uint64(len(t.raw)) {
					r.fail("log %d has the string %d in the %s, and the table has %d entries", i, v, col.what, len(t.raw))
					return dst
				}
				*col.of(&out[i]) = t.name(int(v))
			}
		}
	}
	for c := r.column(n, "priority column"); c.next(); {
		for i, v := c.from, c.first; i < c.to; i, v = i+1, v+c.diff {
			if v < 0 || v > math.MaxUint16 {
				r.fail("the priority of log %d is %d, want 0 to 65535", i, v)
				return dst
			}
			out[i].Facility, out[i].Severity = uint8(v>>8), kemi.Severity(v&0xff)
		}
	}
	secs := r.times(nil, n, "times", func(from, to int, t time.Time) {
		for i := from; i < to; i++ {
			out[i].Time = t
		}
	})
	r.times(secs, n, "observed times", func(from, to int, t time.Time) {
		for i := from; i < to; i++ {
			out[i].Observed = t
		}
	})
	raw := r.lengths(make([][]byte, 0, n), n, "id")
	for i, b := range raw {
		out[i].ID = string(b)
	}
	for i, b := range r.lengths(raw[:0], n, "message") {
		out[i].Message = string(b)
	}
	for i := range out {
		out[i].Fields = r.attrs(t, 1)
	}
	return dst
}

// Fields are read by going down into groups, so their depth has a bound. It is that of
// encoding/json: what comes as JSON can be written here.
const maxDepth = 10_000

func (r *reader) attrs(t *texts, depth int) []slog.Attr {
	n := r.count("number of fields", 2)
	if n == 0 || r.err != nil {
		return nil
	}
	if depth > maxDepth {
		r.fail("fields are nested more than %d deep", maxDepth)
		return nil
	}
	attrs := make([]slog.Attr, n)
	for i := range attrs {
		if ref := r.ref("key of a field", len(t.raw)); r.err == nil {
			attrs[i] = slog.Attr{Key: t.name(ref), Value: r.value(t, depth)}
		}
	}
	return attrs
}
