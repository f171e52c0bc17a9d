// Package bustest checks that a topic keeps the contract of package bus. Every room
// of the bus runs it: in memory, on disk, on Kafka's fake and on a real broker.
//
// Most of the contract is checked all the time: every check reads through lanes that
// look at order, at partitions, at what was written together and at who calls them,
// and writes batches that are scribbled over once Write has returned.
package bustest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kemi-go/kemi/bus"
)

// Bus is one bus under test: how to reach it, and what it promises beyond the
// contract. The zero value of every field but Open is usable.
type Bus struct {
	// Open returns the topic of that name, and makes it if it is not there. A check
	// opens few topics, and a topic once unless Restart lies between.
	Open func(tb testing.TB, name string, t Topic) bus.Topic[Record]

	// Restart does to the bus what the end of the process and a new start do; no source
	// runs meanwhile. Nil: records do not outlive the process.
	Restart func(tb testing.TB)

	Drains  bool // a source that is asked to stop hands over what waits on the topic first
	Bounded bool // Write blocks while the slowest reader is Capacity records behind
	Rewinds bool // lanes with a horizon are warmed up
	// Recovers: what a flow moves from topic to topic is there once whatever happens, and
	// the state of a reader is proved and given back after a restart. It needs Restart.
	Recovers bool

	// Churn is how many members come and go in the check of rebalancing. The default is
	// 40; a bus with slow rebalances will want fewer.
	Churn int
	// Patience is how long a check waits for what has to happen. The default is 2 minutes:
	// only what hangs takes so long.
	Patience time.Duration
	// Seed makes the random schedules those of an earlier run. 0: other ones each time.
	// It is in the log of a check that failed.
	Seed uint64
}

// Topic is what a check wants of a topic. A bus leaves out what it has no notion of.
type Topic struct {
	Partitions int
	Capacity   int           // records; 0: plenty
	Retain     time.Duration // how long records are kept that were read; 0: not at all
}

// Run checks a bus. It calls open for each check, which gets a bus of its own or at
// least topics of its own; what open leaves running it stops with tb.Cleanup.
func Run(t *testing.T, open func(tb testing.TB) Bus) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if why := c.run(t, open(t)); why != "" {
				t.Skip(why)
			}
		})
	}
}

// check is one behaviour.
type check struct {
	name  string
	needs func(b Bus) string // why the check is not for this bus; nil: it is for all
	do    func(h *harness)
}

func (c check) run(tb testing.TB, b Bus) (skipped string) {
	if c.needs != nil {
		if why := c.needs(b); why != "" {
			return why
		}
	}
	if b.Patience == 0 {
		b.Patience = 2 * time.Minute
	}
	if b.Churn == 0 {
		b.Churn = 40
	}
	if b.Seed == 0 {
		b.Seed = rand.Uint64()
	}
	tb.Logf("seed %d", b.Seed)
	c.do(&harness{TB: tb, bus: b, rnd: rand.New(rand.NewPCG(b.Seed, 0))})
	return ""
}

func drains(b Bus) string {
	if b.Drains {
		return ""
	}
	return "this bus does not hand over what waits when it is stopped"
}

func bounded(b Bus) string {
	if b.Bounded {
		return ""
	}
	return "this bus does not bound what waits"
}

func rewinds(b Bus) string {
	if b.Rewinds {
		return ""
	}
	return "this bus does not rewind"
}

func restarts(b Bus) string {
	if b.Restart != nil {
		return ""
	}
	return "records of this bus do not outlive the process"
}
