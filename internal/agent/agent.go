// Package agent is a small SNMP agent: enough of RFC 3416 (version 2c: GET,
// GETNEXT, GETBULK) to stand in for net-snmp's snmpd in tests and in programs that
// show kemi on a machine without one.
//
// [System] answers with the real numbers of this machine, [Static] with those of a
// test. A [Fleet] is thousands of such hosts on the loopback network. Every host
// has [Faults] that can be set while it runs: delay, loss, broken answers, walks
// that never end.
//
// It is not an agent to watch a production machine with: there is no version 3, no
// access control but the community, and no SET.
package agent

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config describes one host. The zero value is an agent without objects that
// answers to the community "public".
type Config struct {
	Community string // default "public"
	Values    Tree   // nil: no objects
	Faults    Faults // at start; see [Host.SetFaults]
	// MaxSize is the largest answer in bytes, the UDP payload. A GET that does not fit
	// is answered with tooBig, a GETBULK with fewer variables. Default and maximum 65507.
	MaxSize int
	// MaxBulk is the largest number of variables in the answer to a GETBULK, rounded
	// down to whole rows. Default 100, which is net-snmp's maxGetbulkResponses.
	MaxBulk int
	// Seen, if set, is called with every request before it is answered, from the
	// goroutine that serves the socket.
	Seen func(Request)
	// Seed makes the faults that depend on chance repeatable.
	Seed uint64
}

// Request is what Config.Seen is told.
type Request struct {
	From           netip.AddrPort
	Type           byte // PDUGet, PDUGetNext or PDUGetBulk
	ID             int32
	NonRepeaters   int // of a GETBULK
	MaxRepetitions int // of a GETBULK
	OIDs           []string
}

// Stats counts what happened to one host since it began.
type Stats struct {
	Requests  int64 // well-formed, of the right version and community
	Refused   int64 // not well-formed, or of another version or community; never answered
	Answers   int64 // sent
	Dropped   int64 // not answered because of Faults
	Variables int64 // in answers
}

// Host is one agent. Its methods may be called by many goroutines at once.
type Host struct {
	cfg       Config
	community []byte

	faults atomic.Pointer[Faults]
	first  atomic.Int64 // requests still to be dropped by Faults.DropFirst

	mu  sync.Mutex // guards rng
	rng *rand.Rand

	requests, refused, answers, dropped, variables atomic.Int64
}

func newHost(cfg Config) (*Host, error) {
	if cfg.Community == "" {
		cfg.Community = "public"
	}
	if cfg.Values == nil {
		cfg.Values = (&View{})
	}
	if cfg.MaxSize <= 0 || cfg.MaxSize > maxMessage {
		cfg.MaxSize = maxMessage
	}
	if cfg.MaxSize < 484 {
		return nil, fmt.Errorf("agent: MaxSize %d: RFC 3417 asks for at least 484 bytes", cfg.MaxSize)
	}
	if cfg.MaxBulk <= 0 {
		cfg.MaxBulk = 100
	}
	h := &Host{cfg: cfg, community: []byte(cfg.Community), rng: rand.New(rand.NewPCG(cfg.Seed, 0))}
	h.SetFaults(cfg.Faults)
	return h, nil
}

// Stats returns the counts so far.
func (h *Host) Stats() Stats {
	return Stats{h.requests.Load(), h.refused.Load(), h.answers.Load(), h.dropped.Load(), h.variables.Load()}
}

// Agent is one host on one socket.
type Agent struct {
	*Host
	s *socket
}

// Listen starts an agent on addr, such as "127.0.0.1:0". An addr without a host
// means 127.0.0.1, never all addresses. The caller must Close it.
func Listen(addr string, cfg Config) (*Agent, error) {
	h, err := newHost(cfg)
	if err != nil {
		return nil, err
	}
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if ua.IP == nil {
		ua.IP = net.IPv4(127, 0, 0, 1)
	}
	conn, err := net.ListenUDP("udp", ua)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	s := newSocket(conn)
	s.serveHost(h)
	return &Agent{h, s}, nil
}

// Addr returns the address that the agent listens on.
func (a *Agent) Addr() netip.AddrPort { return a.s.local() }

// Close stops the agent and waits for its goroutine. Delayed answers are not sent.
func (a *Agent) Close() error { return a.s.close() }

// socket is a UDP socket with what faults need beside it.
type socket struct {
	conn *net.UDPConn
	wg   sync.WaitGroup

	mu     sync.Mutex
	others map[netip.Addr]*net.UDPConn // sockets that answer in place of conn, by local address
	closed bool
}

func newSocket(conn *net.UDPConn) *socket {
	// A burst of a whole fleet's requests must not overflow the default buffer.
	_ = conn.SetReadBuffer(4 << 20)
	return &socket{conn: conn}
}

// serveHost starts to answer for one host.
func (s *socket) serveHost(h *Host) {
	self := s.local().Addr()
	s.wg.Go(func() {
		in, w := make([]byte, maxMessage+1), worker{}
		for {
			n, from, err := s.conn.ReadFromUDPAddrPort(in)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue // a port-unreachable for an answer that came too late
			}
			w.serve(h, s, self, in[:n], from, s.send)
		}
	})
}

func (s *socket) local() netip.AddrPort {
	a := s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (s *socket) send(b []byte, to netip.AddrPort) {
	// The asker may be gone; that is its business, as with any agent.
	_, _ = s.conn.WriteToUDPAddrPort(b, to)
}

// sendFromOther sends from another port of the same address.
func (s *socket) sendFromOther(ip netip.Addr, b []byte, to netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.others[ip]
	if c == nil && !s.closed {
		var err error
		if c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))); err != nil {
			return
		}
		if s.others == nil {
			s.others = map[netip.Addr]*net.UDPConn{}
		}
		s.others[ip] = c
	}
	if c != nil {
		_, _ = c.WriteToUDPAddrPort(b, to)
	}
}

func (s *socket) close() error {
	err := s.conn.Close()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for ip, c := range s.others {
		_ = c.Close()
		delete(s.others, ip)
	}
	return err
}

// worker holds the buffers of one goroutine that serves requests.
type worker struct {
	req request
	out []byte
	vbs []byte
}

// serve answers one datagram that was sent to self. send must not keep the bytes.
func (w *worker) serve(h *Host, s *socket, self netip.Addr, msg []byte, from netip.AddrPort, send func([]byte, netip.AddrPort)) {
	f := h.faults.Load()
	if w.req.decode(msg) != nil || !bytes.Equal(w.req.community, h.community) {
		h.refused.Add(1)
		return
	}
	n, err := w.respond(h, f)
	if err != nil {
		h.refused.Add(1)
		return
	}
	h.requests.Add(1)
	if h.cfg.Seen != nil && w.req.decodeOIDs() == nil {
		h.cfg.Seen(w.req.told(from))
	}
	if h.drops(f) {
		h.dropped.Add(1)
		return
	}
	out := h.spoil(f, w.out)
	if f.OtherSource {
		send = func(b []byte, to netip.AddrPort) { s.sendFromOther(self, b, to) }
	}
	deliver := func(b []byte) {
		for range 1 + f.Duplicates {
			send(b, from)
		}
		h.answers.Add(1)
		h.variables.Add(int64(n))
	}
	if f.Delay <= 0 {
		deliver(out)
		return
	}
	out = slices.Clone(out) // the buffer is used for the next request meanwhile
	time.AfterFunc(f.Delay, func() { deliver(out) })
}
