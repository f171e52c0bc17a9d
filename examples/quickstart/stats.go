package main

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
	"github.com/kemi-go/kemi/internal/agent"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/rule/promql"
	"github.com/kemi-go/kemi/sink/notify/webhook"
	"github.com/kemi-go/kemi/sink/opentsdb"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/source/snmp"
	"github.com/kemi-go/kemi/transform"
	"github.com/kemi-go/kemi/transform/counter"
	"github.com/kemi-go/kemi/transform/derive"
)

//go:embed rules.yml
var shipped embed.FS

// stats is the STATS pipeline in one process, and what it has opened.
type stats struct {
	pipeline *kemi.Pipeline
	intro    []string // what to tell the user first
	opened   []io.Closer
	// waiting is the records on the topics, by the flow that is to read them, and the
	// topics that are full.
	waiting func() (unread map[string]int, full []string)
}

func (s *stats) close() {
	for i := len(s.opened) - 1; i >= 0; i-- {
		s.opened[i].Close()
	}
}

// newStats builds the pipeline.
func newStats(ctx context.Context, cfg *config, scr *screen, logger *zap.Logger) (_ *stats, err error) {
	s := &stats{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// Between the stages: topics in memory. bus/disk and bus/kafka have the same shape.
	jobs, err1 := memory.NewTopic("jobs", memory.Config[kemi.Job]{})
	raw, err2 := memory.NewTopic("raw", memory.Config[kemi.Metric]{})
	metrics, err3 := memory.NewTopic("metrics", memory.Config[kemi.Metric]{})
	alerts, err4 := memory.NewTopic("alerts", memory.Config[kemi.Alert]{})
	if err := cmp.Or(err1, err2, err3, err4); err != nil {
		return nil, err
	}

	// Which hosts there are, and how to be let in.
	hosts, err := s.discoverer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	interval := time.Duration(cfg.Interval)
	schedule, err := inventory.New(hosts, inventory.Config{
		Interval: interval, FirstInterval: min(3*time.Second, interval), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	poller, err := snmp.NewPoller(snmp.Config{
		Credentials: credentials(cfg), DefaultCredential: defaultCredential(cfg), Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, poller)

	// Rates from counters, and what follows from them.
	rates, err := counter.New(counter.Config{Interval: interval})
	if err != nil {
		return nil, err
	}
	formulas, err := derive.New(derive.Config{Formulas: derive.Linux()})
	if err != nil {
		return nil, err
	}

	// Where metrics are stored, by which rules they are judged, and who is told.
	store, err := s.store(cfg, logger)
	if err != nil {
		return nil, err
	}
	ruleConfig := promql.Config{Files: cfg.Rules, EvaluationInterval: interval, Logger: logger}
	if len(cfg.Rules) == 0 {
		ruleConfig.Files, ruleConfig.FS = []string{"rules.yml"}, shipped
	}
	rules, err := promql.New(ruleConfig)
	if err != nil {
		return nil, err
	}
	go rules.Watch(ctx, time.Second)

	// The flows, upstream first. They are the diagram.
	s.pipeline = &kemi.Pipeline{
		Name: "stats",
		Flows: []*kemi.Flow{
			kemi.Connect("schedule", schedule, jobs),
			kemi.Pipe("poll", jobs.Group("poll"), poller, raw, kemi.TickEvery(100*time.Millisecond)), // stragglers soon
			kemi.Pipe("calculate", raw.Group("calculate"), transform.Then(rates, formulas), metrics),
			kemi.Connect("store", metrics.Group("store"), store),
			kemi.Pipe("judge", metrics.All("judge"), rules, alerts),
			kemi.Connect("tell", alerts.Group("tell"), scr.alerts()),
			kemi.Connect("show", metrics.All("show"), scr.metrics()),
		},
		DeadLetters:  deadLetters(logger),
		Logger:       logger,
		DrainTimeout: 10 * time.Second,
	}
	if cfg.Webhook.URL != "" {
		hook, err := webhook.New(webhook.Config{URL: cfg.Webhook.URL, Secrets: secrets(cfg.Webhook.Secret)})
		if err != nil {
			return nil, err
		}
		s.pipeline.Flows = append(s.pipeline.Flows, kemi.Connect("webhook", alerts.Group("webhook"), hook))
	}
	s.waiting = func() (unread map[string]int, full []string) {
		unread = map[string]int{}
		for _, t := range []interface {
			fmt.Stringer
			Stats() memory.Stats
		}{jobs, raw, metrics, alerts} {
			st := t.Stats()
			for _, r := range st.Readers {
				unread[r.Name] += r.Waiting
			}
			if st.Blocked > 0 {
				full = append(full, t.String())
			}
		}
		return unread, full
	}
	scr.foot = func(width int) []string {
		keys := "Ctrl-C drains and stops"
		if ctx.Err() != nil {
			keys = fmt.Sprintf("draining, at most %s; Ctrl-C again stops now", s.pipeline.DrainTimeout)
		}
		lines := append([]string{""}, wrap(s.ledger(), width-1)...)
		if _, full := s.waiting(); len(full) > 0 {
			lines = append(lines, red("STANDSTILL ")+strings.Join(full, " ")+" full: what comes before waits, polling and rules too")
		}
		return append(lines, keys)
	}
	scr.stale = 3 * interval
	return s, nil
}

// deadLetters is the end of records that a stage refused for good: here, the log.
func deadLetters(logger *zap.Logger) kemi.Sink[kemi.DeadLetter] {
	return kemi.SinkFunc[kemi.DeadLetter](func(_ context.Context, batch []kemi.DeadLetter) error {
		for _, d := range batch {
			logger.Warn("refused for good", zap.String("flow", d.Flow), zap.String("error", d.Error))
		}
		return nil
	})
}

// ledger is the flows with what each has done, waits for, and suffers from.
func (s *stats) ledger() string {
	var b strings.Builder
	b.WriteString("FLOWS")
	unread, _ := s.waiting()
	for _, f := range s.pipeline.Stats() {
		fmt.Fprintf(&b, "  %s %d", f.Name, f.Done)
		if n := unread[f.Name]; n > 0 {
			fmt.Fprintf(&b, " (%d waiting)", n)
		}
		if f.LastErr != "" && time.Since(f.LastErrTime) < 10*time.Second {
			b.WriteString(" (failing)")
		}
	}
	return b.String()
}

// drained says what the pipeline did, and what of it did not get through: that is
// lost, as the topics are in memory.
func (s *stats) drained() string {
	text, left := "drained:", 0
	unread, _ := s.waiting()
	for _, f := range s.pipeline.Stats() {
		text += fmt.Sprintf(" %s %d", f.Name, f.Done)
		if n := unread[f.Name]; n > 0 {
			text += fmt.Sprintf(" (%d not)", n)
			left += n
		}
		text += ","
		if err := f.Balance(); err != nil {
			text += " (" + err.Error() + ")"
		}
	}
	return fmt.Sprintf("%s left behind %d", text, left)
}

// discoverer says which hosts to poll: those of the config, or this machine.
func (s *stats) discoverer(ctx context.Context, cfg *config) (inventory.Discoverer, error) {
	var parts []inventory.Discoverer
	var listed []inventory.Target
	for _, t := range cfg.Targets {
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
	if len(cfg.TargetFiles) > 0 {
		parts = append(parts, inventory.Files(cfg.TargetFiles...))
	}
	if cfg.TargetURL != "" {
		d, err := inventory.HTTP(inventory.HTTPConfig{URL: cfg.TargetURL, Refresh: time.Duration(cfg.Interval)})
		if err != nil {
			return nil, err
		}
		parts = append(parts, d)
	}
	if len(parts) > 0 {
		s.intro = append(s.intro, "polling the hosts of the config")
		return inventory.Join(parts...), nil
	}

	self, err := s.localAgent(ctx)
	if err != nil {
		return nil, err
	}
	return inventory.Static(self), nil
}

// localAgent is the agent on port 161, or one that is started here.
func (s *stats) localAgent(ctx context.Context) (inventory.Target, error) {
	name := hostName()
	const installed = "127.0.0.1:161"
	switch answers, useful := probe(ctx, installed); {
	case useful:
		s.intro = append(s.intro, "polling the SNMP agent at "+installed)
		return inventory.Target{Address: installed, Resource: name, Auth: thisMachine}, nil
	case answers:
		s.intro = append(s.intro, "the SNMP agent at "+installed+" shows no CPU: its view is restricted (see snmpd.conf, rocommunity)")
	}
	a, err := agent.Listen("127.0.0.1:0", agent.Config{Values: agent.System()})
	if err != nil {
		return inventory.Target{}, fmt.Errorf("starting an SNMP agent: %w", err)
	}
	s.opened = append(s.opened, a)
	s.intro = append(s.intro, "polling an SNMP agent of this program at "+a.Addr().String())
	return inventory.Target{Address: a.Addr().String(), Resource: name, Auth: thisMachine}, nil
}

// probe asks the agent on this machine for its uptime and the CPU: Debian's snmpd,
// as it comes, shows the public community the first and not the second.
func probe(ctx context.Context, addr string) (answers, useful bool) {
	host, port, _ := strings.Cut(addr, ":")
	g := &gosnmp.GoSNMP{
		Context: ctx, Target: host, Community: "public", Version: gosnmp.Version2c, Timeout: 500 * time.Millisecond,
	}
	if _, err := fmt.Sscan(port, &g.Port); err != nil {
		return false, false
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

// store is the OpenTSDB of the config, or one in memory that can be read back.
func (s *stats) store(cfg *config, logger *zap.Logger) (kemi.Sink[kemi.Metric], error) {
	url := cfg.OpenTSDB
	if url == "" {
		tsd, err := faketsd.Start(faketsd.Config{AutoCreateMetrics: true, FlushInterval: 100 * time.Millisecond, Retain: time.Hour, MaxPoints: 100_000})
		if err != nil {
			return nil, fmt.Errorf("starting an OpenTSDB in memory: %w", err)
		}
		s.opened = append(s.opened, closer(tsd.Close))
		url = tsd.URL()
		s.intro = append(s.intro, fmt.Sprintf("storing into an OpenTSDB in memory (an hour, at most 100,000 points); read back:\n  curl '%s/api/query?start=5m-ago&m=none:cpu_used_percent'", url))
	}
	sink, err := opentsdb.New(opentsdb.Config{URL: url, Logger: logger})
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, sink)
	return sink, nil
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

func hostName() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "this-machine"
}
