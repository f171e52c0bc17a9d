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

// endStillness gives up all records that the client has, if the cluster answers. Where it does
// not, records wait for good reason.
func (c *Cluster) endStillness(ctx context.Context) {
	c.still.mu.Lock()
	defer c.still.mu.Unlock()
	if time.Since(c.still.at) < c.still.after {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout)
	defer cancel()
	if c.producer.Ping(ctx) != nil {
		return
	}
	c.still.at = time.Now()
	c.watch.note(fmt.Sprintf("nothing of a Write was acknowledged for %v, and brokers answer: what the client holds is given up and written again", c.still.after), nil)
	c.producer.UnsafeAbortBufferedRecords()
}
