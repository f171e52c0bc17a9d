// Package site is what the examples are told of the place they watch: which hosts there
// are and how to be let in, by which rules they are judged, where to store, and who is
// told. A file says so (see [Load] and [Help]); what it leaves out is this machine, with
// an SNMP agent and an OpenTSDB of the program's own where there is none.
package site

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi/sink/notify/webhook"
	"github.com/kemi-go/kemi/source/snmp"
)

// Site is the config. Everything has a default; the zero Site polls this machine. Its
// methods are for one goroutine, and want it checked.
type Site struct {
	Interval    Duration              `yaml:"interval"`
	Targets     []Target              `yaml:"targets"`
	TargetFiles []string              `yaml:"target_files"`
	TargetURL   string                `yaml:"target_url"`
	Credentials map[string]Credential `yaml:"credentials"`
	Rules       []string              `yaml:"rules"`
	OpenTSDB    string                `yaml:"opentsdb"`
	Webhook     Webhook               `yaml:"webhook"`

	Intro  []string `yaml:"-"` // what to tell the user first; Hosts and Store add to it
	opened []io.Closer
}

// Target is a host to poll.
type Target struct {
	Host    string            `yaml:"host"`
	Address string            `yaml:"address"`
	Service string            `yaml:"service"`
	Auth    string            `yaml:"auth"`
	Labels  map[string]string `yaml:"labels"`
}

// Credential is how to be let in.
type Credential struct {
	Version      string `yaml:"version"`
	Community    Secret `yaml:"community"`
	User         string `yaml:"user"`
	Auth         string `yaml:"auth"`
	AuthPassword Secret `yaml:"auth_password"`
	Priv         string `yaml:"priv"`
	PrivPassword Secret `yaml:"priv_password"`
}

// Webhook is who is told.
type Webhook struct {
	URL    string `yaml:"url"`
	Secret Secret `yaml:"secret"`
}

// Help is what -h says of the config. more are the keys that a program has besides, a
// line for each.
func Help(more string) string {
	return `
A config has any of these, in YAML; paths are relative to the file:

  interval: 10s                      time from poll to poll (5s)
  targets:                           hosts to poll
    - {host: web1, address: "10.0.0.1:161", service: shop, auth: ops, labels: {rack: r7}}
  target_files: [targets.yml]        Prometheus file_sd lists, read again every cycle
  target_url: https://cmdb/targets   a Prometheus http_sd list
  credentials:                       by name; a $NAME is taken from the environment
    public: {version: 2c, community: public}
    ops: {version: 3, user: u1, auth: SHA-256, auth_password: $A, priv: AES, priv_password: $P}
  rules: [rules.yml]                 Prometheus rule files, reloaded on change
  opentsdb: http://127.0.0.1:4242
  webhook: {url: "https://example.org/hook", secret: $WEBHOOK_SECRET}
                                     the secret, if any, is whsec_ and the base64 of 24 to 64 bytes
` + more + `
A target without auth uses the credential "public", or v2c with that community.
`
}

// Close ends what Hosts and Store have started.
func (s *Site) Close() {
	for _, c := range slices.Backward(s.opened) {
		c.Close()
	}
}

// Words implements [Config].
func (s *Site) Words() []string {
	return []string{
		"into []site.Target", "as a list of targets",
		"into site.Target", "as a target: write {host: h, address: a}",
		"into map[string]site.Credential", "as credentials by name",
		"into site.Credential", "as a credential: write {version: 2c, community: c}",
		"into site.Webhook", "as a webhook: write {url: u}",
	}
}

// Check implements [Config].
func (s *Site) Check(f *File) error {
	if s.Interval == 0 {
		s.Interval = Duration(5 * time.Second)
	}
	if d := time.Duration(s.Interval); d < time.Second || d > time.Hour {
		return f.At("interval").Errorf("interval %s: want one second to one hour", d)
	}
	if err := s.checkTargets(f); err != nil {
		return err
	}
	if err := s.checkCredentials(f); err != nil {
		return err
	}
	for key, files := range map[string][]string{"target_files": s.TargetFiles, "rules": s.Rules} {
		for i := range files {
			files[i] = f.Path(files[i])
			if found, err := filepath.Glob(files[i]); err != nil || len(found) == 0 {
				return f.At(key, i).Errorf("no file matches %s", files[i])
			}
		}
	}
	for _, u := range []struct {
		url string
		at  Place
	}{{s.OpenTSDB, f.At("opentsdb")}, {s.Webhook.URL, f.At("webhook", "url")}, {s.TargetURL, f.At("target_url")}} {
		if u.url == "" {
			continue
		}
		if p, err := url.Parse(u.url); err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
			return u.at.Errorf("this is no URL: want http://host:port or https://host:port")
		}
	}
	if s.Webhook.URL == "" && s.Webhook.Secret != "" {
		return f.At("webhook").Errorf("webhook has a secret and no url")
	}
	if _, err := webhook.New(webhook.Config{URL: "http://localhost", Secrets: s.Webhook.Config().Secrets}); err != nil {
		return f.At("webhook", "secret").Errorf("the secret is no key for signatures: write whsec_ and the base64 of 24 to 64 random bytes, such as whsec_$(openssl rand -base64 32)")
	}
	return nil
}

func (s *Site) checkTargets(f *File) error {
	seen := map[string]bool{}
	for i := range s.Targets {
		t := &s.Targets[i]
		if t.Address == "" {
			return f.At("targets", i).Errorf("target %d has no address: write host or host:port", i+1)
		}
		if err := checkAddress(t.Address); err != nil {
			return f.At("targets", i, "address").Errorf("target %d: %v", i+1, err)
		}
		if t.Host == "" {
			t.Host = t.Address
		}
		if t.Labels["host"] != "" {
			return f.At("targets", i, "labels", "host").Errorf("target %d: the label host is that of the key host", i+1)
		}
		if seen[t.Host] {
			return f.At("targets", i).Errorf("two targets have the host %q", t.Host)
		}
		seen[t.Host] = true
		if _, ok := s.Credentials[t.Auth]; t.Auth != "" && !ok {
			return f.At("targets", i, "auth").Errorf("target %q wants the credential %q, which is not under credentials", t.Host, t.Auth)
		}
	}
	return nil
}

// checkAddress takes a host, with a port or without.
func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		host, port = a, "161" // no port; or wrong, and then no host either
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: %q is no port: want 1 to 65535", a, port)
	}
	if net.ParseIP(host) == nil && strings.ContainsAny(host, ": /\t") || host == "" {
		return fmt.Errorf("address %q: want host or host:port", a)
	}
	return nil
}

func (s *Site) checkCredentials(f *File) error {
	for name, c := range s.Credentials {
		at := f.At("credentials", name)
		switch c.Version {
		case "2c", "":
			if c.Community == "" {
				return at.Errorf("credential %q has no community", name)
			}
		case "3":
			if c.User == "" {
				return at.Errorf("credential %q has no user", name)
			}
		default:
			return f.At("credentials", name, "version").Errorf("credential %q: version %q: want 2c or 3", name, c.Version)
		}
		p, err := snmp.NewPoller(snmp.Config{DefaultCredential: c.credential()})
		if err != nil {
			return at.Errorf("credential %q: %s", name, strings.TrimPrefix(err.Error(), "snmp: DefaultCredential: "))
		}
		if err := p.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c Credential) credential() snmp.Credential {
	if c.Version != "3" {
		return snmp.Credential{Community: string(c.Community)}
	}
	return snmp.Credential{
		Version: snmp.V3, User: c.User,
		AuthProtocol: snmp.AuthProtocol(c.Auth), AuthPassphrase: string(c.AuthPassword),
		PrivProtocol: snmp.PrivProtocol(c.Priv), PrivPassphrase: string(c.PrivPassword),
	}
}

// SNMP is the config of a poller that is let in.
func (s *Site) SNMP(logger *zap.Logger) snmp.Config {
	public := snmp.Credential{Community: "public"}
	c := snmp.Config{
		Credentials:       map[string]snmp.Credential{thisMachine: public},
		DefaultCredential: public,
		Logger:            logger,
	}
	for name, own := range s.Credentials {
		c.Credentials[name] = own.credential()
	}
	if own, ok := c.Credentials["public"]; ok {
		c.DefaultCredential = own
	}
	return c
}

// Config is that of the sink.
func (w Webhook) Config() webhook.Config {
	c := webhook.Config{URL: w.URL}
	if w.Secret != "" {
		c.Secrets = []webhook.Secret{webhook.Secret(w.Secret)}
	}
	return c
}
