package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kemi-go/kemi/internal/agent"
	"github.com/kemi-go/kemi/internal/faketsd"
)

// The program itself, when a test has started it as a process. The tests wait for the
// clock most of the time, and so can do it together.
func TestMain(m *testing.M) {
	if os.Getenv("STATS_CHILD") != "" {
		main()
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// outside is all that the program talks to: a host, a store, and people.
type outside struct {
	*testing.T
	config string
	host   *agent.Agent
	values *agent.Static
	store  *faketsd.Server

	mu     sync.Mutex
	served []time.Time  // when the host was polled; its load is the number of the poll, from 1
	still  int          // so many polls were served before it was to answer no more; 0: it answers
	safe   int          // so many of them were seen to be stored, or known to be late
	cut    map[int]bool // polls that may have been under way when a program was stopped or killed
	posts  []string     // their IDs
	told   []string     // to people: state and when it began
}

// OIDs of the host.
const (
	sysUpTime = "1.3.6.1.2.1.1.3.0"
	users     = "1.3.6.1.2.1.25.1.5.0"
	load1     = "1.3.6.1.4.1.2021.10.1.5.1"
)

// newOutside starts everything outside. The host has the load 1 at its first poll, 2
// at the second and so on, and of every 100 ticks that its CPU makes from poll to poll
// it works in 30, which makes 30 % only for who remembers the poll before. Its 10
// users are an alert.
func newOutside(t *testing.T, kafka string) *outside {
	t.Helper()
	o := &outside{T: t, cut: map[int]bool{}, values: agent.NewStatic(map[string]agent.Value{users: agent.Gauge32(10)})}
	began := time.Now()
	next := func(poll int) {
		now := map[string]agent.Value{
			load1:     agent.Integer(int32(100 * poll)),
			sysUpTime: agent.TimeTicks(1_000_000 + uint32(time.Since(began)/(10*time.Millisecond))),
		}
		for mode, share := range map[string]int{"50": 20, "51": 0, "52": 10, "53": 70, "54": 0, "56": 0, "61": 0, "64": 0} {
			now["1.3.6.1.4.1.2021.11."+mode+".0"] = agent.Counter32(uint32(1000 + poll*share))
		}
		o.values.Set(now)
	}
	next(1)
	seen := func(r agent.Request) { // when its answer has been made
		o.mu.Lock()
		defer o.mu.Unlock()
		if slices.Contains(r.OIDs, load1) {
			o.served = append(o.served, time.Now())
			next(len(o.served) + 1)
		}
	}
	var err error
	if o.host, err = agent.Listen("127.0.0.1:0", agent.Config{Values: o.values, Seen: seen}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.host.Close() })
	if o.store, err = faketsd.Start(faketsd.Config{AutoCreateMetrics: true, FixDuplicates: true, FlushInterval: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.store.Close)
	people := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Alerts []struct {
				Status   string    `json:"status"`
				StartsAt time.Time `json:"startsAt"`
			} `json:"alerts"`
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if id := r.Header.Get("Webhook-Id"); !slices.Contains(o.posts, id) {
			o.posts = append(o.posts, id)
		} else {
			return // said to be one that came before, as it was not known to have come
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			o.told = append(o.told, "not understood: "+err.Error())
		}
		for _, a := range body.Alerts {
			o.told = append(o.told, a.Status+" since "+a.StartsAt.Format(time.TimeOnly))
		}
	}))
	t.Cleanup(people.Close)

	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("rules.yml", "groups:\n- name: g\n  interval: 1s\n  rules:\n  - {alert: Crowded, expr: users > 5, for: 1s}\n")
	// The turn of a host of this name is early in a second, so that no two of its polls
	// fall into one, which a store of seconds would take for one.
	o.config = write("c.yml", fmt.Sprintf(`
interval: 1s
targets: [{host: %s, address: %q}]
rules: [rules.yml]
opentsdb: %s
webhook: {url: %q}
%s`, hostName, o.host.Addr(), o.store.URL(), people.URL, kafka))
	return o
}

const hostName = "web14"

// program is a run of the program, in this process or one of its own.
type program struct {
	stop   func() // softly
	kill   func() // a process only
	ended  chan int
	stderr *inTurn       // around text
	text   *bytes.Buffer // what it said
}

func (o *outside) start(args ...string) *program {
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{stop: cancel, ended: make(chan int, 1), text: &bytes.Buffer{}}
	p.stderr = &inTurn{w: p.text}
	go func() {
		p.ended <- run(ctx, append(args, "-config", o.config, "-status", "1s"), &bytes.Buffer{}, p.stderr)
	}()
	o.Cleanup(cancel)
	return p
}

func (o *outside) startProcess(args ...string) *program {
	o.Helper()
	cmd := exec.Command(os.Args[0], append(args, "-config", o.config, "-status", "1s")...)
	cmd.Env = append(os.Environ(), "STATS_CHILD=1")
	p := &program{ended: make(chan int, 1), text: &bytes.Buffer{}}
	p.stderr = &inTurn{w: p.text}
	cmd.Stderr = p.stderr
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	p.stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM) }
	p.kill = func() { _ = cmd.Process.Kill() }
	go func() {
		_ = cmd.Wait()
		p.ended <- cmd.ProcessState.ExitCode()
	}()
	o.Cleanup(p.kill)
	return p
}

func (p *program) said() string {
	p.stderr.mu.Lock()
	defer p.stderr.mu.Unlock()
	return p.text.String()
}

// says returns what tells whether the program has said something.
func (p *program) says(pattern string) func() bool {
	re := regexp.MustCompile(pattern)
	return func() bool { return re.MatchString(p.said()) }
}

// count is how many records a flow had done at the last status.
func (p *program) count(flow string) int {
	all := regexp.MustCompile(`(?m)^  `+flow+` +(\d+) records`).FindAllStringSubmatch(p.said(), -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(all[len(all)-1][1])
	return n
}

// statuses is how many there were.
func (p *program) statuses() int { return strings.Count(p.said(), "how the flows are doing") }

// end stops the program and gives the last line it said.
func (o *outside) end(p *program) string {
	o.Helper()
	p.stop()
	if code := <-p.ended; code != 0 {
		o.Fatalf("exit %d:\n%s", code, p.said())
	}
	lines := strings.Split(strings.TrimSpace(p.said()), "\n")
	return lines[len(lines)-1]
}

// patience is more than anything here takes on a busy machine: only a hang comes to it.
const patience = 2 * time.Minute

// until waits for something to become true.
func (o *outside) until(p *program, what string, true func() bool) {
	o.Helper()
	for end := time.Now().Add(patience); !true(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			o.Fatalf("not within %s: %s\nserved %d, stored %v, told %q\n%s", patience, what, o.polls(), o.loads(), o.people(), p.said())
		}
	}
}

func (o *outside) polls() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.served)
}

func (o *outside) people() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.told)
}

// series is what is stored of a metric, by second.
func (o *outside) series(metric string) map[int64]float64 {
	all := map[int64]float64{}
	for _, p := range o.store.Stored() {
		if p.Metric == metric {
			v, err := strconv.ParseFloat(p.Value, 64)
			if err != nil {
				o.Fatal(err)
			}
			all[p.Timestamp] = v
		}
	}
	return all
}

// loads is what is stored of the load, in order of time.
func (o *outside) loads() []int {
	byTime := o.series("load1")
	loads := make([]int, 0, len(byTime))
	for _, at := range slices.Sorted(maps.Keys(byTime)) {
		loads = append(loads, int(byTime[at]))
	}
	return loads
}

// rightly checks what is stored: each poll at its time, and everywhere but at the first
// the 30 % that it takes the poll before to know.
func (o *outside) rightly(p *program) {
	o.Helper()
	stored := o.loads()
	if !slices.IsSorted(stored) || len(slices.Compact(slices.Clone(stored))) != len(stored) || stored[len(stored)-1] > o.polls() {
		o.Errorf("of %d polls these are stored, by time: %v", o.polls(), stored)
	}
	if missing := o.missing(); len(missing) > 0 {
		o.Errorf("of %d polls these are not stored, and nothing excuses them: %v, but %v\n%s", o.polls(), missing, stored, p.said())
	}
	cpu := o.series("cpu_used_percent")
	firsts := len(stored) - len(cpu)
	if firsts != 1 && (firsts != 0 || stored[0] == 1) { // 0: the first fell into one second with the next
		o.Errorf("of %d polls in a row %d know their CPU, want all but the first\n%s", len(stored), len(cpu), p.said())
	}
	for at, v := range cpu {
		if math.Abs(v-30) > 1e-9 {
			o.Errorf("cpu_used_percent at %d is stored as %v, want 30", at, v)
		}
	}
}

// missing are the polls that were served and are not stored, and ought to be.
//
// Nobody stores those that were cut off, or that came when the host was to be silent.
// On a busy machine there are others: an answer may come too late, and then the host is
// asked again or said to be down, or so late that it falls into one second with the
// next, which a store of seconds takes for one. A poll ends half a second after it began,
// and begins a fifth of a second into its own: on an idle machine no poll is excused.
func (o *outside) missing() (polls []int) {
	stored, up := o.loads(), o.series("up")
	o.mu.Lock()
	defer o.mu.Unlock()
	last := len(o.served)
	if o.still > 0 {
		last = o.still
	}
	for n := 1; n <= last; n++ {
		if slices.Contains(stored, n) || o.cut[n] {
			continue
		}
		at := o.served[n-1]
		soon := n < len(o.served) && o.served[n].Unix() <= at.Add(600*time.Millisecond).Unix()
		down := false // the time of that is when the poll began
		for began := at.Unix() - 1; began <= at.Unix(); began++ {
			v, is := up[began]
			down = down || is && v == 0
		}
		if !soon && !down {
			polls = append(polls, n)
		}
	}
	return polls
}

// settled waits until all that was served is stored, and the next poll is half a second
// away. What is served from then on may be under way when the program is stopped.
func (o *outside) settled(p *program) {
	o.Helper()
	o.until(p, "what was served is stored", func() bool {
		o.mu.Lock()
		served, near := len(o.served), false
		if o.still == 0 && served > 0 {
			near = time.Since(o.served[served-1]) > time.Second/2
		}
		o.mu.Unlock()
		if near || len(o.missing()) > 0 {
			return false
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.safe = served
		return true
	})
}

// broken says that a program that polled has ended, and with it the polls since settled.
func (o *outside) broken() {
	o.Helper()
	o.heard()
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := o.safe + 1; n <= len(o.served); n++ {
		o.cut[n] = true
	}
}

// heard waits until the host has answered all it was asked: it answers one after the other.
func (o *outside) heard() {
	o.Helper()
	conn, err := net.Dial("udp", o.host.Addr().String())
	if err != nil {
		o.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	uptime := "\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x03\x00\x05\x00"
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := conn.Write([]byte(uptime)); err != nil {
			o.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		if n, _ := conn.Read(make([]byte, 1500)); n > 0 {
			return
		}
	}
	o.Fatal("the host does not answer")
}

// silence makes the host answer no more, but for what it is answering now.
func (o *outside) silence() {
	o.mu.Lock()
	o.still = len(o.served)
	o.mu.Unlock()
	o.host.SetFaults(agent.Faults{Drop: 1}) // what comes before that is answered, and not counted
}

// The values of the host are those in the store, and people are told of an alert when
// it fires and when it is resolved. Nothing is left behind.
func TestMemory(t *testing.T) {
	t.Parallel()
	o := newOutside(t, "")
	p := o.start()
	o.until(p, "firing", func() bool { return len(o.people()) > 0 })
	o.values.Set(map[string]agent.Value{users: agent.Gauge32(1)})
	o.until(p, "resolved", func() bool { return len(o.people()) > 1 })
	o.silence()
	o.settled(p)
	o.until(p, "a status", p.says(`calculator .* lag 0`))
	if last := o.end(p); !strings.HasSuffix(last, "left behind 0") {
		t.Errorf("it ended with %q", last)
	}
	o.rightly(p)
	o.toldOnce()
}

// toldOnce checks that people heard of one alert, once when it fired and once when it
// was resolved.
func (o *outside) toldOnce() {
	o.Helper()
	told := o.people()
	if len(told) != 2 || !strings.HasPrefix(told[0], "firing") || told[1] != strings.Replace(told[0], "firing", "resolved", 1) {
		o.Errorf("people were told %q", told)
	}
}
