package agent

import (
	"net/netip"
	"testing"

	"github.com/gosnmp/gosnmp"
)

// FuzzRequest feeds the decoder and answers what it takes. Nothing may panic, and
// whatever is answered must be readable by another implementation.
func FuzzRequest(f *testing.F) {
	f.Add(ask(f, gosnmp.GetRequest, 1, "1.3.6.1.4.1.99999.1.1.1", "1.3.6.1.9"))
	f.Add(ask(f, gosnmp.GetNextRequest, 1<<30, "1.3.6.1.4.1.99999.1.1.1"))
	f.Add(ask(f, gosnmp.GetBulkRequest, 7, "1.3.6.1.4.1.99999.1.1", "1.3.6.1.4.1.99999.1.2"))
	f.Add([]byte{0x30, 0x82, 0, 3, 2, 1, 1})
	view := NewView(table(2, 3))
	hosts := make([]*Host, 0, 3)
	for _, faults := range []Faults{{}, {Stuck: true}, {Endless: true}} {
		h, err := newHost(Config{Values: view, MaxSize: 1400, Faults: faults})
		if err != nil {
			f.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		w := worker{}
		if w.req.decode(msg) != nil {
			return
		}
		if w.req.decodeOIDs() != nil {
			if _, err := w.respond(hosts[0], &Faults{}); err == nil {
				t.Fatal("answered a request that is not well-formed")
			}
			return
		}
		w.req.told(netip.AddrPort{})
		asked := len(w.req.oids)
		for _, h := range hosts {
			n, err := w.respond(h, h.faults.Load())
			if err != nil {
				t.Fatal(err)
			}
			if w.req.kind == pduSet {
				continue // its values are given back as they came
			}
			if len(w.out) > 1400 {
				t.Fatalf("an answer of %d bytes", len(w.out))
			}
			p, err := gosnmp.Default.SnmpDecodePacket(w.out)
			if err != nil {
				t.Fatalf("%v: %x", err, w.out)
			}
			if p.RequestID != uint32(w.req.id) || len(p.Variables) != n {
				t.Fatalf("id %d, %d variables; want id %d, %d", p.RequestID, len(p.Variables), uint32(w.req.id), n)
			}
			if p.Error == gosnmp.NoError && w.req.kind != PDUGetBulk && n != asked {
				t.Fatalf("%d variables for %d", n, asked)
			}
		}
	})
}
