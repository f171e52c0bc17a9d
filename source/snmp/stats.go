package snmp

import (
	"sync/atomic"
	"time"
)

// Stats are counts since the poller was made.
//
//	Jobs = Refused + Stale + Joined + Up + Down + Aborted + Running
type Stats struct {
	Jobs    uint64 // given to Apply
	Refused uint64 // can never be polled
	Stale   uint64 // their deadline had passed
	Joined  uint64 // the host was being polled already
	Up      uint64 // polls with an answer
	Down    uint64 // polls without
	Aborted uint64 // ended by Close, or begun after it
	Running int    // polls

	Incomplete uint64 // of Up: something was missing
	Probes     uint64 // polls that were a single datagram, the host having been down for three cycles
	Walks      uint64 // of tables

	Sent     uint64 // datagrams
	Received uint64
	Retries  uint64 // requests sent again
	Timeouts uint64 // requests without any answer
	Resyncs  uint64 // of the clock or the engine of an agent of version 3

	// Datagrams that were no answer.
	Malformed uint64 // not SNMP, or truncated
	Unmatched uint64 // nobody waits for them (any more)
	Foreign   uint64 // not from the address that was asked
	Mismatch  uint64 // another community, version, kind or engine, or other objects than those that were asked for
	Forged    uint64 // the signature is wrong, or missing
	Replayed  uint64 // outside of the time window
	Crowded   uint64 // more to one request than anyone reads

	Refusals    uint64 // ICMP messages that ended a request
	TooBig      uint64 // answers that would not have fit; asked for in parts
	ErrorStatus uint64 // requests answered with another error
	Dropped     uint64 // objects not asked for any more for an hour, because they made the agent fail
	Loops       uint64 // columns whose OIDs did not increase
	Endless     uint64 // tables with more rows than MaxRows, or walks of more requests than that
	Cut         uint64 // texts too long for a label
	Nonsense    uint64 // numbers that no metric was made of: infinite, none, or below 0 where that cannot be
	Panics      uint64 // of the functions of profiles

	Hosts     int // known
	OnWire    int // requests sent within the last moment and not answered
	MaxOnWire int // the limit of OnWire
}

type counters struct {
	jobs, refused, stale, joined, up, down, aborted, incomplete, probes, walks atomic.Uint64
	retries, timeouts, resyncs, malformed, mismatch, forged, replayed          atomic.Uint64
	tooBig, errorStatus, dropped, loops, endless, cut, panics, nonsense        atomic.Uint64
	running                                                                    atomic.Int64
}

// Stats returns the counts. It may be called at any time.
func (p *Poller) Stats() Stats {
	c, e := &p.count, p.engine.Counters()
	p.mu.Lock()
	hosts := len(p.hosts)
	p.mu.Unlock()
	return Stats{
		Refused: c.refused.Load(), Stale: c.stale.Load(), Joined: c.joined.Load(),
		Up: c.up.Load(), Down: c.down.Load(), Aborted: c.aborted.Load(), Running: int(c.running.Load()), Jobs: c.jobs.Load(),
		Incomplete: c.incomplete.Load(), Probes: c.probes.Load(), Walks: c.walks.Load(),
		Sent: e.Sent, Received: e.Received, Retries: c.retries.Load(), Timeouts: c.timeouts.Load(), Resyncs: c.resyncs.Load(),
		Malformed: e.Malformed + c.malformed.Load(), Unmatched: e.Unmatched, Foreign: e.Foreign,
		Mismatch: c.mismatch.Load(), Forged: c.forged.Load(), Replayed: c.replayed.Load(), Crowded: e.Crowded,
		Refusals: e.Refused, TooBig: c.tooBig.Load(), ErrorStatus: c.errorStatus.Load(), Dropped: c.dropped.Load(),
		Loops: c.loops.Load(), Endless: c.endless.Load(), Cut: c.cut.Load(), Nonsense: c.nonsense.Load(), Panics: c.panics.Load(),
		Hosts: hosts, OnWire: e.OnWire, MaxOnWire: e.Window,
	}
}

// seldom lets a thing be said once a minute.
type seldom struct{ next atomic.Int64 }

func (s *seldom) due(now time.Time) bool {
	next := s.next.Load()
	return now.UnixNano() >= next && s.next.CompareAndSwap(next, now.Add(time.Minute).UnixNano())
}
