package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrongConfigIsRefusedWithItsLine(t *testing.T) {
	t.Setenv("COMMUNITY", "hunter2")
	for _, c := range []struct{ text, want string }{
		{"interval: 5s\nfoo: 1\n", "c.yml:2: field foo is not known"},
		{"interval: soon\n", `c.yml:1: "soon" is no duration`},
		{"interval: true\n", `c.yml:1: "true" is no duration`},
		{"interval: 1ms\n", "c.yml:1: interval 1ms: want"},
		{"targets:\n  - host: a\n    address: x:161\n  - host: b\n", "c.yml:4: target 2 has no address"},
		{"targets:\n  - address: x\n    port: 161\n", "c.yml:3: field port is not known here"},
		{"targets:\n  - address: x\n  - address: x\n", `c.yml:3: two targets have the host "x"`},
		{"targets:\n  - address: x\n    auth: ops\n", `c.yml:3: target "x" wants the credential "ops"`},
		{"credentials:\n  ops:\n    version: 4\n", `c.yml:3: credential "ops": version "4"`},
		{"credentials:\n  ops:\n    version: 3\n", `c.yml:2: credential "ops" has no user`},
		{"credentials:\n  ops:\n    community: $NO_SUCH_VARIABLE\n", "c.yml:3: the environment variable NO_SUCH_VARIABLE is not set"},
		{"webhook:\n  url: example.org\n", "c.yml:2: this is no URL"},
		{"opentsdb: 127.0.0.1:4242\n", "c.yml:1: this is no URL"},
		{"targets: 5\n", "c.yml:1: cannot read the number as a list of targets"},
		{"targets: true\n", "c.yml:1: cannot read the truth value as a list of targets"},
		{"rules: rules.yml\n", "c.yml:1: cannot read the text as a list"},
		{"webhook: http://x\n", "c.yml:1: cannot read the text as a webhook"},
		{"targets:\n  - address: 127.0.0.1:99999\n", `c.yml:2: target 1: address "127.0.0.1:99999": "99999" is no port`},
		{"targets:\n  - address: 'a b'\n", `c.yml:2: target 1: address "a b": want host`},
		{"targets:\n  - address: '[::1]:161'\n  - address: '::1'\n  - address: db.example.org\n  - {address: x, labels: {host: y}}\n", "c.yml:5: target 4: the label host"},
		{"credentials: {public: hunter2}\n", "c.yml:1: cannot read the text as a credential"},
		{"credentials:\n  ops: {version: 3, user: u, auth: FOO, auth_password: longenough}\n", `c.yml:2: credential "ops": unknown`},
		{"interval: 5s\n---\nfrob: 1\n", "c.yml: there is more than one YAML document"},
		{"rules: [/no/such/rules.yml]\n", "c.yml:1: no file matches /no/such/rules.yml"},
		{"target_files: [/no/such/file.yml]\n", "c.yml:1: no file matches /no/such/file.yml"},
		{"webhook:\n  url: http://x\n  secret: hunter2\n", "c.yml:3: the secret is no key"},
		{"targets:\n\t- x\n", "c.yml:2: found"},
	} {
		var got Site
		err := Parse("c.yml", []byte(c.text), &got)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q:\n got %v\nwant %s…", c.text, err, c.want)
		}
	}
}

func TestConfigKeepsSecretsAndResolvesPaths(t *testing.T) {
	t.Setenv("COMMUNITY", "hunter2")
	name := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(filepath.Join(filepath.Dir(name), "r.yml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text := "rules: [r.yml]\ncredentials: {ops: {community: $COMMUNITY}}\nwebhook: {url: 'http://127.0.0.1:1/'}\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Site{}
	if err := Load(name, c); err != nil {
		t.Fatal(err)
	}
	if got := c.Rules[0]; got != filepath.Join(filepath.Dir(name), "r.yml") {
		t.Errorf("rules at %s", got)
	}
	if got := string(c.Credentials["ops"].Community); got != "hunter2" {
		t.Errorf("community %q", got)
	}
	if s := fmt.Sprintf("%v %+v %#v", *c, *c, *c); strings.Contains(s, "hunter2") {
		t.Errorf("a secret is printed: %s", s)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("interval: 5s\ntargets:\n  - address: x\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) < 4096 {
			_ = Parse("c.yml", []byte(text), new(Site))
		}
	})
}
