package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
	"github.com/kemi-go/kemi/rule/promql"
	"github.com/kemi-go/kemi/sink/notify/log"
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

// flows is the STATS pipeline: what each role does. A flow reads its topic by its own
// name, and goes on where that name has stopped. The webhook has a name of its own, so
// that it holds up nobody when it is away.
func (s *stats) flows(on *topics) []flow {
	stragglersSoon := kemi.TickEvery(100 * time.Millisecond) // a late answer does not wait for the next job
	return []flow{
		{"producer", func(n string) *kemi.Flow { return kemi.Connect(n, s.jobs, on.jobs) }},
		{"poller", func(n string) *kemi.Flow { return kemi.Pipe(n, on.jobs.Group(n), s.poller, on.raw, stragglersSoon) }},
		{"calculator", func(n string) *kemi.Flow { return kemi.Pipe(n, on.raw.Group(n), s.rates, on.metrics) }},
		{"forwarder", func(n string) *kemi.Flow { return kemi.Connect(n, on.metrics.Group(n), s.store) }},
		{"alert", func(n string) *kemi.Flow { return kemi.Pipe(n, on.metrics.All(n), s.rules, on.alerts) }},
		{"handler", func(n string) *kemi.Flow { return kemi.Connect(n, on.alerts.Group(n), s.log) }},
		{"webhook", func(n string) *kemi.Flow { return kemi.Connect(n, on.alerts.Group(n), s.webhook) }},
	}
}

// flow is made when its role is played here: its stages are there only then.
type flow struct {
	name string
	make func(name string) *kemi.Flow
}

// stats is the pipeline of this process, its stages, and what it has opened.
type stats struct {
	pipeline *kemi.Pipeline

	jobs    *inventory.Source
	poller  *snmp.Poller
	rates   kemi.Transform[kemi.Metric, kemi.Metric]
	store   *opentsdb.Sink
	rules   *promql.Rules
	log     kemi.Sink[kemi.Alert]
	webhook *webhook.Sink

	on     *topics
	stored func() []faketsd.Point // nil: in an OpenTSDB that is not of this program
	opened []io.Closer
}

func (s *stats) close() {
	for _, c := range slices.Backward(s.opened) {
		c.Close()
	}
}

// newStats builds the pipeline of some roles.
func newStats(ctx context.Context, cfg *config, roles []string, on *topics, out io.Writer, logger *zap.Logger) (_ *stats, err error) {
	s := &stats{on: on}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	stages := map[string]func() error{
		"producer": func() error { return s.openProducer(ctx, cfg, logger) },
		"poller": func() (err error) {
			s.poller, err = snmp.NewPoller(cfg.SNMP(logger))
			return s.opens(s.poller, err)
		},
		"calculator": func() error {
			rates, err1 := counter.New(counter.Config{Interval: cfg.interval()})
			formulas, err2 := derive.New(derive.Config{Formulas: derive.Linux()})
			s.rates = transform.Then(rates, formulas)
			return errors.Join(err1, err2)
		},
		"forwarder": func() (err error) {
			url, stored, err := cfg.Store()
			if err != nil {
				return err
			}
			s.stored = stored
			s.store, err = opentsdb.New(opentsdb.Config{URL: url, Logger: logger})
			return s.opens(s.store, err)
		},
		"alert": func() (err error) {
			c := promql.Config{Files: cfg.Rules, EvaluationInterval: cfg.interval(), Logger: logger}
			if len(cfg.Rules) == 0 {
				c.Files, c.FS = []string{"rules.yml"}, shipped
			}
			if s.rules, err = promql.New(c); err == nil {
				go s.rules.Watch(ctx, time.Second)
			}
			return err
		},
		"handler": func() (err error) {
			s.log = log.New(out)
			if cfg.Webhook.URL == "" {
				return nil
			}
			s.webhook, err = webhook.New(cfg.Webhook.Config())
			return s.opens(s.webhook, err)
		},
	}
	play := slices.Clone(roles)
	for _, role := range roles {
		if err := stages[role](); err != nil {
			return nil, err
		}
	}
	if s.webhook != nil {
		play = append(play, "webhook")
	}
	s.pipeline = &kemi.Pipeline{
		Name:         "stats",
		DeadLetters:  deadLetters(on.dead, logger),
		Logger:       logger,
		DrainTimeout: 10 * time.Second,
	}
	for _, f := range s.flows(on) {
		if slices.Contains(play, f.name) {
			s.pipeline.Flows = append(s.pipeline.Flows, f.make(f.name))
		}
	}
	return s, nil
}

// opens takes what has to be closed at the end.
func (s *stats) opens(c io.Closer, err error) error {
	if err == nil {
		s.opened = append(s.opened, c)
	}
	return err
}

// openProducer makes the source of jobs: which hosts there are, and when it is their turn.
func (s *stats) openProducer(ctx context.Context, cfg *config, logger *zap.Logger) error {
	hosts, err := cfg.Hosts(ctx)
	if err != nil {
		return err
	}
	s.jobs, err = inventory.New(hosts, inventory.Config{
		Interval: cfg.interval(), FirstInterval: min(3*time.Second, cfg.interval()), Logger: logger,
	})
	return err
}

// deadLetters is where records go that a stage refused for good: to a topic of their
// own, and into the log.
func deadLetters(topic kemi.Sink[kemi.DeadLetter], logger *zap.Logger) kemi.Sink[kemi.DeadLetter] {
	return kemi.SinkFunc[kemi.DeadLetter](func(ctx context.Context, batch []kemi.DeadLetter) error {
		if err := topic.Write(ctx, batch); err != nil {
			return fmt.Errorf("dead letters: %w", err)
		}
		for _, d := range batch {
			logger.Warn("refused for good", zap.String("flow", d.Flow), zap.String("error", d.Error))
		}
		return nil
	})
}
