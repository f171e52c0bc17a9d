package otlp

import (
	"strings"
	"unicode/utf8"
	"unsafe"
)

// A name (of a metric, a label, a field) has to be UTF-8 in OTLP, where a value may be
// bytes. One that is not, and one that would be taken for something else, is written
// behind this prefix with the offending bytes as %XX.
const escape = "kemi:"

const hexDigits = "0123456789ABCDEF"

// escaped returns the name to write.
func escaped(name string) string {
	if utf8.ValidString(name) && !strings.HasPrefix(name, escape) {
		return name
	}
	return withEscape(name)
}

func withEscape(name string) string {
	b := []byte(escape)
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 || r == '%' {
			b = append(b, '%', hexDigits[name[i]>>4], hexDigits[name[i]&15])
		} else {
			b = append(b, name[i:i+n]...)
		}
		i += n
	}
	return string(b)
}

// unescaped returns the name that was meant. One that only looks as if it were escaped
// is what it is.
func unescaped(name string) string {
	rest, ok := strings.CutPrefix(name, escape)
	if !ok {
		return name
	}
	if strings.IndexByte(rest, '%') < 0 {
		return rest
	}
	b := make([]byte, 0, len(rest))
	for i := 0; i < len(rest); i++ {
		if rest[i] != '%' {
			b = append(b, rest[i])
			continue
		}
		if len(rest)-i < 3 {
			return name
		}
		hi, lo := strings.IndexByte(hexDigits, rest[i+1]), strings.IndexByte(hexDigits, rest[i+2])
		if hi < 0 || lo < 0 {
			return name
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b)
}

// view is b as a string, without a copy. It is b still: it changes when b does, and
// what is kept of it is cloned.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
