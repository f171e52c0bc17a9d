// Stats is the whole STATS pipeline of kemi as one program in six roles. They run
// together in one process, or each in processes of its own, over topics in memory, on
// disk or on Kafka: a flag says so, and no line of the pipeline knows.
//
//	go run ./examples/stats                              all roles, nothing outlives the program
//	go run ./examples/stats -bus disk:/var/lib/kemi      … survives kill -9 and a power cut
//	go run ./examples/stats -bus kafka:k1:9092,k2:9092 -role poller,calculator
//	                                                     … on as many machines as it takes
//
// Each flow reads its topic by its own name and goes on where that name has stopped, so a
// role that was killed, moved or added takes up the work where it lay: rates know the
// poll before, and an alert that fires keeps firing and is not told again. See -h for the
// config, and -diagram for the picture.
//
// In stats.go is the list of flows, in topics.go what a bus has to give, and in
// memory.go, disk.go and kafka.go how each is opened: that is all that differs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/kemi-go/kemi/examples/internal/journal"
	"github.com/kemi-go/kemi/examples/internal/site"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program the hard way
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code: 0 after a clean drain, 1 when
// something failed or is damaged, 2 for a wrong command line or config.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	stderr = &inTurn{w: stderr}
	failed := func(code int, err error) int {
		fmt.Fprintln(stderr, "stats:", err)
		return code
	}
	o, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return failed(2, err)
	}
	if o.check || o.repair {
		code, err := examine(o.bus.dir, o.repair, stdout)
		if err != nil {
			return failed(1, err)
		}
		return code
	}
	cfg := &config{}
	if err := site.Load(o.config, cfg); err != nil {
		return failed(2, err)
	}
	defer cfg.Close()
	logger := journal.New(func(line string) { fmt.Fprintln(stderr, line) })
	on, err := o.bus.open(cfg, logger)
	if err != nil {
		return failed(1, err)
	}
	defer func() {
		if err := on.close(); err != nil && code == 0 {
			code = failed(1, err)
		}
	}()
	s, err := newStats(ctx, cfg, o.roles, on, stdout, logger)
	if err != nil {
		return failed(2, err)
	}
	defer s.close()
	if o.diagram {
		fmt.Fprint(stdout, s.pipeline)
		return 0
	}

	fmt.Fprintf(stderr, "%s over %s\n", strings.Join(o.roles, ", "), o.bus)
	for _, l := range cfg.Intro {
		fmt.Fprintln(stderr, l)
	}
	stopTelling := s.tell(stderr, o.status)
	err = s.pipeline.Run(ctx)
	stopTelling()
	fmt.Fprintln(stderr, s.drained())
	if err != nil {
		return failed(1, err)
	}
	return 0
}

// inTurn lets many goroutines write lines.
type inTurn struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *inTurn) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(b)
}
