package faketsd

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// notChunkable is the largest body that Netty's decoder hands on in one piece.
const notChunkable = 8192

// html is the page of the real server around an error text, cut to what matters.
const html = `<!DOCTYPE html><html><head><meta http-equiv=content-type content="text/html;charset=utf-8"><title>Bad Request</title>` +
	`</head><body><h1>Bad Request</h1>Sorry but your request was rejected as being invalid.<br/><br/>The reason provided was:` +
	`<blockquote>Chunked request not supported.</blockquote></body></html>`

// read reads the body as Netty would, or answers itself.
func (s *Server) read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	chunked := r.ContentLength < 0 || r.ContentLength > notChunkable
	if chunked && !s.cfg.EnableChunked {
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, html)
		return nil, false
	}
	limit := notChunkable
	if chunked {
		limit = s.cfg.MaxChunk
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	if err != nil || len(body) > limit {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	if strings.HasSuffix(r.URL.Path, "/put") {
		s.mu.Lock()
		if s.cfg.Retain == 0 { // else it is no test
			s.wire = append(s.wire, len(body))
		}
		s.mu.Unlock()
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if body, err = io.ReadAll(z); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	return body, true
}

type fault struct {
	Error faultBody `json:"error"`
}

type faultBody struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Details string `json:"details,omitempty"`
	Trace   string `json:"trace,omitempty"`
}

// refuse answers an error with a stack trace of the length that the real one has.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, code int, message, details string) {
	trace := "net.opentsdb.tsd.BadRequestException: " + message +
		strings.Repeat("\n\tat net.opentsdb.tsd.PutDataPointRpc.execute(PutDataPointRpc.java:279) ~[opentsdb-2.4.1.jar:na]", 70)
	s.reply(w, r, code, fault{faultBody{code, message, details, trace}})
}

func (s *Server) reply(w http.ResponseWriter, r *http.Request, code int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	out := io.Writer(w)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer func() { _ = z.Close() }()
		out = z
	}
	w.WriteHeader(code)
	_, _ = out.Write(bytes.TrimSpace(b.Bytes()))
}
