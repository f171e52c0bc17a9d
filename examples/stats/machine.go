package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi/internal/agent"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/sink/notify/webhook"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/source/snmp"
)

// localAgent is the agent on port 161, or one that is started here.
func (s *stats) localAgent(ctx context.Context) (inventory.Target, error) {
	name, _ := os.Hostname()
	self := inventory.Target{Address: "127.0.0.1:161", Resource: cmp.Or(name, "this-machine"), Auth: thisMachine}
	if agentAnswers(ctx) {
		s.intro = append(s.intro, "polling the SNMP agent at "+self.Address)
		return self, nil
	}
	a, err := agent.Listen("127.0.0.1:0", agent.Config{Values: agent.System()})
	if err != nil {
		return self, fmt.Errorf("starting an SNMP agent: %w", err)
	}
	s.opened = append(s.opened, a)
	self.Address = a.Addr().String()
	s.intro = append(s.intro, "polling an SNMP agent of this program at "+self.Address)
	return self, nil
}

// agentAnswers asks the agent of this machine for the CPU, which Debian's snmpd, as it
// comes, does not show to the public community.
func agentAnswers(ctx context.Context) bool {
	g := &gosnmp.GoSNMP{
		Context: ctx, Target: "127.0.0.1", Port: 161, Community: "public", Version: gosnmp.Version2c, Timeout: 500 * time.Millisecond,
	}
	if err := g.Connect(); err != nil {
		return false
	}
	defer g.Conn.Close()
	const ssCPURawIdle = ".1.3.6.1.4.1.2021.11.53.0"
	got, err := g.Get([]string{ssCPURawIdle})
	return err == nil && len(got.Variables) == 1 && got.Variables[0].Type == gosnmp.Counter32
}

// openTSDB is the URL of the OpenTSDB of the config, or of one in memory that can be
// read back.
func (s *stats) openTSDB(cfg *config) (string, error) {
	if cfg.OpenTSDB != "" {
		return cfg.OpenTSDB, nil
	}
	tsd, err := faketsd.Start(faketsd.Config{AutoCreateMetrics: true, FlushInterval: 100 * time.Millisecond, Retain: time.Hour, MaxPoints: 100_000})
	if err != nil {
		return "", fmt.Errorf("starting an OpenTSDB in memory: %w", err)
	}
	s.opened = append(s.opened, closer(tsd.Close))
	s.stored = func() string { return newest(tsd.Stored()) }
	s.intro = append(s.intro, "storing into an OpenTSDB in memory (an hour, at most 100,000 points); read back:",
		fmt.Sprintf("  curl '%s/api/query?start=5m-ago&m=none:cpu_used_percent'", tsd.URL()))
	return tsd.URL(), nil
}

// newest says how many points there are, and what the newest of some are.
func newest(points []faketsd.Point) string {
	last := map[string]string{}
	for _, p := range points {
		last[p.Metric] = p.Value
	}
	text := fmt.Sprintf("%d points", len(points))
	for _, m := range []string{"cpu_used_percent", "memory_used_percent", "load1"} {
		if v, ok := last[m]; ok {
			whole, frac, _ := strings.Cut(v, ".")
			text += fmt.Sprintf(", %s %s", m, strings.TrimSuffix(whole+"."+frac[:min(2, len(frac))], "."))
		}
	}
	return text
}

type closer func()

func (c closer) Close() error { c(); return nil }

// thisMachine names the credential for the agent of this machine, whatever the config
// calls public.
const thisMachine = "this machine"

func credentials(cfg *config) map[string]snmp.Credential {
	all := map[string]snmp.Credential{thisMachine: {Community: "public"}}
	for name, c := range cfg.Credentials {
		all[name] = c.credential()
	}
	return all
}

func (c credential) credential() snmp.Credential {
	if c.Version != "3" {
		return snmp.Credential{Community: string(c.Community)}
	}
	return snmp.Credential{
		Version: snmp.V3, User: c.User,
		AuthProtocol: snmp.AuthProtocol(c.Auth), AuthPassphrase: string(c.AuthPassword),
		PrivProtocol: snmp.PrivProtocol(c.Priv), PrivPassphrase: string(c.PrivPassword),
	}
}

func defaultCredential(cfg *config) snmp.Credential {
	if c, ok := credentials(cfg)["public"]; ok {
		return c
	}
	return snmp.Credential{Community: "public"}
}

func secrets(s secret) []webhook.Secret {
	if s == "" {
		return nil
	}
	return []webhook.Secret{webhook.Secret(s)}
}
