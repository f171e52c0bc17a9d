package webhook_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/notify/webhook"
)

const (
	oldSecret webhook.Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	newSecret webhook.Secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// vector is the example of the Standard Webhooks libraries.
func vector() (http.Header, []byte, time.Time) {
	return http.Header{
		"Webhook-Id":        {"msg_p5jXN8AQM9LWM0D4loKWxJek"},
		"Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}, []byte(`{"test": 2432232314}`), time.Unix(1614265330, 0)
}

func TestVerify(t *testing.T) {
	header, body, at := vector()
	with := func(key, value string) http.Header {
		h := header.Clone()
		h.Set(key, value)
		return h
	}
	sig := header.Get("Webhook-Signature")
	for _, c := range []struct {
		name    string
		header  http.Header
		body    string
		at      time.Time
		secrets []webhook.Secret
		want    error
	}{
		{"the example", header, string(body), at, []webhook.Secret{oldSecret}, nil},
		{"one of two secrets", header, string(body), at, []webhook.Secret{newSecret, oldSecret}, nil},
		{"one of two signatures", with("Webhook-Signature", "v1a,AAAA v1,!! v1,AAAA "+sig), string(body), at, []webhook.Secret{oldSecret}, nil},
		{"five minutes late", header, string(body), at.Add(5 * time.Minute), []webhook.Secret{oldSecret}, nil},
		{"too late", header, string(body), at.Add(5*time.Minute + time.Second), []webhook.Secret{oldSecret}, webhook.ErrTime},
		{"too early", header, string(body), at.Add(-5*time.Minute - time.Second), []webhook.Secret{oldSecret}, webhook.ErrTime},
		{"far away", with("Webhook-Timestamp", "9223372036854775807"), string(body), at, []webhook.Secret{oldSecret}, webhook.ErrTime},
		{"no time", with("Webhook-Timestamp", "now"), string(body), at, []webhook.Secret{oldSecret}, webhook.ErrTime},
		{"another body", header, string(body) + " ", at, []webhook.Secret{oldSecret}, webhook.ErrSignature},
		{"another id", with("Webhook-Id", "msg_1"), string(body), at, []webhook.Secret{oldSecret}, webhook.ErrSignature},
		{"another time", with("Webhook-Timestamp", "1614265331"), string(body), at, []webhook.Secret{oldSecret}, webhook.ErrSignature},
		{"another secret", header, string(body), at, []webhook.Secret{newSecret}, webhook.ErrSignature},
		{"no secret", header, string(body), at, nil, webhook.ErrSignature},
		{"no headers", http.Header{}, string(body), at, []webhook.Secret{oldSecret}, webhook.ErrSignature},
		{"too many signatures", with("Webhook-Signature", strings.Repeat("v1,AAAA ", 20)+sig), string(body), at, []webhook.Secret{oldSecret}, webhook.ErrSignature},
	} {
		if err := webhook.Verify(c.header, []byte(c.body), c.at, 0, c.secrets...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, bad := range []webhook.Secret{"", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_hunter2", "whsec_aHVudGVyMg=="} {
		err := webhook.Verify(header, body, at, 0, bad)
		if err == nil || errors.Is(err, webhook.ErrSignature) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("secret %d bytes long: %v", len(bad), err)
		}
	}
}

// FuzzVerify changes anything in a good request: it is never taken, and never panics.
func FuzzVerify(f *testing.F) {
	h, body, _ := vector()
	f.Add(h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), h.Get("Webhook-Signature"), body)
	f.Add("", "", "", []byte{})
	f.Add("a.b", "1614265330", "v1,", []byte("x"))
	f.Add("a", "-1", "v1,AAAA v2,AAAA", []byte("x"))
	f.Fuzz(func(t *testing.T, id, at, signature string, body []byte) {
		good, goodBody, now := vector()
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {at}, "Webhook-Signature": {signature}}
		err := webhook.Verify(h, body, now, 0, oldSecret)
		same := id == good.Get("Webhook-Id") && at == good.Get("Webhook-Timestamp") && string(body) == string(goodBody)
		if err == nil && !same {
			t.Fatalf("a forged request was taken: %q %q %q %q", id, at, signature, body)
		}
	})
}

// TestSigned holds that what is sent is verified with either secret, and that the id
// is the same when the same alerts are told again.
func TestSigned(t *testing.T) {
	r := receive(t)
	now := time.Unix(1795205855, 0)
	s := newSink(t, webhook.Config{URL: r.URL, Secrets: []webhook.Secret{oldSecret, newSecret}, Now: func() time.Time { return now }})
	batch := []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring), alertOf("CPU", "b", kemi.StateFiring)}
	for _, b := range [][]kemi.Alert{batch, batch, batch[:1]} {
		if err := s.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	got := r.requests()
	for i, in := range got {
		for _, secret := range []webhook.Secret{oldSecret, newSecret} {
			if err := webhook.Verify(in.header, in.body, now, 0, secret); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
	}
	ids := []string{got[0].header.Get("webhook-id"), got[1].header.Get("webhook-id"), got[2].header.Get("webhook-id")}
	if ids[0] != ids[1] || ids[0] == ids[2] || !strings.HasPrefix(ids[0], "msg_") {
		t.Errorf("ids: %q", ids)
	}
}

// TestSecretsStaySecret looks for anything secret in everything the sink says.
func TestSecretsStaySecret(t *testing.T) {
	r := receive(t)
	host := strings.TrimPrefix(r.URL, "http://")
	cfg := webhook.Config{URL: "http://kemi:hunter2@" + host + "/services/hunter2?key=hunter2", Secrets: []webhook.Secret{oldSecret}}
	s := newSink(t, cfg)
	batch := []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring)}
	if err := s.Write(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("kemi:hunter2"))
	if got := r.requests()[0].header.Get("Authorization"); got != want {
		t.Errorf("authorization %q", got)
	}
	text, _ := json.Marshal(cfg.Secrets)
	said := []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %d %q", cfg, cfg, cfg, cfg, &cfg) + fmt.Sprintf("%v %+v %#v %d", s, s, s, s),
		fmt.Sprintf("%+v %v %q %x %#v %s", cfg, oldSecret, oldSecret, oldSecret, oldSecret, text)}
	r.Server.Close()
	said = append(said, s.Write(t.Context(), batch).Error())
	for _, c := range []webhook.Config{
		{URL: "http://user:hunter2@[::1"}, {URL: "hunter2"}, {URL: "http://h/hunter2", MaxAlerts: -1},
		{URL: "http://h/hunter2", Secrets: []webhook.Secret{"hunter2"}},
	} {
		_, err := webhook.New(c)
		if err == nil {
			t.Fatalf("%v was taken", c)
		}
		said = append(said, err.Error())
	}
	for _, text := range said {
		if strings.Contains(text, "hunter2") || strings.Contains(text, string(oldSecret[10:])) || strings.Contains(text, fmt.Sprintf("%x", string(oldSecret[10:]))) {
			t.Errorf("it says %q", text)
		}
	}
	if !strings.Contains(said[3], host) {
		t.Errorf("the error does not say where: %s", said[3])
	}
}

// TestEchoesStaySecret posts to receivers that say again what they were sent.
func TestEchoesStaySecret(t *testing.T) {
	raw := func(w http.ResponseWriter, answer string) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, answer)
	}
	for _, c := range []struct {
		name      string
		say       func(w http.ResponseWriter, r *http.Request)
		want      string
		permanent bool
	}{
		{"path and query", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "Cannot POST "+r.URL.RequestURI(), http.StatusNotFound)
		}, "Cannot POST (redacted)", true},
		{"headers", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_ = r.Header.Write(w)
		}, "Authorization: Basic (redacted)", false},
		{"what the headers mean", func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			http.Error(w, "wrong password: "+password, http.StatusUnauthorized)
		}, "wrong password: (redacted)", true},
		{"the reason", func(w http.ResponseWriter, r *http.Request) {
			raw(w, "HTTP/1.1 503 no "+r.URL.Path+"\r\nContent-Length: 0\r\n\r\n")
		}, "503 no (redacted)", false},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) { raw(w, "POST "+r.URL.Path+"\r\n\r\n") }, "malformed", false},
		{"a redirect to nowhere", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[::1"+r.URL.Path+"?other=hunter3")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "its Location is no URL", true},
		{"a redirect to a host", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://hunter2.example/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "(redacted).example", true},
		{"after a redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/other/hunter3" {
				http.Error(w, r.RequestURI, http.StatusBadRequest)
				return
			}
			w.Header().Set("Location", "/other/hunter3")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "400 Bad Request: (redacted)", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := receive(t)
			r.setFault(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				c.say(w, r)
				return true
			})
			s := newSink(t, webhook.Config{
				URL:       strings.Replace(r.URL, "://", "://kemi:hunter2@", 1) + "/hooks/hunter2?key=hunter2",
				Authorize: func(r *http.Request) error { r.Header.Set("X-Token", "hunter2"); return nil },
			})
			batch := []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring)}
			failed, _ := kemi.Failures(s.Write(t.Context(), batch), batch)
			if len(failed) != 1 {
				t.Fatalf("%d failures", len(failed))
			}
			err := failed[0].Err
			basic := base64.StdEncoding.EncodeToString([]byte("kemi:hunter2"))
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "hunter") || strings.Contains(text, basic) {
				t.Errorf("it says %s", text)
			}
			if !strings.Contains(err.Error(), c.want) || kemi.IsPermanent(err) != c.permanent {
				t.Errorf("permanent %v, want %v; %v, want %q", kemi.IsPermanent(err), c.permanent, err, c.want)
			}
		})
	}
}

// TestReceiverThatHangs is given up on in time.
func TestReceiverThatHangs(t *testing.T) {
	r := receive(t)
	r.setFault(func(_ http.ResponseWriter, req *http.Request, _ []byte) bool {
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	})
	batch := []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring)}
	err := newSink(t, webhook.Config{URL: r.URL, Timeout: 50 * time.Millisecond}).Write(t.Context(), batch)
	if err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("%v", err)
	}
}

// TestRetryAfter runs the sink in a pipeline, which alone knows how long to wait.
func TestRetryAfter(t *testing.T) {
	r := receive(t)
	first := true
	r.setFault(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if !first {
			return false
		}
		first = false
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	source := kemi.SourceFunc[kemi.Alert](func(ctx context.Context, out kemi.Sink[kemi.Alert]) error {
		return out.Write(ctx, []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring)})
	})
	flow := kemi.Connect("tell", source, newSink(t, webhook.Config{URL: r.URL}), kemi.Backoff(time.Millisecond, time.Millisecond))
	start := time.Now()
	if err := (&kemi.Pipeline{Flows: []*kemi.Flow{flow}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < time.Second {
		t.Errorf("tried again after %v", d)
	}
	if n := len(r.requests()); n != 1 {
		t.Errorf("%d requests accepted", n)
	}
}

func Example() {
	secret := webhook.Secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m webhook.Message
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err := webhook.Verify(r.Header, body, time.Now(), 0, secret); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		_ = json.Unmarshal(body, &m)
		fmt.Println(m.Status, m.GroupKey, m.Alerts[0].Labels)
	}))
	defer receiver.Close()

	notify, err := webhook.New(webhook.Config{URL: receiver.URL, Secrets: []webhook.Secret{secret}})
	if err != nil {
		panic(err)
	}
	defer notify.Close()
	labels := kemi.LabelsOf("alertname", "HighCPU", "host", "web1")
	fmt.Println(notify.Write(context.Background(), []kemi.Alert{{
		Rule: "HighCPU", Labels: labels, State: kemi.StateFiring, StartsAt: time.Now(),
		Fingerprint: kemi.Fingerprint(labels.Hash()),
	}}))
	// Output:
	// firing {}:{alertname="HighCPU"} {alertname="HighCPU", host="web1"}
	// <nil>
}
