package agent

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// The objects of the standard Linux profile have the types that net-snmp gives them.
func TestSystemTypes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have other objects")
	}
	c := dial(t, listen(t, Config{Values: System()}).Addr(), patience)
	for kind, oids := range map[gosnmp.Asn1BER][]string{
		gosnmp.TimeTicks: {"1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.25.1.1.0"},
		gosnmp.Gauge32:   {"1.3.6.1.2.1.25.1.6.0", "1.3.6.1.2.1.6.9.0"},
		gosnmp.Counter32: {
			"1.3.6.1.2.1.6.10.0", "1.3.6.1.2.1.6.11.0", "1.3.6.1.2.1.6.12.0", "1.3.6.1.4.1.2021.11.50.0",
			"1.3.6.1.4.1.2021.11.51.0", "1.3.6.1.4.1.2021.11.52.0", "1.3.6.1.4.1.2021.11.53.0", "1.3.6.1.4.1.2021.11.54.0",
			"1.3.6.1.4.1.2021.11.56.0", "1.3.6.1.4.1.2021.11.59.0", "1.3.6.1.4.1.2021.11.60.0", "1.3.6.1.4.1.2021.11.61.0",
			"1.3.6.1.4.1.2021.11.62.0", "1.3.6.1.4.1.2021.11.63.0", "1.3.6.1.4.1.2021.11.64.0", "1.3.6.1.2.1.2.2.1.10.1",
		},
		gosnmp.Integer: {
			"1.3.6.1.4.1.2021.11.67.0", "1.3.6.1.4.1.2021.4.3.0", "1.3.6.1.4.1.2021.4.4.0", "1.3.6.1.4.1.2021.4.5.0",
			"1.3.6.1.4.1.2021.4.6.0", "1.3.6.1.4.1.2021.4.13.0", "1.3.6.1.4.1.2021.4.14.0", "1.3.6.1.4.1.2021.4.15.0",
			"1.3.6.1.4.1.2021.10.1.5.1", "1.3.6.1.4.1.2021.10.1.5.2", "1.3.6.1.4.1.2021.10.1.5.3",
			"1.3.6.1.2.1.25.2.3.1.5.31", "1.3.6.1.2.1.2.2.1.7.1", "1.3.6.1.6.3.10.2.1.3.0",
		},
		gosnmp.Counter64:        {"1.3.6.1.4.1.2021.4.27.0", "1.3.6.1.2.1.31.1.1.1.6.1"},
		gosnmp.OctetString:      {"1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.31.1.1.1.1.1"},
		gosnmp.ObjectIdentifier: {"1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.25.2.3.1.2.31"},
	} {
		for _, v := range get(t, c, oids...).Variables {
			if v.Type != kind {
				t.Errorf("%s: %v, want %v", v.Name, v.Type, kind)
			}
		}
	}
}

// The numbers are those of this machine, and are cached for about a second.
func TestSystemIsAliveAndCached(t *testing.T) {
	var m *Machine
	var first *View
	for {
		began := time.Now()
		m = System()
		if first = m.View(); m.View() == first {
			break
		}
		if time.Since(began) < time.Second { // else this was no moment
			t.Fatal("two readings within a moment")
		}
	}
	time.Sleep(1100 * time.Millisecond)
	second := m.View()
	if second == first {
		t.Fatal("no new reading after a second")
	}
	up, _ := second.find([]uint32{1, 3, 6, 1, 2, 1, 1, 3, 0})
	if string(first.objects[up].varbind) == string(second.objects[up].varbind) {
		t.Error("sysUpTime stands still")
	}
}

// The real tools of net-snmp read the agent. They differ from gosnmp in being the
// ones that administrators will hold against it.
func TestNetSNMPTools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs")
	}
	walk, err := exec.LookPath("snmpbulkwalk")
	if err != nil {
		missing(t, "net-snmp's tools are not here: install the Debian package snmp")
	}
	system := System()
	a := listen(t, Config{Values: system})
	run := func(name string, args ...string) string {
		t.Helper()
		args = append([]string{"-v2c", "-cpublic", "-On", "-t60", "-r1"}, args...)
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(cmd.Environ(), "MIBS=", "SNMP_PERSISTENT_DIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	lines := strings.Count(run(walk, a.Addr().String(), ".1.3.6.1.4.1.2021.11"), "\n")
	if lines < 10 {
		t.Errorf("snmpbulkwalk found %d objects of systemStats", lines)
	}
	out := run("snmpget", a.Addr().String(), ".1.3.6.1.2.1.1.3.0", ".1.3.6.1.2.1.1.3.1", ".1.3.6.1.9.1.0", ".1.3.6.1.4.1.2021.4.27.0")
	for _, want := range []string{"Timeticks:", "No Such Instance", "No Such Object"} {
		if !strings.Contains(out, want) {
			t.Errorf("snmpget does not say %q:\n%s", want, out)
		}
	}
}
