//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// credentialOf is each user of the agent as a job's credential.
var credentialOf = map[string]snmp.Credential{
	"v2c": {Community: "public"},
	"sha256-aes": {
		Version: snmp.V3, User: "u256", AuthProtocol: snmp.SHA256, AuthPassphrase: authPass,
		PrivProtocol: snmp.AES, PrivPassphrase: privPass,
	},
	"sha512-aes256": {
		Version: snmp.V3, User: "u512", AuthProtocol: snmp.SHA512, AuthPassphrase: authPass,
		PrivProtocol: snmp.AES256, PrivPassphrase: privPass,
	},
	"wrong-auth": {
		Version: snmp.V3, User: "u256", AuthProtocol: snmp.SHA256, AuthPassphrase: "not the one",
		PrivProtocol: snmp.AES, PrivPassphrase: privPass,
	},
	"unknown-user": {
		Version: snmp.V3, User: "nobody", AuthProtocol: snmp.SHA256, AuthPassphrase: authPass,
		PrivProtocol: snmp.AES, PrivPassphrase: privPass,
	},
	"wrong-community": {Community: "not the one"},
}

func newPoller(t *testing.T) *snmp.Poller {
	t.Helper()
	p, err := snmp.NewPoller(snmp.Config{Credentials: credentialOf, Patience: 8 * time.Second, Deadline: 8 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func pollOnce(t *testing.T, p *snmp.Poller, addr, user string) []kemi.Metric {
	t.Helper()
	now := time.Now().UTC()
	job := kemi.Job{
		Target: addr, Resource: "box", Profiles: []string{"linux"}, Auth: user,
		Scheduled: now, Interval: time.Minute, Deadline: now.Add(time.Minute),
	}
	ms, err := p.Fork().Apply(context.Background(), nil, []kemi.Job{job})
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func find(ms []kemi.Metric, name string) (kemi.Metric, bool) {
	for _, m := range ms {
		if m.Name == name {
			return m, true
		}
	}
	return kemi.Metric{}, false
}

const (
	ucd  = ".1.3.6.1.4.1.2021."
	mib2 = ".1.3.6.1.2.1."
)

// oracle is what snmpget is asked for a metric, and what its number is multiplied by.
type oracle struct {
	oid   string
	scale float64
	is    string // not a number: 1 if the value is this
}

var scalarOracles = map[string]oracle{
	"agent_uptime_seconds":       {mib2 + "1.3.0", 0.01, ""},
	"uptime_seconds":             {mib2 + "25.1.1.0", 0.01, ""},
	"users":                      {mib2 + "25.1.5.0", 1, ""},
	"processes":                  {mib2 + "25.1.6.0", 1, ""},
	"tcp_established":            {mib2 + "6.9.0", 1, ""},
	"tcp_in_segments":            {mib2 + "6.10.0", 1, ""},
	"tcp_out_segments":           {mib2 + "6.11.0", 1, ""},
	"tcp_retransmitted_segments": {mib2 + "6.12.0", 1, ""},
	`cpu_ticks{mode="user"}`:     {ucd + "11.50.0", 1, ""},
	`cpu_ticks{mode="nice"}`:     {ucd + "11.51.0", 1, ""},
	`cpu_ticks{mode="system"}`:   {ucd + "11.52.0", 1, ""},
	`cpu_ticks{mode="idle"}`:     {ucd + "11.53.0", 1, ""},
	`cpu_ticks{mode="iowait"}`:   {ucd + "11.54.0", 1, ""},
	`cpu_ticks{mode="irq"}`:      {ucd + "11.56.0", 1, ""},
	`cpu_ticks{mode="softirq"}`:  {ucd + "11.61.0", 1, ""},
	`cpu_ticks{mode="steal"}`:    {ucd + "11.64.0", 1, ""},
	"cpu_count":                  {ucd + "11.67.0", 1, ""},
	"interrupts":                 {ucd + "11.59.0", 1, ""},
	"context_switches":           {ucd + "11.60.0", 1, ""},
	"swap_in_pages":              {ucd + "11.62.0", 1, ""},
	"swap_out_pages":             {ucd + "11.63.0", 1, ""},
	"load1":                      {ucd + "10.1.5.1", 0.01, ""},
	"load5":                      {ucd + "10.1.5.2", 0.01, ""},
	"load15":                     {ucd + "10.1.5.3", 0.01, ""},
	"memory_total_bytes":         {ucd + "4.5.0", 1024, ""},
	"memory_free_bytes":          {ucd + "4.6.0", 1024, ""},
	"memory_shared_bytes":        {ucd + "4.13.0", 1024, ""},
	"memory_buffers_bytes":       {ucd + "4.14.0", 1024, ""},
	"memory_cached_bytes":        {ucd + "4.15.0", 1024, ""},
	"memory_available_bytes":     {ucd + "4.27.0", 1024, ""},
	"swap_total_bytes":           {ucd + "4.3.0", 1024, ""},
	"swap_free_bytes":            {ucd + "4.4.0", 1024, ""},
}

// rowOracles are the columns; the index of the row is appended.
var rowOracles = map[string]oracle{
	"if_in_octets":           {mib2 + "31.1.1.1.6", 1, ""},
	"if_out_octets":          {mib2 + "31.1.1.1.10", 1, ""},
	"if_in_discards":         {mib2 + "2.2.1.13", 1, ""},
	"if_in_errors":           {mib2 + "2.2.1.14", 1, ""},
	"if_out_discards":        {mib2 + "2.2.1.19", 1, ""},
	"if_out_errors":          {mib2 + "2.2.1.20", 1, ""},
	"if_admin_up":            {mib2 + "2.2.1.7", 1, "1"},
	"if_up":                  {mib2 + "2.2.1.8", 1, "1"},
	"if_speed_bits":          {mib2 + "2.2.1.5", 1, ""},
	"disk_reads":             {ucd + "13.15.1.1.5", 1, ""},
	"disk_writes":            {ucd + "13.15.1.1.6", 1, ""},
	"disk_read_bytes":        {ucd + "13.15.1.1.12", 1, ""},
	"disk_written_bytes":     {ucd + "13.15.1.1.13", 1, ""},
	"disk_busy_microseconds": {ucd + "13.15.1.1.14", 1, ""},
	"disk_total_bytes":       {mib2 + "25.2.3.1.5", 0, ""}, // scale: the units of the row
	"disk_used_bytes":        {mib2 + "25.2.3.1.6", 0, ""},
}

// What the poller says of itself has no object.
var ownMetrics = map[string]bool{
	"up": true, "snmp_complete_ratio": true, "snmp_poll_seconds": true, "snmp_rtt_seconds": true, "snmp_pdus": true, "snmp_retries": true,
}

// passing tells that a metric is of a file system that another test may have mounted.
func passing(m kemi.Metric) bool {
	return strings.HasPrefix(m.Labels.Get("mount"), filepath.Clean(os.TempDir())+"/")
}

// oracleOf finds what to ask snmpget for a metric.
func (s *snmpd) oracleOf(user string, m kemi.Metric) (oracle, error) {
	name := m.Name
	if mode := m.Labels.Get("mode"); mode != "" {
		name = fmt.Sprintf("%s{mode=%q}", name, mode)
	}
	if o, ok := scalarOracles[name]; ok {
		return o, nil
	}
	o, ok := rowOracles[m.Name]
	if !ok {
		return o, fmt.Errorf("no object is known for %s", m)
	}
	switch {
	case m.Labels.Get("ifindex") != "":
		o.oid += "." + m.Labels.Get("ifindex")
	case m.Labels.Get("device") != "":
		i, err := s.indexOf(user, ucd+"13.15.1.1.2", m.Labels.Get("device"))
		if err != nil {
			return o, err
		}
		o.oid += "." + i
	default:
		i, err := s.indexOf(user, mib2+"25.2.3.1.3", m.Labels.Get("mount"))
		if err != nil {
			return o, err
		}
		units, err := s.value(user, mib2+"25.2.3.1.4."+i)
		if err != nil {
			return o, err
		}
		if o.scale, err = strconv.ParseFloat(units, 64); err != nil {
			return o, err
		}
		o.oid += "." + i
	}
	return o, nil
}

// read is the number snmpget gives.
func (s *snmpd) read(user string, o oracle) (float64, error) {
	text, err := s.value(user, o.oid)
	if err != nil {
		return 0, err
	}
	if o.is != "" {
		if text == o.is {
			return 1, nil
		}
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("snmpget %s: %q is no number", o.oid, text)
	}
	return v * o.scale, nil
}

// indexOf finds the row of a table by the text in one of its columns.
func (s *snmpd) indexOf(user, column, text string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := append([]string{"-On", "-Oqe"}, snmpUsers[user]...)
	out, err := run(ctx, s.walk, append(args, s.addr, column)...)
	if err != nil {
		return "", fmt.Errorf("snmpwalk: %w: %s", err, out)
	}
	for line := range strings.Lines(out) {
		oid, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Trim(value, `"`) == text {
			return strings.TrimPrefix(oid, column+"."), nil
		}
	}
	return "", fmt.Errorf("no row of %s says %q", column, text)
}

// Every value of a poll lies between what snmpget says before and after it, for each
// way of being let in. What stands still is equal; what moves may move by a little
// beyond, because the agent keeps its numbers for some seconds.
func TestEveryValueIsWhatSnmpgetSays(t *testing.T) {
	s := startSnmpd(t)
	p := newPoller(t)
	for user := range snmpUsers {
		t.Run(user, func(t *testing.T) {
			first := pollOnce(t, p, s.addr, user) // tells which series there are
			before := map[kemi.Labels]map[string]float64{}
			asked := map[kemi.Labels]map[string]oracle{}
			for _, m := range first {
				if ownMetrics[m.Name] || passing(m) {
					continue
				}
				o, err := s.oracleOf(user, m)
				if err != nil {
					t.Fatal(err)
				}
				if asked[m.Labels] == nil {
					asked[m.Labels], before[m.Labels] = map[string]oracle{}, map[string]float64{}
				}
				asked[m.Labels][m.Name] = o
				if before[m.Labels][m.Name], err = s.read(user, o); err != nil {
					t.Fatal(err)
				}
			}
			polled := pollOnce(t, p, s.addr, user)
			compared := 0
			// again looks at what has gone up and down meanwhile: on a machine that does other
			// things too, what is free and how many there are may lie on neither side.
			again := func(m kemi.Metric, o oracle) bool {
				for range 30 {
					before, err1 := s.read(user, o)
					var v float64
					for _, is := range pollOnce(t, p, s.addr, user) {
						if is.Name == m.Name && is.Labels == m.Labels {
							v = is.Float()
						}
					}
					after, err2 := s.read(user, o)
					if err := errors.Join(err1, err2); err != nil {
						t.Fatal(err)
					}
					if v >= min(before, after)-1e-6 && v <= max(before, after)+1e-6 {
						return true
					}
				}
				return false
			}
			for _, m := range polled {
				if ownMetrics[m.Name] || passing(m) {
					continue
				}
				o, ok := asked[m.Labels][m.Name]
				if !ok {
					t.Errorf("a series came with the second poll: %s", m)
					continue
				}
				after, err := s.read(user, o)
				if err != nil {
					t.Fatal(err)
				}
				low, high := min(before[m.Labels][m.Name], after), max(before[m.Labels][m.Name], after)
				slack := 0.0
				if low != high { // it moves
					slack = (high - low) + 0.02*math.Abs(high)
				}
				if v := m.Float(); (v < low-slack-1e-6 || v > high+slack+1e-6) && (m.Kind != kemi.KindGauge || constant[m.Name] || !again(m, o)) {
					t.Errorf("%s is not between %v and %v, which snmpget says of %s", m, low, high, o.oid)
				}
				compared++
			}
			t.Logf("compared %d values", compared)
			if compared < 40 {
				t.Errorf("a poll has %d values only", compared)
			}
			for name, want := range map[string]float64{"up": 1, "snmp_complete_ratio": 1} {
				if m, ok := find(polled, name); !ok || m.Float() != want {
					t.Errorf("%s is %v, want %v", name, m, want)
				}
			}
		})
	}
}

func TestWhoIsNotLetInIsTold(t *testing.T) {
	s := startSnmpd(t)
	p := newPoller(t)
	for user, want := range map[string]string{"wrong-auth": "auth", "unknown-user": "unknown_user", "wrong-community": "timeout"} {
		ms := pollOnce(t, p, s.addr, user)
		up, _ := find(ms, "up")
		why, ok := find(ms, "snmp_failure")
		if up.Float() != 0 || !ok || why.Labels.Get("reason") != want {
			t.Errorf("%s: up %v, reason %q, want %q", user, up.Float(), why.Labels.Get("reason"), want)
		}
		if text := fmt.Sprint(ms); strings.Contains(text, authPass) || strings.Contains(text, "not the one") {
			t.Errorf("%s: a secret is in the metrics: %s", user, text)
		}
	}
}
