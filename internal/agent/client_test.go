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

// exchange sends raw bytes and returns what comes back within wait, with where it
// came from; nil if nothing comes.
func exchange(t testing.TB, to netip.AddrPort, msg []byte, wait time.Duration) (answers [][]byte, from []netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.WriteToUDPAddrPort(msg, to); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	for {
		n, src, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return answers, from
		}
		answers = append(answers, append([]byte(nil), b[:n]...))
		from = append(from, src)
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
