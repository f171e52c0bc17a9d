//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hang is after how long something does not come any more, however busy the machine is.
const hang = 5 * time.Minute

// need finds a program, or skips the test with what to install.
func need(t testing.TB, program, debianPackage string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin", "/usr/bin", "/usr/local/bin"} {
		name := program
		if dir != "" {
			name = filepath.Join(dir, program)
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	msg := fmt.Sprintf("%s is not here: install the Debian package %s", program, debianPackage)
	if os.Getenv("KEMI_E2E") == "required" {
		t.Fatal(msg)
	}
	t.Skip(msg)
	return ""
}

// needHeavy skips a test whose servers are heavy, unless it was asked for.
func needHeavy(t testing.TB) {
	t.Helper()
	if os.Getenv("KEMI_E2E") == "" {
		t.Skip("this starts a Java server: set KEMI_E2E=1 to run it, or KEMI_E2E=required to fail where one is missing")
	}
}

// process is a server under test. Its methods may be called from one goroutine at a
// time.
type process struct {
	t    testing.TB
	name string
	args []string
	env  []string
	log  *os.File

	cmd  *exec.Cmd // of this life
	done chan struct{}
	from int64 // where its part of the log begins
}

// launch runs a server until the test ends. The log of the server is shown if the
// test fails.
func launch(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	logFile, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+".*.log")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, args: args, env: env, log: logFile}
	t.Cleanup(func() {
		logFile.Close()
		if t.Failed() {
			text, _ := os.ReadFile(logFile.Name())
			t.Logf("log of %s:\n%s", filepath.Base(name), lastLines(string(text), 60))
		}
	})
	p.run()
	t.Cleanup(p.stop)
	return p
}

// run starts the server, for the first time or after its end.
func (p *process) run() {
	p.t.Helper()
	cmd := exec.Command(p.name, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// The child dies with the test binary, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	from, err := p.log.Seek(0, io.SeekEnd)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	p.cmd, p.done, p.from = cmd, done, from
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
}

// await returns when ready says so.
func (p *process) await(within time.Duration, ready func() error) {
	p.t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended before it was ready: %v", p.name, err)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s is not ready after %s: %v", p.name, within, err)
		}
	}
}

// said asks whether the server has written a text to its log in this life.
func (p *process) said(what string) func() error {
	return func() error {
		text, err := os.ReadFile(p.log.Name())
		if err == nil && !strings.Contains(string(text[p.from:]), what) {
			err = fmt.Errorf("its log does not say %q", what)
		}
		return err
	}
}

// start launches a server and returns when ready says so.
func start(t testing.TB, ready func() error, env []string, name string, args ...string) *process {
	t.Helper()
	p := launch(t, env, name, args...)
	p.await(hang, ready)
	return p
}

// stop asks the server to end and kills it if it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.kill()
	}
}

// kill ends the server as a crash would (kill -9), frozen or not.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// freeze stops the server in its tracks: its connections stay open and it says
// nothing. thaw lets it go on.
func (p *process) freeze() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) thaw()   { _ = p.cmd.Process.Signal(syscall.SIGCONT) }

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// steadyPorts returns n ports of 127.0.0.1 that nobody uses now, and that no client is
// given by chance while a server that has one of them is down.
func steadyPorts(t testing.TB, network string, n int) []int {
	t.Helper()
	low := 32768 // where the ports of clients begin
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &low)
	}
	const first = 12000
	if low <= first+100 {
		t.Fatalf("the ports of clients begin at %d: none is left for servers", low)
	}
	var ports []int
	for range 1000 {
		port := first + rand.IntN(low-first)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		var l io.Closer
		var err error
		if network == "udp" {
			l, err = net.ListenPacket(network, addr)
		} else {
			l, err = net.Listen(network, addr)
		}
		if err != nil {
			continue
		}
		defer l.Close() // once all are found: each is another
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatalf("no %d ports are free", n)
	return nil
}

// dial is nil when something listens.
func dial(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// run runs a program to its end and returns what it prints.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "MIBS=", "SNMP_PERSISTENT_DIR="+os.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// eventually asks until it holds.
func eventually(t testing.TB, within time.Duration, what string, holds func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
