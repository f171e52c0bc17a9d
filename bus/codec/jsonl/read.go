package jsonl

import (
	"math"
	"strconv"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/intern"
)

// readMetric reads a line that is just as appendMetric writes it, of plain strings only.
// It says no to all else, right or wrong, which is then for encoding/json. It is many
// times faster, and makes no strings of labels that are known.
func readMetric(line []byte) (m kemi.Metric, ok bool) {
	s := scan{line, true}
	s.text(`{"name":`)
	name := s.string()
	s.text(`,"labels":{`)
	var raws [16]intern.Raw
	var texts [16][2][]byte
	var refs [16]uint32
	n := 0
	for ; s.ok && !s.at('}'); n++ {
		if n == len(raws) {
			return m, false
		}
		if n > 0 {
			s.text(",")
		}
		l := &texts[n]
		l[0] = s.string()
		s.text(":")
		l[1] = s.string()
		raws[n], refs[n] = intern.MakeRaw(l[0], l[1]), uint32(n)
	}
	s.text(`},"time":`)
	at := s.string()
	s.text(`,"kind":`)
	kind := s.string()
	s.text(`,"value":`)
	number, whole := s.number()
	s.text("}")
	if !s.ok || len(s.left) > 0 {
		return m, false
	}
	var t time.Time
	if t.UnmarshalText(at) != nil {
		return m, false
	}
	var k kemi.Kind
	for k = kemi.KindGauge; k.String() != string(kind); k++ {
		if k == kemi.KindFloatCounter {
			return m, false
		}
	}
	var bits uint64
	if k == kemi.KindCounter || k == kemi.KindCounter32 {
		size := 64
		if k == kemi.KindCounter32 {
			size = 32
		}
		x, err := strconv.ParseUint(string(number), 10, size)
		if err != nil || !whole {
			return m, false
		}
		bits = x
	} else {
		f, err := strconv.ParseFloat(string(number), 64)
		if err != nil {
			return m, false
		}
		bits = math.Float64bits(f)
	}
	set := kemi.LabelsOfSet(intern.Find(raws[:n], refs[:n]))
	if set.Len() == 0 && n > 0 {
		labels := make([]kemi.Label, n)
		for i, l := range texts[:n] {
			labels[i] = kemi.Label{Name: string(l[0]), Value: string(l[1])}
		}
		set = kemi.NewLabels(labels...)
	}
	m = kemi.Counter(string(name), set, t, bits) // which takes the bits as they are
	m.Kind = k
	return m, true
}

// scan goes through a line. After the first thing that is not as it wants, it is not ok.
type scan struct {
	left []byte
	ok   bool
}

func (s *scan) at(c byte) bool { return len(s.left) > 0 && s.left[0] == c }

func (s *scan) text(want string) {
	if s.ok = s.ok && len(s.left) >= len(want) && string(s.left[:len(want)]) == want; s.ok {
		s.left = s.left[len(want):]
	}
}

// string reads a string without anything that is written with a backslash or that takes
// more than a byte.
func (s *scan) string() []byte {
	s.text(`"`)
	for i, c := range s.left {
		switch {
		case !s.ok || c < ' ' || c > '~' || c == '\\':
			s.ok = false
			return nil
		case c == '"':
			text := s.left[:i]
			s.left = s.left[i+1:]
			return text
		}
	}
	s.ok = false
	return nil
}

// number reads a number of JSON, and tells whether it is digits and no more.
func (s *scan) number() (text []byte, whole bool) {
	from := s.left
	whole = true
	if s.at('-') {
		s.left, whole = s.left[1:], false
	}
	if s.at('0') {
		s.left = s.left[1:]
	} else {
		s.digits()
	}
	if s.at('.') {
		s.left, whole = s.left[1:], false
		s.digits()
	}
	if s.at('e') || s.at('E') {
		s.left, whole = s.left[1:], false
		if s.at('+') || s.at('-') {
			s.left = s.left[1:]
		}
		s.digits()
	}
	return from[:len(from)-len(s.left)], whole
}

// digits reads one or more.
func (s *scan) digits() {
	n := 0
	for n < len(s.left) && '0' <= s.left[n] && s.left[n] <= '9' {
		n++
	}
	s.ok = s.ok && n > 0
	s.left = s.left[n:]
}
