package faketsd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

type series struct {
	Metric string                     `json:"metric"`
	Tags   map[string]string          `json:"tags"`
	Agg    []string                   `json:"aggregateTags"`
	Dps    map[string]json.RawMessage `json:"dps"`
}

// query answers GET /api/query?start=S&end=E&m=none:metric{tag=value,…}. Times are
// Unix seconds or milliseconds, or such as 5m-ago; ms=true gives the answer in
// milliseconds.
func (s *Server) query(w http.ResponseWriter, r *http.Request, free func()) {
	s.mu.Lock()
	down := s.store.down
	s.mu.Unlock()
	if down != nil {
		free()
		select {
		case <-down:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	q := r.URL.Query()
	if !q.Has("start") {
		s.refuse(w, r, http.StatusBadRequest, "Missing parameter <code>start</code>", "")
		return
	}
	now := time.Now()
	start, err := parseTime(q.Get("start"), now)
	end := now.UnixMilli()
	if err == nil && q.Has("end") {
		end, err = parseTime(q.Get("end"), now)
	}
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, "Unable to parse time", "")
		return
	}
	metric, found := strings.CutPrefix(q.Get("m"), "none:")
	if !found {
		s.refuse(w, r, http.StatusBadRequest, "No such aggregation function: this fake has none only", "")
		return
	}
	want := map[string]string{}
	if m, rest, ok := strings.Cut(metric, "{"); ok {
		metric = m
		for kv := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), ",") {
			k, v, _ := strings.Cut(kv, "=")
			want[k] = v
		}
	}
	code, answer := s.find(metric, want, milliseconds(start), milliseconds(end), q.Has("ms"))
	if text, failed := answer.(string); failed {
		s.refuse(w, r, code, text, text)
		return
	}
	s.reply(w, r, code, answer)
}

func (s *Server) find(metric string, want map[string]string, start, end int64, ms bool) (int, any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.store.uids[uidMetric][latin1(metric)]; !ok {
		return http.StatusBadRequest, fmt.Sprintf("No such name for 'metrics': '%s'", metric)
	}
	for k, v := range want {
		if _, ok := s.store.uids[uidTagk][latin1(k)]; !ok {
			return http.StatusBadRequest, fmt.Sprintf("No such name for 'tagk': '%s'", k)
		}
		if _, ok := s.store.uids[uidTagv][latin1(v)]; !ok && v != "*" {
			return http.StatusBadRequest, fmt.Sprintf("No such name for 'tagv': '%s'", v)
		}
	}
	out := []*series{}
	byName := map[string]*series{}
	for _, at := range s.store.order {
		cells := s.store.rows[at.series][at.at]
		p := cells[len(cells)-1]
		if p.Metric != metric || at.at < start || at.at > end || !matches(p.Tags, want) {
			continue
		}
		if len(cells) > 1 && !s.cfg.FixDuplicates {
			return http.StatusBadRequest, fmt.Sprintf("Duplicate timestamp for key=[], ms_offset=%d, older=[], newer=[]; "+
				"set tsd.storage.fix_duplicates=true to fix automatically or run Fsck", at.at)
		}
		o := byName[at.series]
		if o == nil {
			o = &series{p.Metric, p.Tags, []string{}, map[string]json.RawMessage{}}
			byName[at.series] = o
			out = append(out, o)
		}
		key := at.at / 1000
		if ms {
			key = at.at
		}
		o.Dps[strconv.FormatInt(key, 10)] = json.RawMessage(strings.TrimPrefix(p.Value, "+"))
	}
	return http.StatusOK, out
}

func parseTime(s string, now time.Time) (int64, error) {
	if ago, ok := strings.CutSuffix(s, "-ago"); ok {
		d, err := time.ParseDuration(ago)
		return now.Add(-d).Unix(), err
	}
	return strconv.ParseInt(s, 10, 64)
}

func matches(tags, want map[string]string) bool {
	for k, v := range want {
		if got, ok := tags[k]; !ok || v != "*" && v != got {
			return false
		}
	}
	return true
}
