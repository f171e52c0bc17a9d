package reply

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"":                              0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"0":                             0,
		"soon":                          0,
		"99999999999":                   MaxWait,
		"99999999999999999999999":       0, // no number, and no date
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
		"Fri, 02 Jan 2099 03:04:00 GMT": MaxWait,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	got := Secrets(nil).Clip("  a\x1b[31mb\nc\x9b\u009bd" + strings.Repeat("é", 400))
	if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\n\u009b") || len(got) > 320 || !strings.HasPrefix(got, "a [31mb c? d") {
		t.Errorf("%q", got)
	}
}
