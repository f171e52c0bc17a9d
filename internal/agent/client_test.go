package agent

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// dial returns a client that asks once and waits up to timeout.
func dial(t testing.TB, to netip.AddrPort, timeout time.Duration) *gosnmp.GoSNMP {
	t.Helper()
	c := &gosnmp.GoSNMP{
		Target: to.Addr().String(), Port: to.Port(), Community: "public", Version: gosnmp.Version2c,
		Timeout: timeout, Retries: 0, MaxOids: 2000,
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Conn.Close() })
	return c
}

func listen(t testing.TB, cfg Config) *Agent {
	t.Helper()
	a, err := Listen("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func get(t testing.TB, c *gosnmp.GoSNMP, oids ...string) *gosnmp.SnmpPacket {
	t.Helper()
	p, err := c.Get(oids)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// patience is how long a test waits for an answer that has to come.
const patience = time.Minute

// exchange sends raw bytes and waits for so many answers, and then a little for one
// too many. It returns them all, with where they came from.
func exchange(t testing.TB, to netip.AddrPort, msg []byte, want int) (answers [][]byte, from []netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.WriteToUDPAddrPort(msg, to); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	for {
		limit := patience
		if len(answers) >= want {
			limit = 30 * time.Millisecond
		}
		if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
		n, src, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return answers, from
		}
		answers = append(answers, append([]byte(nil), b[:n]...))
		from = append(from, src)
	}
}

// wait waits for cond.
func wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// request bytes of version 2c.
func ask(t testing.TB, kind gosnmp.PDUType, id uint32, oids ...string) []byte {
	t.Helper()
	p := &gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: "public", PDUType: kind, RequestID: id, MaxRepetitions: 10}
	for _, o := range oids {
		p.Variables = append(p.Variables, gosnmp.SnmpPDU{Name: o, Type: gosnmp.Null})
	}
	b, err := p.MarshalMsg()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
