package snmp_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

func impatient(c *snmp.Config) { c.Timeout = 80 * time.Millisecond }

// A dead host costs two datagrams a cycle and, after three cycles, one. It is said to be
// down at every cycle, and is polled in full as soon as it answers again.
func TestADeadHost(t *testing.T) {
	p := newPoller(t, impatient)
	a := newAgent(t).linux()
	a.with(func(a *agent) { a.silent = true })
	for cycle := 1; cycle <= 5; cycle++ {
		before := a.requests.Load()
		ms := poll(t, p, jobFor(a))
		if ms.value(t, "up") != 0 || ms.reason() != "timeout" || ms.value(t, "snmp_complete_ratio") != 0 {
			t.Errorf("cycle %d: %s", cycle, ms)
		}
		want := int64(2)
		if cycle > 3 {
			want = 1
		}
		if n := a.requests.Load() - before; n != want {
			t.Errorf("cycle %d: %d datagrams, want %d", cycle, n, want)
		}
	}
	a.with(func(a *agent) { a.silent = false })
	ms := poll(t, p, jobFor(a))
	if ms.value(t, "up") != 1 || ms.reason() != "" || len(ms.named("if_up")) != 3 {
		t.Errorf("the host is back: %s", ms)
	}
	if s := p.Stats(); s.Down != 5 || s.Up != 1 || s.Probes != 3 {
		t.Errorf("%+v", s)
	}
}

func TestARefusedHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	p := newPoller(t)
	a := newAgent(t)
	a.conn.Close()
	live := newAgent(t)
	live.set("1.3.6.1.2.1.1.3.0", ticks(1))
	jobs := []kemi.Job{jobFor(a), jobFor(live)}
	jobs[1].Resource = "live"
	ms := poll(t, p, jobs...)
	if ms.value(t, "up", "host", "web1") != 0 || ms.reason() != "refused" || ms.value(t, "up", "host", "live") != 1 {
		t.Errorf("%s", ms)
	}
	if s := p.Stats(); s.Refusals != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTargets(t *testing.T) {
	p := newPoller(t, impatient)
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
		p := newPoller(t, impatient)
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
		if ms.value(t, "up") != 1 || ms.reason() != "timeout" || ms.value(t, "load1") != 1.5 {
			t.Errorf("walked %v: %s", walked, ms)
		}
		if r := ms.value(t, "snmp_complete_ratio"); r <= 0 || r >= 1 {
			t.Errorf("walked %v: complete ratio %v", walked, r)
		}
		if got := ms.named("if_in_octets"); len(got) != 0 {
			t.Errorf("walked %v: values of an earlier poll came out again: %s", walked, got)
		}
		if s := p.Stats(); s.Incomplete != 1 || s.Timeouts != 1 {
			t.Errorf("%+v", s)
		}
		a.with(func(a *agent) { a.hook = nil })
		if ms := poll(t, p, jobFor(a)); ms.reason() != "" || len(ms.named("if_in_octets")) != 3 {
			t.Errorf("walked %v, after it: %s", walked, ms)
		}
	}
}

func TestTheDeadlineOfAHost(t *testing.T) {
	p := newPoller(t, func(c *snmp.Config) { c.Deadline = 300 * time.Millisecond })
	a := newAgent(t).linux()
	a.with(func(a *agent) { a.delay = 90 * time.Millisecond }) // the poll takes five or more requests
	start := time.Now()
	ms := poll(t, p, jobFor(a))
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if ms.value(t, "up") != 1 || ms.reason() != "deadline" || ms.value(t, "load1") != 1.5 || len(ms.named("disk_used_bytes")) == 0 {
		t.Errorf("want what came in time: %s", ms)
	}
	// It is never more than half the interval, so that a poll is over when the next is due.
	job := jobFor(a)
	job.Interval, job.Resource = 100*time.Millisecond, "other"
	a.with(func(a *agent) { a.delay = 5 * time.Second })
	start = time.Now()
	if ms = poll(t, p, job); ms.value(t, "up") != 0 || time.Since(start) > 4*time.Second {
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
	p := newPoller(t, impatient, func(c *snmp.Config) {
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
	if ms.reason() != "timeout" || len(ms.named("fan")) != 1 || ms.value(t, "fan", "fan", "alias.1") != 1 {
		t.Errorf("want the row that is whole, alone: %s", ms)
	}
}

// Where large answers do not get through, smaller ones are asked for, until they do.
func TestLargeAnswersThatGetLost(t *testing.T) {
	p := newPoller(t, impatient)
	a := newAgent(t).linux()
	if ms := poll(t, p, jobFor(a)); ms.reason() != "" {
		t.Fatalf("%s", ms)
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
		t.Errorf("after ten polls the last %d were whole, want 3 at least: %+v", whole, p.Stats())
	}
}
