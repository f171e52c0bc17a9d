package snmp_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// newPoller makes a poller for agents that answer: it asks once, and waits until a machine
// that is busy with other things has had the time to answer. A test that is about answers
// that do not come says impatient.
func newPoller(tb testing.TB, change ...func(*snmp.Config)) *snmp.Poller {
	tb.Helper()
	cfg := snmp.Config{
		DefaultCredential: snmp.Credential{Community: "public"},
		Patience:          2 * time.Minute, Deadline: 2 * time.Minute, Timeout: 2 * time.Minute, Retries: -1,
	}
	for _, c := range change {
		c(&cfg)
	}
	p, err := snmp.NewPoller(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
		s := p.Stats()
		if s.Running != 0 || s.OnWire != 0 {
			tb.Errorf("after Close: %d polls, %d requests on the wire", s.Running, s.OnWire)
		}
		if got := s.Refused + s.Stale + s.Joined + s.Up + s.Down + s.Aborted; got != s.Jobs {
			tb.Errorf("the ledger does not balance: %+v", s)
		}
	})
	return p
}

func jobFor(a *agent) kemi.Job {
	return kemi.Job{Target: a.addr(), Resource: "web1", Interval: 10 * time.Minute, Scheduled: time.Now()}
}

// poll polls once and waits for the result.
func poll(tb testing.TB, p kemi.Transform[kemi.Job, kemi.Metric], jobs ...kemi.Job) metrics {
	tb.Helper()
	ms, err := p.Apply(tb.Context(), nil, jobs)
	if err != nil {
		tb.Fatal(err)
	}
	end := time.Now().Add(3 * time.Minute)
	for len(metrics(ms).named("up")) < len(jobs) && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
		if ms, err = p.(kemi.Ticker[kemi.Metric]).Tick(tb.Context(), ms, time.Now()); err != nil {
			tb.Fatal(err)
		}
	}
	return ms
}

type metrics []kemi.Metric

func (ms metrics) named(name string) metrics {
	return slices.DeleteFunc(slices.Clone(ms), func(m kemi.Metric) bool { return m.Name != name })
}

// value returns the number of the only metric with that name and labels (name and value
// by turns).
func (ms metrics) value(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	var found metrics
	for _, m := range ms.named(name) {
		ok := true
		for i := 0; i < len(labels); i += 2 {
			ok = ok && m.Labels.Get(labels[i]) == labels[i+1]
		}
		if ok {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		tb.Errorf("%d metrics %s%q, want one, of:\n%s", len(found), name, labels, ms)
		return -1
	}
	return found[0].Float()
}

func (ms metrics) reason() string {
	var rs []string
	for _, m := range ms.named("snmp_failure") {
		rs = append(rs, m.Labels.Get("reason"))
	}
	return strings.Join(rs, ",")
}

func (ms metrics) String() string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintln(&b, m)
	}
	return b.String()
}

// lines are the metrics without times and costs, sorted, for comparisons.
func (ms metrics) lines() []string {
	var ls []string
	for _, m := range ms {
		if !strings.HasPrefix(m.Name, "snmp_") {
			ls = append(ls, fmt.Sprintf("%s%s %d %v %s", m.Name, m.Labels, m.Uint(), m.Float(), m.Kind))
		}
	}
	slices.Sort(ls)
	return ls
}

const wantLinux = `
agent_uptime_seconds{} 123.45 gauge
context_switches{} 6 counter32
cpu_count{} 4 gauge
cpu_ticks{mode="idle"} 4000 counter32
cpu_ticks{mode="iowait"} 5000 counter32
cpu_ticks{mode="irq"} 6000 counter32
cpu_ticks{mode="nice"} 2000 counter32
cpu_ticks{mode="softirq"} 7000 counter32
cpu_ticks{mode="steal"} 8000 counter32
cpu_ticks{mode="system"} 3000 counter32
cpu_ticks{mode="user"} 1000 counter32
disk_busy_microseconds{device="sda"} 77 counter
disk_read_bytes{device="sda"} 1.099511627776e+12 counter
disk_reads{device="sda"} 30 counter32
disk_total_bytes{mount="/"} 4.096e+06 gauge
disk_total_bytes{mount="/data"} 1.2288e+13 gauge
disk_used_bytes{mount="/"} 1.024e+06 gauge
disk_used_bytes{mount="/data"} 28672 gauge
disk_writes{device="sda"} 40 counter32
disk_written_bytes{device="sda"} 2.199023255552e+12 counter
if_admin_up{ifindex="1", interface="lo"} 1 gauge
if_admin_up{ifindex="2", interface="eth0"} 1 gauge
if_admin_up{ifindex="3", interface="eth1"} 1 gauge
if_in_discards{ifindex="1", interface="lo"} 101 counter32
if_in_discards{ifindex="2", interface="eth0"} 201 counter32
if_in_discards{ifindex="3", interface="eth1"} 301 counter32
if_in_errors{ifindex="1", interface="lo"} 102 counter32
if_in_errors{ifindex="2", interface="eth0"} 202 counter32
if_in_errors{ifindex="3", interface="eth1"} 302 counter32
if_in_octets{ifindex="1", interface="lo"} 4.294967296e+11 counter
if_in_octets{ifindex="2", interface="eth0"} 8.589934592e+11 counter
if_in_octets{ifindex="3", interface="eth1"} 1.2884901888e+12 counter
if_out_discards{ifindex="1", interface="lo"} 104 counter32
if_out_discards{ifindex="2", interface="eth0"} 204 counter32
if_out_discards{ifindex="3", interface="eth1"} 304 counter32
if_out_errors{ifindex="1", interface="lo"} 105 counter32
if_out_errors{ifindex="2", interface="eth0"} 205 counter32
if_out_errors{ifindex="3", interface="eth1"} 305 counter32
if_out_octets{ifindex="1", interface="lo"} 4.33791696896e+11 counter
if_out_octets{ifindex="2", interface="eth0"} 8.63288426496e+11 counter
if_out_octets{ifindex="3", interface="eth1"} 1.292785156096e+12 counter
if_speed_bits{ifindex="1", interface="lo"} 1e+07 gauge
if_speed_bits{ifindex="2", interface="eth0"} 1e+10 gauge
if_speed_bits{ifindex="3", interface="eth1"} 1e+09 gauge
if_up{ifindex="1", interface="lo"} 0 gauge
if_up{ifindex="2", interface="eth0"} 1 gauge
if_up{ifindex="3", interface="eth1"} 0 gauge
interrupts{} 5 counter32
load15{} 0.25 gauge
load1{} 1.5 gauge
load5{} 0.75 gauge
memory_available_bytes{} 9.216e+06 gauge
memory_buffers_bytes{} 512000 gauge
memory_cached_bytes{} 6.144e+06 gauge
memory_free_bytes{} 4.096e+06 gauge
memory_shared_bytes{} 10240 gauge
memory_total_bytes{} 1.6384e+07 gauge
processes{} 180 gauge
swap_free_bytes{} 1.048576e+06 gauge
swap_in_pages{} 7 counter32
swap_out_pages{} 8 counter32
swap_total_bytes{} 2.097152e+06 gauge
tcp_established{} 7 gauge
tcp_in_segments{} 1000 counter32
tcp_out_segments{} 2000 counter32
tcp_retransmitted_segments{} 3 counter32
up{} 1 gauge
uptime_seconds{} 86400 gauge
users{} 2 gauge
`

func TestLinuxHost(t *testing.T) {
	a := newAgent(t).linux()
	p := newPoller(t)
	job := jobFor(a)
	job.Service, job.Labels, job.Profiles = "shop", kemi.LabelsOf("rack", "r7"), []string{"linux"}
	before := time.Now()
	first := poll(t, p, job)
	var got []string
	for _, m := range first {
		if m.Labels.Get("host") != "web1" || m.Labels.Get("service") != "shop" || m.Labels.Get("rack") != "r7" {
			t.Errorf("%s lacks a label of the job", m)
		}
		if m.Time != first[0].Time || m.Time.Location() != time.UTC || m.Time != m.Time.Round(0) || m.Time.Before(before.Round(0)) || time.Since(m.Time) > time.Minute {
			t.Errorf("the time of %s is wrong", m)
		}
		if !strings.HasPrefix(m.Name, "snmp_") {
			got = append(got, fmt.Sprintf("%s%s %v %s", m.Name, m.Labels.Without("host", "service", "rack"), m.Float(), m.Kind))
		}
	}
	slices.Sort(got)
	want := strings.Split(strings.TrimSpace(wantLinux), "\n")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := first.value(t, "snmp_complete_ratio"); r != 1 || first.reason() != "" {
		t.Errorf("complete ratio %v, failure %q", r, first.reason())
	}

	// From then on the known rows are read, with three requests, and nothing is lost.
	asked := a.requests.Load()
	second := poll(t, p, job)
	if !slices.Equal(first.lines(), second.lines()) {
		t.Errorf("the second poll differs:\n%s\nfrom the first:\n%s", second, first)
	}
	if n := a.requests.Load() - asked; n > 3 || float64(n) != second.value(t, "snmp_pdus") {
		t.Errorf("the second poll took %d requests and said %v, want at most 3", n, second.value(t, "snmp_pdus"))
	}
	for _, m := range first {
		if m.Name == "if_in_octets" && m.Uint()%(1<<32) != 0 {
			t.Errorf("%s lost bits", m)
		}
	}
}

// What the doc comment of Linux lists is what comes, with its kind and its labels.
func TestTheMetricsThatLinuxLists(t *testing.T) {
	source, err := os.ReadFile("linux.go")
	if err != nil {
		t.Fatal(err)
	}
	type entry struct{ kind, about string }
	listed := map[string]entry{}
	for _, m := range regexp.MustCompile(`(?m)^//\t([a-z0-9_, ]+?) +(gauge|counter32|counter)\b(.*)$`).FindAllStringSubmatch(string(source), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			listed[name] = entry{m[2], m[3]}
		}
	}
	came := map[string]bool{}
	for _, m := range poll(t, newPoller(t), jobFor(newAgent(t).linux())) {
		if m.Name == "up" || m.Name == "agent_uptime_seconds" || strings.HasPrefix(m.Name, "snmp_") {
			continue // of every profile
		}
		came[m.Name] = true
		e := listed[m.Name]
		if m.Kind.String() != e.kind {
			t.Errorf("%s is a %s and listed as %q", m, m.Kind, e.kind)
		}
		for label := range m.Labels.All() {
			if label != "host" && !strings.Contains(e.about, label) {
				t.Errorf("%s is listed without its label %s", m, label)
			}
		}
	}
	for name := range listed {
		if !came[name] {
			t.Errorf("%s is listed and did not come", name)
		}
	}
}

func TestAnOldAgentWithoutTheNewObjects(t *testing.T) {
	a := newAgent(t).linux()
	for _, oid := range []string{"1.3.6.1.4.1.2021.4.20", "1.3.6.1.4.1.2021.4.21", "1.3.6.1.4.1.2021.4.27", "1.3.6.1.2.1.31", "1.3.6.1.4.1.2021.13.15.1.1.12", "1.3.6.1.4.1.2021.13.15.1.1.13"} {
		a.remove(oid)
	}
	p := newPoller(t)
	for range 2 {
		ms := poll(t, p, jobFor(a))
		if v := ms.value(t, "memory_total_bytes"); v != 16000*1024 {
			t.Errorf("memory_total_bytes is %v", v)
		}
		if v := ms.value(t, "memory_available_bytes"); v != (4000+500+6000)*1024 {
			t.Errorf("memory_available_bytes is %v, want free + buffers + cached", v)
		}
		in := ms.named("if_in_octets")
		if len(in) != 3 || in[1].Kind != kemi.KindCounter32 || in[1].Uint() != 200 || in[1].Labels.Get("interface") != "descr of eth0" {
			t.Errorf("if_in_octets without ifXTable: %s", in)
		}
		if v := ms.named("disk_read_bytes"); len(v) != 1 || v[0].Kind != kemi.KindCounter32 {
			t.Errorf("disk_read_bytes of 32 bits: %s", v)
		}
		if ms.reason() != "" || ms.value(t, "snmp_complete_ratio") != 1 {
			t.Errorf("an object that is not there is an answer: %s", ms)
		}
	}
}

func TestAnAgentThatHasNotMeasuredYet(t *testing.T) {
	a := newAgent(t).linux()
	for _, n := range []int{50, 51, 52, 53, 54, 56, 59, 60, 61, 62, 63, 64} {
		a.set(fmt.Sprint("1.3.6.1.4.1.2021.11.", n, ".0"), c32(0))
	}
	ms := poll(t, newPoller(t), jobFor(a))
	for _, name := range []string{"cpu_ticks", "interrupts", "context_switches", "swap_in_pages"} {
		if got := ms.named(name); len(got) != 0 {
			t.Errorf("zeros that are no measurement came out: %s", got)
		}
	}
}

func TestNamesOfRows(t *testing.T) {
	a := newAgent(t).linux()
	a.iface(4, "eth1", 1000, 0)                              // a second one of this name
	a.iface(5, "Intel NIC\x00", 1000, 0)                     // as Windows ends its texts
	a.iface(6, "b\xffd\n\x07", 1000, 0)                      // no UTF-8
	a.iface(7, strings.Repeat("long \u00e9", 3000), 1000, 0) // 21,000 bytes
	p := newPoller(t)
	for range 2 {
		ms := poll(t, p, jobFor(a))
		var names []string
		for _, m := range ms.named("if_up") {
			n := m.Labels.Get("interface")
			if len(n) > 255 {
				if len(n) > 255+2 { // "#7" is not cut
					t.Errorf("a label of %d bytes", len(n))
				}
			}
			names = append(names, n[:min(len(n), 12)])
		}
		want := []string{"lo", "eth0", "eth1#3", "eth1#4", "Intel NIC", "b\uFFFDd", "long \u00e9long "[:12]}
		if !slices.Equal(names, want) {
			t.Errorf("interfaces %q, want %q", names, want)
		}
	}
	if s := p.Stats(); s.Cut == 0 {
		t.Errorf("a long text was cut and not counted: %+v", s)
	}
}

func TestProfilesOfOnesOwn(t *testing.T) {
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1), "1.3.6.1.4.1.99999.1.0", -5, "1.3.6.1.4.1.99999.2.1.7.8", "x", "1.3.6.1.4.1.99999.2.2.7.8", uint64(9))
	p := newPoller(t, func(c *snmp.Config) {
		c.Profiles = []snmp.Profile{{
			Name:    "ours",
			Scalars: []snmp.Scalar{{Name: "celsius", OIDs: []string{".1.3.6.1.4.1.99999.1.0"}, Scale: 0.1, Labels: []kemi.Label{{Name: "at", Value: "inlet"}}}},
			Tables: []snmp.Table{{
				Columns:    []snmp.Column{{OID: "1.3.6.1.4.1.99999.2.1"}, {OID: "1.3.6.1.4.1.99999.2.2"}},
				Label:      "pool",
				IndexLabel: "index",
				Identity:   func(r *snmp.Row) string { return r.At(0).Text() },
				Metrics:    func(r *snmp.Row) { r.Counter("hits", r.At(1)) },
			}},
		}}
	})
	ms := poll(t, p, jobFor(a))
	if v := ms.value(t, "celsius", "at", "inlet"); v != -0.5 {
		t.Errorf("celsius is %v", v)
	}
	if v := ms.value(t, "hits", "pool", "x", "index", "7.8"); v != 9 {
		t.Errorf("hits is %v", v)
	}
}
