package snmp

import (
	"context"
	"errors"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp/internal/codec"
	"github.com/kemi-go/kemi/source/snmp/internal/engine"
)

// reason is why something is missing from a poll; "" is that nothing is.
type reason string

const (
	none        reason = ""
	timedOut    reason = "timeout"
	refused     reason = "refused"
	unreachable reason = "unreachable"
	badAuth     reason = "auth"
	badPriv     reason = "priv"
	unknownUser reason = "unknown_user"
	badWindow   reason = "time_window"
	undecodable reason = "decode"
	late        reason = "deadline"
	errorStatus reason = "error_status"
	truncated   reason = "truncated"

	misconfigured reason = "config"
	panicked      reason = "panic"
)

// poll is one poll of one host: a conversation in one goroutine.
type poll struct {
	p    *Poller
	h    *state
	job  kemi.Job
	plan *plan
	sec  *security

	lane  *lane // gets the result; under h.mu; nil: nobody
	batch *batch

	began, until time.Time
	call         *engine.Call
	timer        *time.Timer

	answered  time.Time // the time of the metrics: when the first answer came
	rtt       time.Duration
	failure   reason // the first thing that was missing
	asked     int    // values and columns
	got       int
	pdus      int
	tries     int
	resyncs   int
	failedOID int // OIDs that made the agent fail in this poll
	out       []kemi.Metric
}

// The limits of one poll, far above what a sane agent comes to.
const (
	maxPDUs    = 1000
	maxResyncs = 3  // of version 3: discovery, clock, and once more
	maxFailed  = 32 // OIDs taken out of requests because they made the agent fail
)

func newPoll(p *Poller, h *state, j kemi.Job, pl *plan, sec *security, l *lane, now time.Time) *poll {
	q := &poll{p: p, h: h, job: j, plan: pl, sec: sec, lane: l, began: now}
	d := p.cfg.Deadline
	if j.Interval > 0 {
		d = min(d, j.Interval/2)
	}
	q.until = now.Add(d)
	if !j.Deadline.IsZero() && j.Deadline.Before(q.until) {
		q.until = j.Deadline
	}
	return q
}

// run polls the host and delivers what came.
func (q *poll) run() {
	p, h := q.p, q.h
	defer p.polls.Done()
	h.prepare(q)
	if !q.safely(func() { q.fail(q.talk()) }) {
		h.forgetRows() // some may have no name yet
	}
	if q.call != nil {
		q.call.Close()
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	took := time.Since(q.began)
	q.report(took)

	h.mu.Lock()
	h.now = nil
	h.took = took
	switch {
	case p.ctx.Err() != nil:
		// The poller is being closed. That the host did not answer means nothing.
		q.lane = nil
		p.count.aborted.Add(1)
	case !q.answered.IsZero():
		if h.failures >= breakAfter {
			p.log.Info("the host answers again", zap.String("host", q.job.Resource), zap.String("target", q.job.Target))
		}
		h.failures = 0
		p.count.up.Add(1)
		if q.failure != none {
			p.count.incomplete.Add(1)
		}
	default:
		if h.failures++; h.failures == breakAfter {
			p.log.Info("the host does not answer: it gets one probe a cycle until it does",
				zap.String("host", q.job.Resource), zap.String("target", q.job.Target), zap.String("reason", string(q.failure)))
		}
		p.count.down.Add(1)
	}
	if q.lane != nil {
		q.lane.deliver(q)
	}
	p.count.running.Add(-1) // a poll that does not run any more has been delivered
	h.mu.Unlock()
	if q.batch != nil {
		q.batch.finish()
	}
}

// safely calls f and tells whether it ended well. f calls the functions of a profile, and
// one that panics must not take the program with it.
func (q *poll) safely(f func()) (ok bool) {
	defer func() {
		v := recover()
		if ok = v == nil; ok {
			return
		}
		q.failure = panicked // worse than whatever the host lacks
		q.p.count.panics.Add(1)
		if q.p.toldPanic.due(time.Now()) {
			q.p.log.Error("a function of a profile panicked: what it makes is missing from the metrics",
				zap.String("host", q.job.Resource), zap.Strings("profiles", q.job.Profiles),
				zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		}
	}()
	f()
	return true
}

// fail notes why something is missing. The first reason stands.
func (q *poll) fail(why reason) {
	if q.failure == none {
		q.failure = why
	}
}

// talk asks for everything. What it returns ended the conversation early.
func (q *poll) talk() reason {
	h := q.h
	if why := q.resolve(); why != none {
		return why
	}
	var err error
	if q.call, err = q.p.engine.Open(h.hash, h.addr, h.failuresNow() > 0); err != nil {
		if errors.Is(err, engine.ErrUnreachable) {
			return unreachable
		}
		return late
	}
	q.timer = time.NewTimer(time.Hour)
	q.asked = len(q.plan.oids)
	for _, t := range q.plan.tables {
		q.asked += len(t.Columns)
	}
	if h.session != nil && !h.session.Known() {
		if _, why := q.ask(codec.Request{}, nil, nil); why != none {
			return why
		}
	}
	if why := q.scalars(); why != none {
		return why
	}
	return q.readTables()
}

// resolve finds the address of the target.
func (q *poll) resolve() reason {
	h := q.h
	if h.addr.IsValid() && (h.resolved.IsZero() || q.began.Sub(h.resolved) < addrFor) {
		return none
	}
	host, port := splitTarget(q.job.Target)
	if port == 0 {
		return unreachable
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		h.addr = netip.AddrPortFrom(ip, port)
		return none
	}
	ctx, cancel := context.WithDeadline(q.p.ctx, q.until)
	defer cancel()
	ips, err := q.p.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		if h.addr.IsValid() {
			return none // the name server is down; the host may not be
		}
		return unreachable
	}
	best := ips[0]
	for _, ip := range ips {
		if ip.Unmap().Is4() {
			best = ip
			break
		}
	}
	h.addr, h.resolved = netip.AddrPortFrom(best.Unmap(), port), q.began
	return none
}

// splitTarget reads host, host:port, [v6] or [v6]:port. The port is 161 unless given, 0 if
// it is none.
func splitTarget(target string) (host string, port uint16) {
	if _, err := netip.ParseAddr(target); err == nil {
		return target, 161
	}
	n := len(target)
	if n > 1 && target[0] == '[' && target[n-1] == ']' {
		return target[1 : n-1], 161
	}
	for i := n - 1; i >= 0; i-- {
		if target[i] != ':' {
			continue
		}
		p, err := strconv.ParseUint(target[i+1:], 10, 16)
		if err != nil {
			return target, 0
		}
		host = target[:i]
		if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
		return host, uint16(p)
	}
	return target, 161
}

// scalars asks for the single objects. The first request is the probe: without an
// answer nothing else is sent.
func (q *poll) scalars() reason {
	h, pl := q.h, q.plan
	clear(h.values)
	why := q.get(pl.oids, pl.encoded(q.sec), func(i int, v Value) { h.values[i] = v })
	if q.answered.IsZero() {
		return why
	}
	if up := h.values[0]; up.IsNumber() {
		ticks := up.Uint()
		if ticks < h.agentTicks {
			// The agent has been restarted: indexes mean other things now.
			h.forgetRows()
			h.dropped = nil
		}
		h.agentTicks = ticks
	}
	seen := make([]Value, len(pl.watch))
	for i, at := range pl.watch {
		seen[i] = h.values[at]
	}
	if len(h.watched) == len(seen) {
		for i := range seen {
			if seen[i] != h.watched[i] {
				h.forgetRows()
				break
			}
		}
	}
	h.watched = seen
	return why
}

// get asks for single objects and calls set with what came of each. Objects the agent
// does not have are absent values. sent are the encoded requests, if nothing is to be
// left out, of defaultBinds objects each. It returns a reason if the conversation is over.
func (q *poll) get(oids []string, sent [][]byte, set func(i int, v Value)) reason {
	h := q.h
	left := make([]int, 0, len(oids)) // by place in oids
	for i, oid := range oids {
		if _, bad := h.dropped[oid]; bad {
			q.fail(errorStatus)
			continue
		}
		left = append(left, i)
	}
	ask := make([]string, 0, min(len(left), h.maxBinds))
	whole := len(left) == len(oids)
	for len(left) > 0 {
		n := min(len(left), h.maxBinds)
		ask = ask[:0]
		for _, i := range left[:n] {
			ask = append(ask, oids[i])
		}
		var encoded []byte
		if at := left[0]; whole && h.maxBinds == defaultBinds && at/defaultBinds < len(sent) {
			encoded = sent[at/defaultBinds]
		}
		a, why := q.ask(codec.Request{Op: codec.Get, OIDs: ask}, encoded, func(a *codec.Answer) bool {
			if len(a.Binds) != n {
				return false
			}
			for i := range a.Binds {
				if a.Binds[i].OID != ask[i] {
					return false
				}
			}
			return true
		})
		switch {
		case why != none:
			if why == timedOut && !q.answered.IsZero() && n > defaultBinds/4 {
				h.shrink(n, q.began) // perhaps large answers do not get through
			}
			return why
		case a.Status == codec.TooBig && n > 1:
			q.p.count.tooBig.Add(1)
			h.shrink(n, q.began)
		case a.Status == codec.NoSuchName && a.Index >= 1 && a.Index <= n:
			// Version 1 speaking through a proxy: there is no such object.
			q.got++
			if q.failedOID++; q.failedOID > maxFailed {
				return errorStatus
			}
			left, whole = append(left[:a.Index-1], left[a.Index:]...), false
		case a.Status == codec.NotAllowed:
			return badAuth
		case a.Status != 0:
			q.p.count.errorStatus.Add(1)
			q.fail(errorStatus)
			if a.Index < 1 || a.Index > n {
				left = left[n:]
				break
			}
			if bad := ask[a.Index-1]; bad != oidSysUpTime { // the probe needs something to ask for
				q.p.count.dropped.Add(1)
				h.drop(bad, q.began)
			}
			if q.failedOID++; q.failedOID > maxFailed {
				return errorStatus
			}
			left, whole = append(left[:a.Index-1], left[a.Index:]...), false
		default:
			q.got += n
			for i, at := range left[:n] {
				set(at, Value{a.Binds[i].Value})
				if (Value{a.Binds[i].Value}).tooLong() {
					q.p.count.cut.Add(1)
				}
			}
			left = left[n:]
		}
	}
	return none
}

// report makes the metrics of the poll.
func (q *poll) report(took time.Duration) {
	h := q.h
	up := !q.answered.IsZero()
	t := q.answered
	if !up {
		t = q.began
	}
	t = t.UTC().Round(0) // without a monotonic reading
	q.out = make([]kemi.Metric, 0, h.metrics+16)
	gauge := func(name string, v float64) { q.out = append(q.out, kemi.Gauge(name, h.labels, t, v)) }
	if up {
		gauge("up", 1)
	} else {
		gauge("up", 0)
	}
	complete := 0.0
	if up && q.asked > 0 {
		complete = min(float64(q.got)/float64(q.asked), 1)
	}
	gauge("snmp_complete_ratio", complete)
	gauge("snmp_poll_seconds", took.Seconds())
	gauge("snmp_pdus", float64(q.pdus))
	gauge("snmp_retries", float64(q.tries))
	if up {
		gauge("snmp_rtt_seconds", q.rtt.Seconds())
		if v := h.values[0]; v.IsNumber() {
			gauge("agent_uptime_seconds", float64(v.Uint())/100)
		}
		q.safely(func() {
			out, nonsense := q.plan.metrics(q.out, h.values, h.scalarLabels, t)
			q.out = out
			q.p.count.nonsense.Add(nonsense)
		})
		for i := range q.plan.tables {
			q.safely(func() { q.out = q.tableMetrics(q.out, i, t) })
		}
	}
	if q.failure != none { // at the end, since making the metrics may fail too
		q.out = append(q.out, kemi.Gauge("snmp_failure", h.labels.With("reason", string(q.failure)), t, 1))
	}
	h.metrics = len(q.out)
}
