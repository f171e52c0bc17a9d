package agent

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/gosnmp/gosnmp"
)

// Every type arrives at another implementation as it was meant, to the last bit.
func TestTypes(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		value Value
		kind  gosnmp.Asn1BER
		want  any
	}{
		{Integer(0), gosnmp.Integer, 0},
		{Integer(-1), gosnmp.Integer, -1},
		{Integer(127), gosnmp.Integer, 127},
		{Integer(128), gosnmp.Integer, 128},
		{Integer(-129), gosnmp.Integer, -129},
		{Integer(math.MaxInt32), gosnmp.Integer, math.MaxInt32},
		{Integer(math.MinInt32), gosnmp.Integer, math.MinInt32},
		{Counter32(math.MaxUint32), gosnmp.Counter32, uint(math.MaxUint32)},
		{Gauge32(1 << 31), gosnmp.Gauge32, uint(1 << 31)},
		{TimeTicks(math.MaxUint32), gosnmp.TimeTicks, uint32(math.MaxUint32)},
		{Counter64(0), gosnmp.Counter64, uint64(0)},
		{Counter64(1<<63 - 1), gosnmp.Counter64, uint64(1<<63 - 1)},
		{Counter64(math.MaxUint64), gosnmp.Counter64, uint64(math.MaxUint64)},
		{String(""), gosnmp.OctetString, []byte{}},
		{String(long), gosnmp.OctetString, []byte(long)},
		{ObjectID("1.3.6.1.4.1.4294967295"), gosnmp.ObjectIdentifier, ".1.3.6.1.4.1.4294967295"},
		{IPAddress(netip.MustParseAddr("10.0.0.1")), gosnmp.IPAddress, "10.0.0.1"},
		{Value{}, gosnmp.Null, nil},
		{Raw(0x44, []byte{0x9f, 0x78, 4, 0x3f, 0x80, 0, 0}), gosnmp.OpaqueFloat, float32(1)},
	}
	objects := map[string]Value{}
	for i, tt := range tests {
		objects[fmt.Sprintf("1.3.6.1.4.1.99999.%d.0", i)] = tt.value
	}
	c := dial(t, listen(t, Config{Values: NewView(objects)}).Addr(), patience)
	for i, tt := range tests {
		v := get(t, c, fmt.Sprintf("1.3.6.1.4.1.99999.%d.0", i)).Variables[0]
		if v.Type != tt.kind || !reflect.DeepEqual(v.Value, tt.want) {
			t.Errorf("%d: got %v %#v, want %v %#v", i, v.Type, v.Value, tt.kind, tt.want)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	c := dial(t, listen(t, Config{Values: NewView(map[string]Value{
		"1.3.6.1.2.1.1.3.0":      TimeTicks(1),
		"1.3.6.1.2.1.2.2.1.10.1": Counter32(1),
	})}).Addr(), patience)
	v := get(t, c, "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.3.1", "1.3.6.1.2.1.2.2.1.10.9", "1.3.6.1.2.1.2.2.1.11.1", "1.3.6.1.9.9").Variables
	want := []gosnmp.Asn1BER{gosnmp.TimeTicks, gosnmp.NoSuchInstance, gosnmp.NoSuchInstance, gosnmp.NoSuchObject, gosnmp.NoSuchObject}
	for i := range want {
		if v[i].Type != want[i] {
			t.Errorf("%s: got %v, want %v", v[i].Name, v[i].Type, want[i])
		}
	}
	p, err := c.GetNext([]string{"1.3.6.1.2.1.2.2.1.10.1"})
	if err != nil || p.Variables[0].Type != gosnmp.EndOfMibView || p.Variables[0].Name != ".1.3.6.1.2.1.2.2.1.10.1" {
		t.Errorf("after the last object: %v, %v", p.Variables, err)
	}
}

// table returns rows rows of columns 1 to columns.
func table(columns, rows int) map[string]Value {
	objects := map[string]Value{}
	for c := range columns {
		for r := range rows {
			objects[fmt.Sprintf("1.3.6.1.4.1.99999.1.%d.%d", c+1, r+1)] = Counter64(math.MaxUint64)
		}
	}
	return objects
}

// GETBULK stops where net-snmp stops: at 100 variables, in whole rows.
func TestBulkIsCapped(t *testing.T) {
	c := dial(t, listen(t, Config{Values: NewView(table(3, 500))}).Addr(), patience)
	columns := []string{"1.3.6.1.4.1.99999.1.1", "1.3.6.1.4.1.99999.1.2", "1.3.6.1.4.1.99999.1.3"}
	for _, tt := range []struct {
		columns, nonRepeaters int
		repetitions           uint32
		want                  int
	}{{1, 0, 200, 100}, {3, 0, 50, 99}, {3, 0, 10, 30}, {3, 1, 60, 99}, {3, 3, 10, 3}, {3, 9, 10, 3}, {1, 0, 0, 0}, {3, 2, 0, 2}} {
		p, err := c.GetBulk(columns[:tt.columns], uint8(tt.nonRepeaters), tt.repetitions)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Variables) != tt.want {
			t.Errorf("%+v: %d variables", tt, len(p.Variables))
		}
	}
}

// A walk by GETNEXT and one by GETBULK of any size see every object once, in order.
func TestWalkSeesEverything(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		objects := map[string]Value{}
		for range 1 + rng.IntN(200) {
			oid := "1.3"
			for range 1 + rng.IntN(6) {
				oid += fmt.Sprint(".", []uint32{0, 1, 2, 127, 128, 16384, math.MaxUint32}[rng.IntN(7)])
			}
			objects[oid] = Integer(rng.Int32())
		}
		view := NewView(objects)
		c := dial(t, listen(t, Config{Values: view, MaxSize: 484 + rng.IntN(1000)}).Addr(), patience)
		c.MaxRepetitions = uint32(1 + rng.IntN(120))
		for name, walk := range map[string]func(string) ([]gosnmp.SnmpPDU, error){"getnext": c.WalkAll, "getbulk": c.BulkWalkAll} {
			got, err := walk("1.3")
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != view.Len() {
				t.Fatalf("%s: %d of %d objects", name, len(got), view.Len())
			}
			for i, v := range got {
				if oid := "." + formatOID(view.objects[i].oid); v.Name != oid {
					t.Fatalf("%s: object %d is %s, want %s", name, i, v.Name, oid)
				}
			}
		}
	}
}

func TestTooBig(t *testing.T) {
	view := NewView(table(4, 100))
	a := listen(t, Config{Values: view, MaxSize: 600})
	c := dial(t, a.Addr(), patience)
	var oids []string
	for _, o := range view.objects[:60] {
		oids = append(oids, formatOID(o.oid))
	}
	if p := get(t, c, oids...); p.Error != gosnmp.TooBig || len(p.Variables) != 0 {
		t.Errorf("GET: %v with %d variables, want tooBig with none", p.Error, len(p.Variables))
	}
	answers, _ := exchange(t, a.Addr(), ask(t, gosnmp.GetBulkRequest, 1, oids[:4]...), 1)
	if len(answers) != 1 || len(answers[0]) > 600 || len(answers[0]) < 500 {
		t.Fatalf("GETBULK: %d answers, want one that just fits into 600 bytes", len(answers))
	}
	if p, err := gosnmp.Default.SnmpDecodePacket(answers[0]); err != nil || p.Error != gosnmp.NoError {
		t.Errorf("GETBULK: %v %v", p.Error, err)
	}
}

// Nobody without the word is answered, and broken requests are not either.
func TestRefusesInSilence(t *testing.T) {
	a := listen(t, Config{Community: "secret", Values: NewView(table(1, 1))})
	good := ask(t, gosnmp.GetRequest, 1, "1.3.6.1.4.1.99999.1.1.1")
	refused := int64(0)
	for name, msg := range map[string][]byte{
		"wrong community": good,
		"empty":           {},
		"cut":             good[:len(good)-3],
		"trailing bytes":  append(append([]byte(nil), good...), 0),
		"version 1":       func() []byte { b := append([]byte(nil), good...); b[4] = 0; return b }(),
		"response":        ask(t, gosnmp.GetResponse, 1, "1.3.6"),
	} {
		if answers, _ := exchange(t, a.Addr(), msg, 0); len(answers) > 0 {
			t.Errorf("%s: answered", name)
		}
		refused++
		wait(t, name+" is refused", func() bool { return a.Stats().Refused == refused })
	}
	if s := a.Stats(); s.Refused != 6 || s.Requests != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// What is set is what is answered next.
func TestStaticChanges(t *testing.T) {
	s := NewStatic(map[string]Value{"1.3.6.1.1.0": Integer(1), "1.3.6.1.2.0": Integer(2)})
	c := dial(t, listen(t, Config{Values: s}).Addr(), patience)
	s.Set(map[string]Value{"1.3.6.1.1.0": Integer(5), "1.3.6.1.3.0": Integer(3)})
	s.Delete("1.3.6.1.2.0")
	v := get(t, c, "1.3.6.1.1.0", "1.3.6.1.2.0", "1.3.6.1.3.0").Variables
	if v[0].Value != 5 || v[1].Type != gosnmp.NoSuchObject || v[2].Value != 3 {
		t.Errorf("got %v", v)
	}
}

func TestSetIsRefusedAloud(t *testing.T) {
	c := dial(t, listen(t, Config{Values: NewView(table(1, 1))}).Addr(), patience)
	p, err := c.Set([]gosnmp.SnmpPDU{{Name: "1.3.6.1.4.1.99999.1.1.1", Type: gosnmp.Integer, Value: 1}})
	if err != nil || p.Error != gosnmp.NoAccess || p.ErrorIndex != 1 {
		t.Errorf("got %v %v", p, err)
	}
}

func TestSeen(t *testing.T) {
	seen := make(chan Request, 1)
	c := dial(t, listen(t, Config{Values: NewView(table(1, 1)), Seen: func(r Request) { seen <- r }}).Addr(), patience)
	if _, err := c.GetBulk([]string{"1.3.6.1.1", "1.3.6.1.2"}, 1, 7); err != nil {
		t.Fatal(err)
	}
	r := <-seen
	if r.Type != PDUGetBulk || r.NonRepeaters != 1 || r.MaxRepetitions != 7 || !reflect.DeepEqual(r.OIDs, []string{"1.3.6.1.1", "1.3.6.1.2"}) {
		t.Errorf("told of %+v", r)
	}
}
