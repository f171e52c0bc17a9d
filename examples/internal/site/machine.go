package site

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/agent"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/source/inventory"
)

// thisMachine names the credential for the agent of this machine, whatever the config
// calls public.
const thisMachine = "this machine"

// Hosts are those of the config, or this machine.
func (s *Site) Hosts(ctx context.Context) (inventory.Discoverer, error) {
	var parts []inventory.Discoverer
	var listed []inventory.Target
	for _, t := range s.Targets {
		labels := make([]kemi.Label, 0, len(t.Labels))
		for k, v := range t.Labels {
			labels = append(labels, kemi.Label{Name: k, Value: v})
		}
		listed = append(listed, inventory.Target{
			Address: t.Address, Resource: t.Host, Service: t.Service, Auth: t.Auth, Labels: kemi.NewLabels(labels...),
		})
	}
	if len(listed) > 0 {
		parts = append(parts, inventory.Static(listed...))
	}
	if len(s.TargetFiles) > 0 {
		parts = append(parts, inventory.Files(s.TargetFiles...))
	}
	if s.TargetURL != "" {
		d, err := inventory.HTTP(inventory.HTTPConfig{URL: s.TargetURL, Refresh: time.Duration(s.Interval)})
		if err != nil {
			return nil, err
		}
		parts = append(parts, d)
	}
	if len(parts) > 0 {
		s.Intro = append(s.Intro, "polling the hosts of the config")
		return inventory.Join(parts...), nil
	}
	self, err := s.localAgent(ctx)
	if err != nil {
		return nil, err
	}
	return inventory.Static(self), nil
}

// localAgent is the agent on port 161, or one that is started here.
func (s *Site) localAgent(ctx context.Context) (inventory.Target, error) {
	name, _ := os.Hostname()
	self := inventory.Target{Address: "127.0.0.1:161", Resource: cmp.Or(name, "this-machine"), Auth: thisMachine}
	switch answers, useful := probe(ctx); {
	case useful:
		s.Intro = append(s.Intro, "polling the SNMP agent at "+self.Address)
		return self, nil
	case answers:
		s.Intro = append(s.Intro, "the SNMP agent at "+self.Address+" shows no CPU: its view is restricted (see snmpd.conf, rocommunity)")
	}
	a, err := agent.Listen("127.0.0.1:0", agent.Config{Values: agent.System()})
	if err != nil {
		return self, fmt.Errorf("starting an SNMP agent: %w", err)
	}
	s.opened = append(s.opened, a)
	self.Address = a.Addr().String()
	s.Intro = append(s.Intro, "polling an SNMP agent of this program at "+self.Address)
	return self, nil
}

// probe asks the agent on port 161 for its uptime and the CPU: Debian's snmpd, as it
// comes, shows the public community the first and not the second.
func probe(ctx context.Context) (answers, useful bool) {
	g := &gosnmp.GoSNMP{
		Context: ctx, Target: "127.0.0.1", Port: 161, Community: "public", Version: gosnmp.Version2c, Timeout: 500 * time.Millisecond,
	}
	if err := g.Connect(); err != nil {
		return false, false
	}
	defer g.Conn.Close()
	const sysUpTime, ssCPURawIdle = ".1.3.6.1.2.1.1.3.0", ".1.3.6.1.4.1.2021.11.53.0"
	got, err := g.Get([]string{sysUpTime, ssCPURawIdle})
	if err != nil || len(got.Variables) != 2 {
		return false, false
	}
	return true, got.Variables[1].Type == gosnmp.Counter32
}

// Store is the URL of the OpenTSDB of the config, or of one in memory: then stored is
// what it has.
func (s *Site) Store() (url string, stored func() []faketsd.Point, err error) {
	if s.OpenTSDB != "" {
		return s.OpenTSDB, nil, nil
	}
	tsd, err := faketsd.Start(faketsd.Config{AutoCreateMetrics: true, FlushInterval: 100 * time.Millisecond, Retain: time.Hour, MaxPoints: 100_000})
	if err != nil {
		return "", nil, fmt.Errorf("starting an OpenTSDB in memory: %w", err)
	}
	s.opened = append(s.opened, closer(tsd.Close))
	s.Intro = append(s.Intro, "storing into an OpenTSDB in memory (an hour, at most 100,000 points); read back:",
		fmt.Sprintf("  curl '%s/api/query?start=5m-ago&m=none:cpu_used_percent'", tsd.URL()))
	return tsd.URL(), tsd.Stored, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }
