package snmp

import (
	"slices"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp/internal/codec"
)

// readTables reads every table: by its known rows, or by a walk where they are not known,
// may have changed, or turn out to have changed.
func (q *poll) readTables() reason {
	h := q.h
	set, all := h.rows, true
	for i := range h.tables {
		t := &h.tables[i]
		if t.expires.IsZero() || q.began.After(t.expires) {
			all = false
			continue
		}
		q.asked += len(t.reads) - len(q.plan.tables[i].Columns)
		for _, r := range t.rows {
			for c, asked := range r.asked {
				if asked {
					r.values[c] = absent
				}
			}
		}
	}
	if set == nil || !all {
		set = q.knownRows()
	}
	h.rows = nil
	if len(set.reads) > 0 {
		if why := q.readRows(set); why != none {
			return why
		}
	}
	for i := range h.tables {
		t := &h.tables[i]
		if t.expires.IsZero() || q.began.After(t.expires) {
			if why := q.walk(q.plan.tables[i], t); why != none {
				return why
			}
			all = false
		}
	}
	if all {
		h.rows = set
	}
	return none
}

// rowSet is what to ask for when the rows of the tables are known.
type rowSet struct {
	reads []read
	from  []int // the table of each
	oids  []string
	sent  [][]byte // the encoded requests, of version 2c
}

// knownRows makes the set of the tables that need no walk.
func (q *poll) knownRows() *rowSet {
	s := &rowSet{}
	for i := range q.h.tables {
		t := &q.h.tables[i]
		if t.expires.IsZero() || q.began.After(t.expires) {
			continue
		}
		s.reads = append(s.reads, t.reads...)
		for _, r := range t.reads {
			s.from, s.oids = append(s.from, i), append(s.oids, r.oid)
		}
	}
	s.sent = q.sec.encode(s.oids)
	return s
}

// readRows asks for values of known rows. A table with a row that has gone, or that has
// become another one, is marked to be walked.
func (q *poll) readRows(set *rowSet) reason {
	h, reads, from := q.h, set.reads, set.from
	changed := make([]bool, len(h.tables))
	why := q.get(set.oids, set.sent, func(i int, v Value) {
		reads[i].row.values[reads[i].column] = v
		changed[from[i]] = changed[from[i]] || !v.OK()
	})
	for i := range h.tables {
		t := &h.tables[i]
		if len(t.reads) == 0 || t.expires.IsZero() {
			continue
		}
		t.fresh = true
		for _, r := range t.rows {
			// That a name is another one may only mean that it was not answered. The row is
			// not given out under a name that is not certain in either case.
			r.hidden = q.plan.tables[i].Identity(r) != r.raw
			changed[i] = changed[i] || r.hidden
		}
		if changed[i] {
			t.expires = time.Time{}
			if why == none {
				q.asked += len(q.plan.tables[i].Columns) // of the walk that follows
			}
		}
	}
	return why
}

// column is where a walk of one column has got to.
type column struct {
	n    int // in the table
	last string
	done bool
	bad  bool
}

// walk reads a whole table with GETBULK over several columns at once and remembers its
// rows. Whatever goes wrong with a column ends that column alone, is counted, and
// leaves what came before. The return value is a reason to end the conversation.
func (q *poll) walk(tp *tablePlan, t *tableState) reason {
	q.p.count.walks.Add(1)
	old := t.rows
	q.h.rows = nil
	*t = tableState{}
	columns := make([]column, len(tp.Columns))
	for i := range columns {
		columns[i] = column{n: i, last: strings.TrimSuffix(tp.prefixes[i], ".")}
	}
	rows := map[string]*Row{}
	why := q.walkColumns(tp, columns, rows)
	bad := false
	for i := range columns {
		c := &columns[i]
		if c.done && !c.bad {
			q.got++
			continue
		}
		bad = true
		if c.done {
			continue
		}
		// The conversation ended before this column did: what lies behind it may lack the
		// very value that makes its name.
		for index := range rows {
			if less(c.last, tp.prefixes[i]+index) {
				delete(rows, index)
			}
		}
	}
	t.fresh = true
	t.rows = make([]*Row, 0, len(rows))
	for _, r := range rows {
		t.rows = append(t.rows, r)
	}
	slices.SortFunc(t.rows, func(a, b *Row) int {
		if less(a.index, b.index) {
			return -1
		}
		return 1
	})
	q.name(tp, t, old)
	if !bad {
		t.expires = q.began.Add(jitter(rowsFor))
	}
	return why
}

func (q *poll) walkColumns(tp *tablePlan, columns []column, rows map[string]*Row) reason {
	h, p := q.h, q.p
	var active []*column
	var oids []string
	reps := 0
	for requests := 0; ; requests++ {
		active, oids = active[:0], oids[:0]
		for i := range columns {
			if c := &columns[i]; !c.done && len(active) < h.maxBinds {
				active, oids = append(active, c), append(oids, c.last)
			}
		}
		if len(active) == 0 {
			return none
		}
		if requests > p.cfg.MaxRows+len(columns) {
			p.count.endless.Add(1)
			q.fail(truncated)
			return none
		}
		n := len(active)
		reps = min(max(h.maxBinds/n, 1), 50)
		a, why := q.ask(codec.Request{Op: codec.GetBulk, OIDs: oids, MaxRepetitions: uint32(reps)}, nil, func(a *codec.Answer) bool {
			return len(a.Binds) > 0 && len(a.Binds) <= n*reps
		})
		switch {
		case why != none:
			if why == timedOut && n*reps > defaultBinds/4 {
				h.shrink(n*reps, q.began)
			}
			return why
		case a.Status == codec.TooBig && n*reps > 1:
			p.count.tooBig.Add(1)
			h.shrink(n*reps, q.began)
			continue
		case a.Status == codec.NotAllowed:
			return badAuth
		case a.Status != 0:
			p.count.errorStatus.Add(1)
			q.fail(errorStatus)
			for i, c := range active {
				if a.Index == i+1 || a.Index < 1 || a.Index > n {
					c.done, c.bad = true, true
				}
			}
			continue
		}
		// Of a short answer the first columns have moved on; the others are asked again.
		endless := false
		for i := range a.Binds {
			if c := active[i%n]; !c.done && !q.takeBind(tp, c, &a.Binds[i], rows) {
				endless = true
			}
		}
		if endless {
			p.count.endless.Add(1)
			q.fail(truncated)
			for i := range columns {
				if c := &columns[i]; !c.done {
					c.done, c.bad = true, true
				}
			}
		}
	}
}

// takeBind puts one variable of a walk where it belongs. It returns false if there are
// too many rows.
func (q *poll) takeBind(tp *tablePlan, c *column, b *codec.Bind, rows map[string]*Row) bool {
	index, in := strings.CutPrefix(b.OID, tp.prefixes[c.n])
	switch {
	case b.Value.Type == codec.EndOfView || !in || index == "":
		c.done = true
		return true
	case !less(c.last, b.OID):
		q.p.count.loops.Add(1)
		q.fail(truncated)
		c.done, c.bad = true, true
		return true
	}
	c.last = b.OID
	r := rows[index]
	if r == nil {
		if len(rows) >= q.p.cfg.MaxRows {
			return false
		}
		r = &Row{index: index, values: make([]Value, len(tp.Columns)), asked: make([]bool, len(tp.Columns))}
		rows[index] = r
	}
	r.values[c.n] = Value{b.Value}
	if r.values[c.n].tooLong() {
		q.p.count.cut.Add(1)
	}
	return true
}

// name gives the rows of a table their names and labels, leaves out those without, and
// makes the list of what to ask for between walks. old are the rows of the walk
// before, whose labels are used again.
func (q *poll) name(tp *tablePlan, t *tableState, old []*Row) {
	h := q.h
	known := make(map[string]*Row, len(old))
	for _, r := range old {
		known[r.index] = r
	}
	times := map[string]int{}
	t.rows = slices.DeleteFunc(t.rows, func(r *Row) bool {
		r.raw = tp.Identity(r)
		times[r.raw]++
		return r.raw == ""
	})
	for _, r := range t.rows {
		name := r.raw
		if times[name] > 1 {
			name += "#" + r.index
		}
		if o := known[r.index]; o != nil && o.labels.Get(tp.Label) == name {
			r.labels = o.labels
		} else {
			extra := []kemi.Label{{Name: tp.Label, Value: name}}
			if tp.IndexLabel != "" {
				extra = append(extra, kemi.Label{Name: tp.IndexLabel, Value: r.index})
			}
			r.labels = h.labels.Merge(extra...)
		}
		for c, col := range tp.Columns {
			if col.Static || !r.values[c].OK() || col.Instead > 0 && r.values[col.Instead-1].OK() {
				continue
			}
			r.asked[c] = true
			t.reads = append(t.reads, read{r, c, tp.prefixes[c] + r.index})
		}
	}
}

// tableMetrics appends the metrics of every row of table i.
func (q *poll) tableMetrics(dst []kemi.Metric, i int, t time.Time) []kemi.Metric {
	if !q.h.tables[i].fresh {
		return dst
	}
	for _, r := range q.h.tables[i].rows {
		if r.hidden {
			continue
		}
		r.time, r.out, r.nonsense = t, dst, 0
		q.plan.tables[i].Metrics(r)
		dst, r.out = r.out, nil
		q.p.count.nonsense.Add(r.nonsense)
	}
	return dst
}
