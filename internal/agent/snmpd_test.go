package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// Whatever System has, net-snmp's own agent has under the same OID with the same
// type; and what hardly moves, with the same value.
func TestSystemIsLikeSnmpd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs")
	}
	to := startSnmpd(t)
	ours := dial(t, listen(t, Config{Values: System()}).Addr(), patience)
	theirs := dial(t, to, patience)
	same := map[string]bool{ // as far as both can be read at the same moment
		".1.3.6.1.2.1.1.5.0": true, ".1.3.6.1.2.1.1.2.0": true, ".1.3.6.1.2.1.2.1.0": true, ".1.3.6.1.2.1.25.2.2.0": true,
		".1.3.6.1.4.1.2021.4.5.0": true, ".1.3.6.1.4.1.2021.4.3.0": true, ".1.3.6.1.4.1.2021.11.67.0": true,
	}
	all, err := ours.BulkWalkAll("1.3.6.1")
	if err != nil || len(all) < 100 {
		t.Fatalf("%d objects, %v", len(all), err)
	}
	for _, v := range all {
		if inTable(v.Name, mibDiskIO) || inTable(v.Name, mibDskEntry) || inTable(v.Name, mibHRStorage) || inTable(v.Name, mibHR+"3.3.1.") {
			// The rows differ: which devices and mounts there are is a matter of taste.
			continue
		}
		got := get(t, theirs, v.Name).Variables[0]
		if got.Type != v.Type {
			t.Errorf("%s: %v here, %v there", v.Name, v.Type, got.Type)
		}
		if a, b := fmt.Sprint(v.Value), fmt.Sprint(got.Value); same[v.Name] && a != b {
			t.Errorf("%s: %s here, %s there", v.Name, a, b)
		}
	}
	for _, table := range []string{mibDiskIO, mibDskEntry, mibHRStorage} {
		a, b := columns(t, ours, table), columns(t, theirs, table)
		for c, kind := range a {
			if b[c] != kind {
				t.Errorf("%s: %v here, %v there", c, kind, b[c])
			}
		}
	}
}

func inTable(oid, table string) bool { return len(oid) > len(table) && oid[1:1+len(table)] == table }

// columns returns the type of each column of a table.
func columns(t *testing.T, c *gosnmp.GoSNMP, table string) map[string]gosnmp.Asn1BER {
	t.Helper()
	kinds := map[string]gosnmp.Asn1BER{}
	if err := c.BulkWalk(table[:len(table)-1], func(v gosnmp.SnmpPDU) error {
		kinds[v.Name[:len(v.Name)-len(filepath.Ext(v.Name))]] = v.Type
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return kinds
}

// missing skips a test, or fails it where KEMI_E2E=required is set, as CI does.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("KEMI_E2E") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// startSnmpd runs net-snmp's agent until the test ends.
func startSnmpd(t *testing.T) netip.AddrPort {
	t.Helper()
	program, err := exec.LookPath("snmpd")
	if err != nil {
		if program = "/usr/sbin/snmpd"; exec.CommandContext(t.Context(), program, "-v").Run() != nil {
			missing(t, "snmpd is not here: install the Debian package snmpd")
		}
	}
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if to, ok := runSnmpd(t, program, end); ok {
			return to
		}
	}
	t.Fatal("snmpd does not answer")
	return netip.AddrPort{}
}

// runSnmpd starts net-snmp's agent on a port that was free a moment ago, and tells
// whether it came to answer there before it ended.
func runSnmpd(t *testing.T, program string, end time.Time) (netip.AddrPort, bool) {
	t.Helper()
	free, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to := free.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = free.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf("agentAddress udp:%s\nrocommunity public 127.0.0.1\nincludeAllDisks 10%%\n", to)
	if err := os.WriteFile(filepath.Join(dir, "snmpd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-f", "-Lo", "-I", "-smux")
	cmd.Env = append(os.Environ(), "SNMPCONFPATH="+dir, "SNMP_PERSISTENT_DIR="+dir, "MIBS=")
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		stop()
		<-over
	})
	c := dial(t, to, 200*time.Millisecond)
	for time.Now().Before(end) {
		if _, err := c.Get([]string{"1.3.6.1.2.1.1.3.0"}); err == nil {
			return to, true
		}
		select {
		case <-over:
			return to, false
		case <-time.After(20 * time.Millisecond): // a refusal comes at once
		}
	}
	return to, false
}
