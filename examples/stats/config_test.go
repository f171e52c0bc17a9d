package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kemi-go/kemi/examples/internal/site"
)

func TestWrongConfigIsRefusedWithItsLine(t *testing.T) {
	t.Setenv("COMMUNITY", "hunter2")
	for _, c := range []struct{ text, want string }{
		{"interval: 5s\nfoo: 1\n", "c.yml:2: field foo is not known"},
		{"retention: 1m\n", "c.yml:1: retention 1m0s: want"},
		{"targets:\n  - address: x\n    port: 161\n", "c.yml:3: field port is not known here"},
		{"credentials: {public: hunter2}\n", "c.yml:1: cannot read the text as a credential"},
		{"kafka: k1:9092\n", "c.yml:1: cannot read the text as settings"},
		{"kafka:\n  brokers: k1:9092\n", "c.yml:2: field brokers is not known here"},
		{"kafka:\n  topic_prefix: kemi/\n", "c.yml:2: topic_prefix: want letters"},
		{"kafka:\n  partitions: many\n", "c.yml:2: cannot read"},
		{"kafka:\n  partitions: -1\n", "c.yml:2: partitions -1: want 1 to"},
		{"kafka:\n  replication_factor: 1000\n", "c.yml:2: replication_factor 1000: want 1 to"},
		{"kafka:\n  tls: true\n", "c.yml:2: cannot read"},
		{"kafka:\n  tls:\n    ca: /no/such/ca.pem\n", "c.yml:3: open /no/such/ca.pem: no such file"},
		{"kafka:\n  tls:\n    ca: /dev/null\n", "c.yml:3: /dev/null has no certificate"},
		{"kafka:\n  tls: {cert: a.pem}\n", "c.yml:2: cert and key belong together"},
		{"kafka:\n  tls: {cert: /dev/null, key: /dev/null}\n", "c.yml:2: /dev/null and /dev/null: tls: "},
		{"kafka:\n  sasl: {mechanism: MD5, user: u, password: p}\n", `c.yml:2: mechanism "MD5": want PLAIN`},
		{"kafka:\n  sasl: {mechanism: PLAIN, password: p}\n", "c.yml:2: the login has no user"},
		{"kafka:\n  sasl: {mechanism: PLAIN, user: u}\n", "c.yml:2: the login needs password or"},
		{"kafka:\n  sasl:\n    mechanism: PLAIN\n    user: u\n    password: $NO_SUCH_VARIABLE\n", "c.yml:5: the environment variable NO_SUCH_VARIABLE"},
		{"kafka:\n  sasl: {mechanism: PLAIN, user: u, password: p, password_file: f}\n", "c.yml:2: the login needs password or"},
		{"kafka:\n  sasl:\n    mechanism: PLAIN\n    user: u\n    password_file: /no/such/file\n", "c.yml:5: open /no/such/file: no such file"},
	} {
		var got config
		err := site.Parse("c.yml", []byte(c.text), &got)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q:\n got %v\nwant %s…", c.text, err, c.want)
		}
	}
}

func TestConfigKeepsSecretsAndResolvesPaths(t *testing.T) {
	t.Setenv("COMMUNITY", "hunter2")
	name := filepath.Join(t.TempDir(), "c.yml")
	for file, text := range map[string]string{
		"r.yml": "", "login": "hunter3\n",
		"c.yml": "rules: [r.yml]\ncredentials: {ops: {community: $COMMUNITY}}\n" +
			"kafka: {tls: {}, sasl: {mechanism: SCRAM-SHA-512, user: u, password_file: login}}\n",
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(name), file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &config{}
	if err := site.Load(name, c); err != nil {
		t.Fatal(err)
	}
	if got := c.Rules[0]; got != filepath.Join(filepath.Dir(name), "r.yml") {
		t.Errorf("rules at %s", got)
	}
	if got := string(c.Credentials["ops"].Community); got != "hunter2" {
		t.Errorf("community %q", got)
	}
	if got := string(c.Kafka.SASL.Password); got != "hunter3" {
		t.Errorf("password %q", got)
	}
	if s := fmt.Sprintf("%v %+v %#v %v %+v %#v", *c, *c, *c, *c.Kafka.SASL, *c.Kafka.SASL, *c.Kafka.SASL); strings.Contains(s, "hunter") {
		t.Errorf("a secret is printed: %s", s)
	}
}

func TestDiagram(t *testing.T) {
	for args, want := range map[string]string{
		"-diagram":                              `n2 -->|"calculator: counter.Rates, derive.Values"| n3`,
		"-diagram -role poller":                 `-->|"poller: snmp.Poller"|`,
		"-diagram -bus kafka:nowhere.invalid:1": `["[alerts]"]`,
	} {
		var out, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &out, &stderr); code != 0 || !strings.HasPrefix(out.String(), "flowchart LR\n") || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit %d, %s%s", args, code, out.String(), stderr.String())
		}
	}
}

func TestWrongCommandLineAndConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := write("bad.yml", "interval: 5s\nno_such_key: 1\n")
	write("rules.yml", "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(\n")
	useRules := write("use.yml", "rules: [rules.yml]\n")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"-h", 0, "A config has any of these"},
		{"-nonsense", 2, "stats: flag provided but not defined: -nonsense; see -h"},
		{"extra", 2, `unexpected argument "extra"`},
		{"-role poler", 2, `-role "poler": want all, or some of producer,poller`},
		{"-role poller", 2, "-role poller over memory: no other process can do the rest"},
		{"-bus nats:x", 2, `-bus "nats:x": want memory, disk:DIR or kafka:HOST:PORT`},
		{"-bus memory:x", 2, `-bus "memory:x": want memory`},
		{"-bus disk", 2, "-bus disk: which directory?"},
		{"-bus kafka", 2, `-bus kafka: "" is no broker`},
		{"-bus kafka:k1:9092,k2", 2, `-bus kafka: "k2" is no broker`},
		{"-bus kafka:127.0.0.1:1", 1, "stats: kafka: brokers 127.0.0.1:1: no broker answers"},
		{"-check", 2, "-check and -repair are for a directory: give -bus disk:DIR too"},
		{"-repair -bus kafka:k1:9092", 2, "-check and -repair are for a directory: give -bus disk:DIR too"},
		{"-check -repair -bus disk:" + dir, 2, "-check, -repair and -diagram: which?"},
		{"-check -diagram -bus disk:" + dir, 2, "-check, -repair and -diagram: which?"},
		{"-check -bus disk:" + dir, 1, "stats: disk: there is no DB in " + dir},
		{"-repair -bus disk:" + dir, 1, "stats: disk: there is no DB in " + dir},
		{"-check -bus disk:" + filepath.Join(dir, "none"), 1, "no such file"},
		{"-bus disk:/dev/null", 1, "stats: disk: "},
		{"-config " + bad, 2, "bad.yml:2: field no_such_key is not known"},
		{"-config " + filepath.Join(dir, "none.yml"), 2, "none.yml"},
		{"-config " + useRules, 2, "rules.yml:5"},
	} {
		var out, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), &out, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%v: exit %d, want %d; %q lacks %q", c.args, code, c.code, stderr.String(), c.want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("interval: 5s\ntargets:\n  - address: x\n")
	f.Add("kafka: {tls: {}, sasl: {mechanism: PLAIN, user: u, password: p}}\n")
	f.Fuzz(func(_ *testing.T, text string) {
		if len(text) < 4096 && !strings.Contains(text, "/") { // it reads the files that are named
			_ = site.Parse("c.yml", []byte(text), new(config))
		}
	})
}
