package otlp

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/intern"
)

const (
	maxKept   = 512 // bytes of a name that is remembered
	maxNames  = 4096
	freePairs = 1 << 16 // of labels, for a batch of any length
	pairsEach = 2       // and for each of its bytes
)

// decoder reads one batch at a time. What it remembers between them changes nothing
// but the time it takes.
type decoder struct {
	resources, points memory
	names             map[string]string

	dst      []kemi.Metric
	resource kemi.Labels
	raw      string // of the attributes of the resource
	budget   int    // labels that may still be made; see spend
	pairs    []intern.Pair
	scratch  []kemi.Label
	nanos    uint64 // of the last point: those of a poll are mostly of one time
	time     time.Time
}

type pool struct{ sync.Pool }

func (p *pool) get(src int) *decoder {
	d, _ := p.Get().(*decoder)
	if d == nil {
		d = &decoder{resources: newMemory(minSlots), points: newMemory(minSlots), names: map[string]string{}}
	}
	d.budget = freePairs + pairsEach*src
	return d
}

func (p *pool) put(d *decoder) {
	d.dst, d.resource, d.raw = nil, kemi.Labels{}, ""
	clear(d.scratch[:cap(d.scratch)]) // they are views of the batch
	clear(d.pairs[:cap(d.pairs)])
	if cap(d.pairs)+cap(d.scratch) > 512 {
		d.pairs, d.scratch = nil, nil
	}
	p.Put(d)
}

// spend takes a point with n labels of its own from what the batch may ask for. The
// attributes of a resource are on each of its points, so that the labels are not
// bounded by the bytes alone.
func (d *decoder) spend(n int) error {
	if d.budget -= d.resource.Len() + n + 1; d.budget < 0 {
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

// setResource reads the attributes of the resource that the next points are of.
func (d *decoder) setResource(raw string) (err error) {
	d.raw = raw
	var ok bool
	if d.resource, ok = d.resources.get(raw, kemi.Labels{}); !ok {
		if d.resource, err = resourceLabels(raw); err == nil {
			d.resources.put(raw, kemi.Labels{}, d.resource, 0)
		}
	}
	return err
}

// labels returns the labels that a run of attributes gives under the resource.
func (d *decoder) labels(raw string) (labels kemi.Labels, err error) {
	if raw == "" {
		return d.resource, nil
	}
	labels, ok := d.points.get(raw, d.resource)
	if ok {
		return labels, nil
	}
	if d.scratch, err = attributes(d.scratch[:0], raw); err != nil {
		return kemi.Labels{}, err
	}
	if err := d.spend(len(d.scratch)); err != nil {
		return kemi.Labels{}, err
	}
	d.merge(d.scratch)
	// Somebody mostly has the set, and then nothing of the batch has to be kept.
	set, ok := intern.Lookup(d.pairs)
	if !ok {
		if d.scratch, err = attributes(d.scratch[:0], strings.Clone(raw)); err != nil {
			return kemi.Labels{}, err
		}
		d.merge(d.scratch)
		set = intern.Of(d.pairs)
	}
	labels = kemi.LabelsOfSet(set)
	d.points.put(raw, d.resource, labels, len(d.raw))
	return labels, nil
}

// join returns the labels of the resource with those of the point, which it keeps.
func (d *decoder) join(own []kemi.Label) (kemi.Labels, error) {
	if err := d.spend(len(own)); err != nil {
		return kemi.Labels{}, err
	}
	d.merge(own)
	return kemi.LabelsOfSet(intern.Of(d.pairs)), nil
}

// merge puts the labels of the resource and those of the point into d.pairs. Where both
// have a host, that of the point is exported_host, as Prometheus calls it: the resource
// is what the point lies in.
func (d *decoder) merge(own []kemi.Label) {
	n := d.resource.Len()
	d.pairs = d.pairs[:0]
	i := 0
	for _, l := range own {
		for ; i < n && d.resource.At(i).Name <= l.Name; i++ {
			d.pairs = append(d.pairs, intern.Pair(d.resource.At(i)))
		}
		if l.Name == kemi.LabelHost && i > 0 && d.resource.At(i-1).Name == kemi.LabelHost {
			l.Name = "exported_host"
		}
		d.pairs = append(d.pairs, intern.Pair(l))
	}
	for ; i < n; i++ {
		d.pairs = append(d.pairs, intern.Pair(d.resource.At(i)))
	}
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
