package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"
)

const (
	defaultPartitions = 64
	defaultRetention  = 7 * 24 * time.Hour
)

// wanted is how a topic should be.
type wanted struct {
	partitions, replication int
	retention               time.Duration
	bytes                   int64
	settings                map[string]string
	compacted               bool
}

func (w wanted) configs() map[string]*string {
	configs := map[string]*string{}
	set := func(k, v string) { configs[k] = &v }
	if w.compacted {
		set("cleanup.policy", "compact")
	} else {
		retention := w.retention
		if retention == 0 {
			retention = defaultRetention
		}
		set("cleanup.policy", "delete")
		set("retention.ms", strconv.FormatInt(retention.Milliseconds(), 10))
		set("message.timestamp.type", "LogAppendTime")
	}
	if w.bytes > 0 {
		set("retention.bytes", strconv.FormatInt(w.bytes, 10))
	}
	for k, v := range w.settings {
		set(k, v)
	}
	return configs
}

// prepare makes a topic or looks at the one that is there.
func (c *Cluster) prepare(topic string, w wanted, partitions *int, id *[16]byte, retention *time.Duration, appendTime *bool) error {
	ctx, cancel := c.within(context.Background())
	defer cancel()
	d, err := c.describe(ctx, topic)
	if errors.Is(err, ErrNoTopic) {
		n := w.partitions
		if n == 0 {
			n = defaultPartitions
		}
		replication := int16(-1) // the broker's default
		if w.replication > 0 {
			replication = int16(w.replication)
		}
		made, err := c.admin.CreateTopic(ctx, int32(n), replication, w.configs(), topic)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			if made.ErrMessage != "" {
				err = fmt.Errorf("%w (%s)", err, made.ErrMessage)
			}
			return fmt.Errorf("it is not there and cannot be made: %w", c.explain(err, topic))
		}
		// All brokers have to have heard of it.
		for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			if d, err = c.describe(ctx, topic); err == nil && len(d.Partitions) > 0 && d.Partitions.NumReplicas() > 0 {
				break
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return fmt.Errorf("it was made and is not there yet: %w", ctx.Err())
			}
		}
	} else if err != nil {
		return err
	}
	*partitions, *id = len(d.Partitions), d.ID
	if w.partitions > 0 && w.partitions != *partitions {
		return fmt.Errorf("it has %d partitions, and TopicConfig.Partitions says %d: partitions cannot be changed without moving keys; "+
			"say %d or 0, or write to a new topic", *partitions, w.partitions, *partitions)
	}
	return c.look(ctx, topic, w, d, retention, appendTime)
}

// describe returns what the cluster says of a topic.
func (c *Cluster) describe(ctx context.Context, topic string) (kadm.TopicDetail, error) {
	all, err := c.admin.Metadata(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, c.explain(err, topic)
	}
	d, ok := all.Topics[topic]
	if !ok {
		d.Err = kerr.UnknownTopicOrPartition
	}
	return d, c.explain(d.Err, topic)
}

// look checks the settings of a topic.
func (c *Cluster) look(ctx context.Context, topic string, w wanted, d kadm.TopicDetail, retention *time.Duration, appendTime *bool) error {
	found, err := c.admin.DescribeTopicConfigs(ctx, topic)
	if err == nil && len(found) == 1 {
		err = found[0].Err
	}
	if err != nil || len(found) != 1 {
		c.config.Logger.Warn("kafka: the settings of a topic could not be looked at; retention and limits are taken for granted",
			zap.String("topic", topic), zap.Error(err))
		return nil
	}
	set := map[string]string{}
	for _, kv := range found[0].Configs {
		set[kv.Key] = kv.MaybeValue()
	}
	warn := func(format string, args ...any) {
		c.config.Logger.Warn("kafka: topic "+topic+": "+fmt.Sprintf(format, args...), zap.String("topic", topic))
	}
	compacts := set["cleanup.policy"] == "compact"
	switch {
	case w.compacted && set["cleanup.policy"] != "compact":
		return fmt.Errorf("its cleanup.policy is %q, and has to be compact: set it so, or name another Config.StateTopic", set["cleanup.policy"])
	case !w.compacted && set["cleanup.policy"] != "delete" && set["cleanup.policy"] != "":
		return fmt.Errorf("its cleanup.policy is %q, which takes out records of the same key, and every record of a host has that key: set it to delete", set["cleanup.policy"])
	}
	if n, err := strconv.Atoi(set["max.message.bytes"]); err == nil {
		if n < batchMin {
			return fmt.Errorf("its max.message.bytes is %d: raise it to %d at least", n, c.config.BatchMaxBytes)
		}
		c.limits.Store(topic, int32(n))
	}
	if ms, err := strconv.ParseInt(set["retention.ms"], 10, 64); err == nil && ms > 0 && !compacts {
		*retention = time.Duration(min(ms, int64(200*365*24*time.Hour/time.Millisecond))) * time.Millisecond
		if w.retention > 0 && *retention < w.retention {
			warn("its retention.ms is %d (%v), less than TopicConfig.Retain, %v: raise it with kafka-configs", ms, *retention, w.retention)
		}
	}
	*appendTime = set["message.timestamp.type"] == "LogAppendTime"
	if !*appendTime && !w.compacted {
		warn("its message.timestamp.type is %s: the time of readers is that of the writers' clocks, which may differ; set it to LogAppendTime",
			set["message.timestamp.type"])
	}
	replicas := d.Partitions.NumReplicas()
	if isr, err := strconv.Atoi(set["min.insync.replicas"]); err == nil {
		switch {
		case isr > replicas:
			return fmt.Errorf("its min.insync.replicas is %d and it has %d replicas: nothing can be written", isr, replicas)
		case replicas > 1 && isr < 2:
			warn("its min.insync.replicas is %d: a write counts as safe when one broker has it, and is lost with that broker; set it to 2", isr)
		case replicas > 1 && isr == replicas:
			warn("its min.insync.replicas is %d, as many as it has replicas: one broker that is down stops all writing", isr)
		}
	}
	if set["unclean.leader.election.enable"] == "true" {
		warn("its unclean.leader.election.enable is true: a broker that has missed writes may become leader, and they are lost; set it to false")
	}
	return nil
}
