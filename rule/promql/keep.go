package promql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
)

// What is kept has one entry for each alert that is pending or firing, and one for the
// clock: how far evaluations have come, which no replay of a horizon can tell for sure.
//
// The key of an alert is made of its rule and its labels. A rule is known by file, group,
// kind, name and labels, as in a reload, and by all but the file if there is none such.

// mark is what is kept of an alert, but for texts.
type mark struct {
	active, fired, gone, since millis
	firing                     bool
	value                      uint64 // of a rule that depends on all the past: its bits
}

type markKey struct {
	rule   uint64
	labels kemi.Labels
}

func (k markKey) String() string {
	return fmt.Sprintf("%s%016x/%016x", alertPrefix, k.rule, k.labels.Hash())
}

// The keys of entries.
const (
	alertPrefix = "alert/"
	clockKey    = "clock"
)

// reckoning is what is kept of the clock.
type reckoning struct {
	evaluated, seen, moved, pace, first millis
	blind                               hole
	floor, low                          millis
}

func (r *Rules) reckon() reckoning {
	k := reckoning{evaluated: r.evaluated, seen: r.seen, moved: r.moved, pace: r.pace, first: r.first, blind: r.blind}
	if r.blind.to != 0 {
		k.floor, k.low = r.store.floor.Load(), r.store.low.Load()
	}
	return k
}

// Keep appends what has changed of the alerts since the last call. Alerts of a rule that
// is gone are kept until a tick has told that they are resolved.
func (r *Rules) Keep(dst []kemi.Kept) []kemi.Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.farewell) > 0 || r.evaluated == 0 {
		return dst
	}
	if now := r.reckon(); now != r.keptClock {
		r.keptClock = now
		dst = append(dst, kemi.Kept{Key: clockKey, Value: now.encode()})
	}
	if !r.unkept {
		return dst
	}
	r.unkept = false
	from := len(dst)
	now := make(map[markKey]mark, len(r.kept))
	for _, g := range r.groups {
		for _, x := range g.rules {
			for _, a := range x.active {
				k, m := markKey{x.id, a.labels}, mark{active: a.active, fired: a.fired, gone: a.gone, firing: a.firing}
				if !x.bounded {
					m.value = math.Float64bits(a.value)
				}
				if a.firing {
					m.since = r.firing[a.labels].since.UnixMilli()
				}
				now[k] = m
				if old, ok := r.kept[k]; !ok || old != m {
					dst = append(dst, kemi.Kept{Key: k.String(), Value: note{x.moved, x.name, m, a}.encode()})
				}
			}
		}
	}
	for k := range r.kept {
		if _, ok := now[k]; !ok {
			dst = append(dst, kemi.Kept{Key: k.String()})
		}
	}
	r.kept = now
	if len(r.orphans) > 0 {
		used := make(map[string]bool, len(now))
		for k := range now {
			used[k.String()] = true
		}
		for _, key := range r.orphans {
			if !used[key] { // what could not be read may be the key of an alert that is there
				dst = append(dst, kemi.Kept{Key: key})
			}
		}
		r.orphans = nil
	}
	slices.SortFunc(dst[from:], func(a, b kemi.Kept) int { return strings.Compare(a.Key, b.Key) })
	return dst
}

// Restore puts the alerts and the clock back to where they were, after a replay. What a
// replay has made of an alert stays where nothing else was kept: its value and its
// annotations, unless its rule depends on all the past. Alerts that were not kept did not
// fire or wait then; if their condition holds, they begin now. Those that fired for a rule
// that is gone come as resolved with the next tick.
//
// An entry that cannot be read, because it is damaged or was written by a newer kemi, is
// dropped, logged and counted in [Status].Unreadable: one that stopped the restart would
// stop it each time. What the replay has made of such an alert, or of the clock, stands.
// The error is nil.
func (r *Rules) Restore(kept []kemi.Kept) error {
	var notes []restored
	var clock *reckoning
	var orphans []string
	lost := map[string]error{}
	for _, e := range kept {
		switch {
		case len(e.Value) == 0:
		case e.Key == clockKey:
			k := new(reckoning)
			if err := k.read(e.Value); err != nil {
				lost[e.Key] = err
				continue
			}
			clock = k
		case strings.HasPrefix(e.Key, alertPrefix):
			n := restored{key: e.Key}
			if err := n.read(e.Value); err != nil {
				lost[e.Key] = err
				continue
			}
			rule, _, _ := strings.Cut(e.Key[len(alertPrefix):], "/")
			id, err := strconv.ParseUint(rule, 16, 64)
			if err != nil {
				lost[e.Key] = errNote
				continue
			}
			n.rule = id
			notes = append(notes, n)
		default:
			orphans = append(orphans, e.Key)
		}
	}
	slices.SortFunc(notes, func(a, b restored) int { return strings.Compare(a.key, b.key) })

	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose(lost)
	before := map[markKey]*instance{}
	var stand []*instance
	if !r.restored { // else there is more of the same
		r.restored = true
		r.kept, r.firing, r.farewell = map[markKey]mark{}, map[kemi.Labels]*firing{}, nil
		for _, x := range rulesOf(r.groups) {
			for _, a := range x.active {
				k := markKey{x.id, a.labels}
				if len(lost) > 0 && lost[k.String()] != nil {
					stand = append(stand, a)
					continue
				}
				before[k] = a
				delete(x.active, a.labels)
			}
		}
	}
	r.orphans = append(r.orphans, orphans...)
	if clock != nil {
		r.resume(*clock)
	}
	at := r.owners(notes)
	var gone []kemi.Alert
	for _, n := range notes {
		r.kept[markKey{n.rule, n.of.labels}] = n.mark
		a := n.of
		x := at[n.rule]
		if x != nil {
			if was := before[markKey{x.id, a.labels}]; was != nil && x.bounded {
				a.value, a.annotations = was.value, was.annotations
			}
			if _, twice := x.active[a.labels]; twice {
				continue
			}
			x.active[a.labels] = a
		}
		if !a.firing {
			continue
		}
		r.fires(a.labels, n.since)
		if x == nil {
			gone = append(gone, a.resolved(n.name, max(r.evaluated, a.fired)))
		}
	}
	for _, a := range stand { // after the notes: they know since when it was told
		if a.firing {
			r.fires(a.labels, a.fired)
		}
	}
	slices.SortFunc(gone, func(a, b kemi.Alert) int { return a.Labels.Compare(b.Labels) })
	r.farewell = append(r.farewell, r.once(gone)...)
	for _, g := range r.groups {
		if g.last == 0 {
			continue
		}
		for _, x := range g.rules {
			if x.alert { // later rules look at what this one said last
				last := g.last - g.queryOffset.Milliseconds()
				x.write(r.store, x.alertSeries(r.store, last), last)
			}
		}
	}
	r.unkept = true
	r.publish()
	return nil
}

// fires notes that an alert was told as firing for one more rule.
func (r *Rules) fires(l kemi.Labels, since millis) {
	if f := r.firing[l]; f != nil {
		f.rules++
	} else {
		r.firing[l] = &firing{1, toUTC(since)}
	}
}

// lose counts and tells what could not be read, and has it forgotten with the next Keep,
// unless that keeps it anew.
func (r *Rules) lose(lost map[string]error) {
	if len(lost) == 0 {
		return
	}
	keys := slices.Sorted(maps.Keys(lost))
	for _, key := range keys {
		if key != clockKey { // it is always kept anew
			r.orphans = append(r.orphans, key)
		}
	}
	r.unreadable += uint64(len(lost))
	r.log.Warn("some of what was kept of the alerts cannot be read and is dropped: what the replay made of them stands",
		zap.Int("entries", len(lost)), zap.String("first", fmt.Sprintf("%.100s", keys[0])), zap.Error(lost[keys[0]]))
}

// owners says which rule has the alerts that are kept of a rule.
func (r *Rules) owners(notes []restored) map[uint64]*rule {
	at := map[uint64]*rule{}
	taken := map[*rule]bool{}
	exact, anyFile := map[uint64]*rule{}, map[uint64][]*rule{}
	for _, x := range rulesOf(r.groups) {
		if x.alert {
			exact[x.id] = x
			anyFile[x.moved] = append(anyFile[x.moved], x)
		}
	}
	for _, n := range notes {
		if x := exact[n.rule]; x != nil {
			at[n.rule], taken[x] = x, true
		}
	}
	for _, n := range notes {
		if at[n.rule] != nil {
			continue
		}
		if i := slices.IndexFunc(anyFile[n.moved], func(x *rule) bool { return !taken[x] }); i >= 0 {
			x := anyFile[n.moved][i]
			at[n.rule], taken[x] = x, true
		}
	}
	return at
}

// resume goes on with the evaluations where they were. A replay knows as much or less,
// and what has come since the last tick besides.
func (r *Rules) resume(k reckoning) {
	raise(&r.store.newest, k.seen)
	r.evaluated, r.seen, r.moved, r.pace, r.first, r.blind = k.evaluated, k.seen, k.moved, k.pace, k.first, k.blind
	if k.blind.to != 0 {
		r.store.floor.Store(k.floor)
		lower(&r.store.low, k.low)
	}
	base := r.evaluated + 1
	for _, g := range r.groups {
		g.next = align(r.evaluated+1, g.interval)
		base = min(base, g.next)
	}
	r.store.base.Store(base)
	r.keptClock = k
}

// note is an entry of an alert, and restored one that was read.
type note struct {
	moved uint64 // the rule, whatever its file
	name  string
	mark
	of *instance
}

type restored struct {
	key  string
	rule uint64
	note
}

const (
	noteVersion    = 1
	maxNote        = 1 << 20  // bytes: of what is read; what is written has far less
	maxLabelBytes  = 64 << 10 // bytes of names and values; see fits
	maxAnnotations = 16 << 10
	maxSet         = 1 << 10 // labels
)

// fits says whether an alert may have these labels. Values come with the metrics, from
// anyone, and the note of an alert has to be one that Restore takes.
func fits(set []kemi.Label) bool {
	size := 0
	for _, l := range set {
		size += len(l.Name) + len(l.Value)
	}
	return size <= maxLabelBytes && len(set) <= maxSet
}

var errNote = errors.New("it is not what this program keeps of an alert")

func (n note) encode() []byte {
	dst := []byte{noteVersion}
	dst = binary.LittleEndian.AppendUint64(dst, n.moved)
	dst = appendText(dst, n.name)
	flag := byte(0)
	if n.firing {
		flag = 1
	}
	dst = append(dst, flag)
	for _, t := range [...]millis{n.active, n.fired, n.gone, n.since} {
		dst = binary.AppendVarint(dst, t)
	}
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(n.of.value))
	dst = appendLabels(dst, n.of.labels)
	size := 0
	for k, v := range n.of.annotations.All() {
		size += len(k) + len(v)
	}
	if size > maxAnnotations { // they come again with the next evaluation
		return appendLabels(dst, kemi.Labels{})
	}
	return appendLabels(dst, n.of.annotations)
}

func (n *note) read(src []byte) error {
	d := decoder{src: src}
	if len(src) > maxNote {
		return errNote
	}
	if v := d.byte(); v != noteVersion {
		return fmt.Errorf("it is of version %d, and this program knows %d: it was written by a newer kemi", v, noteVersion)
	}
	n.moved, n.name = d.fixed(), d.text()
	flag := d.byte()
	n.firing = flag == 1
	for _, t := range [...]*millis{&n.active, &n.fired, &n.gone, &n.since} {
		*t = d.varint()
	}
	n.of = &instance{active: n.active, fired: n.fired, gone: n.gone, firing: n.firing, value: math.Float64frombits(d.fixed())}
	n.of.labels, n.of.annotations = d.labels(), d.labels()
	if d.bad || len(d.src) > 0 || flag > 1 || n.of.labels.Len() == 0 {
		return errNote
	}
	return nil
}

func (k *reckoning) fields() [10]*millis {
	return [10]*millis{&k.evaluated, &k.seen, &k.moved, &k.pace, &k.first, &k.blind.from, &k.blind.to, &k.blind.silent, &k.floor, &k.low}
}

func (k *reckoning) encode() []byte {
	dst := []byte{noteVersion}
	for _, f := range k.fields() {
		dst = binary.AppendVarint(dst, *f)
	}
	return dst
}

func (k *reckoning) read(src []byte) error {
	d := decoder{src: src}
	if v := d.byte(); v != noteVersion {
		return fmt.Errorf("it is of version %d, and this program knows %d: it was written by a newer kemi", v, noteVersion)
	}
	for _, f := range k.fields() {
		*f = d.varint()
	}
	if d.bad || len(d.src) > 0 || k.evaluated <= 0 {
		return errNote
	}
	return nil
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendLabels(dst []byte, l kemi.Labels) []byte {
	dst = binary.AppendUvarint(dst, uint64(l.Len()))
	for n, v := range l.All() {
		dst = appendText(appendText(dst, n), v)
	}
	return dst
}

// decoder reads what encode has written. Once something is wrong all is zero.
type decoder struct {
	src []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.src) {
		d.bad = true
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) fixed() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.src)
	if n <= 0 {
		d.bad = true
	}
	if d.take(max(n, 0)) == nil {
		return 0
	}
	return v
}

// count reads the number of things of at least size bytes each.
func (d *decoder) count(size int) int {
	v, n := binary.Uvarint(d.src)
	if n <= 0 || d.take(n) == nil || v > uint64(len(d.src)/size) {
		d.bad = true
		return 0
	}
	return int(v)
}

func (d *decoder) text() string { return string(d.take(d.count(1))) }

func (d *decoder) labels() kemi.Labels {
	n := d.count(2)
	if n > maxSet {
		d.bad = true
	}
	var set []kemi.Label
	for i := 0; i < n && !d.bad; i++ {
		set = append(set, kemi.Label{Name: d.text(), Value: d.text()})
	}
	if d.bad { // nothing is made of what is not believed
		return kemi.Labels{}
	}
	return kemi.NewLabels(set...)
}
