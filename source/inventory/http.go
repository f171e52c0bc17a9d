package inventory

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// HTTPConfig describes a list on a server. Only URL is required.
type HTTPConfig struct {
	// URL is where the list is: http or https. A credential in it is refused, since
	// URLs end up in logs.
	URL string
	// Authorization gives the value of the header of that name before each request;
	// nil sends none. See [BearerFile] and [BasicFile].
	Authorization func(ctx context.Context) (string, error)
	// TLS is the client's TLS; nil is Go's default.
	TLS *tls.Config
	// Transport carries the requests instead of a transport of its own, and then TLS
	// must be nil.
	Transport http.RoundTripper
	// Timeout bounds one whole request with its answer. Default 10 s.
	Timeout time.Duration
	// MaxSize is the largest list in bytes, after decompression. Default and maximum 64 MiB.
	MaxSize int64
	// Refresh is what the server is told about how often it will be asked, in the
	// header X-Prometheus-Refresh-Interval-Seconds. Default one minute, as Config.Interval.
	Refresh time.Duration
}

// BearerFile returns an Authorization of type Bearer with the token in a file, which
// is read for each request, so that it may be renewed.
func BearerFile(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		token, err := readSecret(path)
		return "Bearer " + token, err
	}
}

// BasicFile returns an Authorization of type Basic with the password in a file,
// which is read for each request.
func BasicFile(user, path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		password, err := readSecret(path)
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), err
	}
}

func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s: is empty", path)
	}
	return s, nil
}

// HTTP returns a Discoverer of a list that a server gives as Prometheus's http_sd
// does: GET, 200, Content-Type application/json, the JSON of the package comment.
// Anything else is an error. A redirect is not followed, for a credential must not
// go where nobody wrote that it goes.
func HTTP(cfg HTTPConfig) (Discoverer, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, errors.New("inventory: the URL of the list cannot be parsed: want http://host/path or https://host/path")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("inventory: the URL of the list is %s: want http://host/path or https://host/path", safeURL(u))
	case u.User != nil:
		return nil, fmt.Errorf("inventory: the URL %s has a credential in it: use HTTPConfig.Authorization", safeURL(u))
	case cfg.Transport != nil && cfg.TLS != nil:
		return nil, errors.New("inventory: HTTPConfig has both Transport and TLS: set the TLS of the transport")
	case cfg.Timeout < 0 || cfg.MaxSize < 0 || cfg.Refresh < 0:
		return nil, errors.New("inventory: HTTPConfig has a negative Timeout, MaxSize or Refresh")
	}
	h := &httpList{cfg: cfg, name: safeURL(u)}
	if h.cfg.Timeout == 0 {
		h.cfg.Timeout = 10 * time.Second
	}
	if h.cfg.MaxSize == 0 || h.cfg.MaxSize > maxJSON {
		h.cfg.MaxSize = maxJSON
	}
	if h.cfg.Refresh == 0 {
		h.cfg.Refresh = time.Minute
	}
	transport := cfg.Transport
	if transport == nil {
		// One request a minute: a connection kept open would only have to be closed by
		// somebody.
		transport = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg.TLS, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	}
	h.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return h, nil
}

// safeURL is a URL without what may be secret in it.
func safeURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

type httpList struct {
	cfg    HTTPConfig
	name   string // the URL, for messages
	client *http.Client
}

// Targets asks the server.
func (h *httpList) Targets(ctx context.Context) ([]Target, error) {
	text, err := h.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("inventory: %s: %w", h.name, err)
	}
	targets, err := parse(h.name, text, true)
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	return targets, nil
}

func (h *httpList) get(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.cfg.URL, nil)
	if err != nil {
		return nil, errors.New("the request cannot be made")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "kemi")
	req.Header.Set("X-Prometheus-Refresh-Interval-Seconds", strconv.FormatFloat(h.cfg.Refresh.Seconds(), 'f', -1, 64))
	if h.cfg.Authorization != nil {
		auth, err := h.cfg.Authorization(ctx)
		if err != nil {
			return nil, fmt.Errorf("authorization: %w", err)
		}
		req.Header.Set("Authorization", auth)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, whose query may be secret
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		to := "elsewhere"
		if l, err := resp.Location(); err == nil {
			to = "to " + safeURL(l)
		}
		return nil, fmt.Errorf("the server redirects %s: set the URL to where the list is", to)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the server answers %s", resp.Status)
	case err != nil || kind != "application/json":
		return nil, fmt.Errorf("the answer is of the type %s: want application/json", quote(resp.Header.Get("Content-Type")))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, h.cfg.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if int64(len(text)) > h.cfg.MaxSize {
		return nil, fmt.Errorf("the answer is larger than %d bytes", h.cfg.MaxSize)
	}
	return text, nil
}
