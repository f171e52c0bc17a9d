// Stats is the whole STATS pipeline of kemi as one program in six roles. They run
// together in one process, or each in processes of its own, over topics in memory, on
// disk or on Kafka: a flag says so, and no line of the pipeline knows.
//
//	go run ./examples/stats                              all roles, nothing outlives the program
//	go run ./examples/stats -bus disk:/var/lib/kemi      … survives kill -9 and a power cut
//	go run ./examples/stats -bus kafka:k1:9092,k2:9092 -role poller,calculator
//	                                                     … on as many machines as it takes
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
	"time"
)

const usage = `Polls hosts by SNMP, calculates, stores, judges by rules and tells: the STATS pipeline
in roles, over a bus of your choice.

  producer     hosts       -> [jobs]      says which host to poll when; run one
  poller       [jobs]      -> [raw]       polls by SNMP
  calculator   [raw]       -> [metrics]   makes rates of counters, and percentages
  forwarder    [metrics]   -> OpenTSDB    stores
  alert        [metrics]   -> [alerts]    judges by PromQL rules; run one
  handler      [alerts]    -> people      tells: by a line of JSON, and by a webhook

The bus is where [jobs], [raw], [metrics] and [alerts] are kept between them:

  memory                  in this process, and gone with it
  disk:DIR                in a directory of this machine, for one process
  kafka:HOST:PORT,...     on Kafka; each role may run in many processes, on many machines

On disk and on Kafka a restart, be it by kill -9, loses nothing that was accepted, and an
alert that fires keeps firing and is not told again.

Without a config it watches this machine: by the SNMP agent on 127.0.0.1:161 if one
answers with what it takes, else by a small one of its own. It stores into a small
OpenTSDB of its own, in memory, and prints where to read back.

Usage: stats [flags]

`

const configHelp = `
A config has any of these, in YAML; paths are relative to the file:

  interval: 10s                      time from poll to poll (5s)
  targets:                           hosts to poll
    - {host: web1, address: "10.0.0.1:161", service: shop, auth: ops, labels: {rack: r7}}
  target_files: [targets.yml]        Prometheus file_sd lists, read again every cycle
  target_url: https://cmdb/targets   a Prometheus http_sd list
  credentials:                       by name; a $NAME is taken from the environment
    public: {version: 2c, community: public}
    ops: {version: 3, user: u1, auth: SHA-256, auth_password: $A, priv: AES, priv_password: $P}
  rules: [rules.yml]                 Prometheus rule files, reloaded on change
  opentsdb: http://127.0.0.1:4242
  webhook: {url: "https://example.org/hook", secret: $WEBHOOK_SECRET}
                                     the secret, if any, is whsec_ and the base64 of 24 to 64 bytes
  kafka:                             for -bus kafka:...
    topic_prefix: kemi.              the topics are kemi.jobs, kemi.raw ...
    partitions: 64                   of each topic, where it has to be made; at most so many members work at once
    replication_factor: 3
    tls: {ca: ca.pem, cert: client.pem, key: client.key, server_name: kafka}
                                     {} for the authorities of this machine
    sasl: {mechanism: SCRAM-SHA-512, user: kemi, password: $KAFKA_PASSWORD}
                                     or PLAIN, SCRAM-SHA-256; or password_file: path

A target without auth uses the credential "public", or v2c with that community.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program the hard way
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code: 0 after a clean drain, 1 when
// something failed, 2 for a wrong command line or config.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	stderr = &inTurn{w: stderr}
	flags := flag.NewFlagSet("stats", flag.ContinueOnError)
	flags.SetOutput(stderr)
	busFlag := flags.String("bus", "memory", "where records wait between the roles: memory, disk:`DIR` or kafka:HOST:PORT,...")
	roleFlag := flags.String("role", "all", "what to do here: all, or a `list` such as poller,calculator")
	configFile := flags.String("config", "", "read hosts, rules and servers from a YAML `file`")
	every := flags.Duration("status", 10*time.Second, "say so often how each flow is doing; 0: never")
	diagram := flags.Bool("diagram", false, "print the pipeline as a Mermaid diagram and exit")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
		fmt.Fprint(stderr, configHelp)
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	failed := func(code int, err error) int {
		fmt.Fprintln(stderr, "stats:", err)
		return code
	}
	if flags.NArg() > 0 {
		return failed(2, fmt.Errorf("unexpected argument %q; see -h", flags.Arg(0)))
	}
	roles, err := parseRoles(*roleFlag)
	if err != nil {
		return failed(2, err)
	}
	where, err := parseBus(*busFlag)
	if err != nil {
		return failed(2, err)
	}
	if where.kind == "memory" && len(roles) < len(allRoles) && !*diagram {
		return failed(2, fmt.Errorf("-role %s over memory: no other process can do the rest; take -bus disk:DIR or kafka:HOST:PORT", *roleFlag))
	}
	cfg, err := loadConfig(*configFile)
	if err != nil {
		return failed(2, err)
	}
	if *diagram {
		where = busFlagValue{kind: "memory"} // drawn alike, and nothing is opened
	}

	logger := newJournal(func(line string) { fmt.Fprintln(stderr, line) })
	on, err := where.open(cfg, logger)
	if err != nil {
		return failed(1, err)
	}
	defer func() {
		if err := on.close(); err != nil && code == 0 {
			code = failed(1, err)
		}
	}()
	s, err := newStats(ctx, cfg, roles, on, stdout, logger)
	if err != nil {
		return failed(2, err)
	}
	defer s.close()
	if *diagram {
		fmt.Fprint(stdout, s.pipeline)
		return 0
	}
	fmt.Fprintf(stderr, "%s over %s\n", strings.Join(roles, ", "), where)
	for _, l := range s.intro {
		fmt.Fprintln(stderr, l)
	}
	ended := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.tell(stderr, *every, ended)
	}()
	err = s.pipeline.Run(ctx)
	close(ended)
	<-told
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
