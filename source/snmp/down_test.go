package snmp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// impatient asks twice, and waits no longer than that for an answer.
func impatient(timeout time.Duration) func(*snmp.Config) {
	return func(c *snmp.Config) { c.Timeout, c.Retries = timeout, 1 }
}

// patiently tries something with agents that answer at first, or in part, or something
// else than they should. A short timeout makes it quick. But on a machine that is busy with
// other things an agent may miss it, and so it is tried again with a longer one, until
// nothing is wrong.
func patiently(t *testing.T, try func(timeout time.Duration) (wrong string)) {
	t.Helper()
	wrong := ""
	for timeout := 80 * time.Millisecond; timeout < 20*time.Second; timeout *= 2 {
		if wrong = try(timeout); wrong == "" {
			return
		}
		t.Logf("with a timeout of %v: %s", timeout, wrong)
	}
	t.Error(wrong)
}

// A dead host costs two datagrams a cycle and, after three cycles, one. It is said to be
// down at every cycle, and is polled in full as soon as it answers again.
func TestADeadHost(t *testing.T) {
	patiently(t, func(timeout time.Duration) string {
		p := newPoller(t, impatient(timeout))
		a := newAgent(t).linux()
		a.with(func(a *agent) { a.silent = true })
		for cycle := 1; cycle <= 5; cycle++ {
			before := p.Stats().Sent
			ms := poll(t, p, jobFor(a))
			if ms.value(t, "up") != 0 || ms.reason() != "timeout" || ms.value(t, "snmp_complete_ratio") != 0 {
				t.Errorf("cycle %d: %s", cycle, ms)
			}
			want := uint64(2)
			if cycle > 3 {
				want = 1
			}
			if n := p.Stats().Sent - before; n != want {
				t.Errorf("cycle %d: %d datagrams, want %d", cycle, n, want)
			}
		}
		for a.requests.Load() != 3*2+2 { // they have arrived
			time.Sleep(time.Millisecond)
		}
		a.with(func(a *agent) { a.silent = false })
		ms := poll(t, p, jobFor(a))
		if ms.value(t, "up") != 1 || ms.reason() != "" || len(ms.named("if_up")) != 3 {
			return fmt.Sprintf("the host is back: %s", ms)
		}
		if s := p.Stats(); s.Down != 5 || s.Up != 1 || s.Probes != 3 {
			t.Errorf("%+v", s)
		}
		return ""
	})
}

func TestARefusedHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	p := newPoller(t)
	// A connected socket takes datagrams of its peer alone, and nobody else gets its port.
	loopback := net.IPv4(127, 0, 0, 1)
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: loopback}, &net.UDPAddr{IP: loopback, Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	live := newAgent(t)
	live.set("1.3.6.1.2.1.1.3.0", ticks(1))
	jobs := []kemi.Job{jobFor(live), jobFor(live)}
	jobs[0].Target, jobs[1].Resource = conn.LocalAddr().String(), "live"
	ms := poll(t, p, jobs...)
	if ms.value(t, "up", "host", "web1") != 0 || ms.reason() != "refused" || ms.value(t, "up", "host", "live") != 1 {
		t.Errorf("%s", ms)
	}
	if s := p.Stats(); s.Refusals != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTargets(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) {
		c.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("there is no name server")
		}}
	})
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	_, port, _ := strings.Cut(a.addr(), ":")
	for target, want := range map[string]string{
		a.addr():                     "",
		"localhost:" + port:          "",
		"no-such-host.invalid":       "unreachable",
		"127.0.0.1:notaport":         "unreachable",
		"[::ffff:127.0.0.1]:" + port: "",
	} {
		job := jobFor(a)
		job.Target, job.Resource = target, target
		if ms := poll(t, p, job); ms.reason() != want {
			t.Errorf("%s: reason %q, want %q", target, ms.reason(), want)
		}
	}
}

// What came before the answers stopped is given out, with what is missing said.
func TestAnAgentThatGoesSilentHalfway(t *testing.T) {
	for _, walked := range []bool{false, true} {
		patiently(t, func(timeout time.Duration) string {
			p := newPoller(t, impatient(timeout))
			a := newAgent(t).linux()
			if walked {
				poll(t, p, jobFor(a))
			}
			n := 0
			a.with(func(a *agent) {
				a.hook = func(*gosnmp.SnmpPacket, *gosnmp.SnmpPacket, func(*gosnmp.SnmpPacket) []byte) ([][]byte, bool) {
					n++
					return nil, n > 1
				}
			})
			ms := poll(t, p, jobFor(a))
			if ms.value(t, "up") != 1 {
				return fmt.Sprintf("walked %v: %s", walked, ms)
			}
			if ms.reason() != "timeout" || ms.value(t, "load1") != 1.5 {
				t.Errorf("walked %v: %s", walked, ms)
			}
			if r := ms.value(t, "snmp_complete_ratio"); r <= 0 || r >= 1 {
				t.Errorf("walked %v: complete ratio %v", walked, r)
			}
			if got := ms.named("if_in_octets"); len(got) != 0 {
				t.Errorf("walked %v: values of an earlier poll came out again: %s", walked, got)
			}
			if s := p.Stats(); s.Incomplete != 1 || s.Timeouts != 1 {
				return fmt.Sprintf("walked %v: %+v", walked, s)
			}
			a.with(func(a *agent) { a.hook = nil })
			if ms := poll(t, p, jobFor(a)); ms.reason() != "" || len(ms.named("if_in_octets")) != 3 {
				return fmt.Sprintf("walked %v, after it: %s", walked, ms)
			}
			return ""
		})
	}
}

func TestTheDeadlineOfAHost(t *testing.T) {
	patiently(t, func(timeout time.Duration) string {
		deadline := 4 * timeout
		p := newPoller(t, func(c *snmp.Config) { c.Deadline = deadline })
		a := newAgent(t).linux()
		a.with(func(a *agent) { a.delay = deadline * 3 / 10 }) // the poll takes five or more requests
		ms := poll(t, p, jobFor(a))
		if len(ms.named("disk_used_bytes")) == 0 {
			return fmt.Sprintf("the first two answers did not come within %v: %s", deadline, ms)
		}
		if ms.value(t, "up") != 1 || ms.reason() != "deadline" || ms.value(t, "load1") != 1.5 {
			t.Errorf("want what came in time: %s", ms)
		}
		return ""
	})
	// It is never more than half the interval, so that a poll is over when the next is due.
	p := newPoller(t)
	a := newAgent(t)
	a.with(func(a *agent) { a.silent = true })
	job := jobFor(a)
	job.Interval = 100 * time.Millisecond
	start := time.Now()
	if ms := poll(t, p, job); ms.value(t, "up") != 0 || time.Since(start) > time.Minute {
		t.Errorf("after %v: %s", time.Since(start), ms)
	}
}

func TestJobsThatAreNotPolled(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) {
		c.DefaultCredential = snmp.Credential{}
		c.Credentials = map[string]snmp.Credential{"ours": {Community: "public"}}
		c.Lookup = func(name string) (snmp.Credential, bool) {
			return snmp.Credential{Community: "public"}, name == "vault"
		}
	})
	a := newAgent(t)
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	ok := jobFor(a)
	ok.Auth = "ours"
	vault := jobFor(a)
	vault.Auth, vault.Resource = "vault", "web2"
	stale, noTarget, noHost, noProfile, noAuth, noDefault := ok, ok, ok, ok, ok, ok
	stale.Deadline = time.Now().Add(-time.Second)
	noTarget.Target, noHost.Resource, noProfile.Profiles, noAuth.Auth, noDefault.Auth = "", "", []string{"vms"}, "theirs", ""
	src := []kemi.Job{stale, noTarget, ok, noHost, noProfile, vault, noAuth, noDefault}
	ms, err := p.Apply(t.Context(), nil, src)
	failed, isPartial := kemi.Failures(err, src)
	var at []int
	for _, f := range failed {
		at = append(at, f.Index)
		if !kemi.IsPermanent(f.Err) {
			t.Errorf("job %d may be tried again: %v", f.Index, f.Err)
		}
	}
	if !isPartial || len(at) != 5 || at[0] != 1 || at[1] != 3 || at[2] != 4 || at[3] != 6 || at[4] != 7 {
		t.Errorf("refused %v: %v", at, err)
	}
	if ms, err = p.Tick(t.Context(), ms, time.Now()); err != nil {
		t.Fatal(err)
	}
	// Two are polled. The others are told to be down, as nobody watches them, but for the
	// one that has no host and the one that is late.
	up, down := 0, 0
	for _, m := range metrics(ms).named("up") {
		if m.Float() == 1 {
			up++
		} else {
			down++
		}
	}
	if up != 2 || down != 4 || a.requests.Load() == 0 {
		t.Errorf("%d hosts are up and %d down, want 2 and 4", up, down)
	}
	for _, m := range metrics(ms).named("snmp_failure") {
		if m.Labels.Get("reason") != "config" || m.Host() == "" {
			t.Errorf("%v", m)
		}
	}
	if s := p.Stats(); s.Stale != 1 || s.Refused != 5 || s.Up != 2 {
		t.Errorf("%+v", s)
	}
}

// A row of which the name may not have come before the answers stopped has no metrics:
// under the name that stands in for it they would be another series.
func TestRowsWhoseNameMayBeMissing(t *testing.T) {
	const ours = "1.3.6.1.4.1.99999.1."
	patiently(t, func(timeout time.Duration) string {
		p := newPoller(t, impatient(timeout), func(c *snmp.Config) {
			c.Profiles = []snmp.Profile{{Name: "ours", Tables: []snmp.Table{{
				Columns: []snmp.Column{{OID: ours + "1"}, {OID: ours + "2"}},
				Label:   "fan",
				Identity: func(r *snmp.Row) string { // the alias, else the serial number
					if alias := r.At(1).Text(); alias != "" {
						return alias
					}
					return r.At(0).Text()
				},
				Metrics: func(r *snmp.Row) { r.Gauge("fan", 1) },
			}}}}
		})
		a := newAgent(t)
		a.set("1.3.6.1.2.1.1.3.0", ticks(1))
		for _, row := range []string{".1", ".2", ".3"} {
			a.set(ours+"1"+row, "serial"+row, ours+"2"+row, "alias"+row)
		}
		walks := 0
		a.with(func(a *agent) {
			a.hook = func(req, res *gosnmp.SnmpPacket, _ func(*gosnmp.SnmpPacket) []byte) ([][]byte, bool) {
				if req.PDUType != gosnmp.GetBulkRequest {
					return nil, false
				}
				walks++
				res.Variables = res.Variables[:3] // both columns of one row, and one of the next
				return nil, walks > 1
			}
		})
		ms := poll(t, p, jobFor(a))
		if p.Stats().Timeouts != 1 || ms.value(t, "up") != 1 || len(ms.named("fan")) == 0 {
			return fmt.Sprintf("the first two answers did not come: %s", ms)
		}
		if ms.reason() != "timeout" || len(ms.named("fan")) != 1 || ms.value(t, "fan", "fan", "alias.1") != 1 {
			t.Errorf("want the row that is whole, alone: %s", ms)
		}
		return ""
	})
}

// Where large answers do not get through, smaller ones are asked for, until they do.
func TestLargeAnswersThatGetLost(t *testing.T) {
	patiently(t, func(timeout time.Duration) string {
		p := newPoller(t, impatient(timeout))
		a := newAgent(t).linux()
		if ms := poll(t, p, jobFor(a)); ms.reason() != "" {
			return fmt.Sprintf("before it: %s", ms)
		}
		a.with(func(a *agent) {
			a.hook = func(req, _ *gosnmp.SnmpPacket, _ func(*gosnmp.SnmpPacket) []byte) ([][]byte, bool) {
				first := req.Variables[0].Name
				return nil, req.PDUType == gosnmp.GetRequest && len(req.Variables) > 20 && !strings.HasPrefix(first, ".1.3.6.1.2.1.1.3.")
			}
		})
		whole := 0 // polls without a failure, one after another
		for range 10 {
			if ms := poll(t, p, jobFor(a)); ms.reason() == "" {
				whole++
			} else {
				whole = 0
			}
		}
		if whole < 3 {
			return fmt.Sprintf("after ten polls the last %d were whole, want 3 at least: %+v", whole, p.Stats())
		}
		return ""
	})
}
