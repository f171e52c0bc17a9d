//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// need finds a program, or skips the test with what to install.
func need(t *testing.T, program, debianPackage string) string {
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

// process is a server under test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a server until the test ends, and returns when ready says so. The log
// of the server is shown if the test fails.
func start(t *testing.T, ready func() error, env []string, name string, args ...string) *process {
	t.Helper()
	logName := filepath.Join(t.TempDir(), filepath.Base(name)+".log")
	logFile, err := os.Create(logName)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// The child dies with the test binary, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		logFile.Close()
		if t.Failed() {
			text, _ := os.ReadFile(logName)
			t.Logf("log of %s:\n%s", filepath.Base(name), lastLines(string(text), 60))
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ready()
		if err == nil {
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended before it was ready", name)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v", name, err)
		}
	}
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

// kill ends the server as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// freePort returns a port of 127.0.0.1 that nobody uses now.
func freePort(t *testing.T, network string) int {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run runs a program to its end and returns what it prints.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "MIBS=", "SNMP_PERSISTENT_DIR="+os.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// eventually asks until it holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() error) {
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
