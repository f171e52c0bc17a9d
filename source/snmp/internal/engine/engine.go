// Package engine sends datagrams to very many hosts through a few shared sockets and
// brings every answer to whoever waits for it. It knows of SNMP only that a message
// carries an id of 32 bits.
//
// A socket of its own for each poll costs four to five times the round trip itself;
// and hosts behind a firewall are met from one port, which makes no new flow entry
// at each poll.
package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Source says where the answer to a request may come from.
type Source uint8

// The choices of Source.
const (
	SameAddrPort Source = iota // the address and port that were asked
	SameAddr                   // the address that was asked, any port
	Anywhere                   // any address
)

// Config describes an engine.
type Config struct {
	Shards int        // pairs of sockets; 0: GOMAXPROCS, at most 8
	Local  netip.Addr // to send from; zero: any address of both families
	Source Source
	// Window is how many requests may be on the wire at once, of all shards; 0: what the
	// receive buffers hold. Hosts that may be dead have the window of one shard besides.
	Window     int
	ReadBuffer int // bytes of SO_RCVBUF and of SO_SNDBUF to ask for
	// ID finds the id of a message.
	ID func(msg []byte) (uint32, bool)
}

// Errors of a call.
var (
	ErrClosed      = errors.New("the engine is closed")
	ErrStopped     = errors.New("stopped")
	ErrLate        = errors.New("no time left")
	ErrFull        = errors.New("too many calls")
	ErrRefused     = errors.New("port unreachable")
	ErrUnreachable = errors.New("host or network unreachable")

	errBusy = errors.New("the send buffer is full")
)

const (
	slotBits   = 16
	genBits    = 14
	maxSlots   = 1 << slotBits
	genMask    = 1<<genBits - 1
	idBase     = 1 << (slotBits + genBits) // so that an id is positive and takes four bytes of BER
	firstSlots = 1024

	// hold is how long a request counts as being on the wire. An answer that takes
	// longer finds its place in the receive buffer all the same; a request that gets
	// none, such as one to a dead host, must not keep others from being sent.
	hold = 250 * time.Millisecond

	// truesize is what the kernel charges the receive buffer for one answer of an
	// Ethernet frame, or a little more.
	truesize = 3072

	// maxWindow bounds the window of a shard where buffers are large: more requests at
	// once only wait for each other, here and at the far end, while their time runs out.
	maxWindow = 512
)

// Counters count datagrams since the engine was opened.
type Counters struct {
	Sent      uint64
	Received  uint64
	Malformed uint64 // without a readable id
	Unmatched uint64 // with an id that nobody waits for (any more)
	Foreign   uint64 // from an address that was not asked
	Crowded   uint64 // more answers to one request than anyone reads
	Refused   uint64 // ICMP messages that ended a call
	OnWire    int    // requests sent within the last moment and not answered
	Window    int    // the limit of OnWire
}

// Engine owns the sockets. It may be used by many goroutines.
type Engine struct {
	cfg        Config
	shards     []*shard
	closed     chan struct{}
	closing    sync.Once
	readers    sync.WaitGroup
	ReadBuffer int // what the kernel granted, in bytes; 0: not known

	sent, received, malformed, unmatched, foreign, crowded, refused atomic.Uint64
}

type socket struct {
	*net.UDPConn
	raw syscall.RawConn
}

// shard is a pair of sockets and the calls that use them.
type shard struct {
	v4, v6 *socket
	window chan struct{} // holds a token for each request on the wire

	mu    sync.Mutex
	slots []slot
	free  []uint16 // used first in, first out, so that an id comes again as late as possible
	head  int
}

type slot struct {
	call *Call // nil: free
	gen  uint16
}

// New opens the sockets.
func New(cfg Config) (*Engine, error) {
	if cfg.Shards <= 0 {
		cfg.Shards = min(runtime.GOMAXPROCS(0), 8)
	}
	e := &Engine{cfg: cfg, closed: make(chan struct{})}
	for range cfg.Shards + 1 { // the last one is for hosts that may be dead
		s, err := e.openShard()
		if err != nil {
			_ = e.Close() // the first error says it
			return nil, err
		}
		e.shards = append(e.shards, s)
	}
	for _, s := range e.shards {
		for _, c := range []*socket{s.v4, s.v6} {
			if c != nil {
				e.readers.Go(func() { e.read(s, c) })
			}
		}
	}
	return e, nil
}

func (e *Engine) openShard() (*shard, error) {
	s := &shard{}
	var errs []error
	local := e.cfg.Local
	if !local.IsValid() || local.Unmap().Is4() {
		s.v4 = listen("udp4", local.Unmap(), &errs)
	}
	if !local.IsValid() || local.Is6() && !local.Is4In6() {
		s.v6 = listen("udp6", local, &errs)
	}
	if s.v4 == nil && s.v6 == nil { // a machine may lack one family
		return nil, fmt.Errorf("snmp: open a socket: %w", errors.Join(errs...))
	}
	window := 0
	for _, c := range []*socket{s.v4, s.v6} {
		if c == nil {
			continue
		}
		if e.cfg.ReadBuffer > 0 {
			_ = c.SetReadBuffer(e.cfg.ReadBuffer) // what was granted is read back
			_ = c.SetWriteBuffer(e.cfg.ReadBuffer)
		}
		watchErrors(c)
		if n := readBuffer(c); n > 0 {
			e.ReadBuffer = n
			if window == 0 || n/truesize < window {
				window = n / truesize
			}
		}
	}
	if window == 0 {
		window = 64
	}
	if e.cfg.Window == 0 {
		window = min(window, maxWindow)
	}
	if e.cfg.Window > 0 {
		window = min(window, (e.cfg.Window+e.cfg.Shards-1)/e.cfg.Shards)
	}
	s.window = make(chan struct{}, max(window, 1))
	s.grow(firstSlots)
	return s, nil
}

func listen(network string, local netip.Addr, errs *[]error) *socket {
	a := &net.UDPAddr{}
	if local.IsValid() {
		a = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	c, err := net.ListenUDP(network, a)
	if err != nil {
		*errs = append(*errs, err)
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		*errs = append(*errs, err)
		_ = c.Close()
		return nil
	}
	return &socket{c, raw}
}

// grow adds free slots. Their generations start at random, so that a restarted
// poller does not take late answers to its forerunner, nor can ids be guessed.
func (s *shard) grow(n int) {
	free := append([]uint16(nil), s.free[s.head:]...)
	for range min(n, maxSlots-len(s.slots)) {
		free = append(free, uint16(len(s.slots)))
		s.slots = append(s.slots, slot{gen: uint16(rand.Uint32() & genMask)})
	}
	s.free, s.head = free, 0
}

// Close closes the sockets and waits for their readers. Calls end with ErrClosed.
func (e *Engine) Close() error {
	e.closing.Do(func() { close(e.closed) })
	var errs []error
	for _, s := range e.shards {
		for _, c := range []*socket{s.v4, s.v6} {
			if c != nil {
				if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					errs = append(errs, err)
				}
			}
		}
	}
	e.readers.Wait()
	return errors.Join(errs...)
}

// Counters returns the counters.
func (e *Engine) Counters() Counters {
	c := Counters{
		Sent: e.sent.Load(), Received: e.received.Load(), Malformed: e.malformed.Load(),
		Unmatched: e.unmatched.Load(), Foreign: e.foreign.Load(), Crowded: e.crowded.Load(), Refused: e.refused.Load(),
	}
	for _, s := range e.shards {
		c.OnWire += len(s.window)
		c.Window += cap(s.window)
	}
	return c
}

// read takes what comes in on one socket. It never waits for a consumer.
func (e *Engine) read(s *shard, c *socket) {
	buf := make([]byte, 65535)
	for failures := 0; ; {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			select {
			case <-e.closed:
				return
			default:
			}
			// The socket reports an ICMP message once as an error of the next call, whoever
			// makes it.
			if n := readErrors(c, e.bounced(s)); n > 0 {
				failures = 0
			} else if failures++; failures > 16 {
				time.Sleep(min(time.Duration(failures)*time.Millisecond, 100*time.Millisecond))
			}
			continue
		}
		failures = 0
		e.received.Add(1)
		e.deliver(s, buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}

func (e *Engine) deliver(s *shard, msg []byte, from netip.AddrPort) {
	now := time.Now()
	id, ok := e.cfg.ID(msg)
	if !ok {
		e.malformed.Add(1)
		return
	}
	s.mu.Lock()
	call := s.callOf(id)
	if call == nil {
		s.mu.Unlock()
		e.unmatched.Add(1)
		return
	}
	if !e.cfg.Source.allows(from, call.to) {
		s.mu.Unlock()
		e.foreign.Add(1)
		return
	}
	select {
	case call.answers <- Answer{ID: id, Msg: append([]byte(nil), msg...), At: now}:
	default:
		e.crowded.Add(1)
	}
	s.mu.Unlock()
	call.release()
}

func (p Source) allows(from, asked netip.AddrPort) bool {
	switch p {
	case Anywhere:
		return true
	case SameAddr:
		return from.Addr().WithZone("") == asked.Addr().WithZone("")
	default:
		return from.Port() == asked.Port() && from.Addr().WithZone("") == asked.Addr().WithZone("")
	}
}

// callOf returns the call that a message with this id belongs to. s.mu is held.
func (s *shard) callOf(id uint32) *Call {
	n, gen := int(id&(maxSlots-1)), uint16(id>>slotBits&genMask)
	if id&idBase == 0 || n >= len(s.slots) {
		return nil
	}
	c := s.slots[n].call
	if c == nil || !c.asking || (gen-c.first)&genMask > (c.last-c.first)&genMask {
		return nil
	}
	return c
}

// bounced takes what an ICMP message says about a datagram of ours: its first bytes,
// if the router quoted any, where it went to, and the error.
func (e *Engine) bounced(s *shard) func(quoted []byte, to netip.AddrPort, err error) {
	return func(quoted []byte, to netip.AddrPort, err error) {
		now := time.Now()
		s.mu.Lock()
		defer s.mu.Unlock()
		end := func(c *Call) {
			select {
			case c.answers <- Answer{Err: err, At: now}:
				e.refused.Add(1)
			default:
			}
		}
		if id, ok := e.cfg.ID(quoted); ok {
			if c := s.callOf(id); c != nil && c.to == to {
				end(c)
			}
			return
		}
		for i := range s.slots {
			if c := s.slots[i].call; c != nil && c.asking && c.to == to {
				end(c)
			}
		}
	}
}

// Answer is a message that came for a call, or the error that ended it.
type Answer struct {
	ID  uint32
	Msg []byte // the receiver's own
	At  time.Time
	Err error
}

// Call is one conversation with one host: requests one after the other, each sent
// once or more often. One goroutine uses it.
type Call struct {
	e    *Engine
	s    *shard
	conn *socket
	to   netip.AddrPort
	slot uint16

	// Under s.mu: the generations of the tries of the request that is being asked.
	asking      bool
	first, last uint16
	next        uint16 // of the next try

	answers chan Answer
	held    atomic.Bool
	timer   *time.Timer
}

// Open starts a call. host decides on the shard, so that a host is always met from
// the same port. A host that may be dead is met from another one: what the kernel
// cannot deliver takes room in the send buffer, which is that of its kind alone.
func (e *Engine) Open(host uint64, to netip.AddrPort, dead bool) (*Call, error) {
	n := len(e.shards) - 1
	s := e.shards[n]
	if !dead {
		s = e.shards[host%uint64(n)]
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	conn := s.v4
	if to.Addr().Is6() {
		conn = s.v6
	}
	if conn == nil {
		return nil, fmt.Errorf("%w: no socket for this family of addresses", ErrUnreachable)
	}
	c := &Call{e: e, s: s, conn: conn, to: to, answers: make(chan Answer, 4)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == len(s.free) {
		if s.grow(len(s.slots)); s.head == len(s.free) {
			return nil, ErrFull
		}
	}
	c.slot = s.free[s.head]
	s.head++
	c.next = s.slots[c.slot].gen
	s.slots[c.slot].call = c
	return c, nil
}

// Close ends the call. Answers that come later match nobody.
func (c *Call) Close() {
	s := c.s
	s.mu.Lock()
	s.slots[c.slot] = slot{gen: c.next}
	if s.head > len(s.free)/2 && s.head > firstSlots {
		s.free = append(s.free[:0], s.free[s.head:]...)
		s.head = 0
	}
	s.free = append(s.free, c.slot)
	s.mu.Unlock()
	c.release()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Ask starts a new request: what still comes for the one before matches nobody.
func (c *Call) Ask() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.asking = false
	for {
		select {
		case <-c.answers:
			continue
		default:
		}
		return
	}
}

// NextID returns the id for the next try of the request. The ids of the tries before
// stay good: a slow answer is an answer.
func (c *Call) NextID() uint32 {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	gen := c.next & genMask
	if !c.asking {
		c.first, c.asking = gen, true
	}
	c.last, c.next = gen, (gen+1)&genMask
	return idBase | uint32(gen)<<slotBits | uint32(c.slot)
}

// Answers is where the answers to the request come.
func (c *Call) Answers() <-chan Answer { return c.answers }

// Send sends one try, as soon as the window lets it, but not after until. It returns
// when it did.
func (c *Call) Send(msg []byte, stop <-chan struct{}, until time.Time) (at time.Time, err error) {
	if err := c.acquire(stop, until); err != nil {
		return at, err
	}
	pause := time.Millisecond
	for bounces := 0; ; {
		at = time.Now()
		err = c.conn.send(msg, c.to)
		switch {
		case err == nil:
			c.e.sent.Add(1)
			return at, nil
		case errors.Is(err, errBusy) && at.Before(until):
			select {
			case <-time.After(pause):
				pause = min(2*pause, 50*time.Millisecond)
				continue
			case <-stop:
				err = ErrStopped
			}
		case errors.Is(err, errBusy):
			err = ErrLate
		case isBounce(err) && bounces < 3:
			// An ICMP message about another host was waiting on the socket.
			bounces++
			readErrors(c.conn, c.e.bounced(c.s))
			continue
		case errors.Is(err, net.ErrClosed):
			err = ErrClosed
		default:
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		c.release()
		return at, err
	}
}

// acquire takes a token of the window.
func (c *Call) acquire(stop <-chan struct{}, until time.Time) error {
	c.release()
	select {
	case c.s.window <- struct{}{}:
	default:
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		select {
		case c.s.window <- struct{}{}:
		case <-t.C:
			return ErrLate
		case <-stop:
			return ErrStopped
		case <-c.e.closed:
			return ErrClosed
		}
	}
	c.held.Store(true)
	if c.timer == nil {
		c.timer = time.AfterFunc(hold, c.release)
	} else {
		c.timer.Reset(hold)
	}
	return nil
}

// release gives the token of the window back, once.
func (c *Call) release() {
	if c.held.CompareAndSwap(true, false) {
		<-c.s.window
	}
}
