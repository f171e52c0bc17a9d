package otlp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
)

func (c *metrics) DecodeBatch(dst []kemi.Metric, src []byte) ([]kemi.Metric, error) {
	d := c.decoders.get(len(src))
	defer c.decoders.put(d)
	d.dst = dst
	// A view, not a copy: what is kept is cloned where it is.
	if err := walk(view(src), "Metrics", d); err != nil {
		return dst, fmt.Errorf("otlp: metrics: %w", err)
	}
	return d.dst, nil
}

// resourceLabels returns the attributes of a resource as labels. host.name is the host.
func resourceLabels(attrs string) (kemi.Labels, error) {
	if attrs == "" {
		return kemi.Labels{}, nil
	}
	var buf [8]kemi.Label
	labels, err := attributes(buf[:0], strings.Clone(attrs))
	if err != nil {
		return kemi.Labels{}, err
	}
	named := false
	for _, l := range labels {
		if l.Name == hostName { // of several the last counts
			named = l.Value != ""
		}
	}
	for i := range labels {
		switch {
		case named && labels[i].Name == kemi.LabelHost:
			labels[i].Name = "exported_host"
		case named && labels[i].Name == hostName:
			labels[i].Name = kemi.LabelHost
		}
	}
	return kemi.NewLabels(labels...), nil
}

// The oneof of Metric.
const (
	gaugeTag     = 5<<3 | typeBytes
	sumTag       = 7<<3 | typeBytes
	histogramTag = 9<<3 | typeBytes
	expTag       = 10<<3 | typeBytes
	summaryTag   = 11<<3 | typeBytes
)

func (d *decoder) grow(n int) { d.dst = slices.Grow(d.dst, n) }

// one reads a Metric.
func (d *decoder) one(s string) error {
	var name string
	var data merged
	var kind uint32
	var meta run
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			name = m.body
		case gaugeTag, sumTag, histogramTag, expTag, summaryTag:
			if m.tag != kind {
				kind, data = m.tag, merged{}
			}
			data.add(m.body)
		case tag(12, typeBytes):
			meta.add(&m)
		case tag(2, typeBytes), tag(3, typeBytes):
		default:
			if err := m.unknown(fields(1, 2, 3, 5, 7, 9, 10, 11, 12)); err != nil {
				return fmt.Errorf("metric %.100q: %w", name, err)
			}
		}
	}
	err := m.err
	if err == nil {
		switch kind {
		case gaugeTag, sumTag:
			err = d.numbers(d.name(name), data.s, kind == sumTag, meta.s)
		case histogramTag, expTag, summaryTag:
			err = d.distribution(strings.Clone(unescaped(name)), data.s, kind)
		}
	}
	if err != nil {
		return fmt.Errorf("metric %.100q: %w", name, err)
	}
	return nil
}

// series is what is said about the points of a Sum.
func series(s string, known uint32) (points int, temporality, monotonic uint64, err error) {
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(1, typeBytes):
			points++
		case tag(2, typeVarint):
			temporality = m.n
		case tag(3, typeVarint):
			monotonic = m.n
		default:
			if err := m.unknown(known); err != nil {
				return 0, 0, 0, err
			}
		}
	}
	return points, temporality, monotonic, m.err
}

// numbers reads a Gauge or a Sum.
func (d *decoder) numbers(name, s string, sum bool, meta string) error {
	known := uint32(1 << 1)
	if sum {
		known = 1<<1 | 1<<2 | 1<<3
	}
	points, temporality, monotonic, err := series(s, known)
	if err != nil {
		return err
	}
	// An enum is 32 bits of what is written.
	counter := sum && int32(temporality) == cumulative && monotonic != 0
	var said exact
	if meta != "" {
		if said, err = metadata(meta); err != nil {
			return err
		}
	}
	if points > 1 {
		d.dst = slices.Grow(d.dst, points)
	}
	for m := (message{s: s}); m.next(); {
		if m.tag != tag(1, typeBytes) {
			continue
		}
		p, err := numberPoint(m.body)
		if err != nil {
			return fmt.Errorf("NumberDataPoint: %w", err)
		}
		labels, err := d.labels(p.attrs.s)
		if err != nil {
			return err
		}
		if p.nanos != d.nanos {
			d.nanos, d.time = p.nanos, timeOf(p.nanos)
		}
		t := d.time
		if points == 1 && p.nanos == 0 && said.time != "" {
			if odd, ok := parseOddTime(said.time); ok {
				t = odd
			}
		}
		d.dst = append(d.dst, p.metric(name, labels, t, counter, said, points))
	}
	return nil
}

func (p *number) metric(name string, labels kemi.Labels, t time.Time, counter bool, said exact, points int) kemi.Metric {
	v := math.Float64frombits(p.bits)
	switch {
	case p.flags&noRecordedValue != 0 || p.value == 0:
		v = math.Float64frombits(staleNaN)
	case p.value == asInt && counter && int64(p.bits) >= 0:
		if said.counter32 && p.bits <= math.MaxUint32 {
			return kemi.Counter32(name, labels, t, uint32(p.bits))
		}
		return kemi.Counter(name, labels, t, p.bits)
	case p.value == asInt:
		v = float64(int64(p.bits))
	case counter && points == 1 && said.value != "":
		// The double is the counter, rounded. Where somebody has changed it since, it
		// stands.
		if n, err := strconv.ParseUint(said.value, 10, 64); err == nil && float64(n) == v {
			return kemi.Counter(name, labels, t, n)
		}
	}
	if counter {
		return kemi.FloatCounter(name, labels, t, v)
	}
	return kemi.Gauge(name, labels, t, v)
}

// The oneof of NumberDataPoint.
const (
	asDouble = 4<<3 | typeFixed64
	asInt    = 6<<3 | typeFixed64
)

// number is a NumberDataPoint.
type number struct {
	nanos, bits uint64
	value       uint32 // asDouble, asInt or 0
	flags       uint32
	attrs       run
}

func numberPoint(s string) (p number, err error) {
	m := message{s: s}
	for m.next() {
		switch m.tag {
		case tag(3, typeFixed64):
			p.nanos = m.n
		case asDouble, asInt:
			p.value, p.bits = m.tag, m.n
		case tag(7, typeBytes):
			p.attrs.add(&m)
		case tag(8, typeVarint):
			p.flags = uint32(m.n)
		case tag(2, typeFixed64), tag(5, typeBytes):
		default:
			if err := m.unknown(fields(2, 3, 4, 5, 6, 7, 8)); err != nil {
				return p, err
			}
		}
	}
	return p, m.err
}

// exact is the metadata that Metrics writes.
type exact struct {
	counter32   bool
	time, value string
}

func metadata(run string) (said exact, err error) {
	if run == meta32 {
		return exact{counter32: true}, nil
	}
	for m := (message{s: run}); ; {
		if !m.next() {
			return said, m.err
		}
		name, value, err := keyValue(m.body)
		if err != nil {
			return said, fmt.Errorf("metadata: %w", err)
		}
		switch name {
		case metaKind, metaTime, metaValue:
			text, err := textOf(value)
			if err != nil {
				return said, fmt.Errorf("metadata: %w", err)
			}
			switch name {
			case metaKind:
				said.counter32 = text == "counter32"
			case metaTime:
				said.time = text
			case metaValue:
				said.value = text
			}
		}
	}
}
