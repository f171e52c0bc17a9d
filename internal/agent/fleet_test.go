package agent

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/gosnmp/gosnmp"
)

// Each host answers for itself, from its own address.
func TestFleet(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have no 127.0.0.2 unless it is set up")
	}
	hosts := map[netip.Addr]Config{}
	addr := netip.MustParseAddr("127.0.1.1")
	for i := range 50 {
		hosts[addr] = Config{Values: NewView(map[string]Value{"1.3.6.1.1.0": Integer(int32(i))})}
		addr = addr.Next()
	}
	f, err := ListenFleet(0, hosts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if len(f.Addrs()) != 50 {
		t.Fatalf("%d addresses", len(f.Addrs()))
	}
	f.Host(netip.MustParseAddr("127.0.1.2")).SetFaults(Faults{Drop: 1})
	f.Host(netip.MustParseAddr("127.0.1.3")).SetFaults(Faults{OtherSource: true})
	msg := ask(t, gosnmp.GetRequest, 1, "1.3.6.1.1.0")
	for i, a := range f.Addrs() {
		want := 1
		if i == 1 {
			want = 0
		}
		b, from := exchange(t, a, msg, want)
		switch {
		case i == 1:
			if len(b) != 0 {
				t.Error("a dead host answered")
			}
			continue
		case len(b) != 1 || from[0].Addr() != a.Addr() || (from[0] == a) == (i == 2):
			t.Fatalf("host %v: %d answers from %v", a, len(b), from)
		}
		if p, err := gosnmp.Default.SnmpDecodePacket(b[0]); err != nil || p.Variables[0].Value != i {
			t.Errorf("host %v: %v %v", a, p.Variables, err)
		}
	}
	if b, _ := exchange(t, netip.AddrPortFrom(addr, f.Port()), msg, 0); len(b) != 0 {
		t.Error("an address without a host answered")
	}
}

func TestFleetStaysOnLoopback(t *testing.T) {
	if _, err := ListenFleet(0, map[netip.Addr]Config{netip.MustParseAddr("192.0.2.1"): {}}); err == nil {
		t.Error("no error for an address that is not of the loopback network")
	}
}

func TestCloseTwiceIsNoPanic(t *testing.T) {
	a, err := Listen("127.0.0.1:0", Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err == nil {
		t.Error("the second Close told nothing")
	}
}
