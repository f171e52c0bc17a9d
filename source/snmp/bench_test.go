package snmp_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// TestMain runs the tests or, for the benchmarks, an agent in a process of its own, so
// that the CPU measured is that of the poller alone.
func TestMain(m *testing.M) {
	version := os.Getenv("KEMI_TEST_AGENT")
	if version == "" {
		os.Exit(m.Run())
	}
	testing.Init()
	testing.Benchmark(func(b *testing.B) { // the agent wants a testing.TB
		if b.N > 1 {
			return
		}
		a := newAgentV3(b)
		if version != "3" {
			a = newAgent(b).linux()
		}
		fmt.Println(a.addr())
		_, _ = io.Copy(io.Discard, os.Stdin)
	})
}

func startAgent(b *testing.B, version string) (addr string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "KEMI_TEST_AGENT="+version)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// BenchmarkPoll is one poll of a Linux host, metrics made: CPU and allocations of the
// poller, beside plain gosnmp asking for the same data in the usual way, with a socket
// for each poll, a GET and a walk of each table (without making metrics).
func BenchmarkPoll(b *testing.B) {
	const batch, perHost = 100, 74
	measure := func(b *testing.B, polls func(n int)) {
		b.ReportAllocs()
		polls(batch) // what is learned once
		b.ResetTimer()
		start := cpu(b)
		for left := b.N; left > 0; left -= batch {
			polls(min(left, batch))
		}
		b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N), "cpu-us/op")
	}
	for _, version := range []string{"2c", "3"} {
		b.Run("kemi/v"+version, func(b *testing.B) {
			addr := startAgent(b, version)
			p := newPoller(b, func(c *snmp.Config) {
				if version == "3" {
					c.DefaultCredential = v3
				}
				c.Retries = 1
			})
			jobs := make([]kemi.Job, batch)
			for i := range jobs {
				jobs[i] = kemi.Job{Target: addr, Resource: fmt.Sprint("host", i), Interval: 10 * time.Minute}
			}
			var ms []kemi.Metric
			measure(b, func(n int) {
				var err error
				if ms, err = p.Apply(b.Context(), ms[:0], jobs[:n]); err != nil {
					b.Fatal(err)
				}
				if len(ms) != n*perHost || metrics(ms).reason() != "" {
					b.Fatalf("%d metrics of %d hosts, failures %q: %+v", len(ms), n, metrics(ms).reason(), p.Stats())
				}
			})
		})
		b.Run("gosnmp/v"+version, func(b *testing.B) {
			addr := startAgent(b, version)
			var oids []string
			for _, s := range snmp.Linux().Scalars {
				oids = append(oids, s.OIDs[0])
			}
			measure(b, func(n int) {
				for range n {
					plainPoll(b, addr, version, oids)
				}
			})
		})
	}
}

func plainPoll(b *testing.B, addr, version string, oids []string) {
	host, port := "127.0.0.1", uint16(0)
	_, _ = fmt.Sscanf(addr, "127.0.0.1:%d", &port)
	g := &gosnmp.GoSNMP{Target: host, Port: port, Version: gosnmp.Version2c, Community: "public", Timeout: time.Minute, Retries: 1, MaxOids: 60, MaxRepetitions: 10}
	if version == "3" {
		g.Version, g.SecurityModel, g.MsgFlags = gosnmp.Version3, gosnmp.UserSecurityModel, gosnmp.AuthPriv
		g.SecurityParameters = &gosnmp.UsmSecurityParameters{UserName: v3.User, AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: v3.AuthPassphrase,
			PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: v3.PrivPassphrase}
	}
	if err := g.Connect(); err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	if _, err := g.Get(oids); err != nil {
		b.Fatal(err)
	}
	n := 0
	for _, table := range []string{".1.3.6.1.2.1.25.2.3", ".1.3.6.1.4.1.2021.13.15", ".1.3.6.1.2.1.2.2", ".1.3.6.1.2.1.31.1.1"} {
		if err := g.BulkWalk(table, func(gosnmp.SnmpPDU) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	if n == 0 {
		b.Fatal("no rows")
	}
}
