// Package faketsd is an OpenTSDB for tests. It is strict: it answers as a real
// OpenTSDB 2.4.1 on HBase 2.6 was seen to answer, with the same texts, and it loses
// what the real one loses.
//
// What it does, and where that was seen ("seen": tried on the real server; "source":
// read in PutDataPointRpc, IncomingDataPoint, Tags, TSDB and PipelineFactory of 2.4.1):
//
//   - Only POST to /api/put is taken, else 405 (seen). The content type is not looked at (seen).
//   - A body of more than 8192 bytes, or one sent in chunks, is a 400 in HTML, "Chunked
//     request not supported.", unless Config.EnableChunked (seen: 8192 passes, 8193 fails).
//     With EnableChunked such a body may have Config.MaxChunk bytes; one byte more and the
//     connection is closed without an answer (seen: with max_chunk 4096 a body of 8192 passes
//     all the same, one of 8193 is cut off). The bytes count as they travel, compressed (seen).
//   - A body said to be gzip that is not gets its connection closed (seen).
//   - The flags details, summary, sync count when they are present, with any value
//     (source); sync_timeout is in milliseconds, and one that is no number is a 500 (seen).
//   - One bad point does not stop the others: the good ones are stored, though the
//     status is 400 (seen). Failures of the storage alone leave the status at 200 (source).
//   - Each error text is the real one, for metric, timestamp, value, tags, number of
//     tags, characters, and unknown names (seen, but for "Please throttle" and "Storage
//     exception", which are from the source).
//   - "Write timedout" names the wrong point when points before it were refused: the
//     server counts its writes, not the points (seen). The point is stored later all the same (seen).
//   - Names are kept as ISO-8859-1. A letter outside it becomes '?'; a second name that
//     becomes the same is an "Unexpected exception" for ever (seen).
//   - Without sync an answer only says that the point is in memory; a Kill within the
//     flush interval loses it, a Close does not (seen).
//   - While HBase is away, sync without a time limit hangs; a point with a new name hangs
//     and takes one of the four I/O threads with it, and every connection of that
//     thread hangs too, for /api/version as well (seen).
//   - Integers are stored in 1, 2, 4 or 8 bytes and floats in 8; two encodings in one
//     second of a series fail the query of that series, unless Config.FixDuplicates (seen).
//   - Answers are compressed when the client asks for it (source).
//
// It has no telnet side, no aggregators but none, and no downsampling.
package faketsd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config is the configuration of a server, after the settings of the real one. The
// zero value is the real default, but for the name of the host.
type Config struct {
	EnableChunked     bool                   // tsd.http.request.enable_chunked
	MaxChunk          int                    // tsd.http.request.max_chunk; 0: 4096
	MaxTags           int                    // tsd.storage.max_tags; 0: 8
	AutoCreateMetrics bool                   // tsd.core.auto_create_metrics
	AllowSpecialChars string                 // tsd.core.tag.allow_specialchars
	FixDuplicates     bool                   // tsd.storage.fix_duplicates
	FlushInterval     time.Duration          // hbase.rpcs.buffered_flush_interval; 0: 1 s
	Header            func(http.Header) bool // a proxy in front: false is a 401
	Retain            time.Duration          // how long points are kept; 0: for ever, as the real one does
	MaxPoints         int                    // how many are kept, the oldest going first; 0: no bound
}

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	cfg  Config
	addr string

	puts  atomic.Int64
	conns atomic.Int64 // accepted, to share them among threads

	mu      sync.Mutex
	life    *life // nil: not running
	faults  func(n int) Fault
	storage func(Point) error
	throt   bool
	store   store
	wire    []int // sizes of the put bodies, as they travelled
}

// life is one life of the process, from a start to a Kill or Close.
type life struct {
	http    *http.Server
	served  chan struct{}
	threads [4]chan struct{} // the I/O threads; holding the token is running on one
}

// Start starts a server on a free port of 127.0.0.1.
func Start(cfg Config) (*Server, error) {
	if cfg.MaxChunk == 0 {
		cfg.MaxChunk = 4096
	}
	if cfg.MaxTags == 0 {
		cfg.MaxTags = 8
	}
	if cfg.FlushInterval == 0 {
		cfg.FlushInterval = time.Second
	}
	s := &Server{cfg: cfg, addr: "127.0.0.1:0"}
	s.store.init()
	s.store.retain, s.store.maxPoints = cfg.Retain, cfg.MaxPoints
	if err := s.Restart(); err != nil {
		return nil, err
	}
	return s, nil
}

// URL returns the address, such as http://127.0.0.1:4242.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr
}

// connKey finds the connOf of a connection: the life it belongs to and its I/O thread.
type connKey struct{}

type connOf struct {
	life   *life
	thread chan struct{}
}

// Restart starts the server again on the same port, after a Kill or Close. What
// HBase had is there again.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.addr)
	// Meanwhile the port may have become that of another program for a while.
	for end := time.Now().Add(time.Minute); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		ln, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.addr)
	}
	if err != nil {
		return err
	}
	s.addr = ln.Addr().String()
	l := &life{served: make(chan struct{})}
	for i := range l.threads {
		l.threads[i] = make(chan struct{}, 1)
	}
	l.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			n := s.conns.Add(1) - 1
			return context.WithValue(ctx, connKey{}, connOf{l, l.threads[int(n)%len(l.threads)]})
		},
	}
	go func() {
		defer close(l.served)
		_ = l.http.Serve(ln)
	}()
	s.life = l
	return nil
}

// Kill ends the server as kill -9 does: connections break, and what was not flushed
// to HBase is lost.
func (s *Server) Kill() { s.end((*store).drop) }

// Close ends the server as SIGTERM does: what is in memory is flushed first.
func (s *Server) Close() { s.end(func(*store) { s.flush() }) }

// end ends this life. Nothing is added to the store after last.
func (s *Server) end(last func(*store)) {
	s.mu.Lock()
	l := s.life
	s.life = nil
	last(&s.store)
	s.mu.Unlock()
	if l != nil {
		_ = l.http.Close()
		<-l.served
	}
}

// HBaseDown takes HBase away, or gives it back.
func (s *Server) HBaseDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.setDown(down)
	if !down {
		s.flush()
	}
}

// Throttle makes every point fail with "Please throttle", which is what OpenTSDB
// says when too much of it waits for HBase.
func (s *Server) Throttle(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.throt = on
}

// FailStorage makes the points for which fn gives an error fail in the storage,
// after they were accepted. nil ends it.
func (s *Server) FailStorage(fn func(Point) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storage = fn
}

// Fault is something that happens to one put request. The zero Fault is nothing.
type Fault struct {
	Delay  time.Duration // before anything else
	Drop   bool          // the connection is closed and nothing is handled
	Cut    bool          // everything is handled and flushed, then the connection is closed without an answer
	Status int           // if not 0: nothing is handled and this is answered
	Header http.Header   // with Status
	Body   string        // with Status
}

// Faults asks next for a fault before each put request. n counts them from 0 since
// Start. nil ends it.
func (s *Server) Faults(next func(n int) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = next
}

// Requests returns the sizes of the put bodies so far, as they travelled.
func (s *Server) Requests() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.wire...)
}

// Connections returns how many connections were accepted so far.
func (s *Server) Connections() int { return int(s.conns.Load()) }

// Stored returns what is in HBase, in the order of arrival: each second of a series
// once, with the value that a query would show.
func (s *Server) Stored() []Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.points()
}

// serve runs a request on the I/O thread of its connection.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	thread := r.Context().Value(connKey{}).(connOf).thread
	// The body has to be read before the context can tell that the client has gone.
	body, ok := s.read(w, r)
	if !ok {
		return
	}
	select {
	case thread <- struct{}{}:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
	free := sync.OnceFunc(func() { <-thread })
	defer free()
	if s.cfg.Header != nil && !s.cfg.Header(r.Header) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/api/put", "/api/v1/put":
		s.put(w, r, body, free)
	case "/api/version":
		s.reply(w, r, http.StatusOK, map[string]string{"version": "BuildData", "short_revision": "eb125a342"})
	case "/api/query":
		s.query(w, r, free)
	default:
		s.reply(w, r, http.StatusNotFound, fault{Error: faultBody{Code: http.StatusNotFound, Message: "Endpoint not found"}})
	}
}
