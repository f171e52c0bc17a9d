package reply

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func sent(t *testing.T) (*http.Request, Secrets) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://host/hook/T0KEN/l%2Fng?key=s3cr%2Ft&v=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("somebody", `p&ss "word"`)
	req.Header.Set("X-Api", "4bcdefghijklmnopqrstuvwxyz0123456789")
	req.Header.Set("User-Agent", "kemi")
	return req, SecretsOf(req.Header, req.URL.RequestURI())
}

// TestSecretsAreHidden has a server say again what it was sent, in the ways that
// servers do.
func TestSecretsAreHidden(t *testing.T) {
	req, s := sent(t)
	for said, want := range map[string]string{
		"Cannot POST /hook/T0KEN/l%2Fng?key=s3cr%2Ft&v=1":      "Cannot POST (redacted)",
		"<pre>/hook/T0KEN/l%2fng?key=s3cr%2ft&amp;v=1</pre>":   "<pre>(redacted)</pre>",
		"no /hook/T0KEN/l/ng, no s3cr/t":                       "no (redacted), no (redacted)",
		"no hook is called t0ken":                              "no (redacted) is called (redacted)",
		`{"path":"\/hook\/T0KEN"}`:                             `{"path":"\/(redacted)\/(redacted)"}`,
		"u=%2Fhook%2FT0KEN":                                    "u=(redacted)",
		"Authorization: " + req.Header.Get("Authorization"):    "Authorization: Basic (redacted)",
		"somebody is not known by p&amp;ss &#34;word&#34;":     "(redacted) is not known by (redacted)",
		`p&ss "word", p%26ss+%22word%22 and p&ss%20%22word`:    "(redacted), (redacted) and (redacted)",
		"X-Api: 4bcdefghijklmn… is bad":                        "X-Api: (redacted)… is bad",
		"kemi sent version v=1 and an alert that is malformed": "kemi sent version v=1 and an alert that is malformed",
	} {
		if got := s.Clip(said); got != want {
			t.Errorf("%q became\n%q, want\n%q", said, got, want)
		}
	}
}

// TestSecretsAreHiddenAtTheEnd moves a secret over the end of what is shown, and
// behind what takes more room before than after.
func TestSecretsAreHiddenAtTheEnd(t *testing.T) {
	_, s := sent(t)
	for _, fill := range []string{" ", "\xff", "é", "\u0085", "T0KEN "} {
		for n := range 400 {
			for _, secret := range []string{"T0KEN", "4bcdefghijklmnopqrstuvwxyz0123456789"} {
				got := s.Clip("x" + strings.Repeat(fill, n) + secret + " and more" + strings.Repeat(".", 400))
				if strings.Contains(got, secret[:3]) {
					t.Fatalf("%d of %q before it: %q", n, fill, got)
				}
			}
		}
	}
}

func TestAnErrorKeepsWhatItIs(t *testing.T) {
	_, s := sent(t)
	err := s.Error(errors.Join(errors.New("bad line: POST /hook/T0KEN"), io.EOF))
	if strings.Contains(err.Error(), "T0KEN") || !errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Unwrap(err) != nil {
		t.Errorf("%v", err)
	}
}

func FuzzClip(f *testing.F) {
	f.Add("T0KEN", "Cannot POST /T0KEN")
	f.Add("a%2Fb/c&d", "\xff\x1b[31m a%2fb")
	f.Add("ÄÖÜß\x80\x81", "\x80\x81 ÄÖÜß")
	f.Fuzz(func(t *testing.T, secret, text string) {
		got := SecretsOf(http.Header{"X": {secret}}, secret).Clip(text)
		if len(got) > 10*320 || strings.ContainsAny(got, "\n\x1b") || strings.ToValidUTF8(got, "") != got {
			t.Fatalf("%q", got)
		}
		if len(secret) >= shortest && tidy(secret) == secret && !strings.Contains("(redacted)", secret) &&
			strings.Contains(strings.ReplaceAll(got, "(redacted)", "\x00"), secret) {
			t.Fatalf("%q is in %q", secret, got)
		}
	})
}
