package reply

import (
	"errors"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// Secrets are texts that a server was sent and may say again, but an error must not.
type Secrets []string

const (
	// shortest is the length of a secret worth the name. A shorter text, such as v1 in a
	// path, would make every message unreadable and keep nothing secret.
	shortest = 4
	// window is how many bytes in a row give a secret away, however it goes on: a server
	// may cut short what it repeats.
	window = 8
)

// SecretsOf lists what may be secret in a request with these headers: their values,
// but for those that say nothing of the sender, and the parts of its URL that are
// given, all of them also by pieces and in the ways in which they may be escaped.
func SecretsOf(sent http.Header, parts ...string) Secrets {
	var s Secrets
	for name, values := range sent {
		switch name {
		case "Content-Type", "Content-Encoding", "User-Agent", "Webhook-Id", "Webhook-Timestamp":
			continue
		case "Authorization", "Proxy-Authorization":
			for _, v := range values {
				if _, credentials, ok := strings.Cut(v, " "); ok { // after the scheme
					v = credentials
				}
				s = s.with(v)
			}
			continue
		}
		for _, v := range values {
			s = s.with(v)
		}
	}
	if user, password, ok := (&http.Request{Header: sent}).BasicAuth(); ok {
		s = s.with(user).with(password)
	}
	for _, p := range parts {
		s = s.with(p)
	}
	return s
}

func (s Secrets) with(text string) Secrets {
	pieces := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("/?&=;, ", r) })
	for _, piece := range append(pieces, text) {
		plain := []string{piece}
		if p, err := url.QueryUnescape(piece); err == nil && p != piece {
			plain = append(plain, p)
		}
		if p, err := url.PathUnescape(piece); err == nil && p != piece {
			plain = append(plain, p)
		}
		for _, p := range plain {
			for _, form := range []string{p, url.QueryEscape(p), url.PathEscape(p), html.EscapeString(p)} {
				if len(form) >= shortest {
					s = append(s, lower(tidy(form)))
				}
			}
		}
	}
	return s
}

// marks tells which bytes of text belong to a secret.
func (s Secrets) marks(text string) []bool {
	text = lower(text)
	marks := make([]bool, len(text))
	for _, secret := range s {
		n := min(len(secret), window)
		for i := range len(text) - n + 1 {
			if strings.Contains(secret, text[i:i+n]) {
				for k := i; k < i+n; k++ {
					marks[k] = true
				}
			}
		}
	}
	return marks
}

// lower makes the letters of ASCII small, since an escape such as %2F has two forms.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, text)
}

// Error returns err with its text made fit by Clip. [errors.Is] still knows what it is;
// nothing gives the text back.
func (s Secrets) Error(err error) error { return &clipped{s.Clip(err.Error()), err} }

type clipped struct {
	text string
	err  error
}

func (c *clipped) Error() string        { return c.text }
func (c *clipped) Is(target error) bool { return errors.Is(c.err, target) }
