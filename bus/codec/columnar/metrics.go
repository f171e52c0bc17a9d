package columnar

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/internal/intern"
)

var metricsHead = head{"kcol-metrics", "kcm", 1}

// Metrics returns the codec kcol-metrics/1. Use one for a topic: it remembers the
// names and label sets it has read, so that it need not make them again.
func Metrics() bus.Codec[kemi.Metric] { return new(metrics) }

type metrics struct {
	writers sync.Pool // of *metricsWriter
	readers sync.Pool // of *metricsReader
	held    held
}

func (*metrics) Name() string { return metricsHead.codec() }

// borrowLimit is how many labels a set may have that is written as a change to the one
// before it. Without a bound a few bytes could say a long set, and the next few
// another.
const borrowLimit = 32

// The forms of a number.
const (
	rawForm = iota
	wholeForm
	hundredthsForm
	thousandthsForm
)

// ---- writing ----------------------------------------------------------------

type spelled struct {
	text string
	kind kemi.Kind
}

type metricsWriter struct {
	strings table[string]
	names   table[spelled]
	labels  table[kemi.Label]
	sets    table[kemi.Labels]

	nameBytes, labelBytes, setBytes []byte // the tables as they are written
	lastSet                         []int64
	nameCol, setCol                 []int64
	times                           instants
	forms, numbers                  []byte
}

func (c *metrics) AppendBatch(dst []byte, batch []kemi.Metric) ([]byte, error) {
	w, _ := c.writers.Get().(*metricsWriter)
	if w == nil {
		w = new(metricsWriter)
	}
	w.reset()
	out, err := w.append(dst, batch)
	if len(batch) <= 1<<14 {
		w.reset() // so that it holds no records while it waits
		c.writers.Put(w)
	}
	return out, err
}

func (w *metricsWriter) reset() {
	w.strings.reset()
	w.names.reset()
	w.labels.reset()
	w.sets.reset()
	w.times.reset()
	w.nameBytes, w.labelBytes, w.setBytes = w.nameBytes[:0], w.labelBytes[:0], w.setBytes[:0]
	w.lastSet, w.nameCol, w.setCol = w.lastSet[:0], w.nameCol[:0], w.setCol[:0]
	w.forms, w.numbers = w.forms[:0], w.numbers[:0]
}

func (w *metricsWriter) append(dst []byte, batch []kemi.Metric) ([]byte, error) {
	for i := range batch {
		m := &batch[i]
		if m.Kind > kemi.KindFloatCounter {
			return dst, fmt.Errorf("columnar: metric %d, %q, is a %v: %s has gauge, counter, counter32 and floatcounter",
				i, m.Name, m.Kind, metricsHead.codec())
		}
		w.nameCol = append(w.nameCol, w.name(spelled{m.Name, m.Kind}))
		if i > 0 && m.Labels == batch[i-1].Labels {
			w.setCol = append(w.setCol, w.setCol[i-1])
		} else {
			w.setCol = append(w.setCol, w.set(m.Labels))
		}
		w.times.add(m.Time)
		w.number(i, *m)
	}
	dst = binary.AppendUvarint(metricsHead.append(dst), uint64(len(batch)))
	if len(batch) == 0 {
		return dst, nil
	}
	dst = appendStrings(dst, w.strings.all)
	dst = append(binary.AppendUvarint(dst, uint64(len(w.names.all))), w.nameBytes...)
	dst = append(binary.AppendUvarint(dst, uint64(len(w.labels.all))), w.labelBytes...)
	dst = append(binary.AppendUvarint(dst, uint64(len(w.sets.all))), w.setBytes...)
	dst = appendColumn(dst, w.nameCol)
	dst = appendColumn(dst, w.setCol)
	dst = w.times.append(dst)
	dst = append(dst, w.forms...)
	return append(dst, w.numbers...), nil
}

func (w *metricsWriter) string(dst []byte, s string) []byte {
	ref, _ := w.strings.ref(s)
	return binary.AppendUvarint(dst, uint64(ref))
}

func (w *metricsWriter) name(n spelled) int64 {
	ref, added := w.names.ref(n)
	if added {
		w.nameBytes = append(w.string(w.nameBytes, n.text), byte(n.kind))
	}
	return ref
}

func (w *metricsWriter) label(l kemi.Label) int64 {
	ref, added := w.labels.ref(l)
	if added {
		w.labelBytes = w.string(w.string(w.labelBytes, l.Name), l.Value)
	}
	return ref
}

// set writes a set as a change to the one before it in the table.
func (w *metricsWriter) set(set kemi.Labels) int64 {
	var last kemi.Labels
	if n := len(w.sets.all); n > 0 {
		last = w.sets.all[n-1]
	}
	ref, added := w.sets.ref(set)
	if !added {
		return ref
	}
	n, m := set.Len(), last.Len()
	head, tail := 0, 0
	if n <= borrowLimit {
		for head < min(n, m) && set.At(head) == last.At(head) {
			head++
		}
		for tail < min(n, m)-head && set.At(n-1-tail) == last.At(m-1-tail) {
			tail++
		}
	}
	w.setBytes = binary.AppendUvarint(w.setBytes, uint64(head))
	w.setBytes = binary.AppendUvarint(w.setBytes, uint64(tail))
	w.setBytes = binary.AppendUvarint(w.setBytes, uint64(n-head-tail))
	for i := head; i < n-tail; i++ {
		w.setBytes = binary.AppendUvarint(w.setBytes, uint64(w.label(set.At(i))))
	}
	return ref
}

// number writes the number of metric i in the shortest form that gives it back.
func (w *metricsWriter) number(i int, m kemi.Metric) {
	kind := m.Kind
	m.Kind = kemi.KindCounter // of a counter, Uint gives the bits as they are
	bits := m.Uint()
	form, x := rawForm, int64(0)
	if kind == kemi.KindCounter || kind == kemi.KindCounter32 {
		if bits < 1<<55 {
			form, x = wholeForm, int64(bits)
		}
	} else {
		form, x = formOf(bits)
	}
	if i%4 == 0 {
		w.forms = append(w.forms, 0)
	}
	w.forms[i/4] |= byte(form) << (i % 4 * 2)
	if form == rawForm {
		w.numbers = binary.LittleEndian.AppendUint64(w.numbers, bits)
	} else {
		w.numbers = binary.AppendVarint(w.numbers, x)
	}
}

// formOf says how the double of the given bits is written.
func formOf(bits uint64) (form int, x int64) {
	f := math.Float64frombits(bits)
	for form, unit := range [...]float64{wholeForm: 1, hundredthsForm: 100, thousandthsForm: 1000} {
		if form == rawForm {
			continue
		}
		// A larger one takes no fewer bytes than the double.
		if g := math.RoundToEven(f * unit); math.Abs(g) < 1<<48 && math.Float64bits(g/unit) == bits {
			if x := int64(g); x != 0 || bits == 0 { // not -0
				return form, x
			}
		}
	}
	return rawForm, 0
}

// ---- reading ----------------------------------------------------------------

type metricsReader struct {
	reader
	strings texts
	names   []spelled
	raws    []intern.Raw
	pairs   [][2]uint32 // string refs of raws
	sets    []kemi.Labels
	refs    [2][]uint32 // of the set that is being read and of the one before it
	labels  []kemi.Label
	secs    []int64
}

func (c *metrics) DecodeBatch(dst []kemi.Metric, src []byte) ([]kemi.Metric, error) {
	r, err := metricsHead.begin(src)
	if err != nil {
		return dst, err
	}
	d, _ := c.readers.Get().(*metricsReader)
	if d == nil {
		d = new(metricsReader)
	}
	d.reader = r
	out := d.read(dst, &c.held)
	err = d.end()
	d.forget()
	c.readers.Put(d)
	if err != nil {
		clear(out[len(dst):])
		return dst, err
	}
	return out, nil
}

// forget lets go of the batch. The names of texts stay.
func (d *metricsReader) forget() {
	d.reader = reader{}
	d.strings.forget()
	clear(d.names)
	clear(d.raws)
	clear(d.sets)
	clear(d.labels[:cap(d.labels)])
	if max(cap(d.names), cap(d.raws), cap(d.sets), cap(d.secs), cap(d.refs[0]), cap(d.refs[1])) > 1<<14 {
		*d = metricsReader{strings: d.strings}
	}
}

func (d *metricsReader) read(dst []kemi.Metric, held *held) []kemi.Metric {
	n := d.count("number of metrics", 1) // the number of each takes a byte at least
	if n == 0 {
		return dst
	}
	d.strings.read(&d.reader)
	d.readNames()
	d.readLabels()
	d.readSets(held)
	if d.err != nil {
		return dst
	}

	had := len(dst)
	dst = slices.Grow(dst, n)[:had+n]
	out := dst[had:]
	for c := d.column(n, "name column"); c.next(); {
		for i, v := c.from, c.first; i < c.to; i, v = i+1, v+c.diff {
			if uint64(v) >= uint64(len(d.names)) {
				d.fail("metric %d has the name %d, and the table has %d entries", i, v, len(d.names))
				return dst
			}
			out[i].Name, out[i].Kind = d.names[v].text, d.names[v].kind
		}
	}
	for c := d.column(n, "set column"); c.next(); {
		for i, v := c.from, c.first; i < c.to; i, v = i+1, v+c.diff {
			if uint64(v) >= uint64(len(d.sets)) {
				d.fail("metric %d has the label set %d, and the table has %d entries", i, v, len(d.sets))
				return dst
			}
			out[i].Labels = d.sets[v]
		}
	}
	d.secs = d.times(d.secs, n, "times", func(from, to int, t time.Time) {
		for i := from; i < to; i++ {
			out[i].Time = t
		}
	})
	forms := d.bytes((n+3)/4, "forms of the numbers")
	if d.err != nil {
		return dst
	}
	for i := range out {
		m := &out[i]
		kind := m.Kind
		bits := d.number(kind, forms[i/4]>>(i%4*2)&3)
		*m = kemi.Counter(m.Name, m.Labels, m.Time, bits) // which takes the bits as they are
		m.Kind = kind
	}
	return dst
}

func (r *reader) number(kind kemi.Kind, form byte) uint64 {
	const what = "number of a metric"
	if form == rawForm {
		return r.uint64(what)
	}
	x := r.svarint(what)
	if kind == kemi.KindCounter || kind == kemi.KindCounter32 {
		if form != wholeForm {
			r.fail("the number of a %v is in hundredths or thousandths", kind)
		}
		return uint64(x)
	}
	f := float64(x)
	switch form {
	case hundredthsForm:
		f /= 100
	case thousandthsForm:
		f /= 1000
	}
	return math.Float64bits(f)
}

func (d *metricsReader) readNames() {
	d.names = d.names[:0]
	for range d.count("number of names", 2) {
		ref := d.ref("string of a name", len(d.strings.raw))
		kind := kemi.Kind(d.byte("kind of a name"))
		if kind > kemi.KindFloatCounter {
			d.fail("the kind of a name is %d, want 0 to %d", kind, kemi.KindFloatCounter)
		}
		if d.err != nil {
			return
		}
		d.names = append(d.names, spelled{d.strings.name(ref), kind})
	}
}

func (d *metricsReader) readLabels() {
	d.raws, d.pairs = d.raws[:0], d.pairs[:0]
	for range d.count("number of labels", 2) {
		name := d.ref("name of a label", len(d.strings.raw))
		value := d.ref("value of a label", len(d.strings.raw))
		if d.err != nil {
			return
		}
		d.raws = append(d.raws, intern.MakeRaw(d.strings.raw[name], d.strings.raw[value]))
		d.pairs = append(d.pairs, [2]uint32{uint32(name), uint32(value)})
	}
}

func (d *metricsReader) readSets(held *held) {
	d.sets = d.sets[:0]
	refs, last := d.refs[0][:0], d.refs[1][:0]
	for range d.count("number of label sets", 3) {
		head := d.uvarint("head of a label set")
		tail := d.uvarint("tail of a label set")
		own := d.count("number of labels of a set", 1)
		if n := uint64(len(last)); head > n || tail > n-head {
			d.fail("a label set has %d and %d labels of the one before it, which has %d", head, tail, n)
		} else if n := head + tail; n > 0 && n+uint64(own) > borrowLimit {
			d.fail("a label set that borrows from the one before it has %d labels, want at most %d", n+uint64(own), borrowLimit)
		}
		if d.err != nil {
			break
		}
		refs = append(refs[:0], last[:head]...)
		for range own {
			refs = append(refs, uint32(d.ref("label of a set", len(d.raws))))
		}
		refs = append(refs, last[len(last)-int(tail):]...)
		if d.err != nil {
			break
		}
		set := kemi.LabelsOfSet(intern.Find(d.raws, refs))
		if set.Len() == 0 && len(refs) > 0 {
			set = d.newSet(refs)
			held.add(set)
		}
		d.sets = append(d.sets, set)
		refs, last = last, refs
	}
	d.refs = [2][]uint32{refs, last}
}

// newSet makes a set that there is not yet, or whose labels are out of order.
func (d *metricsReader) newSet(refs []uint32) kemi.Labels {
	d.labels = d.labels[:0]
	for _, ref := range refs {
		p := d.pairs[ref]
		d.labels = append(d.labels, kemi.Label{Name: d.strings.name(int(p[0])), Value: d.strings.string(int(p[1]))})
	}
	return kemi.NewLabels(d.labels...)
}

// held keeps the label sets that were made last, so that those of which nobody else
// keeps one are not made anew for each batch.
type held struct {
	sync.Mutex
	sets []kemi.Labels
	next int
}

// What is held, and the longest labels that are.
const (
	maxHeld     = 8192
	maxHeldText = 1024
)

func (h *held) add(set kemi.Labels) {
	text := 0
	for name, value := range set.All() {
		text += len(name) + len(value)
	}
	if text > maxHeldText {
		return
	}
	h.Lock()
	defer h.Unlock()
	if len(h.sets) < maxHeld {
		h.sets = append(h.sets, set)
		return
	}
	h.sets[h.next] = set
	h.next = (h.next + 1) % maxHeld
}
