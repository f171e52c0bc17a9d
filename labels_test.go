package kemi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kemi-go/kemi"
)

// model is what Labels mean: a map without empty values.
type model map[string]string

func (m model) set(name, value string) {
	if value == "" {
		delete(m, name)
	} else {
		m[name] = value
	}
}

// same checks everything that can be asked of l against the map.
func same(t *testing.T, l kemi.Labels, m model) {
	t.Helper()
	if l.Len() != len(m) {
		t.Fatalf("%v has %d labels, want %v", l, l.Len(), m)
	}
	i := 0
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if l.At(i) != (kemi.Label{Name: name, Value: m[name]}) || l.Get(name) != m[name] {
			t.Fatalf("%v: label %d is %v, Get %q; want %q=%q", l, i, l.At(i), l.Get(name), name, m[name])
		}
		i++
	}
	i = 0
	for n, v := range l.All() {
		if l.At(i) != (kemi.Label{Name: n, Value: v}) {
			t.Fatalf("All gives %s=%s at %d of %v", n, v, i, l)
		}
		i++
	}
	if i != len(m) || l.Get("no such label") != "" {
		t.Fatalf("All gives %d of %v", i, l)
	}
	if h := fingerprint(m); l.Hash() != h {
		t.Fatalf("%v has the hash %x, want %x", l, l.Hash(), h)
	}
}

// fingerprint is that of Prometheus, written down again from its definition: FNV-1a
// of 64 bits over name, 0xff, value, 0xff of each label in order of names.
func fingerprint(m model) uint64 {
	h := uint64(14695981039346656037)
	for _, name := range slices.Sorted(maps.Keys(m)) {
		for _, s := range []string{name, m[name]} {
			for _, c := range append([]byte(s), 0xff) {
				h ^= uint64(c)
				h *= 1099511628211
			}
		}
	}
	return h
}

// compareModels orders as Labels.Compare is said to.
func compareModels(a, b model) int {
	var x, y []string
	for _, n := range slices.Sorted(maps.Keys(a)) {
		x = append(x, n, a[n])
	}
	for _, n := range slices.Sorted(maps.Keys(b)) {
		y = append(y, n, b[n])
	}
	return slices.Compare(x, y)
}

// TestLabelsAreMaps makes sets in all ways and compares each with a map that had the
// same done to it. Names and values are few, so that equal sets come about.
func TestLabelsAreMaps(t *testing.T) {
	d := seeded(t, rand.Uint64())
	names := []string{"host", "disk", "if", "a", "b", "c", ""}
	values := []string{"", "1", "2", "é", "\xff", "a\"b\\\n"}
	pick := func(from []string) string { return from[d.intn(len(from))] }
	some := func() ([]kemi.Label, model) {
		m := model{}
		ls := make([]kemi.Label, d.intn(25)) // also more than fit on the stack
		for i := range ls {
			ls[i] = kemi.Label{Name: pick(names), Value: pick(values)}
			m.set(ls[i].Name, ls[i].Value)
		}
		return ls, m
	}
	type made struct {
		l kemi.Labels
		m model
	}
	var all []made
	for range 3000 {
		ls, m := some()
		before := slices.Clone(ls)
		l := kemi.NewLabels(ls...)
		if !slices.Equal(ls, before) {
			t.Fatal("NewLabels changed its arguments")
		}
		switch d.intn(4) {
		case 0:
			more, _ := some()
			for _, x := range more {
				m.set(x.Name, x.Value)
			}
			old, had := l, l.String()
			l = l.Merge(more...)
			if old.String() != had {
				t.Fatalf("Merge changed %s to %s", had, old)
			}
		case 1:
			n, v := pick(names), pick(values)
			m.set(n, v)
			l = l.With(n, v)
		case 2:
			gone := []string{pick(names), pick(names)}
			for _, n := range gone {
				delete(m, n)
			}
			l = l.Without(gone...)
		}
		same(t, l, m)
		all = append(all, made{l, m})
	}
	for range 200_000 {
		a, b := all[d.intn(len(all))], all[d.intn(len(all))]
		if got, want := a.l == b.l, maps.Equal(a.m, b.m); got != want {
			t.Fatalf("%v == %v is %v", a.l, b.l, got)
		}
		if got, want := a.l.Compare(b.l), compareModels(a.m, b.m); got != want {
			t.Fatalf("%v compared with %v is %d, want %d", a.l, b.l, got, want)
		}
	}
}

func TestTheZeroLabelsAreTheEmptySet(t *testing.T) {
	var l kemi.Labels
	same(t, l, model{})
	if l != kemi.NewLabels() || l != kemi.LabelsOf("host", "") || l != kemi.LabelsOf("a", "1").Without("a") || l.Without("a") != l {
		t.Error("an empty set is not the zero value")
	}
	if l.Hash() != 14695981039346656037 || l.String() != "{}" {
		t.Errorf("hash %d, string %s", l.Hash(), l)
	}
}

// TestHashIsPrometheusFingerprint holds a few values for ever: they are in alerts,
// and other programs compute them too.
func TestHashIsPrometheusFingerprint(t *testing.T) {
	for want, l := range map[uint64]kemi.Labels{
		0xcbf29ce484222325: {},
		0x19cac22be6c1b73e: kemi.LabelsOf("host", "web1"),
		0xc0eb95aa61344370: kemi.LabelsOf("host", "web1", "disk", "/"),
	} {
		if l.Hash() != want {
			t.Errorf("%v: 0x%016x, want 0x%016x", l, l.Hash(), want)
		}
	}
}

func TestLabelsOfAnOddNumberPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	for _, odd := range [][]string{{"host"}} {
		kemi.LabelsOf(odd...)
	}
}

func TestLabelsAsText(t *testing.T) {
	l := kemi.LabelsOf("host", "web1", "path", `C:\a "b"`)
	if got, want := l.String(), `{host="web1", path="C:\\a \"b\""}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestEqualLabelsAreOneFromAnyGoroutine makes and forgets the same sets in many
// goroutines, while the collector runs.
func TestEqualLabelsAreOneFromAnyGoroutine(t *testing.T) {
	const sets, rounds = 200, 30
	for range rounds {
		var made [4][sets]kemi.Labels
		var wg sync.WaitGroup
		for g := range made {
			wg.Go(func() {
				for i := range sets {
					made[g][i] = kemi.LabelsOf("host", fmt.Sprint("h", i), "disk", "/").With("n", strconv.Itoa(i%7))
				}
			})
		}
		wg.Go(runtime.GC)
		wg.Wait()
		for i := range sets {
			for g := range made {
				if made[g][i] != made[0][i] {
					t.Fatalf("%v is not %v", made[g][i], made[0][i])
				}
			}
		}
	}
}

func FuzzLabelsJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"host":"web1","disk":"/"}`, `{"a":""}`, `{"a":"1","a":"2"}`, `{"":"x"}`, `{"é\u0000":"\ud83d\ude00"}`, `{"a":1}`, `[]`, `{`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l kemi.Labels
		if json.Unmarshal(b, &l) != nil {
			return
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back kemi.Labels
		if err := json.Unmarshal(again, &back); err != nil || back != l {
			t.Errorf("%s became %s, which is read as %v, %v", b, again, back, err)
		}
		var m map[string]string
		if err := json.Unmarshal(again, &m); err != nil || len(m) != l.Len() {
			t.Errorf("%s is read by others as %v, %v", again, m, err)
		}
	})
}

func TestLabelsJSONIsInOrder(t *testing.T) {
	b, err := json.Marshal(kemi.LabelsOf("host", "web1", "disk", "/", "a", "<&>"))
	if err != nil || !strings.HasPrefix(string(b), `{"a":`) || strings.Index(string(b), "disk") > strings.Index(string(b), "host") {
		t.Errorf("%s, %v", b, err)
	}
}
