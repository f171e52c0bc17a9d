package opentsdb

import "encoding/hex"

// plain tells whether OpenTSDB takes the byte everywhere: letters, digits and -_./
func plain(c byte) bool {
	const (
		low  = 1<<'-' | 1<<'.' | 1<<'/' | (1<<10-1)<<'0'
		high = 1<<('_'-64) | (1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
	)
	if c < 64 {
		return uint64(low)>>c&1 != 0
	}
	return c < 128 && uint64(high)>>(c-64)&1 != 0
}

// Escape brings a metric name, tag name or tag value into the letters, digits and
// -_./ that every OpenTSDB takes. It works on any string, and different strings stay
// different; [Unescape] gives the string back. A string that is legal stays as it
// is, unless it looks like an escape.
//
// The rule: each run of other bytes becomes _x, two lower-case hexadecimal digits
// for each byte, and _. "서울 1" is _xec849cec9ab820_1. An underscore with which the
// result would read as such an escape by accident is escaped as _x5f_.
func Escape(s string) string {
	for i := range len(s) {
		if !plain(s[i]) || s[i] == '_' && accident(s[i:]) {
			return string(AppendEscape(nil, s))
		}
	}
	return s
}

// AppendEscape appends Escape of s to dst.
func AppendEscape(dst []byte, s string) []byte {
	done := 0 // s[:done] is in dst
	for i := 0; i < len(s); {
		switch {
		case s[i] != '_' && plain(s[i]), s[i] == '_' && !accident(s[i:]):
			i++
		case s[i] != '_':
			j := i + 1
			for j < len(s) && !plain(s[j]) {
				j++
			}
			dst = append(dst, s[done:i]...)
			dst = appendHex(dst, s[i:j])
			i, done = j, j
		default: // an underscore by accident
			dst = append(dst, s[done:i]...)
			dst = appendHex(dst, "_")
			i++
			done = i
		}
	}
	return append(dst, s[done:]...)
}

func appendHex(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, "_x"...)
	for i := range len(s) {
		dst = append(dst, digits[s[i]>>4], digits[s[i]&15])
	}
	return append(dst, '_')
}

// accident tells whether s, which begins with an underscore, would begin with an
// escape if it were written as it is. What is written for an illegal byte begins
// with an underscore too, so that it ends an accidental escape as well.
func accident(s string) bool {
	if len(s) < 2 || s[1] != 'x' { // nearly always
		return false
	}
	n := escaped(s)
	return n > 0 && n < len(s) && (s[n] == '_' || !plain(s[n]))
}

// escaped returns the length of an escape at the start of s up to its closing
// underscore, which need not be there; 0 if there is none.
func escaped(s string) int {
	if len(s) < 5 || s[0] != '_' || s[1] != 'x' {
		return 0
	}
	i := 2
	for i+1 < len(s) && isHex(s[i]) && isHex(s[i+1]) {
		i += 2
	}
	if i == 2 {
		return 0
	}
	return i
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// Unescape undoes [Escape].
func Unescape(s string) string {
	var out []byte
	done := 0
	for i := 0; i < len(s); {
		n := 0
		if s[i] == '_' {
			n = escaped(s[i:])
		}
		if n == 0 || i+n >= len(s) || s[i+n] != '_' {
			i++
			continue
		}
		out = append(out, s[done:i]...)
		raw, _ := hex.DecodeString(s[i+2 : i+n]) // escaped has looked at each digit
		out = append(out, raw...)
		i += n + 1
		done = i
	}
	if done == 0 {
		return s
	}
	return string(append(out, s[done:]...))
}
