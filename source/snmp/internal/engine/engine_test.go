package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// In these tests a message is its id.
func idOf(b []byte) (uint32, bool) {
	if len(b) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

func message(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func open(t *testing.T, cfg Config) *Engine {
	t.Helper()
	cfg.ID = idOf
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func peer(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func receive(t *testing.T, c *net.UDPConn) (id uint32, from netip.AddrPort) {
	t.Helper()
	buf := make([]byte, 100)
	c.SetReadDeadline(soon())
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	id, _ = idOf(buf[:n])
	return id, from
}

// soon only ends a test that has failed already.
func soon() time.Time { return time.Now().Add(time.Minute) }

// withinHold calls f until it finds nothing wrong, or finds something wrong sooner than a
// request without an answer stops counting: after that, f has seen something else.
func withinHold(t *testing.T, f func() (wrong string)) {
	t.Helper()
	var wrong string
	for range 100 {
		start := time.Now()
		if wrong = f(); wrong == "" || time.Since(start) < hold {
			break
		}
	}
	if wrong != "" {
		t.Fatal(wrong)
	}
}

func TestTheIDsOfEveryTryOfARequestAreGood(t *testing.T) {
	e := open(t, Config{Shards: 1})
	c, to := peer(t)
	call, err := e.Open(1, to, false)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	var from netip.AddrPort
	ask := func() uint32 {
		id := call.NextID()
		if _, err := call.Send(message(id), nil, soon()); err != nil {
			t.Fatal(err)
		}
		_, from = receive(t, c)
		return id
	}
	call.Ask()
	first, second := ask(), ask()
	if first == second || first>>30 != 1 || second>>30 != 1 {
		t.Fatalf("ids %x, %x", first, second)
	}
	for _, id := range []uint32{second, first} {
		c.WriteToUDPAddrPort(message(id), from)
		if a := <-call.Answers(); a.ID != id {
			t.Errorf("got %x, want %x", a.ID, id)
		}
	}
	// They are not any more when the next request is asked.
	call.Ask()
	third := ask()
	for _, id := range []uint32{first, second, third + 1<<slotBits, third ^ 1, third &^ (1 << 30), third} {
		c.WriteToUDPAddrPort(message(id), from)
	}
	if a := <-call.Answers(); a.ID != third {
		t.Errorf("got %x, want %x alone", a.ID, third)
	}
	if n := e.Counters(); n.Unmatched != 5 || n.Received != 8 {
		t.Errorf("%+v", n)
	}
}

// A slot is used again as late as possible, and never with ids of its last use.
func TestIDsAreNotUsedAgainSoon(t *testing.T) {
	e := open(t, Config{Shards: 1})
	_, to := peer(t)
	seen := map[uint32]bool{}
	for range 20_000 {
		c, err := e.Open(7, to, false)
		if err != nil {
			t.Fatal(err)
		}
		c.Ask()
		for range 2 {
			id := c.NextID()
			if seen[id] {
				t.Fatalf("id %x came again after %d others", id, len(seen))
			}
			seen[id] = true
		}
		c.Close()
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	e := open(t, Config{Shards: 1})
	_, to := peer(t)
	ids := map[uint32]*Call{}
	for range 3 * firstSlots {
		c, err := e.Open(7, to, false)
		if err != nil {
			t.Fatal(err)
		}
		c.Ask()
		ids[c.NextID()] = c
	}
	if len(ids) != 3*firstSlots {
		t.Errorf("%d ids of %d calls", len(ids), 3*firstSlots)
	}
	for _, c := range ids {
		c.Close()
	}
	for range maxSlots {
		if _, err := e.Open(7, to, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Open(7, to, false); !errors.Is(err, ErrFull) {
		t.Errorf("one call too many gave %v", err)
	}
}

// A full window delays a request; those that get no answer do not keep it full.
func TestTheWindow(t *testing.T) {
	var e *Engine
	var calls []*Call
	withinHold(t, func() string {
		e = open(t, Config{Shards: 1, Window: 2})
		c, to := peer(t)
		calls = nil
		for range 3 {
			call, err := e.Open(1, to, false)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(call.Close)
			call.Ask()
			calls = append(calls, call)
		}
		var from netip.AddrPort
		start := time.Now()
		for _, call := range calls[:2] {
			if _, err := call.Send(message(call.NextID()), nil, soon()); err != nil {
				t.Fatal(err)
			}
			_, from = receive(t, c)
		}
		if _, err := calls[2].Send(message(calls[2].NextID()), nil, time.Now().Add(time.Millisecond)); !errors.Is(err, ErrLate) {
			return fmt.Sprintf("a third request went out: %v", err)
		}
		stop := make(chan struct{})
		close(stop)
		if _, err := calls[2].Send(message(calls[2].NextID()), stop, soon()); !errors.Is(err, ErrStopped) {
			return fmt.Sprintf("want ErrStopped, got %v", err)
		}
		// An answer makes room at once.
		id := calls[0].NextID()
		c.WriteToUDPAddrPort(message(id), from)
		<-calls[0].Answers()
		if _, err := calls[2].Send(message(calls[2].NextID()), nil, soon()); err != nil {
			t.Fatalf("after an answer: %v", err)
		}
		if took := time.Since(start); took >= hold {
			return fmt.Sprintf("an answer made no room, until the requests no longer counted after %v", took)
		}
		return ""
	})
	// And so does a while without one.
	for i := 0; ; i++ {
		start := time.Now()
		if _, err := calls[i%3].Send(message(calls[i%3].NextID()), nil, soon()); err != nil {
			t.Fatalf("after a while: %v", err)
		}
		took := time.Since(start)
		if took < 3*time.Second {
			break
		}
		if i == 10 {
			t.Fatalf("requests without an answer keep the window full for %v", took)
		}
	}
	if n := e.Counters(); n.Window != 4 || n.OnWire > 2 {
		t.Errorf("%+v", n)
	}
}

func TestCloseEndsACall(t *testing.T) {
	_, to := peer(t)
	withinHold(t, func() string {
		e := open(t, Config{Shards: 1, Window: 1})
		a, _ := e.Open(1, to, false)
		b, _ := e.Open(1, to, false)
		a.Ask()
		b.Ask()
		if _, err := a.Send(message(a.NextID()), nil, soon()); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		time.AfterFunc(10*time.Millisecond, func() {
			e.Close()
			close(closed)
		})
		if _, err := b.Send(message(b.NextID()), nil, soon()); !errors.Is(err, ErrClosed) {
			return fmt.Sprintf("waiting for the window: %v", err)
		}
		<-closed
		if _, err := a.Send(message(a.NextID()), nil, soon()); !errors.Is(err, ErrClosed) {
			return fmt.Sprintf("after Close: %v", err)
		}
		return ""
	})
}

// Between two requests, and before the first, no id is good: what comes then was asked
// by nobody, and must not be taken for the answer to what is asked next.
func TestNoIDIsGoodBetweenRequests(t *testing.T) {
	e := open(t, Config{Shards: 1})
	c, to := peer(t)
	call, err := e.Open(1, to, false)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	call.Ask()
	id := call.NextID()
	if _, err := call.Send(message(id), nil, soon()); err != nil {
		t.Fatal(err)
	}
	_, from := receive(t, c)
	call.Ask()
	c.WriteToUDPAddrPort(message(id), from)
	for end := soon(); e.Counters().Unmatched == 0 && len(call.Answers()) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := e.Counters(); n.Unmatched != 1 || len(call.Answers()) != 0 {
		t.Errorf("%d answers wait for a request that is not made yet: %+v", len(call.Answers()), n)
	}
}
