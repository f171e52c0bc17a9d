package inventory

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newHTTP(t *testing.T, cfg HTTPConfig) Discoverer {
	t.Helper()
	d, err := HTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestHTTP(t *testing.T) {
	var seen *http.Request
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write([]byte(goodJSON))
	})
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "s3cret\n")
	d := newHTTP(t, HTTPConfig{URL: u + "/sd?dc=1", Authorization: BearerFile(token), Refresh: 30 * time.Second})
	got, err := d.Targets(t.Context())
	if err != nil || len(got) != 5 || got[2].Resource != "db1" || got[0].Place != u+"/sd:2" {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, want := range map[string]string{"X-Prometheus-Refresh-Interval-Seconds": "30", "Accept": "application/json", "Authorization": "Bearer s3cret"} {
		if v := seen.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if seen.URL.RawQuery != "dc=1" {
		t.Errorf("asked for %s", seen.URL)
	}
	write(t, token, "renewed")
	if _, err := d.Targets(t.Context()); err != nil || seen.Header.Get("Authorization") != "Bearer renewed" {
		t.Errorf("%v: authorization %q", err, seen.Header.Get("Authorization"))
	}
	if _, err := newHTTP(t, HTTPConfig{URL: u, Authorization: BasicFile("kemi", token)}).Targets(t.Context()); err != nil {
		t.Error(err)
	}
	if user, password, _ := seen.BasicAuth(); user != "kemi" || password != "renewed" {
		t.Errorf("user %s, password %s", user, password)
	}
}

// Whatever a server does instead of giving a list is an error that says so, soon,
// and without the secrets in the URL.
func TestHTTPAnswersThatAreNoList(t *testing.T) {
	list := func(w http.ResponseWriter, kind, text string) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(text))
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", 500) }, "the server answers 500"},
		"204": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, "the server answers 204"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://u:p@else.where/x?t=s3cret", http.StatusFound)
		}, "redirects to https://else.where/x: set the URL"},
		"a page": {func(w http.ResponseWriter, _ *http.Request) { list(w, "text/html", "[]") }, `of the type "text/html": want application/json`},
		"no type": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = w.Write([]byte("[]"))
		}, `of the type "": want`},
		"empty":     {func(w http.ResponseWriter, _ *http.Request) { list(w, "application/json", "") }, ": is empty"},
		"wrong":     {func(w http.ResponseWriter, _ *http.Request) { list(w, "application/json", "[\n{]") }, ":2: invalid character"},
		"not UTF-8": {func(w http.ResponseWriter, _ *http.Request) { list(w, "application/json", "[\"\xff\"]") }, ":1: is not UTF-8"},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			list(w, "application/json", "["+strings.Repeat(" ", 5000)+"]")
		}, "larger than 4096 bytes"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			list(w, "application/json", "[]")
		}, "reading the answer"},
		"slow header": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline exceeded"},
		"slow body": {func(w http.ResponseWriter, r *http.Request) {
			list(w, "application/json", "[")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "deadline exceeded"},
		"hangs up":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"gzipped bomb": {bomb, "larger than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := time.Minute
			if strings.HasPrefix(name, "slow") {
				timeout = 200 * time.Millisecond
			}
			d := newHTTP(t, HTTPConfig{URL: serve(t, tt.answer) + "/list?token=s3cret", Timeout: timeout, MaxSize: 4096})
			got, err := d.Targets(t.Context())
			if got != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/list") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	for range 1000 {
		_, _ = z.Write([]byte(strings.Repeat(" ", 10_000)))
	}
	_ = z.Close()
}

func TestHTTPAuthorizationFails(t *testing.T) {
	u := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("asked without authorization") })
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, "\n")
	for _, auth := range []func(context.Context) (string, error){
		BearerFile(empty + ".not"), BasicFile("u", empty), func(context.Context) (string, error) { return "", errors.New("vault is sealed") },
	} {
		if _, err := newHTTP(t, HTTPConfig{URL: u, Authorization: auth}).Targets(t.Context()); err == nil {
			t.Error("no error")
		}
	}
	_, err := newHTTP(t, HTTPConfig{URL: u, Authorization: func(context.Context) (string, error) { return "s3cret\nx", nil }}).Targets(t.Context())
	if err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func TestHTTPOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(goodJSON))
	}))
	defer srv.Close()
	if _, err := newHTTP(t, HTTPConfig{URL: srv.URL}).Targets(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	trust := srv.Client().Transport.(*http.Transport).TLSClientConfig
	if got, err := newHTTP(t, HTTPConfig{URL: srv.URL, TLS: trust}).Targets(t.Context()); err != nil || len(got) != 5 {
		t.Errorf("%d targets, %v", len(got), err)
	}
}

func TestHTTPConfig(t *testing.T) {
	for _, cfg := range []HTTPConfig{
		{}, {URL: "list"}, {URL: "ftp://h/x"}, {URL: "http://"}, {URL: "http://u:s3cret@h/"}, {URL: "http://h:s3cret/"}, {URL: "%s3cret://"},
		{URL: "http://h", Timeout: -1}, {URL: "http://h", Transport: http.DefaultTransport, TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
	} {
		if _, err := HTTP(cfg); err == nil || !strings.HasPrefix(err.Error(), "inventory: ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
