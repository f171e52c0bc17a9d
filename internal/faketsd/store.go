package faketsd

import (
	"math"
	"net/http"
	"strings"
	"time"
)

// flushRPCs is how many buffered writes the HBase client sends without waiting for
// its flush interval.
const flushRPCs = 1024

// store is HBase, and the memory of the server in front of it.
type store struct {
	uids  [3]map[string]string // metric, tagk, tagv: ISO-8859-1 name -> the name that came first
	rows  map[string]map[int64][]Point
	tags  map[string]Point // the first of each series
	order []place
	queue []*write
	timer *time.Timer
	down  chan struct{} // closed when HBase is back; nil: it is there

	retain    time.Duration // 0: for ever
	maxPoints int           // 0: no bound
	newest    int64         // ms
}

// place is one second of one series.
type place struct {
	series string
	at     int64
}

// write is one point on its way to HBase.
type write struct {
	point Point
	echo  *echo
	err   error
	done  chan struct{} // closed when HBase has it or has refused it
}

func (st *store) init() {
	for i := range st.uids {
		st.uids[i] = map[string]string{}
	}
	st.rows, st.tags = map[string]map[int64][]Point{}, map[string]Point{}
}

func (st *store) setDown(down bool) {
	switch {
	case down && st.down == nil:
		st.down = make(chan struct{})
	case !down && st.down != nil:
		close(st.down)
		st.down = nil
	}
}

// drop forgets what is not in HBase.
func (st *store) drop() {
	st.queue = nil
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
}

const (
	uidMetric = iota
	uidTagk
	uidTagv
)

// latin1 is what a name is stored as.
func latin1(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > 0xff {
			r = '?'
		}
		b.WriteByte(byte(r))
	}
	return b.String()
}

// add is TSDB.addPoint: it puts a point into the buffer, or gives the error text. It
// blocks, with the I/O thread, while a new name cannot be assigned.
func (s *Server) add(r *http.Request, p *echo) (*write, string) {
	enc, message := s.check(p)
	if message != "" {
		return nil, message
	}
	type named struct {
		kind int
		name string
	}
	names := []named{{uidMetric, *p.Metric}}
	for _, k := range sortedKeys(p.Tags) {
		names = append(names, named{uidTagk, k}, named{uidTagv, *p.Tags[k]})
	}
	mine := r.Context().Value(connKey{}).(connOf).life
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		key := latin1(n.name)
		first, known := s.store.uids[n.kind][key]
		for !known && s.store.down != nil {
			back := s.store.down
			s.mu.Unlock()
			select {
			case <-back:
			case <-r.Context().Done():
				s.mu.Lock()
				panic(http.ErrAbortHandler)
			}
			s.mu.Lock()
			first, known = s.store.uids[n.kind][key]
		}
		switch {
		case !known && n.kind == uidMetric && !s.cfg.AutoCreateMetrics:
			return nil, "Unknown metric"
		case !known:
			s.store.uids[n.kind][key] = n.name
		case first != n.name:
			return nil, "Unexpected exception"
		}
	}
	if s.life != mine { // killed meanwhile
		panic(http.ErrAbortHandler)
	}
	if s.throt {
		return nil, "Please throttle"
	}
	tags := make(map[string]string, len(p.Tags))
	for k, v := range p.Tags {
		tags[k] = *v
	}
	w := &write{
		point: Point{Metric: *p.Metric, Tags: tags, Timestamp: p.Timestamp, Value: *p.Value, Float: enc.float, encoding: enc},
		echo:  p,
		done:  make(chan struct{}),
	}
	s.store.queue = append(s.store.queue, w)
	if len(s.store.queue) >= flushRPCs {
		s.flush()
	} else if s.store.timer == nil {
		s.store.timer = time.AfterFunc(s.cfg.FlushInterval, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.flush()
		})
	}
	return w, ""
}

// AssignMetric makes a metric known, as "tsdb mkmetric" does.
func (s *Server) AssignMetric(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.uids[uidMetric][latin1(name)] = name
}

// flush sends the buffer to HBase. The lock is held.
func (s *Server) flush() {
	st := &s.store
	if st.timer != nil {
		st.timer.Stop()
		st.timer = nil
	}
	if st.down != nil {
		return
	}
	queue := st.queue
	st.queue = nil
	for _, w := range queue {
		if s.storage != nil {
			w.err = s.storage(w.point)
		}
		if w.err == nil {
			st.put(w.point)
		}
		close(w.done)
	}
}

// put stores a cell. One of the same encoding is overwritten.
func (st *store) put(p Point) {
	at := place{seriesOf(p), milliseconds(p.Timestamp)}
	row := st.rows[at.series]
	if row == nil {
		row = map[int64][]Point{}
		st.rows[at.series] = row
		st.tags[at.series] = p
	}
	// The points of a series share its names.
	p.Metric, p.Tags = st.tags[at.series].Metric, st.tags[at.series].Tags
	cells := row[at.at]
	if len(cells) == 0 {
		st.order = append(st.order, at)
	}
	for i := range cells {
		if cells[i].encoding == p.encoding && cells[i].Timestamp == p.Timestamp {
			cells[i] = p
			return
		}
	}
	row[at.at] = append(cells, p)
	st.newest = max(st.newest, at.at)
	st.forget()
}

// forget drops the oldest arrivals that are beyond the retention.
func (st *store) forget() {
	oldest := int64(math.MinInt64)
	if st.retain > 0 {
		oldest = st.newest - st.retain.Milliseconds()
	}
	for len(st.order) > 0 && (st.order[0].at < oldest || st.maxPoints > 0 && len(st.order) > st.maxPoints) {
		gone := st.order[0]
		st.order = st.order[1:]
		delete(st.rows[gone.series], gone.at)
		if len(st.rows[gone.series]) == 0 {
			delete(st.rows, gone.series)
			delete(st.tags, gone.series)
		}
	}
}

func milliseconds(t int64) int64 {
	if t>>32 != 0 {
		return t
	}
	return t * 1000
}

func seriesOf(p Point) string {
	var b strings.Builder
	b.WriteString(p.Metric)
	for _, k := range sortedKeys(p.Tags) {
		b.WriteString(" " + k + "=" + p.Tags[k])
	}
	return b.String()
}

func (st *store) points() []Point {
	out := make([]Point, 0, len(st.order))
	for _, at := range st.order {
		cells := st.rows[at.series][at.at]
		out = append(out, cells[len(cells)-1])
	}
	return out
}
