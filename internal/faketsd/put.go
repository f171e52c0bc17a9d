package faketsd

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// detail is one entry of the errors that ?details asks for.
type detail struct {
	Datapoint *echo  `json:"datapoint"`
	Error     string `json:"error"`
}

type summary struct {
	Success  int       `json:"success"`
	Timeouts *int      `json:"timeouts,omitempty"`
	Failed   int       `json:"failed"`
	Errors   *[]detail `json:"errors,omitempty"`
}

// put is PutDataPointRpc. free gives the I/O thread back.
func (s *Server) put(w http.ResponseWriter, r *http.Request, body []byte, free func()) {
	if r.Method != http.MethodPost {
		s.refuse(w, r, http.StatusMethodNotAllowed, "Method not allowed",
			"The HTTP method ["+r.Method+"] is not permitted for this endpoint")
		return
	}
	f := s.nextFault()
	if f.Delay > 0 {
		free()
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		for k, v := range f.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(f.Body))
		return
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		s.refuse(w, r, http.StatusBadRequest, "Missing request content", "")
		return
	}
	points, message := parse(body)
	if message != "" {
		s.refuse(w, r, http.StatusBadRequest, message, "")
		return
	}
	if len(points) == 0 {
		s.refuse(w, r, http.StatusBadRequest, "No datapoints found in content", "")
		return
	}

	q := r.URL.Query()
	limit := time.Duration(0)
	if q.Has("sync_timeout") {
		ms, err := strconv.Atoi(q.Get("sync_timeout"))
		if err != nil {
			s.refuse(w, r, http.StatusInternalServerError, "For input string: "+strconv.Quote(q.Get("sync_timeout")), "")
			return
		}
		limit = time.Duration(ms) * time.Millisecond
	}
	errs := []detail{}
	var queued []*write
	for _, p := range points {
		if p == nil {
			errs = append(errs, detail{nil, "Unexpected null datapoint encountered in set."})
			continue
		}
		wr, message := s.add(r, p)
		if message != "" {
			errs = append(errs, detail{p, message})
			continue
		}
		queued = append(queued, wr)
	}
	free()

	answer := summary{Success: len(queued), Failed: len(points) - len(queued)}
	code := http.StatusOK
	if answer.Failed > 0 {
		code = http.StatusBadRequest
	}
	if f.Cut {
		s.mu.Lock()
		s.flush()
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	if q.Has("sync") {
		var late int
		answer.Success = 0
		errs, late = s.wait(r, points, queued, limit, &answer, errs)
		if late > 0 {
			code = http.StatusBadRequest
		}
		if limit > 0 {
			answer.Timeouts = &late
		}
	}
	switch {
	case q.Has("details"):
		answer.Errors = &errs
		s.reply(w, r, code, answer)
	case q.Has("summary"):
		s.reply(w, r, code, answer)
	case answer.Failed > 0 || answer.Timeouts != nil && *answer.Timeouts > 0:
		s.refuse(w, r, http.StatusBadRequest, "One or more data points had errors",
			`Please see the TSD logs or append "details" to the put request`)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// wait waits for the writes of a synchronous put.
func (s *Server) wait(r *http.Request, points []*echo, queued []*write, limit time.Duration, answer *summary, errs []detail) ([]detail, int) {
	var timeout <-chan time.Time
	if limit > 0 {
		timeout = time.After(limit)
	}
	expired := false
	late := 0
	for i, wr := range queued {
		if !expired {
			select {
			case <-wr.done:
			case <-timeout:
				expired = true
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		select {
		case <-wr.done:
			if wr.err != nil {
				answer.Failed++
				errs = append(errs, detail{wr.echo, "Storage exception: " + wr.err.Error()})
			} else {
				answer.Success++
			}
		default:
			late++
			// The index of the write is used as the index of the point, as the real one does:
			// after a refused point the wrong one is named.
			errs = append(errs, detail{points[i], "Write timedout"})
		}
	}
	return errs, late
}

func (s *Server) nextFault() Fault {
	n := int(s.puts.Add(1) - 1)
	s.mu.Lock()
	next := s.faults
	s.mu.Unlock()
	if next == nil {
		return Fault{}
	}
	return next(n)
}
