package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// stillness is how long a Write may see nothing acknowledged before the client is taken
// to have forgotten about it.
//
// franz-go 1.22.2 does: it has put a batch into a request, and takes it out again as its
// producer ID has just become void, which a batch of another partition that was refused
// for good has done. An answer that has the first batch of the partition sent again comes
// between the two, and its "from the first one on" is overwritten by "from the last one
// on". The last one is refused, being out of order, and as it is not the first, nobody
// minds. All that was handed over for that partition then lies there for ever.
//
// Records that are given up fail the Writes they are of, which are repeated, and readers
// drop what they have had.
type stillness struct {
	after time.Duration

	mu sync.Mutex
	at time.Time // when it was last ended
}

// healthy tells whether nothing keeps the records of a topic from being written: brokers
// answer, and each partition has a leader and more than half of its replicas. Where that
// is not so, records wait for good reason.
func (c *Cluster) healthy(ctx context.Context, topic string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
	defer cancel()
	d, err := c.describe(ctx, topic)
	if err != nil {
		return false
	}
	for _, p := range d.Partitions {
		if p.Err != nil || p.Leader < 0 || 2*len(p.ISR) <= len(p.Replicas) {
			return false
		}
	}
	return true
}

// endStillness gives up all records that the client has. One Write does so for all; the
// others go on waiting.
func (c *Cluster) endStillness() {
	if !c.still.mu.TryLock() {
		return
	}
	defer c.still.mu.Unlock()
	if time.Since(c.still.at) < c.still.after {
		return
	}
	c.still.at = time.Now()
	c.watch.note(fmt.Sprintf("nothing of a Write was acknowledged for %v, and its topic is as it should be: what the client holds is given up and written again", c.still.after), nil)
	c.producer.UnsafeAbortBufferedRecords()
}
