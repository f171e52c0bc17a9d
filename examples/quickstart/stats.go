package main

import (
	"cmp"
	"context"
	"embed"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
	"github.com/kemi-go/kemi/examples/internal/site"
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
	topics   []topic
	opened   []io.Closer
}

func (s *stats) close() {
	for _, c := range slices.Backward(s.opened) {
		c.Close()
	}
}

// newStats builds the pipeline.
func newStats(ctx context.Context, cfg *site.Site, scr *screen, logger *zap.Logger) (_ *stats, err error) {
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

	// Which hosts there are, and how to be let in: those of the config, or this machine.
	hosts, err := cfg.Hosts(ctx)
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
	poller, err := snmp.NewPoller(cfg.SNMP(logger))
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

	// Where metrics are stored (without a config, in memory), by which rules they are judged, and who is told.
	url, _, err := cfg.Store()
	if err != nil {
		return nil, err
	}
	store, err := opentsdb.New(opentsdb.Config{URL: url, Logger: logger})
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, store)
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
		hook, err := webhook.New(cfg.Webhook.Config())
		if err != nil {
			return nil, err
		}
		s.pipeline.Flows = append(s.pipeline.Flows, kemi.Connect("webhook", alerts.Group("webhook"), hook))
	}
	s.topics = []topic{jobs, raw, metrics, alerts}
	scr.foot = func(width int) []string { return s.foot(width, ctx.Err() != nil) }
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
