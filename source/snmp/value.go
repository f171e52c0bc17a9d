package snmp

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kemi-go/kemi/source/snmp/internal/codec"
)

// Value is one value as an agent sent it. The zero Value is absent. What a number
// means is for the metric to say, not for its type on the wire: net-snmp sends
// gauges of 64 bits as Counter64, having no other type for them.
type Value struct{ v codec.Value }

// OK tells whether there is a value.
func (v Value) OK() bool { return v.v.Type > codec.EndOfView }

// Float returns the number, 0 if there is none.
func (v Value) Float() float64 {
	switch v.v.Type {
	case codec.Signed:
		return float64(int64(v.v.Number()))
	case codec.Unsigned32, codec.Unsigned64:
		return float64(v.v.Number())
	case codec.Float:
		return v.v.Float()
	}
	return 0
}

// Uint returns the integer, 0 if there is none. Of a negative one it returns the lower
// 32 bits: agents send numbers of 32 bits as an INTEGER and let it run over.
func (v Value) Uint() uint64 {
	switch v.v.Type {
	case codec.Signed:
		if n := int64(v.v.Number()); n < 0 {
			return uint64(uint32(n))
		}
		return v.v.Number()
	case codec.Unsigned32, codec.Unsigned64:
		return v.v.Number()
	case codec.Float:
		if f := v.v.Float(); f > 0 && f < math.MaxUint64 {
			return uint64(f)
		}
	}
	return 0
}

// IsNumber tells whether the value is a number.
func (v Value) IsNumber() bool {
	switch v.v.Type {
	case codec.Signed, codec.Unsigned32, codec.Unsigned64, codec.Float:
		return true
	}
	return false
}

// Is64 tells whether the value came as a Counter64.
func (v Value) Is64() bool { return v.v.Type == codec.Unsigned64 }

// maxText is the longest text that becomes a label.
const maxText = 255

// Text returns a string as a label may hold it: valid UTF-8 without control characters,
// without the NULs that Windows sends at its end, without space around it, at most
// 255 bytes long.
func (v Value) Text() string {
	if v.v.Type != codec.Text {
		return ""
	}
	s := v.v.Text()
	if cut := s[:min(len(s), maxText+utf8.UTFMax)]; len(cut) < len(s) {
		s = cut
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsControl(r) {
			return r
		}
		if r == 0 {
			return -1
		}
		return ' '
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.TrimSpace(s)
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// tooLong tells whether Text has to cut.
func (v Value) tooLong() bool { return v.v.Type == codec.Text && len(v.v.Text()) > maxText }

// OID returns an object identifier with a leading dot, "" if the value is none.
func (v Value) OID() string {
	if v.v.Type != codec.OID {
		return ""
	}
	return v.v.Text()
}
