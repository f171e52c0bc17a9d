package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/kemi-go/kemi/examples/internal/site"
)

const usage = `Polls hosts by SNMP, calculates, stores, judges by rules and tells: the STATS pipeline
in roles, over a bus of your choice.

  producer     hosts       -> [jobs]      says which host to poll when; run one
  poller       [jobs]      -> [raw]       polls by SNMP
  calculator   [raw]       -> [metrics]   makes rates of counters, and percentages
  forwarder    [metrics]   -> OpenTSDB    stores
  alert        [metrics]   -> [alerts]    judges by PromQL rules; a second is a reserve
  handler      [alerts]    -> people      tells: by a line of JSON, and by a webhook

The bus is where [jobs], [raw], [metrics] and [alerts] are kept between them:

  memory                  in this process, and gone with it
  disk:DIR                in a directory of this machine, for one process
  kafka:HOST:PORT,...     on Kafka; roles run in many processes, on many machines

On disk and on Kafka a restart, be it by kill -9, loses nothing that was accepted, and an
alert that fires keeps firing and is not told again.

After trouble with a disk, -check says what is damaged in DIR and -repair takes it out: they
are what the log calls disk.Check and disk.Repair. Nothing else may run in DIR meanwhile.

Without a config it watches this machine: by the SNMP agent on 127.0.0.1:161 if one
answers with what it takes, else by a small one of its own. It stores into a small
OpenTSDB of its own, in memory, and prints where to read back.

Usage: stats [flags]

`

// options is the command line.
type options struct {
	bus     place
	roles   []string
	config  string
	status  time.Duration
	diagram bool
	check   bool
	repair  bool
}

// parseFlags reads the command line. What it has to say is on stderr, but for the
// error, which is flag.ErrHelp if all was asked for is that.
func parseFlags(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("stats", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is told once, by the caller
	bus := flags.String("bus", "memory", "where records wait between the roles: a `bus` as above")
	roles := flags.String("role", "all", "what to do here: all, or a `list` such as poller,calculator")
	flags.StringVar(&o.config, "config", "", "read hosts, rules and servers from a YAML `file`")
	flags.DurationVar(&o.status, "status", 10*time.Second, "say so often how each flow is doing; 0: never")
	flags.BoolVar(&o.diagram, "diagram", false, "print the pipeline as a Mermaid diagram and exit")
	flags.BoolVar(&o.check, "check", false, "say what is damaged in the directory of -bus disk:DIR, change nothing and exit: with 0 if all is sound, else with 1")
	flags.BoolVar(&o.repair, "repair", false, "check, and take out what is damaged: what is good is written anew, and the old files are kept in a folder")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			flags.SetOutput(stderr)
			flags.PrintDefaults()
			fmt.Fprint(stderr, site.Help(configHelp))
			return o, err
		}
		return o, fmt.Errorf("%w; see -h", err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -h", flags.Arg(0))
	}
	if o.roles, err = parseRoles(*roles); err != nil {
		return o, err
	}
	if o.bus, err = parseBus(*bus); err != nil {
		return o, err
	}
	switch {
	case o.check && o.repair, (o.check || o.repair) && o.diagram:
		return o, errors.New("-check, -repair and -diagram: which? Give one of them")
	case o.check || o.repair:
		if o.bus.kind != "disk" {
			return o, errors.New("-check and -repair are for a directory: give -bus disk:DIR too")
		}
	case o.diagram:
		o.bus = place{kind: "memory"} // drawn alike, and nothing is opened
	case o.bus.kind == "memory" && len(o.roles) < len(allRoles):
		return o, fmt.Errorf("-role %s over memory: no other process can do the rest; take -bus disk:DIR or kafka:HOST:PORT", *roles)
	}
	return o, nil
}

// place is the value of -bus: where the topics are.
type place struct {
	kind    string // memory, disk or kafka
	dir     string
	brokers []string
}

func parseBus(s string) (place, error) {
	kind, where, given := strings.Cut(s, ":")
	p := place{kind: kind}
	switch {
	case kind == "memory" && !given:
		return p, nil
	case kind == "disk":
		if p.dir = where; where == "" {
			return p, errors.New("-bus disk: which directory? Write disk:/var/lib/kemi")
		}
		return p, nil
	case kind == "kafka":
		for b := range strings.SplitSeq(where, ",") {
			host, port, err := net.SplitHostPort(b)
			if err != nil || host == "" || port == "" {
				return p, fmt.Errorf("-bus kafka: %q is no broker: write kafka:host:port,host:port", b)
			}
			p.brokers = append(p.brokers, b)
		}
		return p, nil
	}
	return p, fmt.Errorf("-bus %q: want memory, disk:DIR or kafka:HOST:PORT,HOST:PORT", s)
}

func (p place) String() string {
	switch p.kind {
	case "disk":
		return "disk in " + p.dir
	case "kafka":
		return "Kafka at " + strings.Join(p.brokers, ", ")
	}
	return "memory: what waits there is gone with the program (see -bus in -h)"
}

// allRoles are the roles, upstream first.
var allRoles = []string{"producer", "poller", "calculator", "forwarder", "alert", "handler"}

// parseRoles gives the roles of a list, upstream first.
func parseRoles(list string) ([]string, error) {
	if list == "all" {
		return allRoles, nil
	}
	var roles []string
	asked := strings.Split(list, ",")
	for i, r := range asked {
		asked[i] = strings.TrimSpace(r)
		if !slices.Contains(allRoles, asked[i]) {
			return nil, fmt.Errorf("-role %q: want all, or some of %s", asked[i], strings.Join(allRoles, ","))
		}
	}
	for _, r := range allRoles {
		if slices.Contains(asked, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}
