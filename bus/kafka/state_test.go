package kafka

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/internal/recovery"
	"github.com/kemi-go/kemi/internal/faults"
)

// TestKeptStateIsThatOfTheCommit: owners come and go, some are believed dead and still
// write, some die between state and commit. Whoever begins gets what was the state at
// the committed offset.
func TestKeptStateIsThatOfTheCommit(t *testing.T) {
	t.Parallel()
	seed := faults.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		log := map[string][]byte{} // the compacted topic
		put := func(records []*kgo.Record) {
			for _, r := range records {
				if r.Value == nil {
					delete(log, string(r.Key))
				} else {
					log[string(r.Key)] = r.Value
				}
			}
		}
		var (
			at        int64 = -1 // what is committed
			mark      string
			committed map[string]string
			zombies   []*keeper
		)
		for range 1 + rnd.IntN(6) { // owners
			k := newKeeper("g", "t", 3)
			model := map[string]string{}
			if at >= 0 {
				kept, _, err := k.begin(found(t, log, k.lane), mark, false)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range kept {
					model[e.Key] = string(e.Value)
				}
				if fmt.Sprint(model) != fmt.Sprint(committed) {
					t.Fatalf("seed %d: an owner begins with %v, and the commit was of %v", seed, model, committed)
				}
			}
			next := max(at, 0)
			for range rnd.IntN(8) { // commits
				next += rnd.Int64N(3)
				for range rnd.IntN(3) {
					e := kemi.Kept{Key: fmt.Sprint("k", rnd.IntN(4)), Value: fmt.Append(nil, rnd.IntN(100))}
					if rnd.IntN(3) == 0 {
						e.Value = nil
					}
					k.take([]kemi.Kept{e})
					if e.Value == nil {
						delete(model, e.Key)
					} else {
						model[e.Key] = string(e.Value)
					}
				}
				put(k.due())
				if rnd.IntN(3) > 0 { // or else the commit fails
					at, mark, committed = next, "", map[string]string{}
					for key, v := range model {
						committed[key] = v
					}
					if k.uses() {
						mark = k.name()
						put(k.committed())
					}
				}
				for _, z := range zombies {
					z.take([]kemi.Kept{{Key: fmt.Sprint("k", rnd.IntN(4)), Value: []byte("zombie")}})
					put(z.due()) // and its commit is refused
				}
			}
			if rnd.IntN(2) == 0 {
				zombies = append(zombies, k)
			}
		}
	}
}

func found(t *testing.T, log map[string][]byte, lane string) []raw {
	all := map[string]map[string]raw{}
	for key, value := range log {
		keepRaw(all, map[string]bool{lane: true}, &kgo.Record{Key: []byte(key), Value: value, Timestamp: time.Now()})
	}
	var rs []raw
	for _, e := range all[lane] {
		rs = append(rs, e)
	}
	if len(rs) != len(log) {
		t.Fatalf("%d entries of %d were read", len(rs), len(log))
	}
	return rs
}

func FuzzMetadata(f *testing.F) {
	pos := recovery.Position{Next: 7, Rewind: 3, Clock: time.Unix(5, 0).UTC()}
	f.Add(pos.Text())
	f.Add(pos.Text() + ";0123456789ab1")
	f.Add("kemi1@0123456789ab1f")
	f.Add("kemi1@")
	f.Add("kemi1:")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMetadata(text)
		if err != nil {
			return
		}
		again := m.text()
		m2, err := parseMetadata(again)
		if err != nil || !reflect.DeepEqual(m, m2) {
			t.Errorf("%q reads back as %+v, %v", text, m2, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add("json/1", "t@r/3/12/0", "11/4", "1", []byte("x"))
	f.Add("", "///", "1/", "", []byte(nil))
	f.Fuzz(func(t *testing.T, codec, stamp, after, tick string, value []byte) {
		h := []kgo.RecordHeader{{Key: headerCodec, Value: []byte(codec)}, {Key: headerOrigin, Value: []byte(stamp)}, {Key: headerAfter, Value: []byte(after)}}
		if tick != "" {
			h = append(h, kgo.RecordHeader{Key: headerTick, Value: []byte(tick)})
		}
		var p parser
		r := &kgo.Record{Value: value, Headers: h}
		e := p.entry(r)
		if again := p.entry(r); !reflect.DeepEqual(again, e) { // remembered
			t.Errorf("%q is read as %+v, and then as %+v", h, e, again)
		}
		switch {
		case e.Tick && len(value) > 0:
			t.Error("a record with a value is no tick")
		case e.Stamp.Seq != 0 && string(e.Stamp.Append(nil)) != stamp:
			t.Errorf("the stamp %q was read as %+v", stamp, e.Stamp)
		case e.After.Seq != 0 && e.Stamp.Seq == 0:
			t.Error("it comes after something of nowhere")
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add("g\nt/3\n0123456789ab\n0\nkey\n", []byte{2, 1, 'x'})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if k, ok := parseStateKey(key); ok && k.text() != key {
			t.Errorf("%q reads back as %q", key, k.text())
		}
		if at, _, v, ok := parseStateValue(value); ok && (at < 0 || !strings.HasSuffix(string(value), string(v)) || slices.Equal(v, value)) {
			t.Errorf("%q was read as %d, %q", value, at, v)
		}
	})
}
