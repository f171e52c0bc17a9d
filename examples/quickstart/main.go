// Quickstart shows what kemi does, on a machine with nothing but Go: it polls this
// machine by SNMP, calculates, stores, judges by rules and tells.
//
//	go run ./examples/quickstart              what this machine is doing
//	go run ./examples/quickstart -burn        … and an alert that fires and resolves
//	go run ./examples/quickstart -config FILE your own hosts, rules and servers
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/kemi-go/kemi/examples/internal/site"
)

const usage = `Polls hosts by SNMP, calculates, stores, judges by rules and tells.

Without a config it watches this machine: by the SNMP agent on 127.0.0.1:161 if one
answers with what it takes, else by a small one of its own. It stores into a small
OpenTSDB of its own, in memory, and prints where to read back.

Usage: quickstart [flags]

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program the hard way
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code: 0 after a clean drain, 1 when
// something failed, 2 for a wrong command line or config.
func run(ctx context.Context, args []string, stdout *os.File, stderr io.Writer) int {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	configFile := flags.String("config", "", "read hosts, rules and servers from a YAML `file`")
	burning := flags.Bool("burn", false, "load the CPU for a minute, so that the rule HighCPU fires and resolves")
	diagram := flags.Bool("diagram", false, "print the pipeline as a Mermaid diagram and exit")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
		fmt.Fprint(stderr, site.Help(""), "Where standard output is no terminal, each poll is one line, and each alert one of JSON.\n")
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "quickstart: unexpected argument %q; see -h\n", flags.Arg(0))
		return 2
	}
	cfg := &site.Site{}
	if err := site.Load(*configFile, cfg); err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 2
	}
	defer cfg.Close()

	scr := newScreen(stdout, isTerminal(stdout), func() (int, int) { return terminalSize(stdout) })
	errFile, isFile := stderr.(*os.File)
	s, err := newStats(ctx, cfg, scr, scr.logger(stderr, isFile && isTerminal(errFile)))
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 2
	}
	defer s.close()
	if *diagram {
		fmt.Fprint(stdout, s.pipeline)
		return 0
	}
	for _, l := range cfg.Intro {
		fmt.Fprintln(stdout, l)
	}
	if *burning {
		fmt.Fprintf(stdout, "in %s the CPU is loaded for %s: watch HighCPU\n", burnAfter, burnFor)
		go burn(ctx)
	}
	fmt.Fprintln(stdout)

	drawn := make(chan struct{})
	drawing, endDrawing := context.WithCancel(context.Background())
	go func() {
		defer close(drawn)
		scr.drawEvery(drawing, 500*time.Millisecond)
	}()
	err = s.pipeline.Run(ctx)
	endDrawing()
	<-drawn
	fmt.Fprintln(stdout, s.drained())
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 1
	}
	return 0
}

func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func terminalSize(f *os.File) (width, height int) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 || height < 5 {
		return 100, 30
	}
	return width, height
}
