package otlp

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
)

const (
	minSlots  = 256
	maxSlots  = 4096
	maxKept   = 512 // bytes of the attributes of a point that is remembered
	maxNames  = 4096
	freePairs = 1 << 16 // of labels, for a batch of any length
	pairsEach = 2       // and for each of its bytes
)

// set is the attributes of a data point as they were read before: the same bytes give
// the same labels. Those of one resource together are remembered too, for the polls of
// one host, and for the columns of a table, which share the labels of their row.
type set struct {
	raw    string
	labels []kemi.Label // sorted by name
	of     kemi.Labels  // of the resource
	all    kemi.Labels  // of the resource and the labels
}

// decoder reads one batch at a time. What it remembers between them changes nothing
// but the time it takes.
type decoder struct {
	seed    maphash.Seed
	slots   []set // by hash; each has its second best place beside it
	evicted int
	names   map[string]string

	dst      []kemi.Metric
	resource kemi.Labels
	budget   int // labels that may still be made; see spend
	pairs    []kemi.Label
	scratch  []kemi.Label
	nanos    uint64 // of the last point: those of a poll are mostly of one time
	time     time.Time
}

type pool struct{ sync.Pool }

func (p *pool) get(src int) *decoder {
	d, _ := p.Get().(*decoder)
	if d == nil {
		d = &decoder{seed: maphash.MakeSeed(), slots: make([]set, minSlots), names: map[string]string{}}
	}
	d.budget = freePairs + pairsEach*src
	return d
}

func (p *pool) put(d *decoder) {
	d.dst, d.resource = nil, kemi.Labels{}
	if cap(d.pairs)+cap(d.scratch) > 512 {
		d.pairs, d.scratch = nil, nil
	}
	p.Put(d)
}

// spend takes n labels from what the batch may ask for. The attributes of a resource
// are on each of its points, so that the labels are not bounded by the bytes alone.
func (d *decoder) spend(n int) error {
	if d.budget -= n; d.budget < 0 {
		return errTooMuch
	}
	return nil
}

// name returns s, which may lie in the batch, as a string that may be kept.
func (d *decoder) name(s string) string {
	if name, ok := d.names[s]; ok {
		return name
	}
	raw := strings.Clone(s)
	name := unescaped(raw)
	if len(s) <= maxKept {
		if len(d.names) >= maxNames {
			clear(d.names)
		}
		d.names[raw] = name
	}
	return name
}

// labels returns the labels that a run of attributes gives under the resource.
func (d *decoder) labels(raw string) (kemi.Labels, error) {
	if raw == "" {
		return d.resource, nil
	}
	if len(raw) > maxKept {
		labels, err := attributes(nil, strings.Clone(raw))
		if err != nil {
			return kemi.Labels{}, err
		}
		return d.join(labels)
	}
	at := maphash.String(d.seed, raw) & uint64(len(d.slots)-1)
	s := &d.slots[at]
	if s.raw != raw {
		if other := &d.slots[at^1]; other.raw == raw {
			s = other
		} else if err := d.learn(s, other, raw); err != nil {
			return kemi.Labels{}, err
		}
	}
	if s.of != d.resource || s.all == (kemi.Labels{}) {
		all, err := d.join(s.labels)
		if err != nil {
			return kemi.Labels{}, err
		}
		s.of, s.all = d.resource, all
	}
	return s.all, nil
}

// learn puts a run into the first slot. What was there moves to the second, so that of
// two that share a place both can stay.
func (d *decoder) learn(first, second *set, raw string) error {
	spare := first.labels[:0]
	if first.raw != "" {
		if second.raw != "" {
			d.evicted++
		}
		spare = second.labels[:0]
		*second = *first
	}
	*first = set{}
	raw = strings.Clone(raw)
	labels, err := attributes(spare, raw)
	if err != nil {
		return err
	}
	first.raw, first.labels = raw, labels
	if 4*d.evicted > len(d.slots) && len(d.slots) < maxSlots {
		// first stays what it is for this call; the next ones fill the larger table, by
		// another hash, so that those that met do not meet again.
		d.slots, d.evicted, d.seed = make([]set, 4*len(d.slots)), 0, maphash.MakeSeed()
	}
	return nil
}

// join returns the labels of the resource with those of the point. Where both have a
// host, that of the point is exported_host, as Prometheus calls it: the resource is
// what the point lies in.
func (d *decoder) join(own []kemi.Label) (kemi.Labels, error) {
	n := d.resource.Len()
	if err := d.spend(n + len(own) + 1); err != nil {
		return kemi.Labels{}, err
	}
	d.pairs = d.pairs[:0]
	i := 0
	for _, l := range own {
		for ; i < n && d.resource.At(i).Name <= l.Name; i++ {
			d.pairs = append(d.pairs, d.resource.At(i))
		}
		if l.Name == kemi.LabelHost && i > 0 && d.resource.At(i-1).Name == kemi.LabelHost {
			l.Name = "exported_host"
		}
		d.pairs = append(d.pairs, l)
	}
	for ; i < n; i++ {
		d.pairs = append(d.pairs, d.resource.At(i))
	}
	return kemi.NewLabels(d.pairs...), nil
}

// with returns the labels of a run with one more.
func (d *decoder) with(own []kemi.Label, name, value string) (kemi.Labels, error) {
	d.scratch = append(append(d.scratch[:0], own...), kemi.Label{Name: name, Value: value})
	sortLabels(d.scratch)
	return d.join(d.scratch)
}

func sortLabels(labels []kemi.Label) {
	byName := func(a, b kemi.Label) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(labels, byName) {
		slices.SortStableFunc(labels, byName)
	}
}

// attributes appends the labels of a run of KeyValues, sorted by name. They keep raw.
func attributes(dst []kemi.Label, raw string) ([]kemi.Label, error) {
	for m := (message{s: raw}); ; {
		if !m.next() {
			sortLabels(dst)
			return dst, m.err
		}
		name, value, err := keyValue(m.body)
		if err != nil {
			return dst, err
		}
		text, err := textOf(value)
		if err != nil {
			return dst, fmt.Errorf("attribute %.100q: %w", name, err)
		}
		dst = append(dst, kemi.Label{Name: unescaped(name), Value: text})
	}
}
