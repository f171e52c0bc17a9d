package snmp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp/internal/codec"
)

// Profile says what to ask a kind of host for, and what metrics it makes. Jobs name
// profiles; several are asked for together. A profile is read-only once a poller has it.
type Profile struct {
	Name    string
	Scalars []Scalar
	Tables  []Table
	// Watch lists scalars which, when they change, mean that rows of tables may have
	// come or gone, such as ifNumber.
	Watch []string
}

// Scalar is a metric made of single objects.
type Scalar struct {
	Name   string
	Labels []kemi.Label // besides those of the host
	Kind   kemi.Kind
	// OIDs are those of the instances, with the .0. The metric is that of the first that
	// the agent has.
	OIDs  []string
	Scale float64 // what a gauge is multiplied by; 0: 1
	// NotNegative says that a gauge below 0 is nonsense: such a number is counted in
	// [Stats] and makes no metric. One that is infinite or no number never does.
	NotNegative bool
	// Needs, if not empty, is the OID of an object without which, or with 0 in it, there is
	// no metric: net-snmp sends zeros for what it has not measured yet, and a counter that
	// jumps from 0 to where it stands makes a false peak.
	Needs string
	// Gauge, if set, makes the number of all the OIDs instead; ok is false if there is
	// none. It is called with a value for each OID, absent ones among them.
	Gauge func(v []Value) (x float64, ok bool)
}

// Table is a set of columns with one index, of one or several tables of a MIB.
type Table struct {
	Columns []Column
	// Label is the name of the label that tells the rows apart, and Identity returns its
	// value, or "" to leave the row out. Rows with one name get "#" and their index
	// appended. Identity must depend on nothing that changes while the row is the same.
	Label    string
	Identity func(r *Row) string
	// IndexLabel, if not empty, is a label with the index.
	IndexLabel string
	// Metrics adds the metrics of one row.
	Metrics func(r *Row)
}

// Column is a column of a table.
type Column struct {
	OID string
	// Static says that the value is read when the rows are looked for, and not at each
	// poll.
	Static bool
	// Instead is the number of the column, counted from 1, that makes this one needless
	// in rows that have it; 0: none.
	Instead int
}

// Row is a row of a table in one poll. It is not to be kept.
type Row struct {
	index  string
	raw    string // what Identity said
	labels kemi.Labels
	values []Value
	asked  []bool // the columns that are read by themselves between walks
	hidden bool   // it is not certain that the row is still the same

	time     time.Time
	out      []kemi.Metric
	nonsense uint64 // numbers that made no metric
}

// At returns the value of a column, by its place in Columns.
func (r *Row) At(column int) Value { return r.values[column] }

// Index returns the index of the row: the sub-identifiers after the column, joined by
// dots.
func (r *Row) Index() string { return r.index }

// Gauge adds a gauge to the metrics of the row. A number that is infinite or none (NaN)
// is counted in [Stats] instead.
func (r *Row) Gauge(name string, v float64) {
	if !finite(v) {
		r.nonsense++
		return
	}
	r.out = append(r.out, kemi.Gauge(name, r.labels, r.time, v))
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// Counter adds a counter: one of 64 bits if it came as a Counter64, else one that wraps
// at 32 bits. Nothing is added for a value that is absent or no number.
func (r *Row) Counter(name string, v Value) {
	if !v.IsNumber() {
		return
	}
	if !finite(v.Float()) {
		r.nonsense++
		return
	}
	if v.Is64() {
		r.out = append(r.out, kemi.Counter(name, r.labels, r.time, v.Uint()))
		return
	}
	r.out = append(r.out, kemi.Counter32(name, r.labels, r.time, uint32(v.Uint())))
}

const oidSysUpTime = ".1.3.6.1.2.1.1.3.0"

// plan is what a set of profiles comes to. But for probes it is not changed any more.
type plan struct {
	oids    []string // of scalars, each once; the first is sysUpTime
	scalars []scalarPlan
	tables  []*tablePlan
	watch   []int // of oids

	mu     sync.Mutex
	probes map[*security][][]byte // the encoded requests for oids
}

// encoded returns the messages that ask for the scalars.
func (p *plan) encoded(s *security) [][]byte {
	if s.user != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m, ok := p.probes[s]
	if !ok {
		if p.probes == nil || len(p.probes) >= maxSecrets {
			p.probes = map[*security][][]byte{}
		}
		m = s.encode(p.oids)
		p.probes[s] = m
	}
	return m
}

type scalarPlan struct {
	Scalar
	from  []int // of oids
	needs int   // of oids; -1: nothing
}

type tablePlan struct {
	Table
	prefixes []string // of the columns, with a dot at both ends
}

func newPlan(profiles []Profile) *plan {
	p := &plan{oids: []string{oidSysUpTime}}
	at := map[string]int{oidSysUpTime: 0}
	ask := func(oid string) int {
		oid = dotted(oid)
		i, ok := at[oid]
		if !ok {
			i = len(p.oids)
			at[oid] = i
			p.oids = append(p.oids, oid)
		}
		return i
	}
	for _, f := range profiles {
		for _, s := range f.Scalars {
			sp := scalarPlan{Scalar: s, needs: -1}
			if s.Needs != "" {
				sp.needs = ask(s.Needs)
			}
			for _, oid := range s.OIDs {
				sp.from = append(sp.from, ask(oid))
			}
			if sp.Scale == 0 {
				sp.Scale = 1
			}
			p.scalars = append(p.scalars, sp)
		}
		for _, oid := range f.Watch {
			p.watch = append(p.watch, ask(oid))
		}
		for _, t := range f.Tables {
			tp := &tablePlan{Table: t}
			for _, c := range t.Columns {
				tp.prefixes = append(tp.prefixes, dotted(c.OID)+".")
			}
			p.tables = append(p.tables, tp)
		}
	}
	return p
}

// dotted returns an OID with a leading dot.
func dotted(oid string) string {
	if strings.HasPrefix(oid, ".") {
		return oid
	}
	return "." + oid
}

func checkProfile(f Profile) error {
	if f.Name == "" {
		return errors.New("a profile needs a name")
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("profile %q: "+format, append([]any{f.Name}, args...)...)
	}
	for _, oid := range f.Watch {
		if !isOID(oid) {
			return fail("watch %q is no OID in numbers", oid)
		}
	}
	for _, s := range f.Scalars {
		if s.Name == "" || len(s.OIDs) == 0 {
			return fail("a scalar needs a name and an OID: %q, %q", s.Name, s.OIDs)
		}
		if s.Kind.IsCounter() && (s.Gauge != nil || s.Scale != 0) {
			return fail("%s: a counter is taken as it is: no Gauge, no Scale", s.Name)
		}
		if s.Needs != "" && !isOID(s.Needs) {
			return fail("%s: %q is no OID in numbers", s.Name, s.Needs)
		}
		for _, oid := range s.OIDs {
			if !isOID(oid) {
				return fail("%s: %q is no OID in numbers", s.Name, oid)
			}
		}
	}
	for i, t := range f.Tables {
		if len(t.Columns) == 0 || t.Label == "" || t.Identity == nil || t.Metrics == nil {
			return fail("table %d needs columns, a label, Identity and Metrics", i)
		}
		for _, c := range t.Columns {
			if !isOID(c.OID) {
				return fail("%q is no OID in numbers", c.OID)
			}
			if c.Instead < 0 || c.Instead > len(t.Columns) {
				return fail("column %s: Instead is %d of %d columns", c.OID, c.Instead, len(t.Columns))
			}
		}
	}
	return nil
}

// isOID tells whether s can be sent as an OID.
func isOID(s string) bool {
	arcs := strings.Split(strings.TrimPrefix(s, "."), ".")
	for i, a := range arcs {
		n, err := strconv.ParseUint(a, 10, 32)
		if err != nil || i == 0 && n > 2 || i == 1 && arcs[0] != "2" && n > 39 {
			return false
		}
	}
	return len(arcs) >= 2 && len(arcs) <= 128
}

// less compares OIDs, or indexes, in order of their sub-identifiers.
func less(a, b string) bool {
	for {
		if b == "" {
			return false
		}
		if a == "" {
			return true
		}
		var x, y uint64
		x, a = arc(a)
		y, b = arc(b)
		if x != y {
			return x < y
		}
	}
}

// arc takes the first sub-identifier off s.
func arc(s string) (n uint64, rest string) {
	s = strings.TrimPrefix(s, ".")
	i := 0
	for i < len(s) && s[i] != '.' {
		n = n*10 + uint64(s[i]-'0')
		i++
	}
	return n, s[i:]
}

// metrics appends those of the scalars, and says how many numbers made none. labels has
// one set for each of them.
func (p *plan) metrics(dst []kemi.Metric, values []Value, labels []kemi.Labels, t time.Time) (_ []kemi.Metric, nonsense uint64) {
	var buf [16]Value
	for i := range p.scalars {
		s := &p.scalars[i]
		if s.needs >= 0 && values[s.needs].Float() == 0 {
			continue
		}
		if s.Gauge != nil {
			vs := buf[:0]
			for _, f := range s.from {
				vs = append(vs, values[f])
			}
			switch x, ok := s.Gauge(vs); {
			case !ok:
			case s.makesSense(x):
				dst = append(dst, kemi.Gauge(s.Name, labels[i], t, x))
			default:
				nonsense++
			}
			continue
		}
		n := slices.IndexFunc(s.from, func(f int) bool { return values[f].IsNumber() })
		if n < 0 {
			continue
		}
		v := values[s.from[n]]
		x := v.Float() * s.Scale
		if !s.makesSense(x) {
			nonsense++
			continue
		}
		switch s.Kind {
		case kemi.KindCounter:
			dst = append(dst, kemi.Counter(s.Name, labels[i], t, v.Uint()))
		case kemi.KindCounter32:
			dst = append(dst, kemi.Counter32(s.Name, labels[i], t, uint32(v.Uint())))
		case kemi.KindFloatCounter:
			dst = append(dst, kemi.FloatCounter(s.Name, labels[i], t, x))
		default:
			dst = append(dst, kemi.Gauge(s.Name, labels[i], t, x))
		}
	}
	return dst, nonsense
}

// makesSense tells whether x may be what the scalar says.
func (s *scalarPlan) makesSense(x float64) bool {
	return finite(x) && (x >= 0 || !s.NotNegative && s.Kind != kemi.KindFloatCounter)
}

var absent = Value{codec.Value{}}
