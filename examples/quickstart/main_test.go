package main

import (
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
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/examples/internal/site"
	"github.com/kemi-go/kemi/internal/agent"
)

// patience is more than anything here takes on a busy machine: only a hang comes to it.
// That the first values are there within ten seconds is held by .ci/run, on an idle one.
const patience = 2 * time.Minute

// program is a run of the quickstart, and what it has said.
type program struct {
	*testing.T
	cancel         context.CancelFunc
	code           chan int
	stdout, stderr text
}

// text is written by many goroutines, and read meanwhile.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	p := &program{T: t, cancel: cancel, code: make(chan int, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer r.Close()
		_, _ = io.Copy(&p.stdout, r)
	}()
	go func() {
		code := run(ctx, args, w, &p.stderr)
		w.Close()
		<-read
		p.code <- code
	}()
	return p
}

// stop stops the program and gives its exit code, and the last line it said.
func (p *program) stop() (code int, last string) {
	p.cancel()
	code = <-p.code
	lines := strings.Split(strings.TrimSpace(p.stdout.String()), "\n")
	return code, lines[len(lines)-1]
}

// says waits until the program has said a line like that, and gives it.
func (p *program) says(pattern string) string {
	p.Helper()
	re := regexp.MustCompile("(?m)^.*(?:" + pattern + ").*$")
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if l := re.FindString(p.stdout.String()); l != "" {
			return l
		}
		if time.Now().After(end) {
			p.Fatalf("no %q within %s:\n%s%s", pattern, patience, p.stdout.String(), p.stderr.String())
		}
	}
}

// Without a config: values of this machine, stored where the program says, and a drain
// that leaves nothing behind.
func TestThisMachineAtFirstSight(t *testing.T) {
	p := start(t)
	curl := p.says(`curl '`)
	p.says(` up  cpu +[0-9.]+%  memory [0-9.]+%`)
	url, _, _ := strings.Cut(strings.SplitN(curl, "'", 2)[1], "'")
	var stored string
	// The store takes a moment longer than the screen.
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if stored = string(b); strings.Contains(stored, `"dps":{"`) {
			break
		}
	}
	if !strings.Contains(stored, `"metric":"cpu_used_percent"`) {
		t.Errorf("what it says to read back reads %s", stored)
	}
	if code, last := p.stop(); code != 0 || !strings.HasPrefix(last, "drained:") || !strings.HasSuffix(last, "left behind 0") {
		t.Errorf("exit %d, %q, %s", code, last, p.stderr.String())
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
	var posts sync.Map // that came, by ID
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Status string `json:"status"`
			Alerts []struct {
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if _, again := posts.LoadOrStore(r.Header.Get("Webhook-Id"), true); again {
			return // it was not known to have come
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

	p := start(t, "-config", config)
	p.says(`web1 up .*memory 60\.0%`)
	p.says(`gone down \((refused|timeout)\)`)
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("the webhook was told %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("the webhook was not told %q", want)
		}
	}
	expect("firing Loaded web1")
	p.says(`"state":"firing"`)
	load.Set(map[string]agent.Value{"1.3.6.1.4.1.2021.10.1.5.1": agent.Integer(10)})
	expect("resolved Loaded web1")
	p.says(`"state":"resolved"`)
	if code, _ := p.stop(); code != 0 || strings.Contains(p.stderr.String(), "s3cret") {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
}

// What a dead store left unread is lost with the process, and said so.
func TestWhatIsLostAtAStopIsCounted(t *testing.T) {
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer dead.Close()
	cfg := &site.Site{OpenTSDB: dead.URL}
	if err := site.Load("", cfg); err != nil {
		t.Fatal(err)
	}
	defer cfg.Close()
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
	lost := 0
	for _, n := range all { // on a busy machine the others are not through in that time either
		lost += n
	}
	if want := fmt.Sprintf("left behind %d", lost); err == nil || all["store"] < unread || !strings.HasSuffix(s.drained(), want) {
		t.Errorf("%v, %q, want %q", err, s.drained(), want)
	}
}

func TestDiagram(t *testing.T) {
	p := start(t, "-diagram")
	if code := <-p.code; code != 0 {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	out := p.stdout.String()
	if !strings.HasPrefix(out, "flowchart LR\n") || !strings.Contains(out, `n2 -->|"calculate: counter.Rates, derive.Values"| n3`) {
		t.Errorf("it printed\n%s", out)
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
		var stderr text
		code := run(t.Context(), c.args, os.Stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%v: exit %d, want %d; %q lacks %q", c.args, code, c.code, stderr.String(), c.want)
		}
	}
}
