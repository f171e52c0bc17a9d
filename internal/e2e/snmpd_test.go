//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// snmpd is Debian's net-snmp agent.
type snmpd struct {
	addr string
	get  string // the snmpget program
	walk string // and snmpwalk
}

// The users of the agent, and how snmpget is told to be one.
const (
	authPass = "authpass123"
	privPass = "privpass123"
)

var snmpUsers = map[string][]string{
	"v2c":           {"-v2c", "-c", "public"},
	"sha256-aes":    {"-v3", "-l", "authPriv", "-u", "u256", "-a", "SHA-256", "-A", authPass, "-x", "AES", "-X", privPass},
	"sha512-aes256": {"-v3", "-l", "authPriv", "-u", "u512", "-a", "SHA-512", "-A", authPass, "-x", "AES-256", "-X", privPass},
}

func startSnmpd(t *testing.T) *snmpd {
	t.Helper()
	daemon := need(t, "snmpd", "snmpd")
	s := &snmpd{
		addr: fmt.Sprintf("127.0.0.1:%d", steadyPorts(t, "udp", 1)[0]),
		get:  need(t, "snmpget", "snmp"),
		walk: need(t, "snmpwalk", "snmp"),
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	persist := filepath.Join(dir, "persist") // read back too, else every start is a new engine
	for _, d := range []string{conf, persist} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Join([]string{
		"agentAddress udp:" + s.addr,
		"rocommunity public 127.0.0.1",
		"createUser u256 SHA-256 " + authPass + " AES " + privPass,
		"createUser u512 SHA-512 " + authPass + " AES-256 " + privPass,
		"rouser u256 authPriv",
		"rouser u512 authPriv",
		"",
	}, "\n")
	if err := os.WriteFile(filepath.Join(conf, "snmpd.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// It measures the CPU for the first time after five seconds, and says 0 before.
	ready := func() error {
		switch idle, err := s.value("v2c", ".1.3.6.1.4.1.2021.11.53.0"); {
		case err != nil:
			return err
		case idle == "0":
			return errors.New("the CPU is not measured yet")
		}
		return nil
	}
	start(t, ready, []string{"SNMPCONFPATH=" + conf + ":" + persist, "SNMP_PERSISTENT_DIR=" + persist, "MIBS="},
		daemon, "-f", "-Lo", "-p", filepath.Join(dir, "pid"), "-I", "-smux")
	return s
}

// value is what snmpget says of one object, as a bare value.
func (s *snmpd) value(user, oid string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := append([]string{"-t", "2", "-r", "10", "-On", "-OvQet"}, snmpUsers[user]...)
	out, err := run(ctx, s.get, append(args, s.addr, oid)...)
	out = strings.TrimSpace(out)
	if err != nil {
		return "", fmt.Errorf("snmpget %s: %w: %s", oid, err, out)
	}
	if strings.Contains(out, "No Such") {
		return "", fmt.Errorf("snmpget %s: %s", oid, out)
	}
	return strings.Trim(out, `"`), nil
}
