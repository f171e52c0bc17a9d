package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

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

// reader is how far a flow is behind what is on its topic, and what became of the
// state it built again from the topic.
type reader struct {
	lag     int64  // records in memory; offsets, which are polls, on disk and on Kafka
	rewinds uint64 // replays
	proved  uint64 // of rewinds: the state was what it had been
}

// busFlagValue is the value of -bus.
type busFlagValue struct {
	kind    string // memory, disk or kafka
	dir     string
	brokers []string
}

func parseBus(s string) (busFlagValue, error) {
	kind, where, given := strings.Cut(s, ":")
	v := busFlagValue{kind: kind}
	switch {
	case kind == "memory" && !given:
		return v, nil
	case kind == "disk":
		if v.dir = where; where == "" {
			return v, errors.New("-bus disk: which directory? Write disk:/var/lib/kemi")
		}
		return v, nil
	case kind == "kafka":
		for b := range strings.SplitSeq(where, ",") {
			host, port, err := net.SplitHostPort(b)
			if err != nil || host == "" || port == "" {
				return v, fmt.Errorf("-bus kafka: %q is no broker: write kafka:host:port,host:port", b)
			}
			v.brokers = append(v.brokers, b)
		}
		return v, nil
	}
	return v, fmt.Errorf("-bus %q: want memory, disk:DIR or kafka:HOST:PORT,...", s)
}

func (v busFlagValue) String() string {
	switch v.kind {
	case "disk":
		return "disk in " + v.dir
	case "kafka":
		return "Kafka at " + strings.Join(v.brokers, ", ")
	}
	return "memory: what waits there is gone with the program (see -bus in -h)"
}

// open opens the topics. It is here, and nowhere else, that one bus differs from
// another.
func (v busFlagValue) open(cfg *config, logger *zap.Logger) (*topics, error) {
	switch v.kind {
	case "disk":
		return openDisk(v.dir, logger)
	case "kafka":
		return openKafka(v.brokers, cfg.Kafka, logger)
	}
	return openMemory()
}

// allRoles are the roles, upstream first.
var allRoles = []string{"producer", "poller", "calculator", "forwarder", "alert", "handler"}

// parseRoles gives the roles of a list, upstream first.
func parseRoles(list string) ([]string, error) {
	if list == "all" {
		return allRoles, nil
	}
	var roles []string
	asked := strings.Split(list, ",")
	for i, r := range asked {
		asked[i] = strings.TrimSpace(r)
		if !slices.Contains(allRoles, asked[i]) {
			return nil, fmt.Errorf("-role %q: want all, or some of %s", asked[i], strings.Join(allRoles, ","))
		}
	}
	for _, r := range allRoles {
		if slices.Contains(asked, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}
