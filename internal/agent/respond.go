package agent

import "slices"

// respond makes the answer to w.req in w.out and returns how many variables are in
// it.
func (w *worker) respond(h *Host, f *Faults) (variables int) {
	r := &w.req
	community, id := h.community, r.id
	if f.WrongCommunity != "" {
		community = []byte(f.WrongCommunity)
	}
	if f.WrongID {
		id ^= 1 << 16
	}
	if f.ErrorStatus != 0 || r.kind == pduSet {
		status, index := int32(f.ErrorStatus), int32(f.ErrorIndex)
		if r.kind == pduSet {
			status, index = errorNoAccess, 1
		}
		w.out = appendResponse(w.out[:0], community, id, status, index, r.varbinds)
		return len(r.oids)
	}
	room := h.cfg.MaxSize - header - len(community)
	a := answer{view: h.cfg.Values.View(), faults: f, room: room, vbs: w.vbs[:0]}
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
	if !fits {
		// RFC 3416, 4.2.1: an empty list, for the asked one might not fit either.
		w.out = appendResponse(w.out[:0], community, id, errorTooBig, 0, nil)
		return 0
	}
	w.out = appendResponse(w.out[:0], community, id, 0, 0, a.vbs)
	return a.n
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
