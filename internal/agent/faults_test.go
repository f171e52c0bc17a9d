package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

const someOID = "1.3.6.1.4.1.99999.1.1.1"

func TestDelay(t *testing.T) {
	a := listen(t, Config{Values: NewView(table(1, 1)), Faults: Faults{Delay: 100 * time.Millisecond}})
	start := time.Now()
	get(t, dial(t, a.Addr(), patience), someOID)
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

// A slow answer does not hold up the next request, nor is it changed by it.
func TestDelayedAnswersOverlap(t *testing.T) {
	// On a machine that is slower than the delay nothing is shown: try with a longer one.
	for delay := 300 * time.Millisecond; !delayedAnswersOverlap(t, delay); delay *= 2 {
		if delay > patience {
			t.Fatal("the next request was held up by the slow answer, however slow")
		}
	}
}

func delayedAnswersOverlap(t *testing.T, delay time.Duration) (shown bool) {
	began := time.Now()
	a := listen(t, Config{Values: NewView(table(2, 1)), Faults: Faults{Delay: delay}})
	slow := make(chan [][]byte, 1)
	go func() {
		b, _ := exchange(t, a.Addr(), ask(t, gosnmp.GetRequest, 7, someOID), 1)
		slow <- b
	}()
	wait(t, "the request has come", func() bool { return a.Stats().Requests > 0 })
	a.SetFaults(Faults{})
	get(t, dial(t, a.Addr(), patience), "1.3.6.1.4.1.99999.1.2.1")
	wait(t, "the answer is counted", func() bool { return a.Stats().Answers > 0 })
	one := a.Stats().Answers == 1
	if shown = time.Since(began) < delay; shown && !one {
		t.Error("the delayed answer went out before the other one")
	}
	b := <-slow
	if len(b) != 1 {
		t.Fatalf("%d answers", len(b))
	}
	p, err := gosnmp.Default.SnmpDecodePacket(b[0])
	if err != nil || p.RequestID != 7 || p.Variables[0].Name != "."+someOID {
		t.Errorf("got %+v, %v", p, err)
	}
	return shown
}

func TestDrop(t *testing.T) {
	a := listen(t, Config{Values: NewView(table(1, 1)), Faults: Faults{DropFirst: 2}})
	c := dial(t, a.Addr(), 10*time.Millisecond)
	for dropped := range int64(2) {
		if _, err := c.Get([]string{someOID}); err == nil {
			t.Error("one of the first two was answered")
		}
		wait(t, "it is dropped", func() bool { return a.Stats().Dropped == dropped+1 })
	}
	get(t, dial(t, a.Addr(), patience), someOID)
	wait(t, "it is answered", func() bool { return a.Stats().Answers > 0 })
	if s := a.Stats(); s.Requests != 3 || s.Dropped != 2 || s.Answers != 1 {
		t.Errorf("stats: %+v", s)
	}
	a.SetFaults(Faults{Drop: 1})
	if _, err := c.Get([]string{someOID}); err == nil {
		t.Error("a dead host answered")
	}
	wait(t, "that is dropped too", func() bool { return a.Stats().Dropped == 3 })
	a.SetFaults(Faults{Drop: 0.5})
	before := a.Stats()
	for range 100 {
		_, _ = c.Get([]string{someOID})
	}
	wait(t, "all have come", func() bool { return a.Stats().Requests == before.Requests+100 })
	wait(t, "all are answered or dropped", func() bool {
		s := a.Stats()
		return s.Dropped+s.Answers == before.Dropped+before.Answers+100
	})
	// The dice have the seed of the Config: it is always the same number.
	if d := a.Stats().Dropped - before.Dropped; d < 20 || d > 80 {
		t.Errorf("%d of 100 dropped at a chance of one half", d)
	}
}

func TestBrokenAnswers(t *testing.T) {
	a := listen(t, Config{Values: NewView(table(1, 3))})
	msg := ask(t, gosnmp.GetRequest, 42, someOID)
	one := func(f Faults) ([]byte, netip.AddrPort) {
		t.Helper()
		a.SetFaults(f)
		b, from := exchange(t, a.Addr(), msg, 1+f.Duplicates)
		if len(b) != 1+f.Duplicates {
			t.Fatalf("%+v: %d answers", f, len(b))
		}
		return b[0], from[0]
	}
	decode := func(b []byte) (*gosnmp.SnmpPacket, error) { return gosnmp.Default.SnmpDecodePacket(b) }

	good, from := one(Faults{})
	if p, err := decode(good); err != nil || p.RequestID != 42 || p.Community != "public" || from != a.Addr() {
		t.Fatalf("without faults: %+v %v from %v", p, err, from)
	}
	if b, _ := one(Faults{Garbage: 40}); len(b) != 40 {
		t.Errorf("garbage: %d bytes", len(b))
	}
	if b, _ := one(Faults{TruncateBER: 3}); len(b) != len(good)-3 {
		t.Errorf("truncated: %d bytes of %d", len(b), len(good))
	}
	b, _ := one(Faults{WrongID: true})
	if p, err := decode(b); err != nil || p.RequestID == 42 {
		t.Errorf("wrong id: %+v %v", p, err)
	}
	b, _ = one(Faults{WrongCommunity: "x"})
	if p, err := decode(b); err != nil || p.Community != "x" {
		t.Errorf("wrong community: %+v %v", p, err)
	}
	b, _ = one(Faults{ErrorStatus: 5, ErrorIndex: 1})
	if p, err := decode(b); err != nil || p.Error != gosnmp.GenErr || p.ErrorIndex != 1 {
		t.Errorf("error status: %+v %v", p, err)
	}
	_, from = one(Faults{OtherSource: true})
	if from == a.Addr() || from.Addr() != a.Addr().Addr() {
		t.Errorf("other source: from %v", from)
	}
	one(Faults{Duplicates: 2})
}

func TestWalksThatDoNotEnd(t *testing.T) {
	a := listen(t, Config{Values: NewView(table(2, 3)), Faults: Faults{Stuck: true}})
	c := dial(t, a.Addr(), patience)
	for _, walk := range []func(string, gosnmp.WalkFunc) error{c.Walk, c.BulkWalk} {
		if err := walk("1.3.6.1.4.1.99999.1.1", func(gosnmp.SnmpPDU) error { return nil }); err == nil {
			t.Error("gosnmp walked along a column that does not get on")
		}
	}
	a.SetFaults(Faults{Endless: true})
	enough := errors.New("enough")
	for _, walk := range []func(string, gosnmp.WalkFunc) error{c.Walk, c.BulkWalk} {
		n := 0
		err := walk("1.3.6.1.4.1.99999.1.1", func(gosnmp.SnmpPDU) error {
			if n++; n == 1000 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Errorf("an endless walk ended after %d rows: %v", n, err)
		}
	}
}
