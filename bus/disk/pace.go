package disk

import "time"

const (
	paceApart  = 3 * time.Millisecond // from the begin of a sync to that of the next
	paceBytes  = 32 << 10             // what is worth a sync of its own
	paceWrites = 64                   // to measure by
	paceSettle = 2 * time.Second      // until it is measured again
)

// pace has small Writes that come by themselves, such as polls, wait for each other: a
// sync costs the processor as much as the records of many of them. Writers that come
// again when they were answered would be slowed down, and nobody can tell one from the
// other but by trying. So as many Writes are counted with every one synced as soon as it
// can be as with syncs kept apart: where the latter take no longer, they stay apart for
// a while.
//
// Those that are rare never wait, as the last sync is long past when they come. The zero
// value is ready. It is for one goroutine.
type pace struct {
	apart  bool
	step   paceStep
	last   time.Time     // begin of the last sync
	writes int           // in this step
	took   time.Duration // this step, silence left out
	plain  time.Duration // what paceWrites took with nobody waiting
}

type paceStep int

const (
	paceLook paceStep = iota // nobody waits
	paceTry                  // syncs are kept apart
	paceKeep                 // whatever was better
)

// due says until when the next sync is put off. That may be past.
func (p *pace) due() time.Time {
	if !p.apart {
		return time.Time{}
	}
	return p.last.Add(paceApart)
}

// synced counts the Writes of a sync that has begun at a time.
func (p *pace) synced(begun time.Time, writes int) {
	p.took += min(begun.Sub(p.last), 2*paceApart)
	p.last = begun
	p.writes += writes
	slow := p.plain + p.plain/3
	switch {
	case p.step == paceLook && p.writes >= paceWrites:
		p.plain = p.took
		p.begin(paceTry, true)
	case p.step == paceTry && p.took > slow:
		p.begin(paceKeep, false)
	case p.step == paceTry && p.writes >= paceWrites:
		p.begin(paceKeep, true)
	case p.step == paceKeep && p.took > paceSettle:
		p.begin(paceLook, false)
	}
}

func (p *pace) begin(s paceStep, apart bool) {
	p.step, p.apart, p.writes, p.took = s, apart, 0, 0
}
