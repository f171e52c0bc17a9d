package webhook_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/notify/webhook"
)

// TestAlertmanagerBody compares with what Alertmanager 0.25.0 posted for the same
// alerts, with group_by: [alertname] and max_alerts: 2, byte for byte. (A
// generatorURL, which alerts of kemi do not have, was taken out.)
func TestAlertmanagerBody(t *testing.T) {
	web1 := func(state kemi.AlertState) kemi.Alert {
		a := alertOf("HighCPU", "web1", state)
		a.Annotations = a.Annotations.With("summary", "CPU <95> & up")
		if state == kemi.StateResolved {
			a.EndsAt = time.Date(2026, 11, 20, 22, 38, 40, 456e6, time.UTC)
		}
		return a
	}
	web2 := alertOf("HighCPU", "web2", kemi.StateFiring)
	web2.Annotations = web2.Annotations.With("summary", "CPU 96")
	web3 := alertOf("HighCPU", "web3", kemi.StateFiring)
	const (
		labels1 = `"labels":{"alertname":"HighCPU","host":"web1","severity":"page"},"annotations":{"d":"x","summary":"CPU \u003c95\u003e \u0026 up"},"startsAt":"2026-11-20T22:37:38.123Z",`
		second  = `{"status":"firing","labels":{"alertname":"HighCPU","host":"web2","severity":"page"},"annotations":{"d":"x","summary":"CPU 96"},"startsAt":"2026-11-20T22:37:38.123Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":"8306d76537bc993c"}`
		rest    = `],"groupLabels":{"alertname":"HighCPU"},"commonLabels":{"alertname":"HighCPU","severity":"page"},"commonAnnotations":{"d":"x"},"externalURL":"http://vm:19193","version":"4","groupKey":"{}:{alertname=\"HighCPU\"}","truncatedAlerts":1}`
	)
	for want, first := range map[string]kemi.Alert{
		`{"receiver":"hook","status":"firing","alerts":[{"status":"firing",` + labels1 + `"endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":"1172957716dcbf53"},` + second + rest:       web1(kemi.StateFiring),
		`{"receiver":"hook","status":"firing","alerts":[{"status":"resolved",` + labels1 + `"endsAt":"2026-11-20T22:38:40.456Z","generatorURL":"","fingerprint":"1172957716dcbf53"},` + second + rest: web1(kemi.StateResolved),
	} {
		r := receive(t)
		s := newSink(t, webhook.Config{URL: r.URL, Receiver: "hook", ExternalURL: "http://vm:19193", MaxAlerts: 2})
		if err := s.Write(t.Context(), []kemi.Alert{first, web2, web3}); err != nil {
			t.Fatal(err)
		}
		got := r.requests()
		if len(got) != 1 || string(got[0].body) != want {
			t.Errorf("%d requests:\n got %s\nwant %s", len(got), got[0].body, want)
		}
		if got[0].header.Get("Content-Type") != "application/json" {
			t.Errorf("headers: %v", got[0].header)
		}
		if st := s.Stats(); st.Told != 2 || st.Truncated != 1 || st.Requests != 1 {
			t.Errorf("stats: %+v", st)
		}
	}
}

// told is what each request said: status of the group, group, and its alerts.
func told(r *receiver) []string {
	var out []string
	for _, in := range r.requests() {
		line := in.Status + " " + in.GroupKey + ":"
		for _, a := range in.Alerts {
			line += " " + a.Labels.Get("host") + "=" + a.Status
		}
		out = append(out, line)
	}
	return out
}

func TestGroups(t *testing.T) {
	const f, r, p, n = kemi.StateFiring, kemi.StateResolved, kemi.StatePending, kemi.StateNoData
	batch := []kemi.Alert{
		alertOf("CPU", "a", f), alertOf("Disk", "a", r), alertOf("CPU", "b", p), alertOf("CPU", "b", r),
		alertOf("CPU", "a", r), alertOf("CPU", "c", n), alertOf("CPU", "a", f),
	}
	for _, c := range []struct {
		cfg  webhook.Config
		want []string
	}{
		{webhook.Config{}, []string{
			`firing {}:{alertname="CPU"}: a=firing b=resolved`,
			`resolved {}:{alertname="Disk"}: a=resolved`,
			`firing {}:{alertname="CPU"}: a=resolved c=firing`, // a changed again, so this comes later
			`firing {}:{alertname="CPU"}: a=firing`,
		}},
		{webhook.Config{GroupBy: []string{"severity", "host", "none"}}, []string{
			`firing {}:{host="a", severity="page"}: a=firing a=resolved`,
			`resolved {}:{host="b", severity="page"}: b=resolved`,
			`resolved {}:{host="a", severity="page"}: a=resolved`,
			`firing {}:{host="c", severity="page"}: c=firing`,
			`firing {}:{host="a", severity="page"}: a=firing`,
		}},
		{webhook.Config{GroupBy: []string{}}, []string{
			`firing {}:{}: a=firing a=resolved b=resolved`,
			`firing {}:{}: a=resolved c=firing`,
			`firing {}:{}: a=firing`,
		}},
	} {
		rec := receive(t)
		c.cfg.URL = rec.URL
		s := newSink(t, c.cfg)
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if got := told(rec); !slices.Equal(got, c.want) {
			t.Errorf("%v:\n got %q\nwant %q", c.cfg.GroupBy, got, c.want)
		}
		for _, in := range rec.requests() {
			for _, a := range in.Alerts {
				if nodata := a.Annotations.Get("kemi_state") == "nodata"; nodata != (a.Labels.Get("host") == "c") {
					t.Errorf("annotations of %v: %v", a.Labels, a.Annotations)
				}
			}
		}
		if st := s.Stats(); st.Pending != 1 || st.Told != 6 {
			t.Errorf("stats: %+v", st)
		}
	}
}

// TestOutcome holds what becomes of two groups when the first is answered so.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		status    int
		permanent bool
		text      string
	}{
		{400, true, "400"}, {401, true, "401"}, {404, true, "404"}, {410, true, "410"}, {422, true, "422"},
		{408, false, "408"}, {425, false, "425"}, {429, false, "429"}, {500, false, "500"}, {503, false, "503"}, {599, false, "599"},
		{302, true, "lose the body"}, {307, true, "leads to http://elsewhere"},
	} {
		r := receive(t)
		r.setFault(func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
			if !strings.Contains(string(body), `"CPU"`) {
				return false
			}
			w.Header().Set("Location", "http://elsewhere/hook?token=hunter2")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte("because\n" + strings.Repeat("x", 1<<20)))
			return true
		})
		s := newSink(t, webhook.Config{URL: r.URL})
		batch := []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring), alertOf("Disk", "a", kemi.StateFiring), alertOf("CPU", "b", kemi.StateFiring), alertOf("CPU", "a", kemi.StateResolved)}
		err := s.Write(t.Context(), batch)
		failed, ok := kemi.Failures(err, batch)
		want := []int{0, 2, 3}
		if !c.permanent { // nothing is sent after it
			want = []int{0, 1, 2, 3}
		}
		var got []int
		for _, f := range failed {
			got = append(got, f.Index)
			if kemi.IsPermanent(f.Err) != c.permanent || !strings.Contains(f.Err.Error(), c.text) || len(f.Err.Error()) > 500 {
				t.Errorf("%d: %v", c.status, f.Err)
			}
		}
		if !ok || !slices.Equal(got, want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: failed %v, want %v: %v", c.status, got, want, err)
		}
		if n := len(r.requests()); n != 4-len(want) {
			t.Errorf("%d: %d requests were accepted", c.status, n)
		}
	}
}

// TestRedirectOnTheSameServer is followed, with the body.
func TestRedirectOnTheSameServer(t *testing.T) {
	r := receive(t)
	r.setFault(func(w http.ResponseWriter, req *http.Request, _ []byte) bool {
		if req.URL.Path == "/new" {
			return false
		}
		http.Redirect(w, req, "/new", http.StatusPermanentRedirect)
		return true
	})
	if err := newSink(t, webhook.Config{URL: r.URL + "/old"}).Write(t.Context(), []kemi.Alert{alertOf("CPU", "a", kemi.StateFiring)}); err != nil {
		t.Fatal(err)
	}
	if got := r.requests(); len(got) != 1 || len(got[0].Alerts) != 1 {
		t.Errorf("%d requests", len(got))
	}
}
