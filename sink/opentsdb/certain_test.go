package opentsdb_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/opentsdb"
)

// speak answers each connection's first request with what say writes, and closes.
func speak(t *testing.T, say func(io.Writer)) (url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
					say(c)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestNothingIsTakenForYes gives answers with nothing in them, or hardly anything: only
// those that are known to be whole mean that the points are stored.
func TestNothingIsTakenForYes(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	blanks := strings.Repeat(" ", 200<<10)
	sized := func(body string) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", ok, len(body), body) }
	for _, c := range []struct {
		name   string
		answer string
		stored bool
	}{
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"length 0", sized(""), true},
		{"a line feed", sized("\r\n"), true},
		{"no chunks", ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
		{"closed after the headers", ok + "\r\n", false},
		{"closed after a line feed", ok + "\r\n\n", false},
		{"closed before the length is reached", ok + "Content-Length: 5\r\n\r\n ", false},
		{"closed before a chunk", ok + "Transfer-Encoding: chunked\r\n\r\n", false},
		{"closed in the last chunk", ok + "Transfer-Encoding: chunked\r\n\r\n1\r\n \r\n0\r\n", false},
		{"blanks", sized(blanks), false},
		{"blanks without end", ok + "\r\n" + strings.Repeat(blanks, 20), false},
		{"blanks, then failures", sized(blanks + `{"success":0,"failed":3,"errors":[]}`), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := speak(t, func(w io.Writer) { _, _ = io.WriteString(w, c.answer) })
			s := newSink(t, opentsdb.Config{URL: url, Timeout: time.Minute})
			batch := gauges(0, 3)
			err := s.Write(t.Context(), batch)
			if c.stored {
				if err != nil {
					t.Errorf("not taken for stored: %v", err)
				}
				return
			}
			fs := failures(t, err, batch)
			if len(fs) != 3 {
				t.Fatalf("%d of 3 points failed: %v", len(fs), err)
			}
			for _, e := range fs {
				if kemi.IsPermanent(e) {
					t.Errorf("refused for good: %v", e)
				}
			}
		})
	}
}
