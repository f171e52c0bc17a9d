package agent

import "time"

// Faults says how a host misbehaves. The zero value behaves.
type Faults struct {
	Delay      time.Duration // before each answer
	Drop       float64       // chance, 0 to 1, that a request is not answered; 1 is a dead host
	DropFirst  int           // so many requests from now on are not answered
	Duplicates int           // each answer is sent so many times more

	Garbage        int    // answer with so many random bytes
	TruncateBER    int    // cut so many bytes off the end of each answer
	WrongID        bool   // answer with another request id
	WrongCommunity string // answer with this community
	OtherSource    bool   // answer from another port of the same address

	ErrorStatus int // answer with this error-status (RFC 3416: 1 tooBig, 2 noSuchName, 5 genErr, 13 resourceUnavailable …)
	ErrorIndex  int // and this error-index

	Stuck   bool // GETNEXT and GETBULK give the row asked after again: a walk does not get on
	Endless bool // GETNEXT and GETBULK always find one more row in the column
}

// Faults returns the faults set last.
func (h *Host) Faults() Faults { return *h.faults.Load() }

// SetFaults makes the host behave as f says from the next request on.
func (h *Host) SetFaults(f Faults) {
	h.first.Store(int64(f.DropFirst))
	h.faults.Store(&f)
}

func (h *Host) drops(f *Faults) bool {
	if f.DropFirst > 0 && h.first.Add(-1) >= 0 {
		return true
	}
	if f.Drop <= 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rng.Float64() < f.Drop
}

// spoil breaks the bytes of an answer as f says.
func (h *Host) spoil(f *Faults, out []byte) []byte {
	if f.Garbage > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		out = make([]byte, f.Garbage)
		for i := range out {
			out[i] = byte(h.rng.Uint32())
		}
	}
	return out[:max(0, len(out)-f.TruncateBER)]
}
