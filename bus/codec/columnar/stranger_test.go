package columnar_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec/columnar"
)

// stranger reads a good batch by the documentation of the package alone, without a
// thought for speed or for damage. It shows that nothing is missing there.
type stranger []byte

func (s *stranger) uvarint() uint64 {
	x, n := binary.Uvarint(*s)
	*s = (*s)[n:]
	return x
}

func (s *stranger) svarint() int64 {
	x := s.uvarint()
	if x%2 == 1 {
		return -int64(x/2) - 1
	}
	return int64(x / 2)
}

func (s *stranger) bytes(n uint64) []byte {
	b := (*s)[:n]
	*s = (*s)[n:]
	return b
}

func (s *stranger) strings() []string {
	list := make([]string, s.uvarint())
	lengths := make([]uint64, len(list))
	for i := range lengths {
		lengths[i] = s.uvarint()
	}
	for i := range list {
		list[i] = string(s.bytes(lengths[i]))
	}
	return list
}

func (s *stranger) column(n uint64) (col []int64) {
	var last int64
	for uint64(len(col)) < n {
		length, diff := s.uvarint(), s.svarint()
		for range length {
			last += diff
			col = append(col, last)
		}
	}
	return col
}

func (s *stranger) times(n uint64) []time.Time {
	unit := int64(math.Pow10(int(s.bytes(1)[0])))
	secs, fractions := s.column(n), s.column(n)
	times := make([]time.Time, n)
	for i := range times {
		times[i] = time.Unix(secs[i], fractions[i]*unit).UTC()
	}
	return times
}

func (s *stranger) metrics() (batch []kemi.Metric) {
	n := s.uvarint()
	if n == 0 {
		return nil
	}
	type name struct {
		text string
		kind kemi.Kind
	}
	strings := s.strings()
	names := make([]name, s.uvarint())
	for i := range names {
		names[i].text = strings[s.uvarint()]
		names[i].kind = kemi.Kind(s.bytes(1)[0])
	}
	labels := make([]kemi.Label, s.uvarint())
	for i := range labels {
		labels[i].Name = strings[s.uvarint()]
		labels[i].Value = strings[s.uvarint()]
	}
	sets := make([][]kemi.Label, s.uvarint())
	for i := range sets {
		head, tail, own := s.uvarint(), s.uvarint(), s.uvarint()
		if head > 0 {
			sets[i] = append(sets[i], sets[i-1][:head]...)
		}
		for range own {
			sets[i] = append(sets[i], labels[s.uvarint()])
		}
		if tail > 0 {
			sets[i] = append(sets[i], sets[i-1][len(sets[i-1])-int(tail):]...)
		}
	}
	nameCol, setCol, times := s.column(n), s.column(n), s.times(n)
	forms := s.bytes((n + 3) / 4)
	for i := range n {
		name, set := names[nameCol[i]], kemi.NewLabels(sets[setCol[i]]...)
		var f float64
		var x uint64
		switch forms[i/4] >> (2 * (i % 4)) % 4 {
		case 0:
			x = binary.LittleEndian.Uint64(s.bytes(8))
			f = math.Float64frombits(x)
		case 1:
			whole := s.svarint()
			x, f = uint64(whole), float64(whole)
		case 2:
			f = float64(s.svarint()) / 100
		case 3:
			f = float64(s.svarint()) / 1000
		}
		switch name.kind {
		case kemi.KindGauge:
			batch = append(batch, kemi.Gauge(name.text, set, times[i], f))
		case kemi.KindCounter:
			batch = append(batch, kemi.Counter(name.text, set, times[i], x))
		case kemi.KindCounter32:
			batch = append(batch, kemi.Counter32(name.text, set, times[i], uint32(x)))
		case kemi.KindFloatCounter:
			batch = append(batch, kemi.FloatCounter(name.text, set, times[i], f))
		}
	}
	return batch
}

// logs reads logs, without their fields.
func (s *stranger) logs() []kemi.Log {
	n := s.uvarint()
	if n == 0 {
		return nil
	}
	batch := make([]kemi.Log, n)
	strings := s.strings()
	hosts, apps, tags, priorities := s.column(n), s.column(n), s.column(n), s.column(n)
	times, observed := s.times(n), s.times(n)
	texts := func() []string {
		lengths := *s
		for range n {
			s.uvarint()
		}
		list := make([]string, n)
		for i := range list {
			list[i] = string(s.bytes(lengths.uvarint()))
		}
		return list
	}
	ids, messages := texts(), texts()
	for i := range batch {
		batch[i] = kemi.Log{
			Time: times[i], Observed: observed[i], Host: strings[hosts[i]], App: strings[apps[i]], Severity: kemi.Severity(priorities[i] % 256),
			Facility: uint8(priorities[i] / 256), Message: messages[i], Tag: strings[tags[i]], ID: ids[i],
		}
	}
	return batch
}

func TestAStrangerReadsWhatIsDocumented(t *testing.T) {
	d := newDice(t)
	batches := hardMetrics()
	for range 100 {
		batches = append(batches, d.metrics())
	}
	for _, batch := range batches {
		s := stranger(encode(t, columnar.Metrics(), batch))
		if head := string(s.bytes(4)); head != "kcm\x01" {
			t.Fatalf("head %q", head)
		}
		if got := s.metrics(); !slices.EqualFunc(got, batch, sameMetric) || len(s) > 0 {
			t.Fatalf("%v was read as %v, and %d bytes follow", batch, got, len(s))
		}
	}
	for range 100 {
		batch := d.logs()
		fields := 0
		for i := range batch {
			batch[i].Fields = nil
			fields++ // a zero each
		}
		s := stranger(encode(t, columnar.Logs(), batch))
		if head := string(s.bytes(4)); head != "kcl\x01" {
			t.Fatalf("head %q", head)
		}
		if got := s.logs(); !slices.EqualFunc(got, batch, sameLog) || len(s) != fields {
			t.Fatalf("%v was read as %v, and %d bytes follow, want %d", batch, got, len(s), fields)
		}
	}
}
