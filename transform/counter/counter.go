// Package counter turns counters into rates.
//
// A counter X becomes a gauge X_rate, per second, and on request a gauge X_delta.
// Gauges go through unchanged. No number is made up: where two readings do not
// tell a rate for sure (a restart, a reset, a value no machine can reach), there
// is none, and [Stats] counts why.
//
// # The rules
//
// Two readings of one series, one label set and one name, make a rate. Both are
// subtracted as the integers they are; only the difference becomes a float64.
//
//   - The time between them is that of the agent's own clock, agent_uptime_seconds
//     (sysUpTime, RFC 3418) read in the same polls, if it is within 10 % of the
//     difference of the Times; otherwise it is the difference of the Times. So the
//     time an answer took on the network does not bend the rate.
//   - An uptime that went down says that the agent was started anew, and all its
//     counters may have been set back: every pair of readings across it is dropped.
//     An uptime that grew by less than the time that went by, and is shorter than
//     that time, says the same: two restarts lie close together. A gauge
//     agent_restarted of 1 with the labels of the uptime follows it, once. sysUpTime
//     wraps after 2^32 hundredths of a second (497 days); this is no restart.
//   - A 64-bit counter or a counter of fractions that went down was reset. It never
//     wraps: at 100 Gbit/s a count of octets would take 46 years.
//   - A 32-bit counter that went down has wrapped if the rate this implies is
//     plausible (see [Limit]), otherwise it was reset.
//   - A rate above the plausible is dropped. Some agents send a single value near
//     2^64 now and then.
//   - A missed poll is no loss: the rate over the true time is right. A gap longer
//     than Config.MaxGap is not bridged.
//   - A reading of the same or an earlier Time was delivered before and is ignored.
//     One earlier by more than Config.MaxGap says that a clock was set back, and is
//     a new beginning.
//
// Whatever was dropped, the newest reading is the one the next is compared with.
//
// The readings of one poll have one host label and one Time and stand next to each
// other in one batch, in any order. A poll that is spread over several batches gives the
// same rates if its uptime and the gauges its limits refer to come first.
package counter

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kemi-go/kemi"
)

// Names of the metrics that the stage adds besides the rates.
const (
	// RestartedMetric is a gauge of 1 that tells, once, that the agent of a host was
	// started anew: with the host, or by itself (uptime_seconds tells which). A host
	// that was silent for longer than Config.MaxGap comes back without it.
	RestartedMetric = "agent_restarted"

	// DroppedMetric is a gauge of 1 in the place of a rate that was dropped, with the
	// labels of the counter, its name as the label counter, and the label reason:
	// reset, implausible or invalid. See Config.Drops.
	DroppedMetric = "counter_dropped"
)

// Config says how to make rates. The zero value is usable.
type Config struct {
	// Interval is the usual time between two readings. 0: one minute.
	Interval time.Duration

	// MaxGap is the longest time between two readings that still make a rate.
	// 0: five minutes, or three intervals if that is longer.
	MaxGap time.Duration

	// KeepCounters passes the counters through, each before its rate.
	KeepCounters bool

	// Deltas adds X_delta, the increase since the reading before, after X_rate.
	Deltas bool

	// Drops tells of dropped rates in the output, as DroppedMetric.
	Drops bool

	// Uptime is the name of the gauge with the seconds since the agent was started.
	// "": agent_uptime_seconds.
	Uptime string

	// Limits are what is plausible, by the name of the counter. They come on top of
	// [StandardLimits]; an entry here replaces the one of the same name there.
	Limits map[string]Limit
}

// Rates is the stage. It has state, and every lane gets a fork of its own with
// [Rates.Fork]; one Rates is used by one goroutine at a time. Only Stats may be
// called beside the others.
//
// The state is one entry per counter, about 135 bytes with its place in the map. It is
// forgotten when it is older than MaxGap, as nothing can depend on it any more: by the
// ticks of the lane, or where there are none, by the Times of the input. No clock is
// read and no output follows the order of a map: the same input gives the same output,
// in the order of the input.
type Rates struct {
	*settings
	totals *totals

	hosts map[string]*host
	defs  map[defKey]*def
	sum   uint64 // of all entries
	age   age

	ticked bool   // the time is that of ticks, and not of age
	at     int64  // the span of the last tick
	turn   uint32 // of entries that are the same for who knows this span only
}

// settings are read-only and shared by all forks.
type settings struct {
	interval, maxGap    time.Duration
	keep, deltas, drops bool
	uptime              string
	limits              map[string]Limit
	references          []string // the names in Limit.Of
	gap                 int64    // maxGap in nanoseconds
	span                int64    // see proof.go; nanoseconds
	version             uint64
}

// New checks c and returns the stage.
func New(c Config) (*Rates, error) {
	s := &settings{
		interval: c.Interval, maxGap: c.MaxGap, uptime: c.Uptime,
		keep: c.KeepCounters, deltas: c.Deltas, drops: c.Drops,
	}
	if s.interval < 0 || s.maxGap < 0 {
		return nil, fmt.Errorf("counter: Interval %v or MaxGap %v is negative: leave it 0 for the default", c.Interval, c.MaxGap)
	}
	if s.interval == 0 {
		s.interval = time.Minute
	}
	if s.maxGap == 0 {
		s.maxGap = max(5*time.Minute, 3*s.interval)
	}
	if s.maxGap < s.interval {
		return nil, fmt.Errorf("counter: MaxGap %v is shorter than Interval %v, so that there would never be a rate: make it at least twice as long", s.maxGap, s.interval)
	}
	if s.uptime == "" {
		s.uptime = "agent_uptime_seconds"
	}
	s.gap = int64(s.maxGap)
	s.span = s.gap + s.gap/10 // readings MaxGap apart may come a little further apart
	s.limits = StandardLimits()
	for name, l := range c.Limits {
		if err := l.check(name); err != nil {
			return nil, err
		}
		s.limits[name] = l
	}
	for _, l := range s.limits {
		if l.Of != "" && !slices.Contains(s.references, l.Of) {
			s.references = append(s.references, l.Of)
		}
	}
	s.version = versionOf(s)
	return (&Rates{settings: s, totals: new(totals)}).fork(), nil
}

// Fork returns a stage for another lane, with the same configuration, no state, and
// its counts added to the same Stats.
func (r *Rates) Fork() kemi.Transform[kemi.Metric, kemi.Metric] { return r.fork() }

func (r *Rates) fork() *Rates {
	return &Rates{settings: r.settings, totals: r.totals, hosts: map[string]*host{}, defs: map[defKey]*def{}}
}

// Horizon is how much past input the state is made of: two spans of MaxGap and a tenth,
// the one that is under way and the one before.
func (r *Rates) Horizon() time.Duration { return time.Duration(2 * r.span) }

// Apply appends the rates of src, and its gauges, to dst. It returns no error.
func (r *Rates) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	var n Stats
	for len(src) > 0 {
		name := src[0].Host()
		k := 1
		for k < len(src) && src[k].Time.Equal(src[0].Time) && (src[k].Labels == src[k-1].Labels || src[k].Host() == name) {
			k++
		}
		dst = r.poll(dst, src[:k], name, &n)
		src = src[k:]
	}
	r.totals.add(&n)
	return dst, nil
}

// poll takes the readings of one host at one time.
func (r *Rates) poll(dst, src []kemi.Metric, name string, n *Stats) []kemi.Metric {
	t := src[0].Time.UnixNano()
	h := r.hosts[name]
	if h == nil {
		h = &host{up: unknown, id: fnv(name)}
		r.hosts[name] = h
	}
	for i := range src {
		if src[i].Kind == kemi.KindGauge {
			r.look(h, &src[i], t)
		}
	}
	up, lately := h.uptimeAt(t), h.uptimeLately(t, r.turn)
	for i := range src {
		m := &src[i]
		if m.Kind != kemi.KindGauge {
			n.Counters++
			if r.keep {
				dst = append(dst, *m)
			}
			dst = r.rate(dst, h, m, t, up, lately, n)
			continue
		}
		dst = append(dst, *m)
		if h.restarted && m.Name == r.uptime {
			h.restarted = false
			n.Restarts++
			dst = append(dst, kemi.Gauge(RestartedMetric, m.Labels, m.Time, 1))
		}
	}
	r.expire(h, t, len(src))
	return dst
}

// look notes what a gauge tells about the counters beside it.
func (r *Rates) look(h *host, m *kemi.Metric, t int64) {
	if m.Name == r.uptime {
		r.sawUptime(h, t, m.Float())
		return
	}
	for _, name := range r.references {
		if m.Name == name {
			r.refer(h, key{name, m.Labels}, t, m.Float())
			return
		}
	}
}

// refer notes a gauge that limits refer to.
func (r *Rates) refer(h *host, k key, t int64, v float64) {
	if h.references == nil {
		h.references = map[key]reference{}
	}
	ref, ok := h.references[k]
	same := !ok || ref.turn == r.turn
	if !ok {
		ref = reference{id: fnv(k.name) ^ k.labels.Hash()}
	}
	if !ok || isNew(ref.t, t, r.gap) {
		if ok {
			r.sum -= ref.sum()
		}
		ref.t, ref.v = t, v
		r.sum += ref.sum()
	}
	ref.turn = r.turn
	if !same {
		l := h.ownLate()
		y, ok := l.references[k]
		if !ok || isNew(y.t, t, r.gap) {
			y = reference{t: t, v: v, id: ref.id, turn: r.turn - 1}
		}
		if y.t == ref.t && math.Float64bits(y.v) == math.Float64bits(ref.v) {
			delete(l.references, k)
		} else {
			ref.turn = r.turn - 1
			l.references[k] = y
		}
	}
	h.references[k] = ref
}

// rate compares a reading with the one before it.
func (r *Rates) rate(dst []kemi.Metric, h *host, m *kemi.Metric, t int64, up, lately float64, n *Stats) []kemi.Metric {
	v := m.Uint()
	if m.Kind == kemi.KindFloatCounter {
		f := m.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			n.Invalid++
			return r.dropped(dst, m, "invalid")
		}
		v = math.Float64bits(f)
	}
	s := h.find(m)
	if s == nil || s.def.kind != m.Kind {
		def := r.def(m)
		x := series{t: t, v: v, up: up, def: def, labels: m.Labels, id: identity(def, m.Labels), turn: r.turn}
		differs := up != lately
		if s == nil {
			s = h.add(m)
		} else {
			r.sum -= s.sum()
			x.next = s.next
			differs = differs || s.turn != r.turn
		}
		*s = x
		r.sum += s.sum()
		if differs {
			r.follow(h, s, t, v, lately, def)
		}
		n.Primed++
		return dst
	}
	since := t - s.t
	if since <= 0 && since >= -r.gap {
		if s.turn != r.turn {
			r.follow(h, s, t, v, lately, s.def)
		}
		n.Repeated++
		return dst
	}
	oldV, oldUp := s.v, s.up
	r.sum -= s.sum()
	s.t, s.v, s.up = t, v, up
	r.sum += s.sum()
	if s.turn != r.turn || up != lately {
		r.follow(h, s, t, v, lately, s.def)
	}
	if since < 0 || since > r.gap {
		n.Primed++
		return dst
	}
	seconds, restarted := elapsed(oldUp, up, float64(since)/1e9)
	if restarted {
		n.Restarted++
		return dst
	}
	var delta float64
	var wrapped bool
	limit := r.limit(h, s.def, m.Labels, t)
	switch {
	case m.Kind == kemi.KindFloatCounter:
		delta = math.Float64frombits(v) - math.Float64frombits(oldV)
	case v >= oldV:
		delta = float64(v - oldV)
	case m.Kind == kemi.KindCounter32 && float64(uint32(v-oldV)) <= seconds*min(limit, wrapLimit(s.def.limit)):
		delta, wrapped = float64(uint32(v-oldV)), true
	default:
		delta = -1
	}
	switch rate := delta / seconds; {
	case delta < 0:
		n.Resets++
		return r.dropped(dst, m, "reset")
	case !(rate <= limit):
		n.Implausible++
		return r.dropped(dst, m, "implausible")
	default:
		n.Rates++
		if wrapped {
			n.Wraps++
		}
		dst = append(dst, kemi.Gauge(s.def.rate, m.Labels, m.Time, rate))
	}
	if r.deltas {
		dst = append(dst, kemi.Gauge(s.def.delta, m.Labels, m.Time, delta))
	}
	return dst
}

func (r *Rates) dropped(dst []kemi.Metric, m *kemi.Metric, reason string) []kemi.Metric {
	if !r.drops {
		return dst
	}
	l := m.Labels.Merge(kemi.Label{Name: "counter", Value: m.Name}, kemi.Label{Name: "reason", Value: reason})
	return append(dst, kemi.Gauge(DroppedMetric, l, m.Time, 1))
}
