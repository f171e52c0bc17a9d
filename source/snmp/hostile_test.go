package snmp_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi/source/snmp"
)

type (
	packet = gosnmp.SnmpPacket
	encode = func(*packet) []byte
)

// Datagrams that are no answer are counted, and the poll goes on as if they had not
// come: alone they are a failure with a reason, before the true answer they harm nobody.
func TestDatagramsThatAreNoAnswer(t *testing.T) {
	stranger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for _, c := range []struct {
		name   string
		forge  func(req, res *packet, enc encode) []byte
		count  func(snmp.Stats) uint64
		reason string // when nothing else comes
	}{
		{"truncated", func(_, res *packet, enc encode) []byte { b := enc(res); return b[:len(b)/2] }, func(s snmp.Stats) uint64 { return s.Malformed }, "timeout"},
		{"truncated within", func(_, res *packet, enc encode) []byte {
			b := enc(res)
			b[len(b)-20] = 0x84 // some length inside
			return b
		}, func(s snmp.Stats) uint64 { return s.Malformed + s.Mismatch }, "decode"},
		{"garbage", func(*packet, *packet, encode) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, func(s snmp.Stats) uint64 { return s.Malformed }, "timeout"},
		{"empty", func(*packet, *packet, encode) []byte { return nil }, func(s snmp.Stats) uint64 { return s.Malformed }, "timeout"},
		{"wrong id", func(_, res *packet, enc encode) []byte { r := *res; r.RequestID ^= 1 << 20; return enc(&r) }, func(s snmp.Stats) uint64 { return s.Unmatched }, "timeout"},
		{"id 0", func(_, res *packet, enc encode) []byte { r := *res; r.RequestID = 0; return enc(&r) }, func(s snmp.Stats) uint64 { return s.Malformed + s.Unmatched }, "timeout"},
		{"wrong community", func(_, res *packet, enc encode) []byte { r := *res; r.Community = "secret"; return enc(&r) }, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"version 1", func(_, res *packet, enc encode) []byte {
			r := *res
			r.Version = gosnmp.Version1
			return enc(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"a request", func(req, _ *packet, enc encode) []byte {
			r := *req
			r.PDUType = gosnmp.GetRequest
			return enc(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"other objects", func(_, res *packet, enc encode) []byte {
			r := *res
			r.Variables = slices.Clone(r.Variables)
			slices.Reverse(r.Variables)
			return enc(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"too few objects", func(_, res *packet, enc encode) []byte {
			r := *res
			r.Variables = r.Variables[1:]
			return enc(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
	} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/alone=%v", c.name, alone), func(t *testing.T) {
				try := func(change func(*snmp.Config)) string {
					p := newPoller(t, change)
					a := newAgent(t).linux()
					a.with(func(a *agent) {
						a.hook = func(req, res *packet, enc encode) ([][]byte, bool) {
							if req.PDUType != gosnmp.GetRequest {
								return nil, false
							}
							out := [][]byte{c.forge(req, res, enc)}
							if !alone {
								out = append(out, enc(res))
							}
							return out, true
						}
					})
					ms := poll(t, p, jobFor(a))
					switch {
					case c.count(p.Stats()) == 0:
						return fmt.Sprintf("it was not counted: %+v", p.Stats())
					case alone && (ms.value(t, "up") != 0 || ms.reason() != c.reason):
						return fmt.Sprintf("want down with reason %q: %s", c.reason, ms)
					case !alone && (ms.value(t, "up") != 1 || ms.reason() != "" || ms.value(t, "load1") != 1.5):
						return fmt.Sprintf("the true answer was lost: %s", ms)
					}
					return ""
				}
				if alone {
					patiently(t, func(timeout time.Duration) string { return try(impatient(timeout)) })
				} else if wrong := try(func(*snmp.Config) {}); wrong != "" {
					t.Error(wrong)
				}
			})
		}
	}
}

func TestAnAnswerFromAnotherAddress(t *testing.T) {
	for policy, want := range map[snmp.SourceAddress]float64{snmp.SameAddrPort: 0, snmp.SameAddr: 1, snmp.AnyAddr: 1} {
		try := func(change func(*snmp.Config)) string {
			p := newPoller(t, change, func(c *snmp.Config) { c.SourceAddress = policy })
			a := newAgent(t)
			a.set("1.3.6.1.2.1.1.3.0", ticks(1))
			other := newAgent(t)
			// What is asked for at the relay is answered from another port.
			relay, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer relay.Close()
			go func() {
				buf := make([]byte, 65535)
				for {
					n, from, err := relay.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					a.with(func(a *agent) {
						for _, r := range a.answer(buf[:n]) {
							other.conn.WriteToUDPAddrPort(r, from)
						}
					})
				}
			}()
			job := jobFor(a)
			job.Target = relay.LocalAddr().String()
			if ms := poll(t, p, job); ms.value(t, "up") != want {
				t.Errorf("policy %d: %s", policy, ms)
			}
			if s := p.Stats(); (s.Foreign > 0) != (want == 0) {
				return fmt.Sprintf("policy %d: %+v", policy, s)
			}
			return ""
		}
		if want == 0 {
			patiently(t, func(timeout time.Duration) string { return try(impatient(timeout)) })
		} else if wrong := try(func(*snmp.Config) {}); wrong != "" {
			t.Error(wrong)
		}
	}
}

// A table that goes wrong ends, is counted, and takes nothing else with it.
func TestTablesThatGoWrong(t *testing.T) {
	isInterfaces := func(req *packet) bool {
		return req.PDUType == gosnmp.GetBulkRequest && strings.HasPrefix(req.Variables[0].Name, ".1.3.6.1.2.1.31.1.1.1.1")
	}
	for _, c := range []struct {
		name   string
		mangle func(req, res *packet)
		count  func(snmp.Stats) uint64
		reason string
	}{
		{"endless", func(req, res *packet) {
			res.Variables = nil
			for range 4 {
				for i := range req.Variables {
					req.Variables[i].Name = after(req.Variables[i].Name)
					res.Variables = append(res.Variables, gosnmp.SnmpPDU{Name: req.Variables[i].Name, Type: gosnmp.OctetString, Value: fmt.Sprint("if", rand.Uint32())})
				}
			}
		}, func(s snmp.Stats) uint64 { return s.Endless }, "truncated"},
		{"a loop", func(req, res *packet) {
			res.Variables = nil
			for range 4 {
				for i := range req.Variables {
					root := strings.Join(strings.Split(req.Variables[i].Name, ".")[:columnArcs(req.Variables[i].Name)], ".")
					res.Variables = append(res.Variables, gosnmp.SnmpPDU{Name: root + ".7", Type: gosnmp.Integer, Value: 1})
				}
			}
		}, func(s snmp.Stats) uint64 { return s.Loops }, "truncated"},
		{"backwards", func(_, res *packet) { slices.Reverse(res.Variables) }, func(s snmp.Stats) uint64 { return s.Walks }, ""},
		{"no variables", func(_, res *packet) { res.Variables = nil }, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"more than asked for", func(_, res *packet) {
			for range 50 {
				res.Variables = append(res.Variables, res.Variables[0])
			}
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"genErr", func(_, res *packet) { res.Error, res.ErrorIndex, res.Variables = gosnmp.GenErr, 0, nil }, func(s snmp.Stats) uint64 { return s.ErrorStatus }, "error_status"},
		{"genErr of one column", func(req, res *packet) {
			if i := slices.IndexFunc(req.Variables, func(v gosnmp.SnmpPDU) bool { return strings.HasPrefix(v.Name, ".1.3.6.1.2.1.2.2.1.14") }); i >= 0 {
				res.Error, res.ErrorIndex, res.Variables = gosnmp.GenErr, uint8(i+1), nil
			}
		}, func(s snmp.Stats) uint64 { return s.ErrorStatus }, "error_status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			try := func(change func(*snmp.Config)) string {
				p := newPoller(t, change, func(cfg *snmp.Config) { cfg.MaxRows = 50 })
				a := newAgent(t).linux()
				a.with(func(a *agent) {
					a.hook = func(req, res *packet, _ encode) ([][]byte, bool) {
						if isInterfaces(req) || c.name != "endless" && req.PDUType == gosnmp.GetBulkRequest && strings.HasPrefix(req.Variables[0].Name, ".1.3.6.1.2.1.2.2.") {
							c.mangle(req, res)
						}
						return nil, false
					}
				})
				ms := poll(t, p, jobFor(a))
				switch {
				case c.count(p.Stats()) == 0:
					return fmt.Sprintf("it was not counted: %+v", p.Stats())
				case ms.value(t, "up") != 1 || len(ms.named("load1")) == 0 || ms.value(t, "load1") != 1.5 || len(ms.named("disk_used_bytes")) != 2 || len(ms.named("disk_reads")) != 1:
					return fmt.Sprintf("what came before is lost: %s", ms)
				case c.reason != "" && (ms.reason() != c.reason || ms.value(t, "snmp_complete_ratio") >= 1):
					return fmt.Sprintf("reason %q, complete %v, want %q", ms.reason(), ms.value(t, "snmp_complete_ratio"), c.reason)
				case c.name == "genErr of one column" && (len(ms.named("if_in_octets")) != 3 || len(ms.named("if_in_errors")) != 0):
					return fmt.Sprintf("the other columns are lost: %s", ms)
				}
				if n := a.requests.Load(); n > 120 {
					t.Errorf("it took %d requests", n)
				}
				return ""
			}
			if c.reason == "decode" { // the poll waits for a better answer
				patiently(t, func(timeout time.Duration) string { return try(impatient(timeout)) })
			} else if wrong := try(func(*snmp.Config) {}); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

// after returns the OID of the next row.
func after(oid string) string {
	if arcs := strings.Split(oid, "."); len(arcs) > columnArcs(oid) {
		var n int
		fmt.Sscan(arcs[len(arcs)-1], &n)
		return strings.Join(arcs[:len(arcs)-1], ".") + fmt.Sprintf(".%d", n+1)
	}
	return oid + ".1"
}

// columnArcs is the number of parts of the OID of a column, split at its dots.
func columnArcs(oid string) int {
	if strings.HasPrefix(oid, ".1.3.6.1.2.1.31.") {
		return 12
	}
	return 11
}

// Whatever the network loses, the poll ends in time and says whether it is complete.
func TestLoss(t *testing.T) {
	for name, c := range map[string]struct {
		retries              int
		complete, incomplete int // polls to go on for
	}{
		"asked five times": {4, 15, 0}, // of 1000 polls 7 are not complete
		"asked once":       {-1, 0, 5}, // most are not
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t).linux()
			want := poll(t, newPoller(t), jobFor(a)).lines()
			rng := rand.New(rand.NewPCG(1, 2))
			a.with(func(a *agent) {
				a.hook = func(_, res *packet, enc encode) ([][]byte, bool) {
					switch rng.IntN(10) {
					case 0, 1, 2:
						return nil, true
					case 3:
						return [][]byte{enc(res), enc(res)}, true
					}
					return nil, false
				}
			})
			complete, incomplete := 0, 0
			patiently(t, func(timeout time.Duration) string {
				p := newPoller(t, impatient(timeout), func(cfg *snmp.Config) { cfg.Retries = c.retries })
				for polls := 0; polls < 2*(c.complete+c.incomplete) || complete < c.complete || incomplete < c.incomplete || c.retries > 0 && p.Stats().Retries == 0; polls++ {
					if polls == 100 {
						return fmt.Sprintf("%d of the polls were complete and %d were not: %+v", complete, incomplete, p.Stats())
					}
					ms := poll(t, p, jobFor(a))
					switch {
					case ms.reason() == "":
						complete++
						if got := ms.lines(); !slices.Equal(got, want) {
							t.Errorf("a poll that says it is complete is not:\n%s", ms)
						}
						if ms.value(t, "snmp_complete_ratio") != 1 {
							t.Errorf("no failure, and a ratio below 1: %s", ms)
						}
					default:
						incomplete++
						if ms.value(t, "snmp_complete_ratio") == 1 {
							t.Errorf("a failure, and a ratio of 1: %s", ms)
						}
					}
				}
				return ""
			})
		})
	}
}

func TestAnswersThatAreTooBig(t *testing.T) {
	p := newPoller(t)
	a := newAgent(t).linux()
	a.with(func(a *agent) { a.maxBinds = 13 })
	first := poll(t, p, jobFor(a))
	if first.reason() != "" || len(first.named("if_up")) != 3 || first.value(t, "load15") != 0.25 {
		t.Errorf("%s", first)
	}
	big := p.Stats().TooBig
	second := poll(t, p, jobFor(a))
	if big == 0 || p.Stats().TooBig != big {
		t.Errorf("what fits was not remembered: %d, then %d", big, p.Stats().TooBig)
	}
	if !slices.Equal(first.lines(), second.lines()) {
		t.Errorf("in parts it is not the same: %s\n%s", first, second)
	}
}

// An object that makes the agent fail is left out, for an hour and not in silence.
func TestAnObjectThatMakesTheAgentFail(t *testing.T) {
	const bad = ".1.3.6.1.2.1.25.1.6.0" // processes
	p := newPoller(t)
	a := newAgent(t).linux()
	a.with(func(a *agent) {
		a.hook = func(req, res *packet, _ encode) ([][]byte, bool) {
			if i := slices.IndexFunc(req.Variables, func(v gosnmp.SnmpPDU) bool { return v.Name == bad }); i >= 0 {
				res.Error, res.ErrorIndex, res.Variables = gosnmp.GenErr, uint8(i+1), req.Variables
			}
			return nil, false
		}
	})
	for cycle := range 3 {
		ms := poll(t, p, jobFor(a))
		if ms.reason() != "error_status" || ms.value(t, "snmp_complete_ratio") >= 1 || len(ms.named("processes")) != 0 {
			t.Errorf("cycle %d: what is missing was not said: %s", cycle, ms)
		}
		if ms.value(t, "load1") != 1.5 || ms.value(t, "users") != 2 || len(ms.named("if_up")) != 3 {
			t.Errorf("cycle %d: the others are lost: %s", cycle, ms)
		}
	}
	if s := p.Stats(); s.Dropped != 1 || s.ErrorStatus != 1 {
		t.Errorf("%+v", s)
	}
	// The agent is started anew, mended.
	a.with(func(a *agent) { a.hook = nil })
	a.set("1.3.6.1.2.1.1.3.0", ticks(1))
	poll(t, p, jobFor(a)) // sees the restart
	if ms := poll(t, p, jobFor(a)); ms.value(t, "processes") != 180 || ms.reason() != "" {
		t.Errorf("after a restart: %s", ms)
	}
}

// Rows are known by name and index. When one of them goes, comes, or becomes another,
// the table is read anew in the same poll.
func TestRowsThatChange(t *testing.T) {
	p := newPoller(t)
	a := newAgent(t).linux()
	poll(t, p, jobFor(a))
	names := func(ms metrics) (ns []string) {
		for _, m := range ms.named("if_out_octets") {
			ns = append(ns, fmt.Sprint(m.Labels.Get("ifindex"), m.Labels.Get("interface")))
		}
		return ns
	}
	for _, c := range []struct {
		what   string
		change func()
		want   []string
	}{
		{"names swapped", func() {
			a.set("1.3.6.1.2.1.31.1.1.1.1.2", "eth1", "1.3.6.1.2.1.31.1.1.1.1.3", "eth0")
		}, []string{"1lo", "2eth1", "3eth0"}},
		{"a row gone", func() {
			for _, col := range []string{"2.2.1.2", "2.2.1.5", "2.2.1.7", "2.2.1.8", "2.2.1.10", "2.2.1.13", "2.2.1.14", "2.2.1.16", "2.2.1.19", "2.2.1.20", "31.1.1.1.1", "31.1.1.1.6", "31.1.1.1.10", "31.1.1.1.15"} {
				a.remove("1.3.6.1.2.1." + col + ".2")
			}
		}, []string{"1lo", "3eth0"}},
		{"a row new", func() { a.iface(9, "wlan0", 1, 1); a.set("1.3.6.1.2.1.2.1.0", 4) }, []string{"1lo", "3eth0", "9wlan0"}},
		{"the agent restarted", func() { a.iface(10, "tun0", 1, 1); a.set("1.3.6.1.2.1.1.3.0", ticks(5)) }, []string{"1lo", "3eth0", "9wlan0", "10tun0"}},
	} {
		c.change()
		ms := poll(t, p, jobFor(a))
		if got := names(ms); !slices.Equal(got, c.want) || ms.reason() != "" || ms.value(t, "snmp_complete_ratio") != 1 {
			t.Errorf("%s: %q, want %q; %s", c.what, got, c.want, ms)
		}
		if again := poll(t, p, jobFor(a)); !slices.Equal(again.lines(), ms.lines()) {
			t.Errorf("%s: the poll after it differs", c.what)
		}
	}
	// Three at first, one for each table that changed, and all after the number of
	// interfaces changed or the agent was restarted.
	if s := p.Stats(); s.Walks != 3+1+1+3+3 {
		t.Errorf("%d walks, want 11", s.Walks)
	}
}
