package inventory

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
)

// host is a job that is to be written once every cycle.
type host struct {
	place uint64 // where in the cycle: 0 is its beginning, 1<<64 would be the end of the spread
	job   kemi.Job
}

func (h host) compare(o host) int {
	return cmp.Or(cmp.Compare(h.place, o.place), strings.Compare(h.job.Resource, o.job.Resource))
}

// place returns where in its cycle a resource is polled: a hash, FNV-1a with the
// finalizer of MurmurHash3, for FNV alone leaves names that differ in the last
// digit close together.
func place(resource string) uint64 {
	f := fnv.New64a()
	_, _ = f.Write([]byte(resource))
	h := f.Sum64()
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// phase returns when after the begin of a cycle a place is: within the first 80 %,
// so that the last hosts have time for retries too. It grows with the place.
func phase(place uint64, length time.Duration) time.Duration {
	hi, _ := bits.Mul64(place, uint64(length/5*4))
	return time.Duration(hi)
}

// slot is how long due jobs wait at most for others to be written with.
const slot = 100 * time.Millisecond

// schedule knows which host is due when: a cycle for each interval. It is used by
// one goroutine.
type schedule struct {
	first  time.Duration // length of the first two cycles, 0 for none
	begun  bool
	cycles []*cycle
}

// replace sets the hosts, which must be sorted. Cycles under way go on: a host that
// had its turn has it again in the next one, and not before.
func (s *schedule) replace(hosts []host, now time.Time) {
	byInterval := map[time.Duration][]host{}
	for _, h := range hosts {
		byInterval[h.job.Interval] = append(byInterval[h.job.Interval], h)
	}
	kept := s.cycles[:0]
	for _, c := range s.cycles {
		if hosts := byInterval[c.interval]; hosts != nil {
			c.replace(hosts)
			kept = append(kept, c)
			delete(byInterval, c.interval)
		}
	}
	clear(s.cycles[len(kept):])
	s.cycles = kept
	for interval, hosts := range byInterval {
		c := &cycle{interval: interval, hosts: hosts}
		if !s.begun && s.first > 0 && s.first < interval {
			c.length, c.start, c.short = s.first, now, 2
		} else {
			c.align(now)
		}
		s.cycles = append(s.cycles, c)
	}
	s.begun = s.begun || len(hosts) > 0
	// In the order of intervals, so that the order of jobs does not depend on that of a map.
	slices.SortFunc(s.cycles, func(a, b *cycle) int { return cmp.Compare(a.interval, b.interval) })
}

// wait returns how long nothing is to be done.
func (s *schedule) wait(now time.Time) time.Duration {
	wait := time.Hour
	for _, c := range s.cycles {
		due := c.due()
		// To the end of the slot, whose bounds are the same for all cycles.
		width := min(slot, c.length/20)
		wait = min(wait, due.Sub(now)+width-time.Duration(due.UnixNano())%width)
	}
	return max(0, wait)
}

// take appends the jobs that are due to dst, up to its capacity, and returns how
// many were due but too old. If there are more, wait is 0.
func (s *schedule) take(dst []kemi.Job, now time.Time) (jobs []kemi.Job, stale int) {
	for _, c := range s.cycles {
		var n int
		dst, n = c.take(dst, now)
		stale += n
	}
	return dst, stale
}

// cycle is the hosts of one interval in their order, and how far the cycle under way
// has come.
type cycle struct {
	interval time.Duration
	start    time.Time
	length   time.Duration // interval, or less in the first cycles
	short    int           // so many cycles, with this one, have another length
	hosts    []host        // never empty
	next     int           // whose turn it is
	last     *host         // had its turn last in this cycle, and may have left the list since; nil: nobody had
}

// align makes the cycle the one that is under way by the wall clock, so that hosts
// keep their times over a restart, and passes those who had their turn.
func (c *cycle) align(now time.Time) {
	// Adding keeps the monotonic reading, so that the cycles that follow do not jump
	// when the clock is set.
	gone := time.Duration(now.UnixNano() % int64(c.interval))
	c.start, c.length = now.Add(-gone), c.interval
	c.pass(sort.Search(len(c.hosts), func(i int) bool { return phase(c.hosts[i].place, c.length) >= gone }))
	c.roll()
}

// replace sets other hosts. Those whose place has been passed wait for the next
// cycle.
func (c *cycle) replace(hosts []host) {
	if c.last != nil {
		c.next = sort.Search(len(hosts), func(i int) bool { return hosts[i].compare(*c.last) > 0 })
	}
	c.hosts = hosts
	c.roll()
}

// pass says that the first n hosts had their turn in this cycle.
func (c *cycle) pass(n int) {
	if c.next, c.last = n, nil; n > 0 {
		c.last = &c.hosts[n-1]
	}
}

// roll begins the next cycle if all hosts had their turn.
func (c *cycle) roll() {
	if c.next < len(c.hosts) {
		return
	}
	c.pass(0)
	c.start = c.start.Add(c.length)
	if c.short--; c.short == 0 {
		c.align(c.start)
	}
	c.short = max(c.short, 0)
}

func (c *cycle) due() time.Time { return c.start.Add(phase(c.hosts[c.next].place, c.length)) }

func (c *cycle) take(dst []kemi.Job, now time.Time) (jobs []kemi.Job, stale int) {
	for {
		// After a long standstill whole cycles are too old. Counting them host by host
		// would take as long as having polled them.
		if missed := int(now.Sub(c.start)/c.length) - 1; c.next == 0 && c.short == 0 && missed > 0 {
			c.pass(0)
			c.start = c.start.Add(time.Duration(missed) * c.length)
			stale += missed * len(c.hosts)
		}
		due := c.due()
		late := now.Sub(due)
		if late < 0 || late < c.length && len(dst) == cap(dst) {
			return dst, stale
		}
		j, length := c.hosts[c.next].job, c.length
		c.pass(c.next + 1)
		c.roll()
		if late >= length { // the next job of this host is due
			stale++
			continue
		}
		// The wall clock may have been set since the cycle began; what is said is what it
		// shows now.
		j.Scheduled = now.Add(-late).Round(0).UTC()
		j.Interval, j.Deadline = length, j.Scheduled.Add(length)
		dst = append(dst, j)
	}
}
