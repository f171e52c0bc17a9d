package snmp

import (
	"errors"
	"slices"
	"time"

	"github.com/kemi-go/kemi/source/snmp/internal/codec"
	"github.com/kemi-go/kemi/source/snmp/internal/engine"
)

// ask sends a request, again if need be, and returns the answer, or why there is none.
// Only an answer that valid accepts, or one with an error-status, is one; anything else
// that comes is counted, and the wait goes on. encoded is the request's message with any
// id, if it is there already; it is not changed.
func (q *poll) ask(r codec.Request, encoded []byte, valid func(*codec.Answer) bool) (codec.Answer, reason) {
	for {
		a, why, again := q.askOnce(r, encoded, valid)
		if !again {
			return a, why
		}
		q.p.count.resyncs.Add(1)
		if q.resyncs++; q.resyncs > maxResyncs {
			return a, badWindow
		}
		if r.Op != 0 && !q.h.session.Known() {
			if _, why := q.ask(codec.Request{}, nil, nil); why != none {
				return a, why
			}
		}
	}
}

// askOnce is ask without a second request for an agent that has told us its clock.
func (q *poll) askOnce(r codec.Request, encoded []byte, valid func(*codec.Answer) bool) (a codec.Answer, why reason, again bool) {
	h, p := q.h, q.p
	if q.pdus >= maxPDUs {
		p.count.endless.Add(1)
		return a, truncated, false
	}
	tries := 1 + p.cfg.Retries
	if q.answered.IsZero() && h.failuresNow() >= breakAfter {
		tries = 1
		p.count.probes.Add(1)
	}
	q.call.Ask()
	var ids [16]uint32 // of the last tries
	var sent [16]time.Time
	var wrong reason // the last thing that came and was no answer
	msg := slices.Clone(encoded)
	for try := range tries {
		id := q.call.NextID()
		var err error
		if msg, err = q.encode(msg, id, r); err != nil {
			return a, undecodable, false
		}
		if try > 0 {
			q.tries++
			p.count.retries.Add(1)
		}
		ids[try%16] = id
		if sent[try%16], err = q.call.Send(msg, p.ctx.Done(), q.until); err != nil {
			if errors.Is(err, engine.ErrUnreachable) {
				return a, unreachable, false
			}
			return a, late, false
		}
		wait := h.rto(p.cfg.Timeout)
		if try == tries-1 {
			wait = max(wait, p.cfg.Timeout)
		} else {
			wait <<= min(try, 4)
		}
		q.timer.Reset(min(wait, time.Until(q.until)))
	waiting:
		for {
			select {
			case m := <-q.call.Answers():
				if m.Err != nil {
					if errors.Is(m.Err, engine.ErrRefused) {
						return a, refused, false
					}
					return a, unreachable, false
				}
				a, err = q.decode(m)
				if err != nil {
					wrong = q.count(err)
					continue
				}
				if a.Report != codec.NoReport {
					q.pdus++
					switch why := reportReason(a.Report, r.Op == 0); {
					case why != none:
						return a, why, false
					case a.Report == codec.ReportDiscovery && r.Op == 0:
						return a, none, false
					}
					return a, none, true
				}
				if r.Op == 0 {
					p.count.mismatch.Add(1)
					continue
				}
				if a.Status == 0 && !valid(&a) {
					p.count.mismatch.Add(1)
					wrong = undecodable
					continue
				}
				q.pdus++
				for i := range ids {
					if ids[i] == m.ID {
						h.measured(m.At.Sub(sent[i]))
						if q.answered.IsZero() {
							q.rtt = m.At.Sub(sent[i])
						}
					}
				}
				if q.answered.IsZero() {
					q.answered = m.At
				}
				return a, none, false
			case <-q.timer.C:
				break waiting
			case <-p.ctx.Done():
				return a, late, false
			}
		}
		if !time.Now().Before(q.until) {
			break
		}
	}
	p.count.timeouts.Add(1)
	switch {
	case wrong != none:
		return a, wrong, false
	case !q.answered.IsZero() && !time.Now().Before(q.until):
		return a, late, false
	}
	return a, timedOut, false
}

func (h *state) failuresNow() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures
}

// encode returns the message of a try. msg is that of the try before.
func (q *poll) encode(msg []byte, id uint32, r codec.Request) ([]byte, error) {
	if q.h.session != nil {
		return q.h.session.Encode(id, r, time.Now())
	}
	if msg == nil {
		return codec.EncodeV2c(q.sec.credential.Community, id, r)
	}
	codec.SetID(msg, id)
	return msg, nil
}

func (q *poll) decode(m engine.Answer) (codec.Answer, error) {
	if q.h.session != nil {
		return q.h.session.Decode(m.ID, m.Msg, m.At)
	}
	return codec.DecodeV2c(q.sec.credential.Community, m.Msg)
}

// count counts a message that is no answer, and says what a host that sends nothing
// else suffers from.
func (q *poll) count(err error) reason {
	c := &q.p.count
	switch {
	case errors.Is(err, codec.ErrAuth):
		c.forged.Add(1)
		return badAuth
	case errors.Is(err, codec.ErrWindow):
		c.replayed.Add(1)
		return badWindow
	case errors.Is(err, codec.ErrMismatch):
		c.mismatch.Add(1)
	default:
		c.malformed.Add(1)
	}
	return undecodable
}

// reportReason says what a report means for the poll; none: it can be mended by asking
// again.
func reportReason(r codec.Report, discovering bool) reason {
	switch r {
	case codec.ReportEngine, codec.ReportWindow, codec.ReportDiscovery:
		return none
	case codec.ReportUser:
		return unknownUser
	case codec.ReportDigest, codec.ReportLevel:
		return badAuth
	case codec.ReportDecrypt:
		return badPriv
	}
	if discovering {
		return none
	}
	return errorStatus
}
