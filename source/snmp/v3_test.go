package snmp_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

var v3 = snmp.Credential{
	Version: snmp.V3, User: "kemi", AuthProtocol: snmp.SHA256, AuthPassphrase: "authpass123",
	PrivProtocol: snmp.AES, PrivPassphrase: "privpass123",
}

func newAgentV3(tb testing.TB) *agent {
	a := newAgent(tb).linux()
	a.with(func(a *agent) {
		a.user = &gosnmp.UsmSecurityParameters{UserName: v3.User,
			AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: v3.AuthPassphrase,
			PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: v3.PrivPassphrase}
	})
	return a
}

func withV3(c *snmp.Config) { c.DefaultCredential = v3 }

func TestVersion3(t *testing.T) {
	auths := map[snmp.AuthProtocol]gosnmp.SnmpV3AuthProtocol{snmp.NoAuth: gosnmp.NoAuth, snmp.MD5: gosnmp.MD5, snmp.SHA: gosnmp.SHA,
		snmp.SHA224: gosnmp.SHA224, snmp.SHA256: gosnmp.SHA256, snmp.SHA384: gosnmp.SHA384, snmp.SHA512: gosnmp.SHA512}
	privs := map[snmp.PrivProtocol]gosnmp.SnmpV3PrivProtocol{snmp.NoPriv: gosnmp.NoPriv, snmp.DES: gosnmp.DES, snmp.AES: gosnmp.AES,
		snmp.AES192: gosnmp.AES192, snmp.AES256: gosnmp.AES256, snmp.AES192C: gosnmp.AES192C, snmp.AES256C: gosnmp.AES256C}
	plain := poll(t, newPoller(t), jobFor(newAgent(t).linux())).lines()
	for auth, gauth := range auths {
		for priv, gpriv := range privs {
			if auth == snmp.NoAuth && priv != snmp.NoPriv {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", auth, priv), func(t *testing.T) {
				t.Parallel()
				a := newAgentV3(t)
				a.with(func(a *agent) { a.user.AuthenticationProtocol, a.user.PrivacyProtocol = gauth, gpriv })
				c := v3
				c.AuthProtocol, c.PrivProtocol = auth, priv
				p := newPoller(t, func(cfg *snmp.Config) { cfg.DefaultCredential = c })
				for range 2 {
					if ms := poll(t, p, jobFor(a)); !slices.Equal(ms.lines(), plain) || ms.reason() != "" {
						t.Errorf("not what version 2c gives: %s\n%+v", ms, p.Stats())
					}
				}
			})
		}
	}
}

// The agent says what is wrong, and so does the poll.
func TestCredentialsTheAgentRefuses(t *testing.T) {
	for reason, change := range map[string]func(*snmp.Credential){
		"unknown_user": func(c *snmp.Credential) { c.User = "nobody" },
		"auth":         func(c *snmp.Credential) { c.AuthPassphrase = "wrong password" },
	} {
		c := v3
		change(&c)
		p := newPoller(t, func(cfg *snmp.Config) { cfg.DefaultCredential = c })
		if ms := poll(t, p, jobFor(newAgentV3(t))); ms.value(t, "up") != 0 || ms.reason() != reason {
			t.Errorf("want %s: %s", reason, ms)
		}
	}
	for oid, reason := range map[string]string{reportDecrypt: "priv", reportLevel: "auth", ".1.3.6.1.6.3.11.2.1.1.0": "error_status"} {
		a := newAgentV3(t)
		a.with(func(a *agent) {
			a.hook = func(req, _ *packet, _ encode) ([][]byte, bool) { return [][]byte{a.report(req, 0, oid)}, true }
		})
		if ms := poll(t, newPoller(t, withV3), jobFor(a)); ms.reason() != reason {
			t.Errorf("report %s: want %s: %s", oid, reason, ms)
		}
	}
}

// An agent's clock is carried on by ourselves; when it is another one all the same, the
// agent is asked once more, and not at each poll.
func TestTheClockOfAnAgent(t *testing.T) {
	p := newPoller(t, withV3)
	a := newAgentV3(t)
	poll(t, p, jobFor(a))
	for _, c := range []struct {
		what   string
		change func(*agent)
	}{
		{"jumps ahead", func(a *agent) { a.clock = func() uint32 { return 50_000 } }},
		{"jumps back", func(a *agent) { a.clock = func() uint32 { return 2_000 } }},
		{"reboots", func(a *agent) { a.boots++; a.clock = func() uint32 { return 3 } }},
		{"is replaced", func(a *agent) {
			a.engine, a.boots, a.clock = "\x80\x00\x1f\x88\x04new one", 7, func() uint32 { return 3_000 }
		}},
	} {
		a.with(c.change)
		before := p.Stats().Resyncs
		for i := range 3 {
			ms := poll(t, p, jobFor(a))
			if ms.value(t, "up") != 1 || ms.reason() != "" || len(ms.named("if_up")) != 3 {
				t.Errorf("%s, poll %d: %s", c.what, i, ms)
			}
		}
		if n := p.Stats().Resyncs - before; n < 1 || n > 2 {
			t.Errorf("%s: %d resyncs", c.what, n)
		}
	}
}

// What is not signed by the agent that was asked is no answer, and no news of its clock.
func TestMessagesThatAreNotAuthentic(t *testing.T) {
	for _, c := range []struct {
		name   string
		forge  func(a *agent, req, res *packet) []byte
		count  func(snmp.Stats) uint64
		reason string
	}{
		{"tampered", func(a *agent, _, res *packet) []byte {
			b := a.encode(res)
			b[len(b)-3] ^= 1
			return b
		}, func(s snmp.Stats) uint64 { return s.Forged }, "auth"},
		{"not signed", func(a *agent, _, res *packet) []byte {
			r := *res
			r.MsgFlags = gosnmp.NoAuthNoPriv
			return a.encode(&r)
		}, func(s snmp.Stats) uint64 { return s.Forged }, "auth"},
		{"not encrypted", func(a *agent, _, res *packet) []byte {
			r := *res
			r.MsgFlags = gosnmp.AuthNoPriv
			return a.encode(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		// A decoder that makes a key for whatever engine the message names, out of a
		// passphrase it was not given, takes what is signed with an empty key.
		{"another engine with an empty key", func(a *agent, _, res *packet) []byte {
			r := *res
			sp := a.security()
			sp.AuthoritativeEngineID, sp.SecretKey = "\x80\x00\x1f\x88\x04evil", []byte{}
			sp.PrivacyProtocol = gosnmp.NoPriv
			r.SecurityParameters, r.MsgFlags = sp, gosnmp.AuthNoPriv
			return a.encode(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"another user", func(a *agent, _, res *packet) []byte {
			r := *res
			sp := a.security()
			sp.UserName = "other"
			r.SecurityParameters = sp
			return a.encode(&r)
		}, func(s snmp.Stats) uint64 { return s.Mismatch }, "decode"},
		{"a replay of long ago", func(a *agent, _, res *packet) []byte {
			r := *res
			sp := a.security()
			sp.AuthoritativeEngineTime -= 500
			r.SecurityParameters = sp
			return a.encode(&r)
		}, func(s snmp.Stats) uint64 { return s.Replayed }, "time_window"},
		{"a report of another clock that is not signed", func(a *agent, req, _ *packet) []byte {
			return a.report(req, 0, reportWindow)
		}, func(s snmp.Stats) uint64 { return s.Replayed }, "time_window"},
		{"version 2c", func(a *agent, _, res *packet) []byte {
			return a.encode(&packet{Version: gosnmp.Version2c, Community: "public", PDUType: gosnmp.GetResponse, RequestID: res.RequestID, Variables: res.Variables})
		}, func(s snmp.Stats) uint64 { return s.Malformed }, "decode"},
	} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/alone=%v", c.name, alone), func(t *testing.T) {
				try := func(change func(*snmp.Config)) string {
					p := newPoller(t, change, withV3)
					a := newAgentV3(t)
					poll(t, p, jobFor(a)) // the clock is known
					a.with(func(a *agent) {
						a.hook = func(req, res *packet, enc encode) ([][]byte, bool) {
							out := [][]byte{c.forge(a, req, res)}
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
						return fmt.Sprintf("want down with reason %q: %s\n%+v", c.reason, ms, p.Stats())
					case !alone && (ms.value(t, "up") != 1 || ms.reason() != ""):
						return fmt.Sprintf("the true answer was lost: %s\n%+v", ms, p.Stats())
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

// Machines made from one image have the same engine ID. Each is its own.
func TestHostsWithOneEngineID(t *testing.T) {
	p := newPoller(t, withV3)
	one, two := newAgentV3(t), newAgentV3(t)
	two.with(func(a *agent) { a.boots, a.clock = 9, func() uint32 { return 1_000_000 } })
	two.set("1.3.6.1.2.1.25.1.6.0", uint32(2))
	jobs := []kemi.Job{jobFor(one), jobFor(two)}
	jobs[1].Resource = "web2"
	for range 3 {
		ms := poll(t, p, jobs...)
		if ms.value(t, "processes", "host", "web1") != 180 || ms.value(t, "processes", "host", "web2") != 2 || ms.reason() != "" {
			t.Errorf("%s", ms)
		}
	}
	if s := p.Stats(); s.Resyncs != 0 {
		t.Errorf("they are taken for one: %+v", s)
	}
}
