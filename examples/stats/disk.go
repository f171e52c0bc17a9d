package main

import (
	"cmp"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/disk"
)

// openDisk makes topics in a directory, or opens those that are there.
func openDisk(dir string, keep time.Duration, logger *zap.Logger) (*topics, error) {
	db, err := disk.Open(disk.Config{Dir: dir, Logger: logger})
	if err != nil {
		return nil, err
	}
	jobs, err1 := disk.NewTopic(db, "jobs", disk.TopicConfig[kemi.Job]{Retain: jobsKeep})
	raw, err2 := disk.NewTopic(db, "raw", disk.TopicConfig[kemi.Metric]{Retain: keep})
	metrics, err3 := disk.NewTopic(db, "metrics", disk.TopicConfig[kemi.Metric]{Retain: keep})
	alerts, err4 := disk.NewTopic(db, "alerts", disk.TopicConfig[kemi.Alert]{Retain: keep})
	dead, err5 := disk.NewTopic(db, "dead", disk.TopicConfig[kemi.DeadLetter]{Retain: keep})
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	readers := func() map[string]reader {
		all := map[string]reader{}
		for _, t := range db.Stats().Topics {
			for _, r := range t.Readers {
				all[r.Name] = reader{lag: r.Lag, rewinds: r.Rewinds, proved: r.Proved, lost: r.Lost, damaged: len(r.Damage)}
			}
		}
		return all
	}
	return &topics{jobs: jobs, raw: raw, metrics: metrics, alerts: alerts, dead: dead, readers: readers, keeps: true, close: db.Close}, nil
}
