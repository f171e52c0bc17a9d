package main

import (
	"cmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/memory"
)

// openMemory makes topics in memory.
func openMemory() (*topics, error) {
	jobs, err1 := memory.NewTopic("jobs", memory.Config[kemi.Job]{})
	raw, err2 := memory.NewTopic("raw", memory.Config[kemi.Metric]{})
	metrics, err3 := memory.NewTopic("metrics", memory.Config[kemi.Metric]{})
	alerts, err4 := memory.NewTopic("alerts", memory.Config[kemi.Alert]{})
	dead, err5 := memory.NewTopic("dead", memory.Config[kemi.DeadLetter]{Capacity: 1000})
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	readers := func() map[string]reader {
		all := map[string]reader{}
		for _, t := range []interface{ Stats() memory.Stats }{jobs, raw, metrics, alerts} {
			for _, l := range t.Stats().Readers {
				all[l.Name] = reader{lag: int64(l.Waiting)}
			}
		}
		return all
	}
	return &topics{jobs: jobs, raw: raw, metrics: metrics, alerts: alerts, dead: dead, readers: readers, close: func() error { return nil }}, nil
}
