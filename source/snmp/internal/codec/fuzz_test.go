package codec

import (
	"slices"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

func v2cAnswer(tb testing.TB, status gosnmp.SNMPError, vs ...gosnmp.SnmpPDU) []byte {
	p := gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: "public", PDUType: gosnmp.GetResponse, RequestID: idForTest, Error: status, Variables: vs}
	b, err := p.MarshalMsg()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

const idForTest = 0x41234567

var variety = []gosnmp.SnmpPDU{
	{Name: ".1.3.6.1.2.1.1.3.0", Type: gosnmp.TimeTicks, Value: uint32(77)},
	{Name: ".1.3.6.1.2.1.1.1.0", Type: gosnmp.OctetString, Value: "text"},
	{Name: ".1.3.6.1.2.1.1.2.0", Type: gosnmp.ObjectIdentifier, Value: ".1.3.6.1.4.1.8072"},
	{Name: ".1.3.6.1.2.1.2.1.0", Type: gosnmp.Integer, Value: -3},
	{Name: ".1.3.6.1.2.1.2.1.1", Type: gosnmp.Counter32, Value: uint32(1<<32 - 1)},
	{Name: ".1.3.6.1.2.1.2.1.2", Type: gosnmp.Counter64, Value: uint64(1<<64 - 1)},
	{Name: ".1.3.6.1.2.1.2.1.3", Type: gosnmp.NoSuchInstance},
	{Name: ".1.3.6.1.2.1.2.1.4", Type: gosnmp.EndOfMibView},
	{Name: ".1.3.6.1.2.1.2.1.5", Type: gosnmp.OpaqueFloat, Value: float32(1.5)},
	{Name: ".1.3.6.1.2.1.2.1.6", Type: gosnmp.IPAddress, Value: "10.0.0.1"},
}

func TestValues(t *testing.T) {
	a, err := DecodeV2c("public", v2cAnswer(t, 0, variety...))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		typ  Type
		bits uint64
		text string
	}{
		{Unsigned32, 77, ""}, {Text, 0, "text"}, {OID, 0, ".1.3.6.1.4.1.8072"}, {Signed, 1<<64 - 3, ""},
		{Unsigned32, 1<<32 - 1, ""}, {Unsigned64, 1<<64 - 1, ""}, {Absent, 0, ""}, {EndOfView, 0, ""}, {Float, 0, ""}, {Text, 0, "10.0.0.1"},
	}
	for i, b := range a.Binds {
		w := want[i]
		if b.OID != variety[i].Name || b.Value.Type != w.typ || w.typ != Float && b.Value.Number() != w.bits || b.Value.Text() != w.text {
			t.Errorf("%s: got %+v, want %+v", variety[i].Name, b, w)
		}
	}
	if f := a.Binds[8].Value.Float(); f != 1.5 {
		t.Errorf("an opaque float is %v", f)
	}
}

func TestIDs(t *testing.T) {
	b, err := EncodeV2c("public", idForTest, Request{Op: GetBulk, OIDs: []string{".1.3.6.1"}, MaxRepetitions: 300})
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := ID(b); !ok || id != idForTest {
		t.Fatalf("id %x, %v", id, ok)
	}
	again := slices.Clone(b)
	SetID(again, 0x7fffffff)
	if id, ok := ID(again); !ok || id != 0x7fffffff {
		t.Fatalf("id %x, %v", id, ok)
	}
	SetID(again, idForTest)
	if !slices.Equal(b, again) {
		t.Error("SetID changed more than the id")
	}
	s := NewSession(testUser(t))
	if b, err = s.Encode(idForTest, Request{Op: Get, OIDs: []string{".1.3.6.1"}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if id, ok := ID(b); !ok || id != idForTest {
		t.Fatalf("version 3: id %x, %v", id, ok)
	}
}

func testUser(tb testing.TB) *User {
	u, err := NewUser("kemi", "SHA-256", "authpass123", "AES", "privpass123", "")
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// FuzzResponse feeds messages to everything that reads what comes from the network.
// Nothing may panic, take long or, of version 3, be believed without a signature.
func FuzzResponse(f *testing.F) {
	f.Add(v2cAnswer(f, 0, variety...))
	f.Add(v2cAnswer(f, gosnmp.TooBig))
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x30, 0x80, 0x02, 0x01, 0x01})
	user := testUser(f)
	now := time.Unix(1_700_000_000, 0)
	known := func() *Session {
		s := NewSession(user)
		s.discovered(header{engine: "\x80\x00\x1f\x88\x04test", boots: 1, time: 100}, now)
		return s
	}
	request, err := known().Encode(idForTest, Request{Op: Get, OIDs: []string{".1.3.6.1.2.1.1.3.0"}}, now)
	if err != nil {
		f.Fatal(err)
	}
	discovery, err := NewSession(user).Encode(idForTest, Request{}, now)
	if err != nil {
		f.Fatal(err)
	}
	report := gosnmp.SnmpPacket{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel, MsgID: idForTest, PDUType: gosnmp.Report,
		SecurityParameters: &gosnmp.UsmSecurityParameters{AuthoritativeEngineID: "\x80\x00\x1f\x88\x04test", AuthoritativeEngineBoots: 3, AuthoritativeEngineTime: 4},
		Variables:          []gosnmp.SnmpPDU{{Name: ".1.3.6.1.6.3.15.1.1.4.0", Type: gosnmp.Counter32, Value: uint32(1)}},
	}
	rb, err := report.MarshalMsg()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(discovery)
	f.Add(rb)
	f.Fuzz(func(t *testing.T, msg []byte) {
		ID(msg)
		SetID(slices.Clone(msg), 1)
		if a, err := DecodeV2c("public", slices.Clone(msg)); err == nil && len(a.Binds) > maxBinds {
			t.Errorf("%d variables", len(a.Binds))
		}
		s := known()
		a, err := s.Decode(idForTest, slices.Clone(msg), now)
		if err == nil && a.Report == NoReport {
			t.Errorf("a message without our key was taken for an answer: %x", msg)
		}
		if s.synced {
			t.Errorf("a message without our key set the clock: %x", msg)
		}
		fresh := NewSession(user)
		if _, err := fresh.Decode(idForTest, slices.Clone(msg), now); err != nil && fresh.Known() {
			t.Errorf("an engine was discovered by a message that is in error: %v", err)
		}
		if fresh.Known() && (len(fresh.engine) < 5 || len(fresh.engine) > 32) {
			t.Errorf("an engine ID of %d bytes", len(fresh.engine))
		}
	})
}
