package inventory

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

const goodYAML = `# the shop
- targets: [10.0.0.1, "10.0.0.2:1161"]
  labels: &shop
    service: shop
    rack: r7
    height: 42
    empty:
- targets:
    - 10.0.0.3
  labels:
    host: db1
    __auth__: dbteam
    __profiles__: linux, disks
    __interval__: 10s
    __meta_consul_dc: dc1
    __address__: not.this.one
- targets: ["[2001:db8::1]:161", "2001:db8::2"]
  labels: *shop
- targets: []
`

const goodJSON = `[
  {"targets": ["10.0.0.1", "10.0.0.2:1161"], "labels": {"service": "shop", "rack": "r7", "height": "42", "empty": ""}},
  {
    "targets": ["10.0.0.3"],
    "labels": {"host": "db1", "__auth__": "dbteam", "__profiles__": "linux, disks", "__interval__": "10s", "__meta_consul_dc": "dc1", "__address__": "not.this.one"}
  },
  {"targets": ["[2001:db8::1]:161", "2001:db8::2"], "labels": {"service": "shop", "rack": "r7", "height": "42"}},
  {"targets": []}
]
`

func TestGoodLists(t *testing.T) {
	shop := kemi.LabelsOf("rack", "r7", "height", "42")
	want := []Target{
		{Address: "10.0.0.1", Resource: "10.0.0.1", Service: "shop", Labels: shop},
		{Address: "10.0.0.2:1161", Resource: "10.0.0.2", Service: "shop", Labels: shop},
		{Address: "10.0.0.3", Resource: "db1", Auth: "dbteam", Profiles: []string{"linux", "disks"}, Interval: 10 * time.Second},
		{Address: "[2001:db8::1]:161", Resource: "2001:db8::1", Service: "shop", Labels: shop},
		{Address: "2001:db8::2", Resource: "2001:db8::2", Service: "shop", Labels: shop},
	}
	for name, tt := range map[string]struct {
		text   string
		json   bool
		places string
	}{
		"hosts.yml":             {goodYAML, false, "2 2 9 17 17"},
		"hosts.json":            {goodJSON, true, "2 2 3 7 7"},
		"json as yaml":          {goodJSON, false, "2 2 4 7 7"},
		"with a BOM":            {"\ufeff" + goodJSON, true, "2 2 3 7 7"},
		"with carriage returns": {strings.ReplaceAll(goodYAML, "\n", "\r\n"), false, "2 2 9 17 17"},
	} {
		got, err := parse(name, []byte(tt.text), tt.json)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !equalTargets(got, want) {
			t.Errorf("%s: got %+v", name, got)
		}
		var lines []string
		for _, g := range got {
			lines = append(lines, strings.TrimPrefix(g.Place, name+":"))
		}
		if s := strings.Join(lines, " "); s != tt.places {
			t.Errorf("%s: the targets are on lines %s, want %s", name, s, tt.places)
		}
	}
	for _, text := range []string{"[]", " [ ] \n"} {
		for _, isJSON := range []bool{true, false} {
			if got, err := parse("f", []byte(text), isJSON); err != nil || got == nil || len(got) != 0 {
				t.Errorf("%q: %v, %v", text, got, err)
			}
		}
	}
}

// A wrong list is refused as a whole, with the line and the reason.
func TestWrongLists(t *testing.T) {
	long := strings.Repeat("x", 300)
	many := "- targets: [a]\n  labels:\n"
	for i := range 65 {
		many += fmt.Sprintf("    l%d: x\n", i)
	}
	tests := []struct{ format, text, want string }{
		{"both", "", "f: is empty: write [] if there are no targets"},
		{"both", " \n\n", "f: is empty"},
		{"yaml", "# nothing yet\n", "f: is empty"},
		{"both", "[]\n\n[{\"targets\": [\"a\xff\"]}]", "f:3: is not UTF-8"},
		{"both", "{\"targets\": [\"a\"]}", "f:1: want a"},
		{"both", "\n\n\"a\"", "f:3: want a"},
		{"both", "[\n{\"targets\": [\"a\"]},\n\n{\"targetz\": [\"b\"]}]", "f:4: "},
		{"both", "[{\"targets\": [\"a\"],\n \"labels\": {\"x\": [1]}}]", "f:2: "},
		{"both", "[\n{\"targets\": \"a\"}]", "f:2: "},
		{"both", "[\n{\"targets\": [\"a\", [1]]}]", "f:2: "},
		{"both", "[\n null]", "f:2: want a group"},
		{"both", "[\n{\"targets\": [\"a\"]},\n\n{\"targets\": [\"ok\", \"http://x/\"]}]", `f:4: target "http://x/": want host or host:port`},
		{"both", "[{\"targets\": [\"\"]}]", `f:1: target "": want host or host:port`},
		{"both", "[{\"targets\": [\":161\"]}]", `f:1: target ":161": want host or host:port`},
		{"both", "[{\"targets\": [\"h:0\"]}]", `f:1: target "h:0": the port`},
		{"both", "[{\"targets\": [\"h:65536\"]}]", `the port is not a number from 1 to 65535`},
		{"both", "[{\"targets\": [\"a b\"]}]", `want host or host:port`},
		{"both", "[{\"targets\": [\"" + long + "\"]}]", `longer than 255 bytes`},
		{"both", "[{\"targets\": [\"a\\u0007\"]}]", `its target has a control character`},
		{"both", "[{\"targets\": [\"a\"], \"labels\": {\"x\\u0000\": \"y\"}}]", `is no name of a label`},
		{"both", "[{\"targets\": [\"a\"], \"labels\": {\"__interval__\": \"ten\"}}]", `__interval__: "ten" is no duration`},
		{"both", "[{\"targets\": [\"a\"], \"labels\": {\"__interval__\": \"1ns\"}}]", `an interval of 1ns: want 100ms to 24h`},
		{"both", "[{\"targets\": [\"a\"], \"labels\": {\"__profiles__\": \"a,,b\"}}]", `"" is no name of a profile`},
		{"both", "[{\"targets\": [\"a\"], \"labels\": {\"\": \"b\"}}]", `a label without a name`},
		{"both", "[{\"targets\": [\"a\"]}", "f:1: "},
		{"json", "[\n{\"targets\": [\"a\"]}\n", "f:3: the list ends too early"},
		{"json", "[\n{\"targets\": [\"a\"]}\n{\"targets\": [\"b\"]}]", "f:3: invalid character '{' after array element"},
		{"json", "[\n{\"targets\": [\"a\"]}\n]\n,", "f:3: there is more"},
		{"json", "[\n{\"targets\": [\"a\"],\n\"labels\": {\"x\": 7}}]", "f:3: labels"},
		{"json", "[\n{\"targets\":\n [\"a\",\n 7]}]", "f:4: targets"},
		{"json", "[\n\n{\"targets\": [\"a\"], \"x\": 1}]", `f:3: unknown field "x"`},
		{"json", "[\n\n{\"targets\": [\"a\"], \"labels\": {\"a\": }}]", "f:3: invalid character '}'"},
		{"yaml", "- targets: [a]\n- targets: [b\n- c", "f:2: "},
		{"yaml", "- targets: [a]\n- targets: [b]\nx: y", "f:3: "},
		{"yaml", "- targets: [a]\n  labels:\n    a: b\n   c: d\n", "f:4: "},
		{"yaml", "- targets: [a]\n\n- targets: {a", "f:3: "},
		{"yaml", "- targets: [a]\n  labels:\n\tx: y", "f:3: "},
		{"yaml", "- targets: [a]\n- targets:\n  - b\n  - {c: d}", "f:4: targets: want host or host:port"},
		{"yaml", "- targets:\n  - ~", "f:2: targets: want host"},
		{"yaml", "- targets: [a]\n  targets: [b]", `f:2: "targets" is there twice`},
		{"yaml", "- targets: [a]\n  labels:\n    x: y\n    z: 1\n    x: y", `f:5: label "x" is there twice`},
		{"yaml", "- targets: [a]\n  labels: [x]", "f:2: labels: want names and values"},
		{"yaml", many, "65 labels: at most 64"},
		{"yaml", "- targets: [a]\n---\n- targets: [b]", "more than one YAML document"},
		{"yaml", "- &a [*a]", "f"},
	}
	for _, tt := range tests {
		for _, isJSON := range []bool{true, false} {
			if tt.format == "json" && !isJSON || tt.format == "yaml" && isJSON {
				continue
			}
			got, err := parse("f", []byte(tt.text), isJSON)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("json %v, %q:\n got %v, %v\nwant %s", isJSON, tt.text, got, err, tt.want)
			}
		}
	}
	if _, err := parse("f", make([]byte, maxJSON+1), true); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("too large: %v", err)
	}
}

// listOf returns a list of n hosts, ten in a group.
func listOf(n int) []byte {
	var b strings.Builder
	b.WriteString("[\n")
	for i := 0; i < n; i += 10 {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString(`{"targets": [`)
		for j := range min(10, n-i) {
			if j > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, `"web%d.example.net:161"`, i+j)
		}
		fmt.Fprintf(&b, `], "labels": {"service": "shop%d", "rack": "r%d"}}`, i%7, i%100)
	}
	b.WriteString("\n]\n")
	return []byte(b.String())
}

func TestHugeList(t *testing.T) {
	const n = 100_000
	got, err := parse("f", listOf(n), true)
	if err != nil || len(got) != n || got[n-1].Place != fmt.Sprintf("f:%d", 1+n/10) {
		t.Fatalf("%d targets, the last at %s, %v", len(got), got[len(got)-1].Place, err)
	}
}

// FuzzParse: whatever the text, there is an error or a list whose targets are good.
func FuzzParse(f *testing.F) {
	f.Add([]byte(goodYAML), false)
	f.Add([]byte(goodJSON), true)
	f.Add([]byte("[{\"targets\": [\"a\"], \"labels\": {\"x\": 7}}]"), true)
	f.Add([]byte("- &a\n  targets: [x]\n- *a\n- <<: *a\n"), false)
	f.Add([]byte("a: !!binary x\n---\n"), false)
	f.Add([]byte("\ufeff[\r\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		targets, err := parse("f", text, isJSON)
		if (targets == nil) == (err == nil) {
			t.Fatalf("%v, %v", targets, err)
		}
		for i := range targets {
			again := targets[i]
			if err := again.check(); err != nil || !again.equal(&targets[i]) {
				t.Fatalf("%+v: %v", targets[i], err)
			}
			if again.Resource == "" || !strings.HasPrefix(again.Place, "f:") {
				t.Fatalf("%+v", again)
			}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Fatalf("no place in %q", err)
		}
	})
}
