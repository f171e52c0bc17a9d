package engine

import (
	"sync"
	"time"
)

// account is one worker's part of a flow's ledger. It is written under its own lock,
// which only a reader of the ledger contends for, so that a sum over all accounts
// balances at any moment and not only at the end.
//
// What is in flight and what is pending are counted in their own right and not taken
// as the rest: a result that is settled twice or never shows as a difference.
type account struct {
	mu    sync.Mutex
	shut  bool          // no more work is taken
	sums  Stats         // the counts of it
	since time.Duration // when the work under way began, by the flow's clock; 0: idle
	stage string        // where the work under way is
	quiet chan struct{} // closed when the work under way ends, if someone waits for that
}

// A column is one of the ends of a result.
type column func(*Stats) *uint64

func written(s *Stats) *uint64   { return &s.Written }
func dead(s *Stats) *uint64      { return &s.Dead }
func dropped(s *Stats) *uint64   { return &s.Dropped }
func abandoned(s *Stats) *uint64 { return &s.Abandoned }

// begin starts work on n inputs, 0 for a tick. It tells whether the account is open.
func (a *account) begin(n int, now time.Duration, stage string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut {
		return false
	}
	a.sums.In += uint64(n)
	a.sums.InFlight += uint64(n)
	a.since, a.stage = now, stage
	return true
}

// produce notes n results, which go to stage.
func (a *account) produce(n int, stage string) {
	a.mu.Lock()
	a.sums.Out += uint64(n)
	a.sums.Pending += uint64(n)
	a.stage = stage
	a.mu.Unlock()
}

// settle moves n pending results to their end.
func (a *account) settle(n int, to column) {
	a.mu.Lock()
	*to(&a.sums) += uint64(n)
	a.sums.Pending -= uint64(n)
	a.mu.Unlock()
}

// at notes where the work under way is.
func (a *account) at(stage string) {
	a.mu.Lock()
	a.stage = stage
	a.mu.Unlock()
}

func (a *account) rejected(n int) {
	a.mu.Lock()
	a.sums.Rejected += uint64(n)
	a.mu.Unlock()
}

func (a *account) retried() {
	a.mu.Lock()
	a.sums.Retries++
	a.mu.Unlock()
}

func (a *account) mismatched() {
	a.mu.Lock()
	a.sums.Mismatches++
	a.mu.Unlock()
}

func (a *account) replayed(n int) {
	a.mu.Lock()
	a.sums.Replayed += uint64(n)
	a.mu.Unlock()
}

// end ends the work on n inputs; the sink took the last taken results. Nothing is on
// the way any more then, by definition.
func (a *account) end(n, taken int, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sums.Written += uint64(taken)
	if done {
		a.sums.Done += uint64(n)
	} else {
		a.sums.Failed += uint64(n)
	}
	a.sums.InFlight, a.sums.Pending = 0, 0
	a.since = 0
	if a.quiet != nil {
		close(a.quiet)
		a.quiet = nil
	}
}

// close lets no more work begin and waits for what is under way.
func (a *account) close() {
	a.mu.Lock()
	a.shut = true
	if a.since == 0 {
		a.mu.Unlock()
		return
	}
	if a.quiet == nil {
		a.quiet = make(chan struct{})
	}
	quiet := a.quiet
	a.mu.Unlock()
	<-quiet
}

// addTo adds what the account holds to s, and tells of the work under way.
func (a *account) addTo(s *Stats) (since time.Duration, stage string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := &a.sums
	s.In += o.In
	s.Done += o.Done
	s.Failed += o.Failed
	s.InFlight += o.InFlight
	s.Replayed += o.Replayed
	s.Out += o.Out
	s.Written += o.Written
	s.Dead += o.Dead
	s.Dropped += o.Dropped
	s.Abandoned += o.Abandoned
	s.Pending += o.Pending
	s.Rejected += o.Rejected
	s.Retries += o.Retries
	s.Mismatches += o.Mismatches
	return a.since, a.stage
}
