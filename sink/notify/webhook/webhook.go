// Package webhook tells alerts to an HTTP endpoint, in the JSON that Prometheus'
// Alertmanager posts to its webhooks (version 4), so that whatever reads that reads
// this.
//
// Alerts are grouped, by rule unless told otherwise, and each group of a Write is one
// POST. Any 2xx answer means that the alerts in it were told. 408, 425, 429, 5xx,
// and a receiver that does not answer, are tried again by the flow, as late as Retry-After
// asks; anything else is refused for good. After one of the former, the rest of the
// batch is not sent, so that the changes of one alert arrive in order.
//
// What differs from Alertmanager: a POST holds the changes of a Write, not all that is
// active in the group. Two changes of one alert go in two POSTs, one after the other.
// Pending alerts are not told. An alert without data is told as firing, with the
// annotation kemi_state = nodata.
//
// A POST that is repeated has the same webhook-id header, so that the receiver can
// drop what it has seen. With Config.Secrets it is signed as Standard Webhooks says;
// a receiver in Go checks it with [Verify].
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/reply"
)

// Config describes a receiver. Only URL is needed.
type Config struct {
	// URL is where to post. A user and password in it become basic authorization. Of
	// all this only the host is ever shown: paths and queries of webhooks are often
	// secrets.
	URL string

	// Secrets sign each POST, one signature for each, so that a receiver may know the
	// old or the new one while they are changed. None: no signature.
	Secrets []Secret

	// Authorize, if set, is called for each request and may set headers. Its error
	// makes the request fail, to be tried again.
	Authorize func(*http.Request) error

	// TLS is the configuration for https; nil is the default one.
	TLS *tls.Config

	// GroupBy names the labels that make a group. Nil is alertname, which is the rule;
	// an empty list is one group of all.
	GroupBy []string

	// MaxAlerts bounds the alerts in a POST, as max_alerts does in Alertmanager: those
	// above it are left out, and their number is told as truncatedAlerts. 0: no bound.
	MaxAlerts int

	// Receiver is told in the body. "" is kemi.
	Receiver string

	// ExternalURL is told in the body: where people find more.
	ExternalURL string

	// Timeout bounds a whole request. 0 is 15 s.
	Timeout time.Duration

	// Now tells the time of a signature. Nil is time.Now.
	Now func() time.Time
}

// String shows the receiver's host, and nothing secret.
func (c Config) String() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "webhook"
	}
	return "webhook " + show(u)
}

// Format prints String, whatever the verb, so that none of them shows what is secret.
func (c Config) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), c.String()) }

// show is a URL without what may be secret.
func show(u *url.URL) string { return u.Scheme + "://" + u.Host }

// Sink posts alerts to a receiver. Make one with [New].
type Sink struct {
	cfg       Config
	name      string
	url       string
	user      *url.Userinfo
	keys      [][]byte
	transport *http.Transport
	client    *http.Client

	requests, told, pending, truncated atomic.Uint64
}

var _ kemi.Sink[kemi.Alert] = (*Sink)(nil)

// New returns a sink. It makes no connection yet.
func New(cfg Config) (*Sink, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// Not even a part of it is shown: it may be the secret one.
		return nil, errors.New("webhook: the URL is not one: want https://host/path")
	}
	if cfg.MaxAlerts < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("webhook %s: MaxAlerts and Timeout must not be negative", show(u))
	}
	s := &Sink{cfg: cfg, name: "webhook " + show(u), user: u.User}
	for i, secret := range cfg.Secrets {
		key, err := secret.key()
		if err != nil {
			return nil, fmt.Errorf("%s: Secrets[%d]: %w", s.name, i, err)
		}
		s.keys = append(s.keys, key)
	}
	u.User = nil
	s.url = u.String()
	if cfg.GroupBy == nil {
		s.cfg.GroupBy = []string{alertname}
	}
	if cfg.Receiver == "" {
		s.cfg.Receiver = "kemi"
	}
	if cfg.Timeout == 0 {
		s.cfg.Timeout = 15 * time.Second
	}
	if cfg.Now == nil {
		s.cfg.Now = time.Now
	}
	s.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:     cfg.TLS,
		TLSHandshakeTimeout: 5 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	s.client = &http.Client{Transport: checked{s.transport}, CheckRedirect: checkRedirect}
	return s, nil
}

var errRedirect = errors.New("the redirect is refused")

// checkRedirect lets a request go to another path of the same server only: what is
// posted, and signed, is for nobody else. A redirect that makes a GET of the POST would
// lose the alerts.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch first := via[0].URL; {
	case req.Method != http.MethodPost:
		return fmt.Errorf("%w: it would lose the body; the receiver should answer 307 or 308", errRedirect)
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("%w: it leads to %s: set the URL to that, if it is right", errRedirect, show(req.URL))
	case len(via) > 3:
		return fmt.Errorf("%w: too many of them", errRedirect)
	}
	return nil
}

// checked refuses a redirect to what is no URL, since the HTTP client's own error would
// show it.
type checked struct{ *http.Transport }

func (c checked) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if _, err := req.URL.Parse(resp.Header.Get("Location")); err != nil && resp.StatusCode/100 == 3 {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: its Location is no URL", errRedirect)
	}
	return resp, nil
}

// String returns the receiver's host, and nothing secret.
func (s *Sink) String() string { return s.name }

// Format prints String, whatever the verb, so that none of them shows what is secret.
func (s *Sink) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), s.name) }

// Close closes idle connections. The sink may be used again after it.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Stats are counts since the sink was made.
type Stats struct {
	Requests  uint64 // sent, answered or not
	Told      uint64 // alerts in requests that were answered with 2xx
	Pending   uint64 // not told, as they are only pending
	Truncated uint64 // left out because of MaxAlerts
}

// Stats returns the counts. It may be called at any time.
func (s *Sink) Stats() Stats {
	return Stats{s.requests.Load(), s.told.Load(), s.pending.Load(), s.truncated.Load()}
}

// Write tells the alerts of batch.
func (s *Sink) Write(ctx context.Context, batch []kemi.Alert) error {
	var failed []kemi.Failure
	var stop error
	for _, p := range s.split(batch) {
		err := stop
		if err == nil {
			err = s.post(ctx, batch, p)
		}
		if err == nil {
			continue
		}
		if !kemi.IsPermanent(err) {
			stop = err
		}
		for _, i := range p.alerts {
			failed = append(failed, kemi.Failure{Index: i, Err: err})
		}
	}
	return kemi.Partial(batch, failed...)
}

// post sends one POST and judges the answer.
func (s *Sink) post(ctx context.Context, batch []kemi.Alert, p post) error {
	m, id := s.message(batch, p)
	body, err := json.Marshal(m)
	if err != nil {
		return kemi.Permanent(fmt.Errorf("%s: %w", s.name, err))
	}
	own, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	resp, err := s.do(own, id, body)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", s.name, context.Cause(ctx))
	case own.Err() != nil:
		return fmt.Errorf("%s: no answer within %v", s.name, s.cfg.Timeout)
	case errors.Is(err, errRedirect):
		return kemi.Permanent(fmt.Errorf("%s: %w", s.name, err))
	default:
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 2<<10))
	if resp.StatusCode/100 == 2 {
		s.told.Add(uint64(len(m.Alerts)))
		s.truncated.Add(uint64(m.TruncatedAlerts))
		return nil
	}
	secrets := secretsOf(resp.Request)
	err = fmt.Errorf("%s: %s: %s", s.name, secrets.Clip(resp.Status), secrets.Clip(string(text)))
	switch code := resp.StatusCode; {
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly:
		return kemi.RetryAfter(err, reply.RetryAfter(resp.Header, s.cfg.Now()))
	}
	return kemi.Permanent(err)
}

func (s *Sink) do(ctx context.Context, id string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the request cannot be made") // the text would have the URL in it
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "kemi")
	h.Set(headerID, id)
	if len(s.keys) > 0 {
		at := strconv.FormatInt(s.cfg.Now().Unix(), 10)
		h.Set(headerTime, at)
		signatures := make([]string, len(s.keys))
		for i, key := range s.keys {
			signatures[i] = sign(key, id, at, body)
		}
		h.Set(headerSignature, strings.Join(signatures, " "))
	}
	if s.user != nil {
		password, _ := s.user.Password()
		req.SetBasicAuth(s.user.Username(), password)
	}
	if s.cfg.Authorize != nil {
		if err := s.cfg.Authorize(req); err != nil {
			return nil, fmt.Errorf("Config.Authorize: %w", err)
		}
	}
	s.requests.Add(1)
	resp, err := s.client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = secretsOf(req).Error(u.Err) // without the URL
	}
	return resp, err
}

// secretsOf lists what a receiver must not make an error show.
func secretsOf(req *http.Request) reply.Secrets {
	return reply.SecretsOf(req.Header, req.URL.RequestURI())
}

// idOf is the same for the same alerts told again.
func idOf(batch []kemi.Alert, alerts []int) string {
	h := sha256.New()
	for _, i := range alerts {
		_, _ = io.WriteString(h, batch[i].ID()+"\n") // a hash takes everything
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}
