// Package reply reads what an HTTP server says about a request that failed.
package reply

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxWait bounds what a server may ask for: one that says a year is not believed.
const MaxWait = 5 * time.Minute

// RetryAfter is how long the server asks to wait (RFC 9110, 10.2.3: seconds or a
// date), 0 if it does not say, at most MaxWait.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(n, 0), int(MaxWait/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), MaxWait)
	}
	return 0
}

// Clip makes a text of the server fit for an error: short, on one line, valid UTF-8,
// without characters that speak to a terminal, and without the secrets.
func (s Secrets) Clip(text string) string {
	const most = 300
	text = strings.TrimSpace(text)
	long := len(text) > most
	if long {
		text = text[:min(len(text), most+window)] // a secret may begin at the end of what is shown
	}
	text = tidy(text)
	marks := s.marks(text)
	if long {
		text = text[:max(0, len(text)-window)]
	}
	var b strings.Builder
	for i := range len(text) {
		switch {
		case !marks[i]:
			b.WriteByte(text[i])
		case i == 0 || !marks[i-1]:
			b.WriteString("(redacted)")
		}
	}
	if long {
		b.WriteString("…")
	}
	return strings.ToValidUTF8(b.String(), "?")
}

// tidy makes text valid UTF-8 without control characters.
func tidy(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
