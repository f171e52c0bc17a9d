package main

import (
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

// topics are where records wait between the flows. A bus is what fills them in; the
// rest of the program knows nothing else of it.
type topics struct {
	jobs    bus.Topic[kemi.Job]
	raw     bus.Topic[kemi.Metric]
	metrics bus.Topic[kemi.Metric]
	alerts  bus.Topic[kemi.Alert]
	dead    bus.Topic[kemi.DeadLetter]

	readers func() map[string]reader // by name, which is that of the flow
	keeps   bool                     // what waits outlives the program
	close   func() error
}

// jobsKeep is how long jobs are kept: those of the cycle before are of no use.
const jobsKeep = time.Hour

// reader is how far a flow is behind what is on its topic, and what became of the
// state it built again from the topic.
type reader struct {
	lag     int64  // records in memory; offsets, of polls and of ticks, on disk and on Kafka
	rewinds uint64 // replays
	proved  uint64 // of rewinds: the state was what it had been
	lost    uint64 // offsets that retention took before they were read
	damaged int    // partitions that wait for a repair
}

// open opens the topics. It is here, and nowhere else, that one bus differs from
// another.
func (p place) open(cfg *config, logger *zap.Logger) (*topics, error) {
	switch p.kind {
	case "disk":
		return openDisk(p.dir, time.Duration(cfg.Retention), logger)
	case "kafka":
		return openKafka(p.brokers, cfg.Kafka, time.Duration(cfg.Retention), logger)
	}
	return openMemory()
}
