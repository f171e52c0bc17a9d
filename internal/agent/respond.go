package agent

import "slices"

// question is a request to a View without its id. The same question has the same
// reply.
type question struct {
	room, bulk     int
	kind           byte
	a, b           int32
	varbinds       string
	stuck, endless bool
}

// reply is the reply to a question.
type reply struct {
	status   int32
	varbinds []byte
	n        int
}

// maxKnown bounds the replies that a View remembers. A poller asks every host the
// same few questions, and a fleet that is to measure the poller must cost less than it.
const maxKnown = 256

// respond makes the answer to w.req in w.out and returns how many variables are in
// it. An error says that the request is not well-formed.
func (w *worker) respond(h *Host, f *Faults) (variables int, err error) {
	r := &w.req
	community, id := h.community, r.id
	if f.WrongCommunity != "" {
		community = []byte(f.WrongCommunity)
	}
	if f.WrongID {
		id ^= 1 << 16
	}
	if f.ErrorStatus != 0 || r.kind == pduSet {
		if err := r.decodeOIDs(); err != nil {
			return 0, err
		}
		status, index := int32(f.ErrorStatus), int32(f.ErrorIndex)
		if r.kind == pduSet {
			status, index = errorNoAccess, 1
		}
		w.out = appendResponse(w.out[:0], community, id, status, index, r.varbinds)
		return len(r.oids), nil
	}
	re, err := w.reply(h, f, h.cfg.MaxSize-header-len(community))
	w.out = appendResponse(w.out[:0], community, id, re.status, 0, re.varbinds)
	return re.n, err
}

// reply finds the reply to w.req within room bytes.
func (w *worker) reply(h *Host, f *Faults, room int) (reply, error) {
	r, view := &w.req, h.cfg.Values.View()
	view.mu.Lock()
	re, ok := view.known[question{room, h.cfg.MaxBulk, r.kind, r.a, r.b, string(r.varbinds), f.Stuck, f.Endless}]
	view.mu.Unlock()
	if ok {
		return re, nil
	}
	if err := r.decodeOIDs(); err != nil {
		return reply{}, err
	}
	a := answer{view: view, faults: f, room: room, vbs: w.vbs[:0]}
	fits := true
	switch r.kind {
	case PDUGet:
		for _, oid := range r.oids {
			fits = fits && a.get(oid)
		}
	case PDUGetNext:
		for _, oid := range r.oids {
			_, _, ok := a.next(oid)
			fits = fits && ok
		}
	case PDUGetBulk:
		a.bulk(r.oids, int(r.a), int(r.b), h.cfg.MaxBulk)
		fits = a.n > 0 || len(r.oids) == 0 || r.a <= 0 && r.b <= 0
	}
	w.vbs = a.vbs
	re = reply{0, slices.Clone(a.vbs), a.n}
	if !fits {
		// RFC 3416, 4.2.1: an empty list, for the asked one might not fit either.
		re = reply{status: errorTooBig}
	}
	view.mu.Lock()
	defer view.mu.Unlock()
	if view.known == nil || len(view.known) == maxKnown {
		view.known = map[question]reply{}
	}
	view.known[question{room, h.cfg.MaxBulk, r.kind, r.a, r.b, string(r.varbinds), f.Stuck, f.Endless}] = re
	return re, nil
}

// answer collects the variables of one answer from one view.
type answer struct {
	view   *View
	faults *Faults
	room   int // bytes for variables
	vbs    []byte
	n      int
}

// add appends a variable and tells whether it fits.
func (a *answer) add(varbind []byte) bool {
	if len(a.vbs)+len(varbind) > a.room {
		return false
	}
	a.vbs = append(a.vbs, varbind...)
	a.n++
	return true
}

func (a *answer) missing(oid []uint32, tag byte) bool {
	return a.add(appendVarbind(nil, oid, []byte{tag, 0}))
}

// get answers one variable of a GET (RFC 3416, section 4.2.1). Whether an object
// type exists is known by its instances alone: an OID that differs from one of
// them in the last number is a noSuchInstance.
func (a *answer) get(oid []uint32) bool {
	i, ok := a.view.find(oid)
	switch {
	case ok:
		return a.add(a.view.objects[i].varbind)
	case a.view.sibling(i, oid):
		return a.missing(oid, tagNoSuchInstance)
	default:
		return a.missing(oid, tagNoSuchObject)
	}
}

// next answers one variable of a GETNEXT (RFC 3416, section 4.2.2). It returns the
// OID to ask after next, and whether that was the end of the view.
func (a *answer) next(oid []uint32) (after []uint32, end, fits bool) {
	i, ok := a.view.find(oid)
	if (a.faults.Stuck || a.faults.Endless) && a.view.sibling(i, oid) {
		after, fits = a.trapped(i, ok, oid)
		return after, false, fits
	}
	if ok {
		i++
	}
	if i == len(a.view.objects) {
		return oid, true, a.missing(oid, tagEndOfMibView)
	}
	o := &a.view.objects[i]
	return o.oid, false, a.add(o.varbind)
}

// trapped answers in the place of next to a walk that is not to end.
func (a *answer) trapped(i int, exists bool, oid []uint32) (after []uint32, fits bool) {
	if a.faults.Endless {
		oid = append([]uint32(nil), oid...)
		oid[len(oid)-1]++ // the longest walk of a test is shorter than 2^32
		i, exists = a.view.find(oid)
	}
	if exists {
		return oid, a.add(a.view.objects[i].varbind)
	}
	return oid, a.add(appendVarbind(nil, oid, Counter64(uint64(oid[len(oid)-1])).ber))
}

// bulk answers a GETBULK (RFC 3416, section 4.2.3) with at most limit variables, in
// whole rows, and at least one row.
func (a *answer) bulk(oids [][]uint32, nonRepeaters, maxRepetitions, limit int) {
	nonRepeaters = min(max(nonRepeaters, 0), len(oids))
	for _, oid := range oids[:nonRepeaters] {
		if _, _, fits := a.next(oid); !fits {
			return
		}
	}
	columns := slices.Clone(oids[nonRepeaters:])
	if len(columns) == 0 {
		return
	}
	rows := min(max(maxRepetitions, 0), max(1, (limit-nonRepeaters)/len(columns)))
	for range rows {
		ended := true
		for c, oid := range columns {
			after, end, fits := a.next(oid)
			if !fits {
				return
			}
			ended = ended && end
			columns[c] = after
		}
		if ended {
			return
		}
	}
}
