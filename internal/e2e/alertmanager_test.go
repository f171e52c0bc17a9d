//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/notify/webhook"
)

// What kemi's webhook posts is what Alertmanager posts for the same alert: the same
// keys everywhere, and the same values where they do not depend on the server.
func TestWebhookIsThatOfAlertmanager(t *testing.T) {
	program := need(t, "prometheus-alertmanager", "prometheus-alertmanager")
	bodies := make(chan []byte, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- b
	}))
	defer receiver.Close()

	dir := t.TempDir()
	conf := filepath.Join(dir, "am.yml")
	text := fmt.Sprintf("route:\n  receiver: kemi\n  group_by: [alertname]\n  group_wait: 0s\nreceivers:\n- name: kemi\n  webhook_configs:\n  - url: %s\n", receiver.URL)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", steadyPorts(t, "tcp", 1)[0])
	ready := func() error {
		_, err := fetch(url + "/-/ready")
		return err
	}
	start(t, ready, nil, program, "--config.file="+conf, "--storage.path="+dir,
		"--web.listen-address="+url[len("http://"):], "--cluster.listen-address=", "--web.external-url="+url)

	began := time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)
	labels := kemi.LabelsOf("alertname", "HighCPU", "host", "web1", "severity", "warning")
	notes := kemi.LabelsOf("summary", "web1 is busy")
	post, err := json.Marshal([]map[string]any{{"labels": labels, "annotations": notes, "startsAt": began}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(url+"/api/v2/alerts", "application/json", bytes.NewReader(post))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	theirs := decode(t, next(t, bodies))

	hook, err := webhook.New(webhook.Config{URL: receiver.URL, ExternalURL: url})
	if err != nil {
		t.Fatal(err)
	}
	alert := kemi.Alert{
		Rule: "HighCPU", Labels: labels, Annotations: notes, State: kemi.StateFiring, Time: began, StartsAt: began,
		Value: 97, Fingerprint: kemi.Fingerprint(labels.Hash()),
	}
	if err := hook.Write(t.Context(), []kemi.Alert{alert}); err != nil {
		t.Fatal(err)
	}
	ours := decode(t, next(t, bodies))

	same := func(what string, a, b map[string]any, values ...string) {
		t.Helper()
		if x, y := slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b)); !slices.Equal(x, y) {
			t.Errorf("%s: Alertmanager has the keys %v, kemi %v", what, x, y)
		}
		for _, k := range values {
			if x, y := fmt.Sprint(a[k]), fmt.Sprint(b[k]); x != y {
				t.Errorf("%s: %s: Alertmanager says %s, kemi %s", what, k, x, y)
			}
		}
	}
	same("body", theirs, ours, "receiver", "status", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "version", "groupKey", "truncatedAlerts")
	alertOf := func(m map[string]any) map[string]any { return m["alerts"].([]any)[0].(map[string]any) }
	same("alert", alertOf(theirs), alertOf(ours), "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint")
}

func next(t *testing.T, bodies <-chan []byte) []byte {
	t.Helper()
	select {
	case b := <-bodies:
		return b
	case <-time.After(hang):
		t.Fatal("no webhook came")
		return nil
	}
}

func decode(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return m
}
