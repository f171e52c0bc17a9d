package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/kafka"
)

// openKafka makes topics on a cluster, or takes those that are there.
func openKafka(brokers []string, c kafkaConfig, keep time.Duration, logger *zap.Logger) (*topics, error) {
	cluster, err := kafka.Open(kafka.Config{
		Brokers: brokers, TLS: c.TLS.config(), SASL: c.SASL.login(), Logger: logger,
		ReplicationFactor: c.ReplicationFactor, StateTopic: c.TopicPrefix + "state",
	})
	if err != nil {
		return nil, err
	}
	n := c.Partitions
	jobs, err1 := kafka.NewTopic(cluster, c.TopicPrefix+"jobs", kafka.TopicConfig[kemi.Job]{Partitions: n, Retain: jobsKeep})
	raw, err2 := kafka.NewTopic(cluster, c.TopicPrefix+"raw", kafka.TopicConfig[kemi.Metric]{Partitions: n, Retain: keep})
	metrics, err3 := kafka.NewTopic(cluster, c.TopicPrefix+"metrics", kafka.TopicConfig[kemi.Metric]{Partitions: n, Retain: keep})
	alerts, err4 := kafka.NewTopic(cluster, c.TopicPrefix+"alerts", kafka.TopicConfig[kemi.Alert]{Partitions: n, Retain: keep})
	dead, err5 := kafka.NewTopic(cluster, c.TopicPrefix+"dead", kafka.TopicConfig[kemi.DeadLetter]{Partitions: n, Retain: keep})
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	readers := func() map[string]reader {
		all := map[string]reader{}
		for _, t := range []interface{ Stats() kafka.Stats }{jobs, raw, metrics, alerts} {
			for _, r := range t.Stats().Readers {
				all[r.Name] = reader{lag: r.Lag, rewinds: r.Rewinds, proved: r.Proved, lost: r.Lost}
			}
		}
		return all
	}
	return &topics{jobs: jobs, raw: raw, metrics: metrics, alerts: alerts, dead: dead, readers: readers, keeps: true, close: cluster.Close}, nil
}

func (c *tlsConfig) config() *tls.Config {
	if c == nil {
		return nil
	}
	return c.made
}

func (c *saslConfig) login() *kafka.SASL {
	if c == nil {
		return nil
	}
	return &kafka.SASL{Mechanism: c.Mechanism, User: c.User, Password: string(c.Password)}
}
