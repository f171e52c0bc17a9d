package snmp

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp/internal/codec"
)

// hostKey tells hosts apart. The engine ID does not: machines made from one image have
// the same.
type hostKey struct{ resource, target, auth string }

// state is what is remembered about a host from poll to poll. All of it is a cache: a
// poller that starts anew finds it out again.
type state struct {
	key  hostKey
	hash uint64

	// Under Poller.mu.
	seen     time.Time
	interval time.Duration

	mu       sync.Mutex
	now      *poll         // the poll that is running
	failures int           // polls without an answer since the last one with
	took     time.Duration // the last poll

	// The rest belongs to the poll that is running.
	sec     *security
	session *codec.Session

	addr     netip.AddrPort
	resolved time.Time // when a name was resolved; zero: the target is an address

	rtt, rttVar time.Duration // RFC 6298; rtt 0: not measured yet

	maxBinds   int // variables in one answer
	shrunk     time.Time
	agentTicks uint64 // sysUpTime
	watched    []Value
	dropped    map[string]time.Time // OIDs that made the agent fail, until when

	labels       kemi.Labels // of the host
	jobLabels    kemi.Labels
	service      string
	scalarLabels []kemi.Labels
	plan         *plan
	tables       []tableState
	rows         *rowSet // of all tables; nil: to be made
	values       []Value // of the scalars
	metrics      int     // of the last poll, to make room for the next
}

// tableState is what is known about a table.
type tableState struct {
	rows    []*Row
	reads   []read    // what to ask for between two walks
	expires time.Time // zero: the rows have to be looked for
	fresh   bool      // some of it was read in this poll
}

// read is one value of a row that is asked for by itself.
type read struct {
	row    *Row
	column int
	oid    string
}

const (
	defaultBinds = 60 // about what fits one Ethernet frame
	breakAfter   = 3  // cycles without an answer until only a probe is sent
	rowsFor      = 10 * time.Minute
	addrFor      = 5 * time.Minute
	dropFor      = time.Hour
	shrinkFor    = time.Hour
)

func newState(key hostKey, hash uint64) *state {
	return &state{key: key, hash: hash, maxBinds: defaultBinds}
}

func (h *state) idleSince(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != nil {
		return 0
	}
	return now.Sub(h.seen)
}

// prompt tells whether the host is worth waiting for: whether its last poll was over,
// well or badly, within the patience. h.mu is held.
func (h *state) prompt(patience time.Duration) bool {
	return h.took < patience
}

// prepare brings the caches in line with the job.
func (h *state) prepare(q *poll) {
	if h.sec != q.sec {
		h.sec, h.session, h.rows = q.sec, nil, nil
		if q.sec.user != nil {
			h.session = codec.NewSession(q.sec.user)
		}
	}
	fresh := h.plan != q.plan
	if fresh {
		h.plan = q.plan
		h.tables = make([]tableState, len(q.plan.tables))
		h.values = make([]Value, len(q.plan.oids))
		h.watched, h.rows = nil, nil
	}
	if fresh || h.jobLabels != q.job.Labels || h.service != q.job.Service || h.labels.Len() == 0 {
		h.jobLabels, h.service = q.job.Labels, q.job.Service
		h.labels = labelsOf(&q.job)
		h.scalarLabels = make([]kemi.Labels, len(q.plan.scalars))
		for i := range q.plan.scalars {
			h.scalarLabels[i] = h.labels
			if ls := q.plan.scalars[i].Labels; len(ls) > 0 {
				h.scalarLabels[i] = h.labels.Merge(ls...)
			}
		}
		h.forgetRows()
	}
	for i := range h.tables {
		h.tables[i].fresh = false
	}
	now := q.began
	for oid, until := range h.dropped {
		if now.After(until) {
			delete(h.dropped, oid)
		}
	}
	if h.maxBinds < defaultBinds && now.Sub(h.shrunk) > shrinkFor {
		h.maxBinds = defaultBinds
	}
}

// forgetRows makes every table be walked at this poll.
func (h *state) forgetRows() {
	clear(h.tables)
	h.rows = nil
}

// shrink halves what is asked for at once.
func (h *state) shrink(from int, now time.Time) {
	h.maxBinds = max(min(from, h.maxBinds)/2, 1)
	h.shrunk = now
}

func (h *state) drop(oid string, now time.Time) {
	if h.dropped == nil {
		h.dropped = map[string]time.Time{}
	}
	h.dropped[oid] = now.Add(dropFor)
}

// rto is how long to wait for an answer before asking again: RFC 6298, with bounds for
// datagrams that cost the other side work.
func (h *state) rto(timeout time.Duration) time.Duration {
	if h.rtt == 0 {
		return min(time.Second, timeout)
	}
	return min(max(h.rtt+4*h.rttVar, 150*time.Millisecond), 2*time.Second, timeout)
}

func (h *state) measured(rtt time.Duration) {
	rtt = max(rtt, time.Microsecond)
	if h.rtt == 0 {
		h.rtt, h.rttVar = rtt, rtt/2
		return
	}
	h.rttVar += ((h.rtt - rtt).Abs() - h.rttVar) / 4
	h.rtt += (rtt - h.rtt) / 8
}

// jitter spreads the walks of many hosts over time.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5) }

// labelsOf are the labels of every metric of a job.
func labelsOf(j *kemi.Job) kemi.Labels {
	extra := []kemi.Label{{Name: kemi.LabelHost, Value: j.Resource}}
	if j.Service != "" {
		extra = append(extra, kemi.Label{Name: "service", Value: j.Service})
	}
	return j.Labels.Merge(extra...)
}
