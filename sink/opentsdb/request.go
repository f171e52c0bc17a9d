package opentsdb

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"

	"github.com/kemi-go/kemi/internal/reply"
)

// body makes the body of a request of points with commas between. It is not used
// again: the HTTP client may go on reading it after its call has returned.
func (s *Sink) body(points []byte) []byte {
	if s.cfg.Plain {
		b := make([]byte, 0, len(points)+2)
		b = append(b, '[')
		b = append(b, points...)
		return append(b, ']')
	}
	z, _ := s.zippers.Get().(*zipper)
	if z == nil {
		z = &zipper{}
		z.Writer, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a valid one
	}
	z.out.Reset()
	z.Reset(&z.out)
	// A buffer takes everything, so none of these fails.
	_, _ = io.WriteString(z, "[")
	_, _ = z.Write(points)
	_, _ = io.WriteString(z, "]")
	_ = z.Close()
	b := bytes.Clone(z.out.Bytes())
	s.zippers.Put(z)
	now := int64(len(b)) * 1000 / int64(len(points))
	s.ratio.Store((s.ratio.Load()*3 + now + 3) / 4)
	return b
}

// zipper is a gzip.Writer and its output, both used again.
type zipper struct {
	*gzip.Writer
	out bytes.Buffer
}

// post sends the body of n points, which took size bytes as JSON, and reads the
// answer.
func (s *Sink) post(ctx context.Context, body []byte, size, n int) answer {
	select {
	case s.seats <- struct{}{}:
		defer func() { <-s.seats }()
	case <-ctx.Done():
		return answer{err: fmt.Errorf("%s: %w", s.name, context.Cause(ctx))}
	}
	own, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	resp, err := s.do(own, body)
	if err == nil {
		a := s.read(resp, size, n)
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // to the end, or the connection is not used again
		_ = resp.Body.Close()
		if a.err == nil || own.Err() == nil {
			return a
		}
		err = a.err
	}
	switch {
	case ctx.Err() != nil:
		return answer{err: fmt.Errorf("%s: %w", s.name, context.Cause(ctx))}
	case own.Err() != nil:
		// The other connections may hang on the same thread of the server as this one:
		// the next try gets a new one.
		s.transport.CloseIdleConnections()
		return answer{err: fmt.Errorf("%s: no answer within %v: is its HBase up?", s.name, s.cfg.Timeout)}
	}
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	return answer{err: fmt.Errorf("%s: %w", s.name, err), closed: closed}
}

func (s *Sink) do(ctx context.Context, body []byte) (*http.Response, error) {
	// A bytes.Reader has a length, and OpenTSDB as it comes takes no chunks.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.put, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the request cannot be made") // the text would have the URL in it
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "kemi")
	// A put may be repeated: that lets the HTTP client try again when it chose a
	// connection that the server was closing. The header itself is not sent.
	h["Idempotency-Key"] = nil
	if !s.cfg.Plain {
		h.Set("Content-Encoding", "gzip")
	}
	if s.user != nil {
		password, _ := s.user.Password()
		req.SetBasicAuth(s.user.Username(), password)
	}
	if s.cfg.Authorize != nil {
		if err := s.cfg.Authorize(req); err != nil {
			return nil, fmt.Errorf("Config.Authorize: %w", err)
		}
	}
	s.requests.Add(1)
	s.bytes.Add(uint64(len(body)))
	// The transport follows no redirects, with which a POST would arrive as a GET.
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, s.secretsOf(req).Error(err)
	}
	return resp, nil
}

// secretsOf lists what a server must not make an error show.
func (s *Sink) secretsOf(req *http.Request) reply.Secrets {
	return reply.SecretsOf(req.Header, s.query)
}
