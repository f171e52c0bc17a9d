// Package codec turns requests into SNMP messages and messages into answers, for
// versions 2c and 3. It opens no socket and reads no clock.
//
// The encoding itself is gosnmp's. What gosnmp leaves open is closed here: the
// community, the version and the kind of PDU of an answer are checked, an answer of
// version 3 has to come from the engine that was asked and at the security level
// that was asked for, and a hostile message is an error and never a panic.
package codec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gosnmp/gosnmp"
)

// Op is what a request asks for.
type Op byte

// The requests a poller makes.
const (
	Get     = Op(gosnmp.GetRequest)
	GetBulk = Op(gosnmp.GetBulkRequest)
)

// Request is what to ask for.
type Request struct {
	Op             Op
	OIDs           []string // with a leading dot
	MaxRepetitions uint32   // of a GetBulk
}

// Bind is one variable of an answer. Its OID has a leading dot.
type Bind struct {
	OID   string
	Value Value
}

// Answer is a decoded answer.
type Answer struct {
	Status int // error-status, RFC 3416 section 3; 0 is none
	Index  int // error-index: the variable that Status is about, from 1
	Binds  []Bind
	Report Report // of version 3: the agent could not process the request
}

// The error-status values that the poller tells apart.
const (
	TooBig     = int(gosnmp.TooBig)
	NoSuchName = int(gosnmp.NoSuchName)
	NotAllowed = int(gosnmp.AuthorizationError) // of the whole request
)

// What may be wrong with a message. Such a message is not an answer: it is counted,
// and the wait goes on.
var (
	ErrMalformed = errors.New("not an SNMP message")
	ErrMismatch  = errors.New("an answer of another version, community, engine or kind")
	ErrAuth      = errors.New("the message is not authentic")
	ErrWindow    = errors.New("the message is outside of the time window")
)

// The limits of a message. Every one is far above what an agent sends to a request
// of ours.
const (
	maxBinds     = 2048
	maxCommunity = 127 // gosnmp writes the length in one byte
)

// EncodeV2c returns the message of a request of version 2c. The request-id takes
// four bytes and can be changed with [SetID].
func EncodeV2c(community string, id uint32, r Request) ([]byte, error) {
	p := gosnmp.SnmpPacket{
		Version:        gosnmp.Version2c,
		Community:      community,
		PDUType:        gosnmp.PDUType(r.Op),
		RequestID:      id,
		MaxRepetitions: r.MaxRepetitions,
		Variables:      variables(r.OIDs),
	}
	b, err := p.MarshalMsg()
	if err != nil {
		return nil, fmt.Errorf("snmp: encode: %w", err)
	}
	return b, nil
}

// CheckCommunity tells whether a community can be sent.
func CheckCommunity(c string) error {
	if len(c) > maxCommunity {
		return fmt.Errorf("a community has at most %d bytes", maxCommunity)
	}
	return nil
}

func variables(oids []string) []gosnmp.SnmpPDU {
	vs := make([]gosnmp.SnmpPDU, len(oids))
	for i, o := range oids {
		vs[i] = gosnmp.SnmpPDU{Name: o, Type: gosnmp.Null}
	}
	return vs
}

// DecodeV2c reads the answer to a request of version 2c made with community. It
// writes to msg and keeps nothing of it.
func DecodeV2c(community string, msg []byte) (Answer, error) {
	g := gosnmp.GoSNMP{Version: gosnmp.Version2c}
	p, err := decode(&g, msg)
	switch {
	case err != nil:
		return Answer{}, err
	case p.Version != gosnmp.Version2c || p.Community != community || p.PDUType != gosnmp.GetResponse:
		return Answer{}, ErrMismatch
	}
	return answer(p)
}

// decode is gosnmp's decoder of messages that come by themselves, the only one that
// verifies their authentication.
func decode(g *gosnmp.GoSNMP, msg []byte) (p *gosnmp.SnmpPacket, err error) {
	defer func() {
		if recover() != nil {
			p, err = nil, ErrMalformed
		}
	}()
	p, err = g.UnmarshalTrap(msg, false)
	if err != nil { // its text may hold the bytes of the message: not for a log
		if strings.Contains(err.Error(), "not authentic") {
			return nil, ErrAuth
		}
		return nil, ErrMalformed
	}
	return p, nil
}

func answer(p *gosnmp.SnmpPacket) (Answer, error) {
	if len(p.Variables) > maxBinds {
		return Answer{}, ErrMalformed
	}
	a := Answer{Status: int(p.Error), Index: int(p.ErrorIndex), Binds: make([]Bind, len(p.Variables))}
	for i := range p.Variables {
		a.Binds[i] = Bind{OID: p.Variables[i].Name, Value: valueOf(&p.Variables[i])}
	}
	return a, nil
}
