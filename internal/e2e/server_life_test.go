//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// asleep starts a server that does nothing.
func asleep(t testing.TB) *process {
	t.Helper()
	return launch(t, nil, need(t, "sleep", "coreutils"), "600")
}

// state is what the kernel says of a process: S or R is running, T frozen, Z dead.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "Z"
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return after[:1]
}

func awaitState(t testing.TB, pid int, states string) {
	t.Helper()
	eventually(t, hang, "process", func() error {
		if s := state(pid); !strings.Contains(states, s) {
			return fmt.Errorf("its state is %q, want one of %q", s, states)
		}
		return nil
	})
}

// A server is killed, started again, frozen, and killed while frozen; and ends with
// the test that started it.
func TestServersLiveAndDieAsTold(t *testing.T) {
	var last int
	t.Run("test", func(t *testing.T) {
		p := asleep(t)
		first := p.cmd.Process.Pid
		p.kill()
		awaitState(t, first, "Z")
		p.run()
		p.freeze()
		awaitState(t, p.cmd.Process.Pid, "T")
		p.thaw()
		awaitState(t, p.cmd.Process.Pid, "SR")
		p.freeze()
		p.kill()
		p.run()
		last = p.cmd.Process.Pid
	})
	awaitState(t, last, "Z")
}

// A test binary that is killed takes its servers with it. The binary is this one.
func TestServersDieWithTheTestBinary(t *testing.T) {
	const child = "KEMI_E2E_CHILD"
	if os.Getenv(child) != "" {
		p := asleep(t)
		fmt.Println("pid", p.cmd.Process.Pid)
		<-p.done
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServersDieWithTheTestBinary$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for sc := bufio.NewScanner(out); pid == 0 && sc.Scan(); {
		if text, ok := strings.CutPrefix(sc.Text(), "pid "); ok {
			pid, err = strconv.Atoi(text)
		}
	}
	if err := errors.Join(err, cmd.Process.Kill()); err != nil || pid == 0 {
		t.Fatalf("pid %d: %v", pid, err)
	}
	_ = cmd.Wait()
	awaitState(t, pid, "Z")
}

// What is missing skips a test and says what to install, or fails it where everything
// is required. The test that lacks something is run by this very binary.
func TestWhatIsMissingSkipsOrFails(t *testing.T) {
	const child = "KEMI_E2E_LACKING"
	if os.Getenv(child) != "" {
		need(t, "no-such-server", "no-such-package")
	}
	for mode, want := range map[string]string{"": "--- SKIP", "1": "--- SKIP", "required": "--- FAIL"} {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestWhatIsMissingSkipsOrFails$")
		cmd.Env = append(os.Environ(), child+"=1", "KEMI_E2E="+mode)
		out, err := cmd.CombinedOutput()
		if (err != nil) != (mode == "required") || !strings.Contains(string(out), want) || !strings.Contains(string(out), "install the Debian package no-such-package") {
			t.Errorf("KEMI_E2E=%s: %v: %s", mode, err, out)
		}
	}
}
