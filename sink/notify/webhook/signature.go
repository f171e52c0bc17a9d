package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks (github.com/standard-webhooks/standard-webhooks).
const (
	headerID        = "Webhook-Id"
	headerTime      = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

const secretPrefix = "whsec_"

// Secret is a key for signatures, as Standard Webhooks writes it: whsec_ and the
// base64 of 24 to 64 random bytes. It shows itself nowhere.
type Secret string

// String hides the secret.
func (Secret) String() string { return secretPrefix + "…" }

// GoString hides the secret.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// key decodes the secret. The error does not show it.
func (s Secret) key() ([]byte, error) {
	text, ok := strings.CutPrefix(string(s), secretPrefix)
	if !ok {
		return nil, errors.New("the secret does not begin with " + secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("what follows " + secretPrefix + " in the secret is no base64")
	}
	if len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("the secret has %d bytes: want 24 to 64, for example from: openssl rand -base64 32", len(key))
	}
	return key, nil
}

// sign makes one signature: v1, and the base64 of HMAC-SHA256 of id.time.body.
func sign(key []byte, id, at string, body []byte) string {
	return "v1," + base64.StdEncoding.EncodeToString(mac(key, id, at, body))
}

func mac(key []byte, id, at string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(id + "." + at + ".")) // a hash takes everything
	_, _ = h.Write(body)
	return h.Sum(nil)
}

// DefaultTolerance is how far the time of a signature may be from now, either way.
const DefaultTolerance = 5 * time.Minute

// Why [Verify] refuses a request.
var (
	ErrSignature = errors.New("webhook: no signature is right")
	ErrTime      = errors.New("webhook: the signature is of another time")
)

// maxSignatures bounds the work for one request.
const maxSignatures = 16

// Verify tells whether a request was signed with one of secrets not long ago. header
// and body are those of the request, the body as it was received. A tolerance of 0 is
// [DefaultTolerance]. The error is or wraps [ErrSignature] or [ErrTime], but for a secret
// that is none. It may be used for requests of other senders of Standard Webhooks too.
//
// A request that was verified may still have come before: drop it if its webhook-id
// was seen within the tolerance.
func Verify(header http.Header, body []byte, now time.Time, tolerance time.Duration, secrets ...Secret) error {
	if tolerance <= 0 {
		tolerance = DefaultTolerance
	}
	id, at := header.Get(headerID), header.Get(headerTime)
	if id == "" || at == "" {
		return fmt.Errorf("%w: there is no %s or no %s", ErrSignature, strings.ToLower(headerID), strings.ToLower(headerTime))
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %s is not in seconds", ErrTime, strings.ToLower(headerTime))
	}
	// Compared as numbers: the difference of two far times does not fit a Duration.
	if limit := int64(tolerance / time.Second); seconds < now.Unix()-limit || seconds > now.Unix()+limit {
		return ErrTime
	}
	var want [][]byte
	for i, s := range secrets {
		key, err := s.key()
		if err != nil {
			return fmt.Errorf("webhook: secret %d: %w", i, err)
		}
		want = append(want, mac(key, id, at, body))
	}
	n := 0
	for signature := range strings.SplitSeq(header.Get(headerSignature), " ") {
		if n++; n > maxSignatures {
			break
		}
		text, ok := strings.CutPrefix(signature, "v1,")
		if !ok || len(text) > 64 {
			continue // of a version to come, or asymmetric
		}
		got, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue
		}
		for _, w := range want {
			if hmac.Equal(got, w) {
				return nil
			}
		}
	}
	return ErrSignature
}
