package agent

import (
	"testing"

	"github.com/gosnmp/gosnmp"
)

// The cost of one request without the socket: an agent must cost less than the
// poller that it is there to measure.
func BenchmarkRespond(b *testing.B) {
	view := NewView(table(10, 100))
	h, err := newHost(Config{Values: view})
	if err != nil {
		b.Fatal(err)
	}
	var oids []string
	for _, o := range view.objects[:60] {
		oids = append(oids, formatOID(o.oid))
	}
	for name, msg := range map[string][]byte{
		"get60":    ask(b, gosnmp.GetRequest, 1, oids...),
		"bulk10x9": ask(b, gosnmp.GetBulkRequest, 1, oids[:9]...),
	} {
		b.Run(name, func(b *testing.B) {
			w := worker{}
			b.ReportAllocs()
			for b.Loop() {
				if err := w.req.decode(msg); err != nil {
					b.Fatal(err)
				}
				if _, err := w.respond(h, h.faults.Load()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The cost of one fresh reading of the machine.
func BenchmarkSystem(b *testing.B) {
	m := System()
	for b.Loop() {
		m.View()
		m.taken = m.taken.Add(-2e9)
	}
}
