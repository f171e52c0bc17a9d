package snmp_test

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// agent is an SNMP agent for tests, on a loopback port of its own.
type agent struct {
	tb        testing.TB
	conn      *net.UDPConn
	community string
	requests  atomic.Int64 // datagrams received

	mu       sync.Mutex
	mib      []object // in order of OIDs
	delay    time.Duration
	silent   bool
	gate     chan struct{} // if set, answers wait until it is closed
	maxBinds int           // above it: tooBig
	// hook, if set, may answer a request itself, with any datagrams, or change the answer
	// that is made.
	hook func(req *gosnmp.SnmpPacket, res *gosnmp.SnmpPacket, encode func(*gosnmp.SnmpPacket) []byte) (datagrams [][]byte, handled bool)
	// user, if set, makes it an agent of version 3.
	user   *gosnmp.UsmSecurityParameters
	engine string
	boots  uint32
	clock  func() uint32
}

type object struct {
	oid   []uint32
	name  string
	typ   gosnmp.Asn1BER
	value any
}

func parseOID(s string) []uint32 {
	var oid []uint32
	for a := range strings.SplitSeq(strings.Trim(s, "."), ".") {
		n, err := strconv.ParseUint(a, 10, 32)
		if err != nil {
			panic(fmt.Sprintf("%q: %v", s, err))
		}
		oid = append(oid, uint32(n))
	}
	return oid
}

func newAgent(tb testing.TB) *agent {
	tb.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20) // a test may ask for a hundred hosts at once
	a := &agent{tb: tb, conn: conn, community: "public", engine: "\x80\x00\x1f\x88\x04test", boots: 1, clock: func() uint32 { return 1000 }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.serve()
	}()
	tb.Cleanup(func() {
		conn.Close()
		<-done
	})
	return a
}

func (a *agent) addr() string { return a.conn.LocalAddr().String() }

// set puts objects into the MIB: an OID and a value by turns. The type follows from the
// value: int is an INTEGER, uint32 a Gauge32, c32 a Counter32, uint64 a Counter64,
// ticks TimeTicks, float32 an Opaque float, string an OCTET STRING or, with a leading dot, an OID.
func (a *agent) set(pairs ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 0; i < len(pairs); i += 2 {
		o := object{oid: parseOID(pairs[i].(string))}
		o.name = "." + strings.Trim(pairs[i].(string), ".")
		o.value = pairs[i+1]
		switch v := pairs[i+1].(type) {
		case int:
			o.typ = gosnmp.Integer
		case uint32:
			o.typ = gosnmp.Gauge32
		case c32:
			o.typ, o.value = gosnmp.Counter32, uint32(v)
		case ticks:
			o.typ, o.value = gosnmp.TimeTicks, uint32(v)
		case uint64:
			o.typ = gosnmp.Counter64
		case float32:
			o.typ = gosnmp.OpaqueFloat
		case string:
			o.typ = gosnmp.OctetString
			if strings.HasPrefix(v, ".") {
				o.typ = gosnmp.ObjectIdentifier
			}
		default:
			panic(fmt.Sprintf("%T", v))
		}
		at, found := slices.BinarySearchFunc(a.mib, o, compare)
		if found {
			a.mib[at] = o
		} else {
			a.mib = slices.Insert(a.mib, at, o)
		}
	}
}

type (
	c32   uint32
	ticks uint32
)

// remove takes everything below an OID out of the MIB.
func (a *agent) remove(below string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	below = "." + strings.Trim(below, ".")
	a.mib = slices.DeleteFunc(a.mib, func(o object) bool { return o.name == below || strings.HasPrefix(o.name, below+".") })
}

// hold keeps the answers back until let is called.
func (a *agent) hold() (let func()) {
	gate := make(chan struct{})
	a.with(func(a *agent) { a.gate = gate })
	let = sync.OnceFunc(func() {
		a.with(func(a *agent) { a.gate = nil })
		close(gate)
	})
	a.tb.Cleanup(let)
	return let
}

// with changes the agent under its lock.
func (a *agent) with(f func(*agent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

func compare(a, b object) int { return slices.Compare(a.oid, b.oid) }

func (a *agent) serve() {
	buf := make([]byte, 65535)
	for {
		n, from, err := a.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		a.requests.Add(1)
		a.mu.Lock()
		replies, delay, held := a.answer(buf[:n]), a.delay, a.gate != nil
		a.mu.Unlock()
		send := func() {
			for {
				a.mu.Lock()
				gate := a.gate
				a.mu.Unlock()
				if gate == nil {
					break
				}
				<-gate
			}
			for _, r := range replies {
				a.conn.WriteToUDPAddrPort(r, from)
			}
		}
		if delay > 0 || held {
			time.AfterFunc(delay, send)
		} else {
			send()
		}
	}
}

// report returns a report of version 3.
func (a *agent) report(req *gosnmp.SnmpPacket, flags gosnmp.SnmpV3MsgFlags, oid string) []byte {
	sp := &gosnmp.UsmSecurityParameters{AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv}
	if flags != 0 {
		sp = a.security()
	}
	sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots, sp.AuthoritativeEngineTime = a.engine, a.boots, a.clock()
	return a.encode(&gosnmp.SnmpPacket{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel, SecurityParameters: sp, MsgFlags: flags,
		MsgID: req.MsgID, RequestID: req.RequestID, PDUType: gosnmp.Report, ContextEngineID: a.engine,
		Variables: []gosnmp.SnmpPDU{{Name: oid, Type: gosnmp.Counter32, Value: uint32(1)}},
	})
}

// security returns the agent's own parameters, with keys of its own making.
func (a *agent) security() *gosnmp.UsmSecurityParameters {
	sp := &gosnmp.UsmSecurityParameters{
		UserName: a.user.UserName, AuthoritativeEngineID: a.engine, AuthoritativeEngineBoots: a.boots, AuthoritativeEngineTime: a.clock(),
		AuthenticationProtocol: a.user.AuthenticationProtocol, AuthenticationPassphrase: a.user.AuthenticationPassphrase,
		PrivacyProtocol: a.user.PrivacyProtocol, PrivacyPassphrase: a.user.PrivacyPassphrase,
	}
	if err := sp.InitSecurityKeys(); err != nil {
		a.tb.Error(err)
	}
	sp.PrivacyParameters = []byte("saltsalt")
	return sp
}

func (a *agent) encode(p *gosnmp.SnmpPacket) []byte {
	b, err := p.MarshalMsg()
	if err != nil {
		a.tb.Errorf("agent: encode: %v", err)
	}
	return b
}

const (
	reportLevel   = ".1.3.6.1.6.3.15.1.1.1.0"
	reportWindow  = ".1.3.6.1.6.3.15.1.1.2.0"
	reportUser    = ".1.3.6.1.6.3.15.1.1.3.0"
	reportEngine  = ".1.3.6.1.6.3.15.1.1.4.0"
	reportDigest  = ".1.3.6.1.6.3.15.1.1.5.0"
	reportDecrypt = ".1.3.6.1.6.3.15.1.1.6.0"
)

// answer returns the datagrams that answer one. a.mu is held.
func (a *agent) answer(msg []byte) [][]byte {
	if a.silent {
		return nil
	}
	var g gosnmp.GoSNMP
	plain := &gosnmp.GoSNMP{SecurityModel: gosnmp.UserSecurityModel, Version: gosnmp.Version3,
		SecurityParameters: &gosnmp.UsmSecurityParameters{UserName: "x", AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv}}
	req := &gosnmp.SnmpPacket{}
	if a.user == nil {
		g = gosnmp.GoSNMP{Version: gosnmp.Version2c}
	} else {
		head, err := plain.SnmpDecodePacket(slices.Clone(msg))
		if head == nil || head.SecurityParameters == nil {
			a.tb.Errorf("agent: %v", err)
			return nil
		}
		sp := head.SecurityParameters.(*gosnmp.UsmSecurityParameters)
		switch {
		case sp.AuthoritativeEngineID != a.engine:
			return [][]byte{a.report(head, 0, reportEngine)}
		case sp.UserName != a.user.UserName:
			return [][]byte{a.report(head, 0, reportUser)}
		}
		g = gosnmp.GoSNMP{Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel, MsgFlags: a.flags(), SecurityParameters: a.security()}
		req.SecurityParameters, req.MsgID = sp, head.MsgID
	}
	in, err := g.UnmarshalTrap(slices.Clone(msg), false)
	if err != nil {
		if a.user == nil {
			return nil
		}
		return [][]byte{a.report(req, 0, reportDigest)}
	}
	if a.user == nil && in.Community != a.community {
		return nil
	}
	if a.user != nil {
		sp := in.SecurityParameters.(*gosnmp.UsmSecurityParameters)
		if d := int64(sp.AuthoritativeEngineTime) - int64(a.clock()); sp.AuthoritativeEngineBoots != a.boots || d > 150 || d < -150 {
			return [][]byte{a.report(in, gosnmp.AuthNoPriv&a.flags(), reportWindow)}
		}
	}
	res := &gosnmp.SnmpPacket{Version: in.Version, Community: in.Community, PDUType: gosnmp.GetResponse, RequestID: in.RequestID, MsgID: in.MsgID}
	if a.user != nil {
		res.SecurityModel, res.SecurityParameters, res.MsgFlags, res.ContextEngineID = gosnmp.UserSecurityModel, a.security(), a.flags(), a.engine
	}
	a.lookUp(in, res)
	if a.hook != nil {
		if out, handled := a.hook(in, res, a.encode); handled {
			return out
		}
	}
	if a.maxBinds > 0 && len(res.Variables) > a.maxBinds {
		res.Error, res.Variables = gosnmp.TooBig, nil
	}
	return [][]byte{a.encode(res)}
}

func (a *agent) flags() gosnmp.SnmpV3MsgFlags {
	switch {
	case a.user.PrivacyProtocol > gosnmp.NoPriv:
		return gosnmp.AuthPriv
	case a.user.AuthenticationProtocol > gosnmp.NoAuth:
		return gosnmp.AuthNoPriv
	}
	return gosnmp.NoAuthNoPriv
}

func (a *agent) lookUp(req, res *gosnmp.SnmpPacket) {
	next := func(oid []uint32) gosnmp.SnmpPDU {
		at, found := slices.BinarySearchFunc(a.mib, oid, func(o object, oid []uint32) int { return slices.Compare(o.oid, oid) })
		if found {
			at++
		}
		if at == len(a.mib) {
			return gosnmp.SnmpPDU{Type: gosnmp.EndOfMibView}
		}
		return pduOf(a.mib[at])
	}
	if req.PDUType == gosnmp.GetBulkRequest {
		at := make([]string, len(req.Variables))
		for i, v := range req.Variables {
			at[i] = v.Name
		}
		for range min(req.MaxRepetitions, 100/uint32(max(len(at), 1))) {
			for i := range at {
				v := next(parseOID(at[i]))
				v.Name = cmp.Or(v.Name, at[i])
				at[i] = v.Name
				res.Variables = append(res.Variables, v)
			}
		}
		return
	}
	for _, v := range req.Variables {
		at, found := slices.BinarySearchFunc(a.mib, parseOID(v.Name), func(o object, oid []uint32) int { return slices.Compare(o.oid, oid) })
		if found {
			res.Variables = append(res.Variables, pduOf(a.mib[at]))
		} else {
			res.Variables = append(res.Variables, gosnmp.SnmpPDU{Name: v.Name, Type: gosnmp.NoSuchInstance})
		}
	}
}

func pduOf(o object) gosnmp.SnmpPDU { return gosnmp.SnmpPDU{Name: o.name, Type: o.typ, Value: o.value} }

// linux fills the agent with what a Linux host with two disks and three interfaces has.
func (a *agent) linux() *agent {
	const (
		mib2 = "1.3.6.1.2.1."
		ucd  = "1.3.6.1.4.1.2021."
	)
	a.set(mib2+"1.3.0", ticks(12345),
		mib2+"2.1.0", 3,
		mib2+"6.9.0", uint32(7), mib2+"6.10.0", c32(1000), mib2+"6.11.0", c32(2000), mib2+"6.12.0", c32(3),
		mib2+"25.1.1.0", ticks(8640000), mib2+"25.1.5.0", uint32(2), mib2+"25.1.6.0", uint32(180))
	for i, n := range []int{50, 51, 52, 53, 54, 56, 61, 64} {
		a.set(fmt.Sprint(ucd, "11.", n, ".0"), c32(1000*(i+1)))
	}
	a.set(ucd+"11.67.0", 4, ucd+"11.59.0", c32(5), ucd+"11.60.0", c32(6), ucd+"11.62.0", c32(7), ucd+"11.63.0", c32(8),
		ucd+"10.1.5.1", 150, ucd+"10.1.5.2", 75, ucd+"10.1.5.3", 25,
		ucd+"4.3.0", 2048, ucd+"4.4.0", 1024, ucd+"4.5.0", 16000, ucd+"4.6.0", 4000, ucd+"4.13.0", 10, ucd+"4.14.0", 500, ucd+"4.15.0", 6000,
		ucd+"4.20.0", uint64(16000), ucd+"4.21.0", uint64(4000), ucd+"4.27.0", uint64(9000))
	a.storage(1, ".1.3.6.1.2.1.25.2.1.2", "Physical memory", 1024, 16000, 12000)
	a.storage(31, ".1.3.6.1.2.1.25.2.1.4", "/", 4096, 1000, 250)
	a.storage(35, ".1.3.6.1.2.1.25.2.1.4", "/dev/shm", 4096, 500, 0)
	a.storage(36, ".1.3.6.1.2.1.25.2.1.4", "/data", 4096, -1294967296, 7) // 3,000,000,000 units
	for i, dev := range []string{"loop0", "sda"} {
		row := func(col int) string { return fmt.Sprint(ucd, "13.15.1.1.", col, ".", i+1) }
		a.set(row(2), dev, row(3), c32(1), row(4), c32(2), row(5), c32(30), row(6), c32(40), row(12), uint64(1)<<40, row(13), uint64(1)<<41, row(14), uint64(77))
	}
	a.iface(1, "lo", 10_000_000, 10)
	a.iface(2, "eth0", 4294967295, 10_000)
	a.iface(3, "eth1", 1_000_000_000, 1000)
	return a
}

func (a *agent) storage(index int, kind, descr string, units, size, used int) {
	row := func(col int) string { return fmt.Sprint("1.3.6.1.2.1.25.2.3.1.", col, ".", index) }
	a.set(row(2), kind, row(3), descr, row(4), units, row(5), size, row(6), used)
}

func (a *agent) iface(index int, name string, speed uint32, mbit uint32) {
	row := func(col string) string { return fmt.Sprint("1.3.6.1.2.1.", col, ".", index) }
	n := index * 100
	a.set(row("2.2.1.2"), "descr of "+name, row("2.2.1.5"), speed, row("2.2.1.7"), 1, row("2.2.1.8"), 1+index%2,
		row("2.2.1.10"), c32(n), row("2.2.1.13"), c32(n+1), row("2.2.1.14"), c32(n+2),
		row("2.2.1.16"), c32(n+3), row("2.2.1.19"), c32(n+4), row("2.2.1.20"), c32(n+5),
		row("31.1.1.1.1"), name, row("31.1.1.1.6"), uint64(n)<<32, row("31.1.1.1.10"), uint64(n+1)<<32, row("31.1.1.1.15"), mbit)
}
