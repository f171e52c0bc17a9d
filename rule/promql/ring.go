package promql

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// millis is a time in milliseconds since the epoch, as Prometheus counts it.
type millis = int64

// sample is one reading of a series.
type sample struct {
	t millis
	v float64
}

// extra is what a sample may have beside a float: a native histogram, whole or of
// floats, and the time at which a counter began. Metrics of kemi have none of it;
// the histograms that a recording rule computes do.
type extra struct {
	st int64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// compare notes, as Prometheus' storage does, that a histogram goes on from the one
// before it in the series. Where it does not, or where it is not plain to see, the
// hint stays unknown and the functions of PromQL find out for themselves.
func (x *extra) compare(prev extra) {
	var hint *histogram.CounterResetHint
	var cur, old *histogram.FloatHistogram
	switch {
	case x.h != nil && prev.h != nil:
		hint, cur, old = &x.h.CounterResetHint, x.h.ToFloat(nil), prev.h.ToFloat(nil)
	case x.fh != nil && prev.fh != nil:
		hint, cur, old = &x.fh.CounterResetHint, x.fh, prev.fh
	default:
		return
	}
	if *hint != histogram.UnknownCounterReset || old.CounterResetHint == histogram.GaugeType ||
		value.IsStaleNaN(cur.Sum) || value.IsStaleNaN(old.Sum) {
		return
	}
	if cur.Schema == old.Schema && cur.ZeroThreshold == old.ZeroThreshold && !cur.DetectReset(old) {
		*hint = histogram.NotCounterReset
	}
}

// fate is what became of a sample that was put into a ring.
type fate uint8

const (
	stored    fate = iota
	replaced       // there was one of the same time; the last one counts
	late           // older than what is kept
	displaced      // the oldest one was given up, as the ring may not grow further
)

// ring holds the samples of one series in order of time, oldest first. A sample
// out of order is put where it belongs.
type ring struct {
	buf  []sample
	more []extra // beside buf; nil as long as every sample is a plain float
	head int     // of buf: the oldest
	n    int
}

func (r *ring) pos(i int) int {
	if i += r.head; i >= len(r.buf) {
		i -= len(r.buf)
	}
	return i
}

func (r *ring) at(i int) sample { return r.buf[r.pos(i)] }

func (r *ring) extra(i int) extra {
	if r.more == nil {
		return extra{}
	}
	return r.more[r.pos(i)]
}

// last returns the time of the newest sample. The ring is not empty.
func (r *ring) last() int64 { return r.at(r.n - 1).t }

// put stores a sample. What is older than from is not needed any more. The ring
// grows to limit samples at most.
func (r *ring) put(s sample, x extra, from int64, limit int) fate {
	if s.t < from {
		return late
	}
	i := r.n // where it goes
	for i > 0 && r.at(i-1).t >= s.t {
		i--
	}
	if i < r.n && r.at(i).t == s.t {
		r.set(r.pos(i), s, x)
		return replaced
	}
	res := stored
	if r.n == len(r.buf) {
		switch dropped := r.trim(from); {
		case dropped > 0:
			i -= dropped
		case r.n < limit:
			r.grow(min(max(8, r.n+r.n/2), limit))
		case i == 0:
			return displaced // it is the oldest one itself
		default:
			r.drop(1)
			i--
			res = displaced
		}
	}
	r.n++
	for j := r.n - 1; j > i; j-- {
		to, of := r.pos(j), r.pos(j-1)
		r.buf[to] = r.buf[of]
		if r.more != nil {
			r.more[to] = r.more[of]
		}
	}
	r.set(r.pos(i), s, x)
	return res
}

func (r *ring) set(p int, s sample, x extra) {
	r.buf[p] = s
	if r.more == nil {
		if x == (extra{}) {
			return
		}
		r.more = make([]extra, len(r.buf))
	}
	r.more[p] = x
}

func (r *ring) grow(size int) {
	buf := make([]sample, size)
	var more []extra
	if r.more != nil {
		more = make([]extra, size)
	}
	for i := range r.n {
		buf[i] = r.at(i)
		if more != nil {
			more[i] = r.more[r.pos(i)]
		}
	}
	r.buf, r.more, r.head = buf, more, 0
}

// trim drops what is older than from and says how many that were.
func (r *ring) trim(from int64) int {
	d := 0
	for d < r.n && r.at(d).t < from {
		d++
	}
	r.drop(d)
	return d
}

func (r *ring) drop(d int) {
	if d == 0 {
		return
	}
	if r.more != nil { // histograms are not held longer than needed
		for i := range d {
			r.more[r.pos(i)] = extra{}
		}
	}
	r.head = r.pos(d)
	if r.n -= d; r.n == 0 {
		r.head = 0
	}
}

// window appends the samples with from <= t <= to to dst and more, the latter only
// if some sample has more than a float.
func (r *ring) window(dst []sample, more []extra, from, to int64) ([]sample, []extra) {
	lo := r.search(from)
	hi := r.search(to + 1)
	return r.copy(dst, more, lo, hi)
}

// latest appends the newest sample with from <= t <= to, if there is one.
func (r *ring) latest(dst []sample, from, to millis) []sample {
	for i := r.n - 1; i >= 0; i-- {
		if s := r.at(i); s.t <= to {
			if s.t >= from {
				dst = append(dst, s)
			}
			break
		}
	}
	return dst
}

func (r *ring) copy(dst []sample, more []extra, lo, hi int) ([]sample, []extra) {
	if hi <= lo {
		return dst, more
	}
	a, b := r.pos(lo), r.pos(lo)+hi-lo
	if b <= len(r.buf) {
		dst = append(dst, r.buf[a:b]...)
	} else {
		dst = append(append(dst, r.buf[a:]...), r.buf[:b-len(r.buf)]...)
	}
	if r.more != nil {
		for i := lo; i < hi; i++ {
			more = append(more, r.more[r.pos(i)])
		}
	}
	return dst, more
}

// search returns the index of the first sample that is not older than t.
func (r *ring) search(t int64) int {
	lo, hi := 0, r.n
	for lo < hi {
		if mid := (lo + hi) / 2; r.at(mid).t < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// shrink gives memory back when a ring is far larger than what it holds.
func (r *ring) shrink() {
	if len(r.buf) > 32 && r.n < len(r.buf)/4 {
		r.grow(max(8, r.n+r.n/2))
		r.buf = slices.Clip(r.buf)
	}
}
