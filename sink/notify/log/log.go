// Package log writes alerts as lines of JSON, for a file, a terminal, or whatever
// collects a program's output.
package log

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/kemi-go/kemi"
)

// Sink writes alerts to a writer. Make one with [New].
type Sink struct {
	mu   sync.Mutex
	w    io.Writer
	buf  bytes.Buffer
	ends []int // of the lines in buf
	torn bool  // the last thing written is a part of a line
}

var _ kemi.Sink[kemi.Alert] = (*Sink)(nil)

// New returns a sink that writes each alert, in any state, as one line of JSON: what
// [kemi.Alert] marshals to. A batch is one call of w.Write, and calls do not overlap.
// The alerts are as safe as w makes them before its Write returns; a Write that
// blocks is not cut off. The caller closes w, after the pipeline has ended.
func New(w io.Writer) *Sink { return &Sink{w: w} }

// String returns notify/log.
func (s *Sink) String() string { return "notify/log" }

// Write writes the alerts of batch. If w takes a part only, the alerts whose lines it
// took whole are safe, and the line that was torn is ended before the next is written,
// so that the lines after it are whole. If w takes everything and answers an error all
// the same, none is safe.
func (s *Sink) Write(ctx context.Context, batch []kemi.Alert) error {
	if len(batch) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Reset()
	s.ends = s.ends[:0]
	if s.torn {
		s.buf.WriteByte('\n')
	}
	var failed []kemi.Failure
	for i := range batch {
		line, err := json.Marshal(batch[i])
		if err != nil {
			failed = append(failed, kemi.Failure{Index: i, Err: kemi.Permanent(fmt.Errorf("notify/log: alert of rule %q: %w", batch[i].Rule, err))})
		} else {
			s.buf.Write(line)
			s.buf.WriteByte('\n')
		}
		s.ends = append(s.ends, s.buf.Len())
	}
	n, err := s.w.Write(s.buf.Bytes())
	n = min(n, s.buf.Len())
	if err == nil && n < s.buf.Len() {
		err = io.ErrShortWrite
	}
	if n > 0 {
		s.torn = s.buf.Bytes()[n-1] != '\n'
	}
	if err != nil {
		if n == s.buf.Len() {
			n = 0 // it took all, and then something was wrong with it
		}
		err = fmt.Errorf("notify/log: %w", err)
		for i, end := range s.ends {
			if end > n {
				failed = append(failed, kemi.Failure{Index: i, Err: err})
			}
		}
	}
	return kemi.Partial(batch, failed...)
}
