package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/internal/agent"
)

// program runs the quickstart and gives its lines.
func program(t *testing.T, args ...string) (lines <-chan string, stop func() (code int, stderr string)) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		c := run(ctx, args, w, &stderr)
		w.Close()
		code <- c
	}()
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			out <- sc.Text()
		}
	}()
	return out, func() (int, string) {
		cancel()
		c := <-code
		return c, stderr.String()
	}
}

// waitFor reads lines until one matches.
func waitFor(t *testing.T, lines <-chan string, within time.Duration, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(within)
	var seen []string
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatalf("the program ended without %q:\n%s", pattern, strings.Join(seen, "\n"))
			}
			if re.MatchString(l) {
				return l
			}
			seen = append(seen, l)
		case <-timeout:
			t.Fatalf("no %q within %s:\n%s", pattern, within, strings.Join(seen, "\n"))
		}
	}
}

// Without a config: values of this machine within ten seconds, stored where the
// program says, and a drain that leaves nothing behind.
func TestThisMachineAtFirstSight(t *testing.T) {
	lines, stop := program(t)
	curl := waitFor(t, lines, 5*time.Second, `curl '`)
	waitFor(t, lines, 10*time.Second, ` up  cpu +[0-9.]+%  memory [0-9.]+%`)
	url, _, _ := strings.Cut(strings.SplitN(curl, "'", 2)[1], "'")
	var stored string
	for range 50 { // the store takes a moment longer than the screen
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if stored = string(b); strings.Contains(stored, `"dps":{"`) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !strings.Contains(stored, `"metric":"cpu_used_percent"`) {
		t.Errorf("what it says to read back reads %s", stored)
	}
	code, stderr := stop()
	if last := waitFor(t, lines, time.Second, "^drained:"); code != 0 || !strings.HasSuffix(last, "left behind 0") {
		t.Errorf("exit %d, %q, %s", code, last, stderr)
	}
}

// With a config: hosts, one of them dead, rules of one's own, and a webhook that is
// told of an alert when it fires and when it is resolved.
func TestConfigAlertsAndWebhook(t *testing.T) {
	load := agent.NewStatic(map[string]agent.Value{
		"1.3.6.1.2.1.1.3.0":         agent.TimeTicks(1000),
		"1.3.6.1.4.1.2021.10.1.5.1": agent.Integer(900),
		"1.3.6.1.4.1.2021.11.67.0":  agent.Integer(2),
		"1.3.6.1.4.1.2021.4.5.0":    agent.Integer(1000),
		"1.3.6.1.4.1.2021.4.27.0":   agent.Counter64(400),
	})
	a, err := agent.Listen("127.0.0.1:0", agent.Config{Community: "s3cret", Values: load})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	told := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Status string `json:"status"`
			Alerts []struct {
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Alerts) == 0 {
			told <- fmt.Sprint("a bad body: ", err)
			return
		}
		told <- body.Status + " " + body.Alerts[0].Labels["alertname"] + " " + body.Alerts[0].Labels["host"]
	}))
	defer hook.Close()

	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("rules.yml", "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: Loaded, expr: load1 > 5, for: 1s}\n")
	t.Setenv("COMMUNITY", "s3cret")
	config := write("c.yml", fmt.Sprintf(`
interval: 1s
targets:
  - {host: web1, address: %q, auth: ours, labels: {rack: r7}}
  - {host: gone, address: "127.0.0.1:9"}
credentials: {ours: {version: 2c, community: $COMMUNITY}}
rules: [rules.yml]
webhook: {url: %q}
`, a.Addr().String(), hook.URL))

	lines, stop := program(t, "-config", config)
	waitFor(t, lines, 10*time.Second, `web1 up .*memory 60\.0%`)
	waitFor(t, lines, 15*time.Second, `gone down \((refused|timeout)\)`)
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("the webhook was told %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the webhook was not told %q", want)
		}
	}
	expect("firing Loaded web1")
	waitFor(t, lines, 5*time.Second, `"state":"firing"`)
	load.Set(map[string]agent.Value{"1.3.6.1.4.1.2021.10.1.5.1": agent.Integer(10)})
	expect("resolved Loaded web1")
	waitFor(t, lines, 5*time.Second, `"state":"resolved"`)
	code, stderr := stop()
	if code != 0 || strings.Contains(stderr, "s3cret") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// What a dead store left unread is lost with the process, and said so.
func TestWhatIsLostAtAStopIsCounted(t *testing.T) {
	cfg := &config{OpenTSDB: "http://127.0.0.1:9"}
	if err := cfg.check("", nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s, err := newStats(ctx, cfg, newScreen(io.Discard, false, nil), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.pipeline.DrainTimeout = 100 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- s.pipeline.Run(ctx) }()
	unread := 0
	for unread == 0 {
		all, _ := s.waiting()
		unread = all["store"]
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	err = <-ended
	all, _ := s.waiting()
	if want := fmt.Sprintf("left behind %d", all["store"]); err == nil || all["store"] < unread || !strings.HasSuffix(s.drained(), want) {
		t.Errorf("%v, %q, want %q", err, s.drained(), want)
	}
}

func TestDiagram(t *testing.T) {
	lines, stop := program(t, "-diagram")
	waitFor(t, lines, 5*time.Second, "^flowchart LR")
	waitFor(t, lines, 5*time.Second, `n2 -->\|"calculate: counter.Rates, derive.Values"\| n3`)
	if code, stderr := stop(); code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestWrongCommandLineAndConfig(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yml")
	badRules := filepath.Join(dir, "rules.yml")
	useRules := filepath.Join(dir, "use.yml")
	for name, text := range map[string]string{
		bad:      "interval: 5s\nno_such_key: 1\n",
		badRules: "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(\n",
		useRules: "rules: [rules.yml]\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-h"}, 0, "A config has any of these"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"extra"}, 2, `unexpected argument "extra"`},
		{[]string{"-config", bad}, 2, "bad.yml:2: field no_such_key is not known"},
		{[]string{"-config", filepath.Join(dir, "none.yml")}, 2, "none.yml"},
		{[]string{"-config", useRules}, 2, "rules.yml:5"},
	} {
		var stderr bytes.Buffer
		code := run(t.Context(), c.args, os.Stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%v: exit %d, want %d; %q lacks %q", c.args, code, c.code, stderr.String(), c.want)
		}
	}
}
