package otlp

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/kemi-go/kemi"
)

// What kemi has no record for: histograms and summaries become the series that
// Prometheus makes of them.

// distribution reads a Histogram, an ExponentialHistogram or a Summary.
func (d *decoder) distribution(name, s string, kind uint32) error {
	known := fields(1, 2)
	if kind == summaryTag {
		known = fields(1)
	}
	_, temporality, _, err := series(s, known)
	if err != nil {
		return err
	}
	for m := (message{s: s}); m.next(); {
		if m.tag != tag(1, typeBytes) {
			continue
		}
		p := distPoint{d: d, name: name, counter: kind == summaryTag || int32(temporality) == cumulative}
		var err error
		switch kind {
		case histogramTag:
			err = p.histogram(m.body)
		case expTag:
			err = p.exponential(m.body)
		default:
			err = p.summary(m.body)
		}
		if err != nil {
			return fmt.Errorf("data point: %w", err)
		}
	}
	return nil
}

// distPoint is one point of a distribution.
type distPoint struct {
	d       *decoder
	name    string
	counter bool // what only grows is a counter, and a gauge where it is a delta
	nanos   uint64
	count   uint64
	sum     uint64 // the bits of a float64
	hasSum  bool
	flags   uint32
	attrs   run
	labels  []kemi.Label
}

// float appends a series of a float64.
func (p *distPoint) float(suffix string, labels kemi.Labels, counter bool, v float64) {
	if p.flags&noRecordedValue != 0 {
		v = math.Float64frombits(staleNaN)
	}
	t, make := timeOf(p.nanos), kemi.Gauge
	if counter {
		make = kemi.FloatCounter
	}
	p.d.dst = append(p.d.dst, make(p.name+suffix, labels, t, v))
}

// whole appends a series of a count.
func (p *distPoint) whole(suffix string, labels kemi.Labels, n uint64) {
	if !p.counter || p.flags&noRecordedValue != 0 {
		p.float(suffix, labels, p.counter, float64(n))
		return
	}
	p.d.dst = append(p.d.dst, kemi.Counter(p.name+suffix, labels, timeOf(p.nanos), n))
}

// own reads the attributes.
func (p *distPoint) own() (err error) {
	p.labels, err = attributes(nil, strings.Clone(p.attrs.s))
	return err
}

// bucket appends the series of one bucket: how many values are up to le.
func (p *distPoint) bucket(le float64, n uint64) error {
	labels, err := p.d.with(p.labels, "le", strconv.FormatFloat(le, 'g', -1, 64))
	if err != nil {
		return err
	}
	p.whole("_bucket", labels, n)
	return nil
}

// total appends the series that all distributions have.
func (p *distPoint) total() error {
	labels, err := p.d.join(p.labels)
	if err != nil {
		return err
	}
	if p.hasSum {
		p.float("_sum", labels, p.counter, math.Float64frombits(p.sum))
	}
	p.whole("_count", labels, p.count)
	return nil
}

func (p *distPoint) histogram(s string) error {
	var counts, bounds packed
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(3, typeFixed64):
			p.nanos = m.n
		case tag(4, typeFixed64):
			p.count = m.n
		case tag(5, typeFixed64):
			p.sum, p.hasSum = m.n, true
		case tag(6, typeFixed64), tag(6, typeBytes):
			counts.fixed(&m)
		case tag(7, typeFixed64), tag(7, typeBytes):
			bounds.fixed(&m)
		case tag(9, typeBytes):
			p.attrs.add(&m)
		case tag(10, typeVarint):
			p.flags = uint32(m.n)
		case tag(2, typeFixed64), tag(8, typeBytes), tag(11, typeFixed64), tag(12, typeFixed64):
		default:
			if err := m.unknown(fields(2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)); err != nil {
				return err
			}
		}
	}
	if m.err != nil {
		return m.err
	}
	if err := p.own(); err != nil {
		return err
	}
	if n := len(counts); n != len(bounds)+1 && (n != 0 || len(bounds) != 0) && p.flags&noRecordedValue == 0 {
		return fmt.Errorf("%d buckets between %d bounds: want one more bucket than bounds", n, len(bounds))
	}
	var below uint64
	for i, b := range bounds {
		if i < len(counts) {
			below += counts[i]
		}
		if err := p.bucket(math.Float64frombits(b), below); err != nil {
			return err
		}
	}
	if err := p.bucket(math.Inf(1), p.count); err != nil {
		return err
	}
	return p.total()
}

// packed is a repeated field of numbers.
type packed []uint64

// fixed adds numbers of 64 bits, which come alone or many in one field.
func (p *packed) fixed(m *message) {
	if m.tag&7 == typeFixed64 {
		*p = append(*p, m.n)
		return
	}
	if len(m.body)%8 != 0 {
		m.err = errShort
		return
	}
	for s := m.body; s != ""; s = s[8:] {
		*p = append(*p, fixed64(s))
	}
}

func (p *packed) varint(m *message) {
	if m.tag&7 == typeVarint {
		*p = append(*p, m.n)
		return
	}
	for in := (message{s: m.body}); in.i < len(in.s); {
		*p = append(*p, in.varint())
		if in.err != nil {
			m.err = in.err
			return
		}
	}
}

// exponential reads an ExponentialHistogramDataPoint. Its bounds depend on its scale,
// which changes while it grows. Buckets are added up until the bounds are powers of
// two, so that the series stay the same whatever the scale is.
func (p *distPoint) exponential(s string) error {
	var scale int32
	var zeros uint64
	var threshold float64
	var positive, negative merged
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			p.attrs.add(&m)
		case tag(3, typeFixed64):
			p.nanos = m.n
		case tag(4, typeFixed64):
			p.count = m.n
		case tag(5, typeFixed64):
			p.sum, p.hasSum = m.n, true
		case tag(6, typeVarint):
			scale = zigzag(m.n)
		case tag(7, typeFixed64):
			zeros = m.n
		case tag(8, typeBytes):
			positive.add(m.body)
		case tag(9, typeBytes):
			negative.add(m.body)
		case tag(10, typeVarint):
			p.flags = uint32(m.n)
		case tag(14, typeFixed64):
			threshold = math.Float64frombits(m.n)
		case tag(2, typeFixed64), tag(11, typeBytes), tag(12, typeFixed64), tag(13, typeFixed64):
		default:
			if err := m.unknown(fields(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)); err != nil {
				return err
			}
		}
	}
	if m.err != nil {
		return m.err
	}
	if err := p.own(); err != nil {
		return err
	}
	above, err := binary2(positive.s, scale)
	if err != nil {
		return err
	}
	under, err := binary2(negative.s, scale)
	if err != nil {
		return err
	}
	var below uint64
	for i := len(under) - 1; i >= 0; i-- { // a bucket of negatives ends at its bound next to zero
		below += under[i].n
		if err := p.bucket(0-under[i].from, below); err != nil {
			return err
		}
	}
	below += zeros
	if zeros > 0 || len(under) > 0 {
		if err := p.bucket(threshold, below); err != nil {
			return err
		}
	}
	for _, b := range above {
		below += b.n
		if math.IsInf(b.to, 1) {
			break
		}
		if err := p.bucket(b.to, below); err != nil {
			return err
		}
	}
	if err := p.bucket(math.Inf(1), p.count); err != nil {
		return err
	}
	return p.total()
}

func zigzag(n uint64) int32 { return int32(uint32(n)>>1) ^ -int32(uint32(n)&1) }

// power is how many values lie between two powers of two.
type power struct {
	from, to float64
	n        uint64
}

// binary2 reads Buckets, and adds them up to powers of two.
func binary2(s string, scale int32) ([]power, error) {
	var offset int32
	var counts packed
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeVarint):
			offset = zigzag(m.n)
		case tag(2, typeVarint), tag(2, typeBytes):
			counts.varint(&m)
		default:
			if err := m.unknown(fields(1, 2)); err != nil {
				return nil, fmt.Errorf("buckets: %w", err)
			}
		}
	}
	if m.err != nil {
		return nil, m.err
	}
	var powers []power
	for i, n := range counts {
		at := int64(offset) + int64(i)
		if scale > 0 {
			at >>= min(scale, 40)
		}
		b := power{bound(at, scale), bound(at+1, scale), n}
		if last := len(powers) - 1; last >= 0 && powers[last].from == b.from && powers[last].to == b.to {
			powers[last].n += n
			continue
		}
		powers = append(powers, b)
	}
	return powers, nil
}

// bound is 2^at, or at a scale below 0, where a bucket is more than one power wide,
// 2^(at*2^-scale).
func bound(at int64, scale int32) float64 {
	if scale < 0 {
		at <<= min(-int64(scale), 12)
	}
	return math.Ldexp(1, int(max(-2000, min(2000, at))))
}

func (p *distPoint) summary(s string) error {
	p.hasSum = true // it is 0 where it is not written
	var quantiles run
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(3, typeFixed64):
			p.nanos = m.n
		case tag(4, typeFixed64):
			p.count = m.n
		case tag(5, typeFixed64):
			p.sum = m.n
		case tag(6, typeBytes):
			quantiles.add(&m)
		case tag(7, typeBytes):
			p.attrs.add(&m)
		case tag(8, typeVarint):
			p.flags = uint32(m.n)
		case tag(2, typeFixed64):
		default:
			if err := m.unknown(fields(2, 3, 4, 5, 6, 7, 8)); err != nil {
				return err
			}
		}
	}
	if m.err != nil {
		return m.err
	}
	if err := p.own(); err != nil {
		return err
	}
	for m := (message{s: quantiles.s}); m.next(); {
		var q, v uint64
		in := message{s: m.body}
		for in.next() {
			switch in.tag {
			case tag(1, typeFixed64):
				q = in.n
			case tag(2, typeFixed64):
				v = in.n
			default:
				if err := in.unknown(fields(1, 2)); err != nil {
					return fmt.Errorf("ValueAtQuantile: %w", err)
				}
			}
		}
		if in.err != nil {
			return in.err
		}
		labels, err := p.d.with(p.labels, "quantile", strconv.FormatFloat(math.Float64frombits(q), 'g', -1, 64))
		if err != nil {
			return err
		}
		p.float("", labels, false, math.Float64frombits(v))
	}
	return p.total()
}
