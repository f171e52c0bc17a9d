package promql

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

const hotLong = `
groups:
- name: g
  interval: 5s
  rules:
  - {alert: Hot, expr: cpu > 90, for: 10s, annotations: {v: '{{ $value }}'}}
`

// restart replaces the rules by fresh ones that have been fed the last back of the input
// of source, muted, and are given what was kept. The files may have changed.
func (b *bench) restart(kept map[string][]byte, back time.Duration, source func(time.Time) []kemi.Metric, yaml string) {
	b.t.Helper()
	if yaml != "" {
		b.fsys["r.yml"].Data = []byte(yaml)
	}
	c := b.rules.conf
	c.Delay = -1
	r, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.rules = r
	told, now := b.told, b.now
	b.now = now.Add(-back)
	b.tick()
	b.run(back, source)
	b.now, b.told = now, told
	if err := r.Restore(keptOf(kept)); err != nil {
		b.t.Fatal(err)
	}
}

// keep applies what has changed to what is kept, and says how many entries have, the
// clock left out.
func (b *bench) keep(kept map[string][]byte) (changes int) {
	for _, e := range b.rules.Keep(nil) {
		if e.Key != clockKey {
			changes++
		}
		if e.Value == nil {
			delete(kept, e.Key)
		} else {
			kept[e.Key] = e.Value
		}
	}
	return changes
}

func alerts(kept map[string][]byte) (n int) {
	for k := range kept {
		if strings.HasPrefix(k, alertPrefix) {
			n++
		}
	}
	return n
}

func TestAFiringAlertStaysFiringAcrossRestarts(t *testing.T) {
	b := newBench(t, hotLong)
	source := every(5*time.Second, "cpu", between(20*time.Second, 3*time.Hour), "web1")
	kept := map[string][]byte{}
	b.run(time.Minute, source)
	b.keep(kept)
	began := b.told[0].StartsAt
	b.want("30 Hot firing web1")
	for range 5 {
		b.run(20*time.Minute, source)
		b.keep(kept)
		b.restart(kept, 10*time.Minute, source, "")
		if as := b.rules.Active(); len(as) != 1 || as[0].State != kemi.StateFiring || !as[0].StartsAt.Equal(began) {
			t.Fatalf("active %+v", as)
		}
	}
	b.want()
	b.run(2*time.Hour, source)
	if a := b.told[0]; !a.StartsAt.Equal(began) || a.Annotations.Get("v") != "100" {
		t.Fatalf("resolved %+v", a)
	}
	b.want("10800 Hot resolved web1")
	b.keep(kept)
	if n := alerts(kept); n != 0 {
		t.Fatalf("%d alerts are kept after all were resolved", n)
	}
}

func TestKeepTellsChangesOnly(t *testing.T) {
	b := newBench(t, hotLong)
	source := every(5*time.Second, "cpu", between(20*time.Second, 60*time.Second), "web1", "web2")
	kept := map[string][]byte{}
	var log []string
	for range 80 {
		b.run(time.Second, source)
		if n := b.keep(kept); n > 0 {
			log = append(log, fmt.Sprintf("%.0f: %d", b.now.Sub(epoch).Seconds(), n))
		}
		if extra := b.rules.Keep(nil); len(extra) > 0 {
			t.Fatalf("told again: %v", extra)
		}
	}
	if got := strings.Join(log, ", "); got != "20: 2, 30: 2, 60: 2" { // pending, firing, forgotten
		t.Fatalf("kept at %s", got)
	}
}

// TestAnAlertThatEndsWhileNothingRuns is resolved by the first metrics that say so, and
// not by the silence of the time when nobody looked.
func TestAnAlertThatEndsWhileNothingRuns(t *testing.T) {
	for _, down := range []time.Duration{time.Minute, time.Hour, 48 * time.Hour} {
		b := newBench(t, hotLong)
		kept := map[string][]byte{}
		hot := every(5*time.Second, "cpu", between(0, 10*time.Minute), "web1")
		b.run(9*time.Minute, hot)
		b.keep(kept)
		b.want("15 Hot firing web1")
		b.restart(kept, 8*time.Minute, hot, "")
		b.now = b.now.Add(down)
		b.run(time.Minute, every(5*time.Second, "cpu", between(0, 0), "web1"))
		if len(b.told) != 1 || b.told[0].State != kemi.StateResolved || b.told[0].EndsAt.Before(b.now.Add(-time.Minute-down/2)) {
			t.Fatalf("down for %v: told %+v", down, b.told)
		}
	}
}

// TestAnAlertThatGoesOnWhileNothingRuns is not told again, whatever the replay showed.
func TestAnAlertThatGoesOnWhileNothingRuns(t *testing.T) {
	hot := every(5*time.Second, "cpu", between(0, 100*time.Hour), "web1")
	for _, down := range []time.Duration{0, time.Minute, 48 * time.Hour} {
		for _, back := range []time.Duration{0, 10 * time.Second, 8 * time.Minute} { // the log may be gone
			b := newBench(t, hotLong)
			kept := map[string][]byte{}
			b.run(9*time.Minute, hot)
			b.keep(kept)
			b.want("15 Hot firing web1")
			b.restart(kept, back, hot, "")
			b.now = b.now.Add(down)
			b.run(10*time.Minute, hot)
			b.want()
			if as := b.rules.Active(); len(as) != 1 || !as[0].StartsAt.Equal(epoch.Add(15*time.Second)) {
				t.Fatalf("down for %v, replay of %v: active %+v", down, back, as)
			}
		}
	}
}

// TestAHostThatIsGoneAfterALongStop: when metrics come and none of this host, its alert
// ends, once.
func TestAHostThatIsGoneAfterALongStop(t *testing.T) {
	b := newBench(t, hotLong)
	kept := map[string][]byte{}
	both := every(5*time.Second, "cpu", between(0, 100*time.Hour), "web1", "web2")
	b.run(9*time.Minute, both)
	b.keep(kept)
	b.told = nil
	b.restart(kept, 8*time.Minute, both, "")
	b.now = b.now.Add(time.Hour)
	b.run(20*time.Minute, every(5*time.Second, "cpu", between(0, 100*time.Hour), "web1"))
	if len(b.told) != 1 || b.told[0].State != kemi.StateResolved || b.told[0].Labels.Get("host") != "web2" {
		t.Fatalf("told %+v", b.told)
	}
}

func TestRulesThatChangeWhileNothingRuns(t *testing.T) {
	hot := every(5*time.Second, "cpu", between(0, 100*time.Hour), "web1")
	for _, c := range []struct{ what, yaml, want string }{
		{"the rule is gone", strings.Replace(hotLong, "Hot", "Other", 1), "540 Hot resolved web1, 555 Other firing web1"},
		{"another label", strings.Replace(hotLong, "for: 10s", "for: 10s, labels: {severity: page}", 1), "540 Hot resolved web1, 555 Hot firing web1"},
		{"another group", strings.Replace(hotLong, "name: g", "name: h", 1), "540 Hot resolved web1, 555 Hot firing web1"},
		{"another threshold", strings.Replace(hotLong, "> 90", "> 80", 1), ""},
		{"it holds no more", strings.Replace(hotLong, "> 90", "> 100", 1), "545 Hot resolved web1"},
		{"another annotation", strings.Replace(hotLong, "v:", "w:", 1), ""},
		{"a shorter for", strings.Replace(hotLong, "for: 10s", "for: 1s", 1), ""},
		{"a longer for", strings.Replace(hotLong, "for: 10s", "for: 10m", 1), "545 Hot resolved web1, 605 Hot firing web1"},
	} {
		b := newBench(t, hotLong)
		kept := map[string][]byte{}
		b.run(9*time.Minute, hot)
		b.keep(kept)
		b.told = nil
		b.restart(kept, 8*time.Minute, hot, c.yaml)
		if as := b.rules.Keep(nil); strings.Contains(c.want, "540") && len(as) != 0 {
			t.Errorf("%s: forgotten before it was told: %v", c.what, as)
		}
		b.run(2*time.Minute, hot)
		var got []string
		for _, a := range b.told {
			s := a.Time.Sub(epoch)
			got = append(got, fmt.Sprintf("%.0f %s %s %s", s.Seconds(), a.Rule, a.State, a.Labels.Get("host")))
		}
		if g := strings.Join(got, ", "); g != c.want {
			t.Errorf("%s: told %q, want %q", c.what, g, c.want)
		}
		b.keep(kept)
		if n, want := alerts(kept), len(b.rules.Active()); n != want {
			t.Errorf("%s: %d alerts are kept, and %d active", c.what, n, want)
		}
	}
}

func TestARuleThatMovedToAnotherFileKeepsItsAlerts(t *testing.T) {
	hot := every(5*time.Second, "cpu", between(0, 100*time.Hour), "web1")
	b := newBench(t, hotLong)
	kept := map[string][]byte{}
	b.run(time.Minute, hot)
	b.keep(kept)
	b.told = nil
	before := slices.Sorted(maps.Keys(kept))
	b.fsys["new.yml"] = b.fsys["r.yml"]
	delete(b.fsys, "r.yml")
	b.restart(kept, 30*time.Second, hot, "")
	b.run(time.Minute, hot)
	b.want()
	b.keep(kept)
	if n := alerts(kept); n != 1 || slices.Equal(before, slices.Sorted(maps.Keys(kept))) {
		t.Fatalf("kept %q, and before %q", slices.Collect(maps.Keys(kept)), before)
	}
}

// TestAnAlertOfTwoRulesIsOneAcrossARestart: it ends when it has ended for the last, and
// began when it did for the first, also if that is long over.
func TestAnAlertOfTwoRulesIsOneAcrossARestart(t *testing.T) {
	two := `
groups:
- name: g
  interval: 5s
  rules: [{alert: Hot, expr: cpu > 90}]
- name: h
  interval: 5s
  rules: [{alert: Hot, expr: cpu > 50 < 99}]
`
	value := func(_ string, t time.Duration) float64 {
		switch {
		case t < 30*time.Second:
			return 100
		case t < 2*time.Minute:
			return 95
		case t < 6*time.Minute:
			return 60
		}
		return 0
	}
	source := every(5*time.Second, "cpu", value, "web1")
	for at, entries := range map[time.Duration]int{20 * time.Second: 1, time.Minute: 2, 4 * time.Minute: 1} {
		b := newBench(t, two)
		kept := map[string][]byte{}
		b.run(at, source)
		b.keep(kept)
		if alerts(kept) != entries {
			t.Fatalf("%d entries after %v", alerts(kept), at)
		}
		b.want("5 Hot firing web1")
		b.restart(kept, at-10*time.Second, source, "")
		b.run(7*time.Minute-at, source)
		if len(b.told) != 1 || !b.told[0].StartsAt.Equal(epoch.Add(5*time.Second)) {
			t.Fatalf("restarted after %v: told %+v", at, b.told)
		}
		b.want("360 Hot resolved web1")
	}
}

// TestWhatWasKeptLaterThanThePosition: the state may be safe and the position not yet.
// What comes again then has been told.
func TestWhatWasKeptLaterThanThePosition(t *testing.T) {
	source := every(5*time.Second, "cpu", between(60*time.Second, 90*time.Second), "web1")
	for _, until := range []time.Duration{75 * time.Second, 100 * time.Second} { // it fires; it has been resolved
		b := newBench(t, hotLong)
		kept := map[string][]byte{}
		b.run(58*time.Second, source)
		position := b.now
		b.run(epoch.Add(until).Sub(b.now), source)
		b.keep(kept)
		told := len(b.told)
		b.now = position
		b.restart(kept, 50*time.Second, source, "")
		b.run(2*time.Minute, source)
		if told == 1 && (len(b.told) != 2 || b.told[1].State != kemi.StateResolved) || told == 2 && len(b.told) != 2 {
			t.Fatalf("told %d before, then %+v", told, b.told)
		}
	}
}

func TestAReloadSilencesTheProofForAHorizon(t *testing.T) {
	b := newBench(t, hotLong, func(c *Config) { c.Lookback = 20 * time.Second })
	source := every(5*time.Second, "cpu", between(0, 0), "web1")
	if p := b.rules.Proof(); p != (kemi.Proof{}) {
		t.Fatalf("proof %v before an evaluation", p)
	}
	b.run(time.Minute, source)
	before := b.rules.Proof()
	if before.Hash == 0 {
		t.Fatal("no proof")
	}
	if err := b.reload("r.yml", strings.Replace(hotLong, "> 90", "> 91", 1)); err != nil {
		t.Fatal(err)
	}
	b.run(b.rules.Horizon()-2*time.Second, source)
	if p := b.rules.Proof(); p != (kemi.Proof{}) {
		t.Fatalf("proof %v after a reload", p)
	}
	b.run(5*time.Second, source)
	if p := b.rules.Proof(); p.Hash == 0 || p.Version == before.Version {
		t.Fatalf("proof %v, before the reload %v", p, before)
	}
}

func TestAProofSeesValuesLabelsAndAbsence(t *testing.T) {
	proof := func(v float64, hosts ...string) uint64 {
		b := newBench(t, "groups:\n- name: g\n  interval: 5s\n  rules:\n  - {record: r, expr: cpu}\n")
		b.run(time.Minute, func(time.Time) (ms []kemi.Metric) {
			for _, h := range hosts {
				ms = append(ms, gauge("cpu", v, "host", h))
			}
			return append(ms, gauge("other", 1))
		})
		return b.rules.Proof().Hash
	}
	seen := map[uint64]bool{}
	for _, h := range []uint64{proof(1), proof(1, "a"), proof(2, "a"), proof(1, "b"), proof(1, "a", "b")} {
		if seen[h] || h == 0 {
			t.Errorf("%x twice", h)
		}
		seen[h] = true
	}
	if proof(1, "a", "b") != proof(1, "b", "a") {
		t.Error("the order of hosts counts")
	}
}

// TestWhatCannotBeReadIsDropped: it stops no restart, leaves what the replay has made, is
// counted, and is forgotten or kept anew.
func TestWhatCannotBeReadIsDropped(t *testing.T) {
	hot := every(5*time.Second, "cpu", between(0, time.Hour), "web1", "web2")
	b := newBench(t, hotLong)
	b.run(10*time.Minute, hot)
	whole := map[string][]byte{}
	b.keep(whole)
	if len(whole) != 3 {
		t.Fatalf("%d entries", len(whole))
	}
	b.want("15 Hot firing web1", "15 Hot firing web2")
	for key, value := range whole {
		broken := map[string][]byte{
			"of a newer kemi": append([]byte{noteVersion + 1}, value[1:]...),
			"a byte more":     append(bytes.Clone(value), 0),
			"too long":        append(bytes.Clone(value), make([]byte, maxNote)...),
		}
		for n := 1; n < len(value); n++ {
			broken[fmt.Sprintf("%d of %d bytes", n, len(value))] = value[:n]
		}
		for what, text := range broken {
			kept := maps.Clone(whole)
			kept[key] = text
			b.restart(kept, time.Minute, hot, "")
			if n := b.rules.Status().Unreadable; n != 1 {
				t.Fatalf("%s of %s: %d are counted", what, key, n)
			}
			as := b.rules.Active()
			if len(as) != 2 {
				t.Fatalf("%s of %s: active %+v", what, key, as)
			}
			for _, a := range as { // that of the entry began with the minute that was replayed
				if a.State != kemi.StateFiring || key == clockKey && !a.StartsAt.Equal(epoch.Add(15*time.Second)) {
					t.Fatalf("%s of %s: active %+v", what, key, a)
				}
			}
			b.keep(kept)
			if !maps.Equal(sizesOf(kept), sizesOf(whole)) || bytes.Equal(kept[key], text) {
				t.Fatalf("%s of %s: then %q is kept", what, key, kept)
			}
		}
	}
	// All of it, as after a step back, and with keys that are of no alert.
	kept := map[string][]byte{alertPrefix + "zz/1": {noteVersion}, "of a stage that was here before": {1}}
	for key, value := range whole {
		kept[key] = append([]byte{noteVersion + 1}, value[1:]...)
	}
	b.restart(kept, time.Minute, hot, "")
	if n := b.rules.Status().Unreadable; n != 4 {
		t.Fatalf("%d are counted", n)
	}
	b.keep(kept)
	if !maps.Equal(sizesOf(kept), sizesOf(whole)) {
		t.Fatalf("then %q is kept", kept)
	}
	// Nothing is told twice, and both are resolved once.
	b.run(time.Minute, hot)
	b.want()
	b.run(time.Minute, every(5*time.Second, "cpu", between(0, 0), "web1", "web2"))
	b.want("665 Hot resolved web1", "665 Hot resolved web2")
	b.keep(kept)
	if n := alerts(kept); n != 0 {
		t.Fatalf("%d alerts are kept after all were resolved", n)
	}
}

// sizesOf has the keys; the times in the values depend on the replay.
func sizesOf(kept map[string][]byte) map[string]bool {
	m := map[string]bool{}
	for k := range kept {
		m[k] = true
	}
	return m
}

// TestAnUnreadableAlertThatNobodyRaisesIsForgotten: neither in memory nor in what is kept
// does anything of it remain.
func TestAnUnreadableAlertThatNobodyRaisesIsForgotten(t *testing.T) {
	hot := every(5*time.Second, "cpu", between(0, time.Minute), "web1")
	b := newBench(t, hotLong)
	b.run(30*time.Second, hot)
	kept := map[string][]byte{}
	b.keep(kept)
	for key := range kept {
		kept[key] = []byte("no note")
	}
	b.now = b.now.Add(time.Hour)
	b.restart(kept, time.Minute, every(5*time.Second, "cpu", between(0, 0), "web1"), "")
	b.keep(kept)
	if as := b.rules.Active(); len(as) != 0 || alerts(kept) != 0 {
		t.Fatalf("active %+v, kept %q", as, kept)
	}
}

// TestWhatIsKeptCanBeRestored whatever labels are pushed: an alert with labels that do not
// fit is left out and told as an error of the rule, and the others fire.
func TestWhatIsKeptCanBeRestored(t *testing.T) {
	labels := func(n int) []string {
		kv := []string{"host", "many"}
		for i := range n - 3 { // with __name__, host and alertname
			kv = append(kv, fmt.Sprint("l", i), "v")
		}
		return kv
	}
	const names = len("host" + "long" + "x" + "alertname" + "Hot")
	for _, c := range []struct {
		what   string
		labels []string
		told   string
		failed bool
	}{
		{"the longest", []string{"host", "long", "x", strings.Repeat("v", maxLabelBytes-names)}, "15 Hot firing long", false},
		{"a byte more", []string{"host", "long", "x", strings.Repeat("v", maxLabelBytes-names+1)}, "", true},
		{"longer than a note", []string{"host", "long", "x", strings.Repeat("v", maxNote)}, "", true},
		{"the most", labels(maxSet + 1), "15 Hot firing many", false},
		{"one more", labels(maxSet + 2), "", true},
	} {
		b := newBench(t, hotLong)
		source := func(time.Time) []kemi.Metric {
			return []kemi.Metric{gauge("cpu", 100, "host", "ok"), gauge("cpu", 100, c.labels...)}
		}
		b.run(time.Minute, source)
		want := []string{"15 Hot firing ok"}
		if c.told != "" {
			want = []string{c.told, "15 Hot firing ok"}
		}
		b.want(want...)
		rule := b.rules.Status().Groups[0].Rules[0]
		if got := strings.Contains(rule.Error, "1 alerts were left out"); got != c.failed || (rule.Failures > 0) != c.failed {
			t.Errorf("%s: %d failures: %.200s", c.what, rule.Failures, rule.Error)
		}
		kept := map[string][]byte{}
		b.keep(kept)
		for key, value := range kept {
			if len(value) > maxNote/2 {
				t.Errorf("%s: %d bytes are kept as %s", c.what, len(value), key)
			}
		}
		firing := len(b.rules.Active())
		b.restart(kept, 0, source, "")
		if got := len(b.rules.Active()); got != firing || got != len(want) || b.rules.Status().Unreadable != 0 {
			t.Errorf("%s: %d alerts of %d are restored", c.what, got, firing)
		}
	}
}

func TestLongAnnotationsAreNotKept(t *testing.T) {
	b := newBench(t, strings.Replace(hotLong, "{{ $value }}", strings.Repeat("x", maxAnnotations+1), 1))
	source := every(5*time.Second, "cpu", between(0, time.Hour), "web1")
	b.run(time.Minute, source)
	kept := map[string][]byte{}
	b.keep(kept)
	for _, v := range kept {
		if len(v) > 1000 {
			t.Fatalf("%d bytes are kept", len(v))
		}
	}
	b.restart(kept, 30*time.Second, source, "")
	if a := b.rules.Active()[0]; len(a.Annotations.Get("v")) != maxAnnotations+1 {
		t.Fatal("the replay has not brought it back")
	}
}

func FuzzNote(f *testing.F) {
	x := &instance{labels: kemi.LabelsOf("alertname", "Hot", "host", "web1"), annotations: kemi.LabelsOf("v", "1"), value: 1.5}
	f.Add(note{7, "Hot", mark{active: 1, fired: 2, gone: 3, since: 4, firing: true}, x}.encode())
	k := reckoning{evaluated: 5, seen: 6, low: 7}
	f.Add(k.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var n note
		if n.read(b) == nil {
			again := n.encode()
			var m note
			if err := m.read(again); err != nil || !bytes.Equal(m.encode(), again) {
				t.Fatalf("%x is read, and %x is not (%v)", b, again, err)
			}
		}
		var k reckoning
		if k.read(b) == nil {
			var l reckoning
			if err := l.read(k.encode()); err != nil || l != k {
				t.Fatalf("%+v, and then %+v", k, l)
			}
		}
	})
}
