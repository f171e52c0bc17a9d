package agent

import (
	"net/netip"
	"slices"
)

// The types of PDUs (RFC 3416, section 3).
const (
	PDUGet     = 0xa0
	PDUGetNext = 0xa1
	PDUGetBulk = 0xa5

	pduResponse = 0xa2
	pduSet      = 0xa3
)

// The error-status values that the agent itself uses (RFC 3416, section 3).
const (
	errorTooBig   = 1
	errorNoAccess = 6
)

// What a request may be at most.
const (
	maxMessage = 65507 // bytes: the payload of a UDP datagram over IPv4
	maxAsked   = 2048  // variables in a request
	maxOID     = 128   // numbers in an OID (RFC 2578, section 3.5)
)

// request is a decoded request. It refers to the bytes it was decoded from, and is
// used again for the next one.
type request struct {
	community []byte
	kind      byte
	id        int32
	a, b      int32 // error-status and error-index, or non-repeaters and max-repetitions
	oids      [][]uint32
	varbinds  []byte // as they came
	arena     []uint32
}

// decode reads a message of version 2c (RFC 1901, section 3) with a request, all
// but its variables: they are left for decodeOIDs.
func (r *request) decode(msg []byte) error {
	if len(msg) > maxMessage {
		return errBER
	}
	c := cursor(msg)
	body, err := c.want(tagSequence)
	if err != nil || len(c) > 0 {
		return errBER
	}
	c = body
	if version, err := c.integer(); err != nil || version != 1 {
		return errBER
	}
	if r.community, err = c.want(tagString); err != nil {
		return err
	}
	if r.kind, body, err = c.next(); err != nil || len(c) > 0 {
		return errBER
	}
	switch r.kind {
	case PDUGet, PDUGetNext, PDUGetBulk, pduSet:
	default:
		return errBER
	}
	c = body
	for _, p := range []*int32{&r.id, &r.a, &r.b} {
		if *p, err = c.integer(); err != nil {
			return err
		}
	}
	if r.varbinds, err = c.want(tagSequence); err != nil || len(c) > 0 {
		return errBER
	}
	return nil
}

// decodeOIDs reads the variables.
func (r *request) decodeOIDs() error {
	r.oids, r.arena = r.oids[:0], r.arena[:0]
	for c := cursor(r.varbinds); len(c) > 0; {
		if len(r.oids) == maxAsked {
			return errBER
		}
		vb, err := c.want(tagSequence)
		if err != nil {
			return err
		}
		vc, start := cursor(vb), len(r.arena)
		if r.arena, err = vc.oid(r.arena); err != nil {
			return err
		}
		if _, _, err := vc.next(); err != nil || len(vc) > 0 {
			return errBER
		}
		// If the arena grows later, this slice still has the old one, with the same numbers.
		r.oids = append(r.oids, r.arena[start:len(r.arena):len(r.arena)])
	}
	return nil
}

func (r *request) told(from netip.AddrPort) Request {
	t := Request{From: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Type: r.kind, ID: r.id}
	if r.kind == PDUGetBulk {
		t.NonRepeaters, t.MaxRepetitions = int(r.a), int(r.b)
	}
	for _, oid := range r.oids {
		t.OIDs = append(t.OIDs, formatOID(oid))
	}
	return t
}

// header is how many bytes a response takes beside community and variables, at
// most: three lengths and tags of 4, version 3, and three integers of 6.
const header = 3*4 + 3 + 4 + 3*6

// appendResponse appends a whole message.
func appendResponse(b, community []byte, id, status, index int32, varbinds []byte) []byte {
	var ints [18]byte
	fields := appendInt(ints[:0], tagInteger, int64(id))
	fields = appendInt(fields, tagInteger, int64(status))
	fields = appendInt(fields, tagInteger, int64(index))
	pdu := len(fields) + 1 + lengthSize(len(varbinds)) + len(varbinds)
	body := 3 + 1 + lengthSize(len(community)) + len(community) + 1 + lengthSize(pdu) + pdu
	b = slices.Grow(b, body+4)
	b = appendLength(append(b, tagSequence), body)
	b = append(b, tagInteger, 1, 1)
	b = append(appendLength(append(b, tagString), len(community)), community...)
	b = appendLength(append(b, pduResponse), pdu)
	b = append(b, fields...)
	b = appendLength(append(b, tagSequence), len(varbinds))
	return append(b, varbinds...)
}
