package columnar

import (
	"encoding/binary"
	"fmt"
	"time"
)

// head is what a batch begins with: three letters and the version.
type head struct {
	name    string // of the codec, without the version
	letters string
	version byte
}

func (h head) codec() string { return fmt.Sprint(h.name, "/", h.version) }

func (h head) append(dst []byte) []byte { return append(append(dst, h.letters...), h.version) }

// begin checks the head of src and returns a reader of the rest.
func (h head) begin(src []byte) (reader, error) {
	n := len(h.letters)
	switch {
	case len(src) <= n || string(src[:n]) != h.letters:
		return reader{}, fmt.Errorf("columnar: these %d bytes are not of %s: they begin with %q, want %q",
			len(src), h.codec(), src[:min(len(src), n+1)], h.append(nil))
	case src[n] != h.version:
		return reader{}, fmt.Errorf("columnar: these %d bytes are of %s/%d, and this program reads %s: upgrade the readers before the writers",
			len(src), h.name, src[n], h.codec())
	}
	return reader{head: h, src: src, at: n + 1}, nil
}

// reader goes through bytes that nobody vouches for. The first failure stays, and
// what is read after it is zero.
type reader struct {
	head head
	src  []byte
	at   int
	err  error
}

func (r *reader) left() int { return len(r.src) - r.at }

// fail says what was expected where.
func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("columnar: %s, byte %d of %d: %w", r.head.codec(), r.at, len(r.src), fmt.Errorf(format, args...))
	}
	r.at = len(r.src)
}

func (r *reader) uvarint(what string) uint64 {
	if r.at < len(r.src) && r.src[r.at] < 0x80 { // most are small
		r.at++
		return uint64(r.src[r.at-1])
	}
	x, n := binary.Uvarint(r.src[r.at:])
	switch {
	case n == 0:
		r.fail("the bytes end where the %s should be", what)
		return 0
	case n < 0:
		r.fail("the %s has more than 64 bits", what)
		return 0
	}
	r.at += n
	return x
}

func (r *reader) svarint(what string) int64 {
	x := r.uvarint(what)
	return int64(x>>1) ^ -int64(x&1)
}

func (r *reader) byte(what string) byte {
	if r.at >= len(r.src) {
		r.fail("the bytes end where the %s should be", what)
		return 0
	}
	r.at++
	return r.src[r.at-1]
}

// count reads a number of things, of which each takes at least size bytes, so that
// there is no room to be made for more than there can be.
func (r *reader) count(what string, size int) int {
	n := r.uvarint(what)
	if n > uint64(r.left()/size) {
		r.fail("the %s is %d, for which the %d bytes that follow are too few", what, n, r.left())
		return 0
	}
	return int(n)
}

// ref reads an index into a table.
func (r *reader) ref(what string, size int) int {
	x := r.uvarint(what)
	if x >= uint64(size) {
		r.fail("the %s is %d, and the table has %d entries", what, x, size)
		return 0
	}
	return int(x)
}

func (r *reader) bytes(n int, what string) []byte {
	if n > r.left() {
		r.fail("%d bytes follow, the %s should have %d", r.left(), what, n)
		return nil
	}
	r.at += n
	return r.src[r.at-n : r.at : r.at]
}

func (r *reader) uint64(what string) uint64 {
	if b := r.bytes(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// lengths reads n lengths, and then that many times as many bytes.
func (r *reader) lengths(dst [][]byte, n int, what string) [][]byte {
	from := r.at
	for range n {
		r.uvarint(what)
	}
	body := reader{head: r.head, src: r.src, at: r.at, err: r.err}
	r.at = from
	for range n {
		if r.err != nil || body.err != nil {
			break
		}
		l := r.uvarint(what)
		if l > uint64(body.left()) {
			body.fail("%d bytes follow, the %s should have %d", body.left(), what, l)
			break
		}
		dst = append(dst, body.bytes(int(l), what))
	}
	if r.err == nil {
		r.at, r.err = body.at, body.err
	}
	return dst
}

// end says whether all was well and all was read.
func (r *reader) end() error {
	if r.err == nil && r.left() > 0 {
		r.fail("the batch ends here, and %d bytes follow", r.left())
	}
	return r.err
}

// runs is a column that is being read: each step is a run of records, and the value of
// the first is first, that of each further one more by diff.
type runs struct {
	r        *reader
	what     string
	n        int // records
	from, to int
	first    int64
	diff     int64
}

func (r *reader) column(n int, what string) runs { return runs{r: r, what: what, n: n} }

func (c *runs) next() bool {
	if c.to == c.n {
		return false
	}
	last := c.first + c.diff*int64(c.to-c.from-1)
	if c.to == 0 {
		last = 0
	}
	length := c.r.uvarint(c.what)
	diff := c.r.svarint(c.what)
	if c.r.err != nil {
		return false
	}
	if length == 0 || length > uint64(c.n-c.to) {
		c.r.fail("a run of the %s has %d records, want 1 to %d", c.what, length, c.n-c.to)
		return false
	}
	c.from, c.to = c.to, c.to+int(length)
	c.first, c.diff = last+diff, diff
	return true
}

// times reads the times of n records and gives each run of equal ones, or each single
// one, to set.
func (r *reader) times(secs []int64, n int, what string, set func(from, to int, t time.Time)) []int64 {
	scale := r.byte(what)
	if scale > 9 || scale%3 != 0 {
		r.fail("the scale of the %s is %d, want 0, 3, 6 or 9", what, scale)
	}
	unit := [4]uint64{1, 1e3, 1e6, 1e9}[scale/3%4]
	secs = secs[:0]
	for c := r.column(n, what); c.next(); {
		for i, v := c.from, c.first; i < c.to; i, v = i+1, v+c.diff {
			secs = append(secs, v)
		}
	}
	for c := r.column(n, what); c.next(); {
		for i, v := c.from, uint64(c.first); i < c.to; v += uint64(c.diff) {
			if v > 999_999_999/unit {
				r.fail("the fraction of a second of the %s is %d, want less than %d", what, int64(v), 1_000_000_000/unit)
				return secs
			}
			from := i
			for i++; c.diff == 0 && i < c.to && secs[i] == secs[from]; i++ {
			}
			set(from, i, time.Unix(secs[from], int64(v*unit)).UTC())
		}
	}
	return secs
}

// appendColumn writes a column.
func appendColumn(dst []byte, col []int64) []byte {
	var last int64
	for i := 0; i < len(col); {
		diff := col[i] - last
		n := 1
		for i+n < len(col) && col[i+n]-col[i+n-1] == diff {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = binary.AppendVarint(dst, diff)
		last = col[i+n-1]
		i += n
	}
	return dst
}

// instants is a column of times that is being made.
type instants struct {
	secs, nanos []int64
	last        time.Time
}

func (c *instants) reset() { *c = instants{secs: c.secs[:0], nanos: c.nanos[:0]} }

func (c *instants) add(t time.Time) {
	if n := len(c.secs); n > 0 && t.Equal(c.last) {
		c.secs, c.nanos = append(c.secs, c.secs[n-1]), append(c.nanos, c.nanos[n-1])
		return
	}
	c.last = t
	c.secs, c.nanos = append(c.secs, t.Unix()), append(c.nanos, int64(t.Nanosecond()))
}

// append writes the times. It leaves the column of use for reset only.
func (c *instants) append(dst []byte) []byte {
	scale, unit := byte(9), int64(1e9)
	for _, n := range c.nanos {
		for n%unit != 0 {
			scale, unit = scale-3, unit/1000
		}
	}
	if unit > 1 {
		for i := range c.nanos {
			c.nanos[i] /= unit
		}
	}
	return appendColumn(appendColumn(append(dst, scale), c.secs), c.nanos)
}

// table gives each distinct value its ref, in the order of their first use.
type table[K comparable] struct {
	refs map[K]int64
	all  []K
}

// reset empties the table, and gives up the room of a batch that was out of the
// ordinary.
func (t *table[K]) reset() {
	if t.refs == nil || len(t.all) > 1<<14 {
		*t = table[K]{refs: map[K]int64{}}
		return
	}
	clear(t.refs)
	clear(t.all)
	t.all = t.all[:0]
}

// ref returns the ref of k, and whether k is new.
func (t *table[K]) ref(k K) (ref int64, added bool) {
	ref, ok := t.refs[k]
	if !ok {
		ref = int64(len(t.all))
		t.refs[k] = ref
		t.all = append(t.all, k)
	}
	return ref, !ok
}

func appendStrings(dst []byte, all []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(all)))
	for _, s := range all {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
	}
	for _, s := range all {
		dst = append(dst, s...)
	}
	return dst
}

func appendBytes(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// texts is the table of strings of a batch that is being read.
type texts struct {
	raw [][]byte
	own []string          // copies, made when they are needed
	old map[string]string // names of earlier batches, so that they are copied once
}

// Longer strings are not names, and more names than these are not of one fleet.
const (
	maxName  = 128
	maxNames = 4096
)

func (t *texts) read(r *reader) {
	n := r.count("number of strings", 1)
	t.raw = r.lengths(t.raw[:0], n, "string")
	t.own = append(t.own[:0], make([]string, len(t.raw))...)
}

// forget lets go of the batch.
func (t *texts) forget() {
	clear(t.raw)
	clear(t.own)
	if cap(t.raw) > 1<<14 {
		t.raw, t.own = nil, nil
	}
}

// string returns the string of a ref. It is copied once in a batch.
func (t *texts) string(ref int) string {
	if t.own[ref] == "" {
		t.own[ref] = string(t.raw[ref])
	}
	return t.own[ref]
}

// name returns the string of a ref, for what is the same in many batches.
func (t *texts) name(ref int) string {
	raw := t.raw[ref]
	if t.own[ref] == "" {
		if s, ok := t.old[string(raw)]; ok {
			t.own[ref] = s
		} else if s := t.string(ref); len(s) <= maxName {
			if t.old == nil || len(t.old) >= maxNames {
				t.old = make(map[string]string, 64)
			}
			t.old[s] = s
		}
	}
	return t.own[ref]
}
