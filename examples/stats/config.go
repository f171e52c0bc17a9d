package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kemi-go/kemi/sink/notify/webhook"
	"github.com/kemi-go/kemi/source/snmp"
)

// config is what -config reads. Everything has a default; the zero config polls
// this machine.
type config struct {
	Interval    duration              `yaml:"interval"`
	Targets     []target              `yaml:"targets"`
	TargetFiles []string              `yaml:"target_files"`
	TargetURL   string                `yaml:"target_url"`
	Credentials map[string]credential `yaml:"credentials"`
	Rules       []string              `yaml:"rules"`
	OpenTSDB    string                `yaml:"opentsdb"`
	Webhook     webhookConfig         `yaml:"webhook"`
	Retention   duration              `yaml:"retention"`
	Kafka       kafkaConfig           `yaml:"kafka"`
}

func (c *config) interval() time.Duration { return time.Duration(c.Interval) }

type target struct {
	Host    string            `yaml:"host"`
	Address string            `yaml:"address"`
	Service string            `yaml:"service"`
	Auth    string            `yaml:"auth"`
	Labels  map[string]string `yaml:"labels"`
}

type credential struct {
	Version      string `yaml:"version"`
	Community    secret `yaml:"community"`
	User         string `yaml:"user"`
	Auth         string `yaml:"auth"`
	AuthPassword secret `yaml:"auth_password"`
	Priv         string `yaml:"priv"`
	PrivPassword secret `yaml:"priv_password"`
}

type webhookConfig struct {
	URL    string `yaml:"url"`
	Secret secret `yaml:"secret"`
}

// kafkaConfig is what -bus kafka needs to know besides the brokers.
type kafkaConfig struct {
	TopicPrefix       string      `yaml:"topic_prefix"`
	Partitions        int         `yaml:"partitions"`
	ReplicationFactor int         `yaml:"replication_factor"`
	TLS               *tlsConfig  `yaml:"tls"`
	SASL              *saslConfig `yaml:"sasl"`
}

type tlsConfig struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`

	made *tls.Config
}

type saslConfig struct {
	Mechanism    string `yaml:"mechanism"`
	User         string `yaml:"user"`
	Password     secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
}

// secret is a string that is never printed. In the file it is written as it is, or
// as $NAME to be taken from the environment.
type secret string

func (secret) String() string   { return "(secret)" }
func (secret) GoString() string { return "(secret)" }

func (s *secret) UnmarshalYAML(n *yaml.Node) error {
	v := n.Value
	if name, ok := strings.CutPrefix(v, "$"); ok {
		if v = os.Getenv(name); v == "" {
			return fmt.Errorf("line %d: the environment variable %s is not set", n.Line, name)
		}
	}
	*s = secret(v)
	return nil
}

type duration time.Duration

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration: write it as 10s or 1m", n.Line, n.Value)
	}
	*d = duration(v)
	return nil
}

const configMax = 1 << 20

var quoted = regexp.MustCompile(" `[^`]*`")

// loadConfig reads a file, or gives the defaults where name is empty. Paths in the
// file are relative to it.
func loadConfig(name string) (*config, error) {
	c := &config{}
	if name == "" {
		return c, c.check(name, nil)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, configMax+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > configMax {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, configMax)
	}
	if err := c.parse(name, text); err != nil {
		return nil, err
	}
	dir := filepath.Dir(name)
	for _, paths := range [][]string{c.Rules, c.TargetFiles} {
		for i, p := range paths {
			if !filepath.IsAbs(p) {
				paths[i] = filepath.Join(dir, p)
			}
		}
	}
	return c, nil
}

func (c *config) parse(name string, text []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		// The parser's words, with the place in front and without its own prefix.
		var t *yaml.TypeError
		if errors.As(err, &t) && len(t.Errors) > 0 {
			err = errors.New(t.Errors[0])
		}
		reason := strings.NewReplacer(
			"not found in type main.config", "is not known",
			"not found in type main.target", "is not known here",
			"not found in type main.credential", "is not known here",
			"not found in type main.webhookConfig", "is not known here",
			"not found in type main.kafkaConfig", "is not known here",
			"not found in type main.tlsConfig", "is not known here",
			"not found in type main.saslConfig", "is not known here",
			"into []string", "as a list: write [a, b]",
			"into []main.target", "as a list of targets",
			"into main.target", "as a target: write {host: h, address: a}",
			"into map[string]main.credential", "as credentials by name",
			"into main.credential", "as a credential: write {version: 2c, community: c}",
			"into main.webhookConfig", "as a webhook: write {url: u}",
			"into main.kafkaConfig", "as settings: write {partitions: 64}",
			"into main.tlsConfig", "as TLS: write {ca: file}, or {}",
			"into main.saslConfig", "as a login: write {mechanism: m, user: u, password: $P}",
			"into int", "as a number",
			"into map[string]string", "as labels: write {name: value}",
			"unmarshal !!str", "read the text", "unmarshal !!int", "read the number",
			"unmarshal !!map", "read the mapping", "unmarshal !!bool", "read the truth value", "unmarshal !!seq", "read the list",
		).Replace(strings.TrimPrefix(err.Error(), "yaml: "))
		// What was written there may be a secret.
		reason = quoted.ReplaceAllString(reason, "")
		if rest, ok := strings.CutPrefix(reason, "line "); ok {
			return fmt.Errorf("%s:%s", name, rest)
		}
		return fmt.Errorf("%s: %s", name, reason)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: there is more than one YAML document: only one is read", name)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return c.check(name, &doc)
}

// check fills in the defaults and says what is wrong, with the line.
func (c *config) check(name string, doc *yaml.Node) error {
	wrong := func(format string, args []any, path ...any) error {
		return fmt.Errorf("%s:%d: %s", name, lineOf(doc, path...), fmt.Sprintf(format, args...))
	}
	if c.Interval == 0 {
		c.Interval = duration(5 * time.Second)
	}
	if d := time.Duration(c.Interval); d < time.Second || d > time.Hour {
		return wrong("interval %s: want one second to one hour", []any{d}, "interval")
	}
	if d := time.Duration(c.Retention); d != 0 && d < time.Hour {
		return wrong("retention %s: want an hour or more", []any{d}, "retention")
	}
	seen := map[string]bool{}
	for i, t := range c.Targets {
		if t.Address == "" {
			return wrong("target %d has no address: write host or host:port", []any{i + 1}, "targets", i)
		}
		if err := checkAddress(t.Address); err != nil {
			return wrong("target %d: %v", []any{i + 1, err}, "targets", i, "address")
		}
		if t.Host == "" {
			c.Targets[i].Host = t.Address
		}
		if t.Labels["host"] != "" {
			return wrong("target %d: the label host is that of the key host", []any{i + 1}, "targets", i, "labels", "host")
		}
		if h := c.Targets[i].Host; seen[h] {
			return wrong("two targets have the host %q", []any{h}, "targets", i)
		}
		seen[c.Targets[i].Host] = true
		if _, ok := c.Credentials[t.Auth]; t.Auth != "" && !ok {
			return wrong("target %q wants the credential %q, which is not under credentials", []any{c.Targets[i].Host, t.Auth}, "targets", i, "auth")
		}
	}
	for k, cr := range c.Credentials {
		switch cr.Version {
		case "2c", "":
			if cr.Community == "" {
				return wrong("credential %q has no community", []any{k}, "credentials", k)
			}
		case "3":
			if cr.User == "" {
				return wrong("credential %q has no user", []any{k}, "credentials", k)
			}
		default:
			return wrong("credential %q: version %q: want 2c or 3", []any{k, cr.Version}, "credentials", k, "version")
		}
		p, err := snmp.NewPoller(snmp.Config{DefaultCredential: cr.credential()})
		if err != nil {
			return wrong("credential %q: %s", []any{k, strings.TrimPrefix(err.Error(), "snmp: DefaultCredential: ")}, "credentials", k)
		}
		if err := p.Close(); err != nil {
			return err
		}
	}
	for key, files := range map[string][]string{"target_files": c.TargetFiles, "rules": c.Rules} {
		for i, f := range files {
			if !filepath.IsAbs(f) {
				f = filepath.Join(filepath.Dir(name), f)
			}
			if found, err := filepath.Glob(f); err != nil || len(found) == 0 {
				return wrong("no file matches %s", []any{f}, key, i)
			}
		}
	}
	for _, u := range []struct {
		url  string
		path []any
	}{{c.OpenTSDB, []any{"opentsdb"}}, {c.Webhook.URL, []any{"webhook", "url"}}, {c.TargetURL, []any{"target_url"}}} {
		if u.url == "" {
			continue
		}
		if p, err := url.Parse(u.url); err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
			return wrong("this is no URL: want http://host:port or https://host:port", nil, u.path...)
		}
	}
	if c.Webhook.URL == "" && c.Webhook.Secret != "" {
		return wrong("webhook has a secret and no url", nil, "webhook")
	}
	if _, err := webhook.New(webhook.Config{URL: "http://localhost", Secrets: secrets(c.Webhook.Secret)}); err != nil {
		return wrong("the secret is no key for signatures: write whsec_ and the base64 of 24 to 64 random bytes, such as whsec_$(openssl rand -base64 32)", nil, "webhook", "secret")
	}
	return c.Kafka.check(filepath.Dir(name), wrong)
}

var topicPrefix = regexp.MustCompile(`^[a-zA-Z0-9._-]{0,200}$`)

// check reads the files that are named, so that what is wrong with them is told with
// the line that names them.
func (k *kafkaConfig) check(dir string, wrong func(format string, args []any, path ...any) error) error {
	read := func(file string) ([]byte, error) {
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		return os.ReadFile(file)
	}
	switch {
	case !topicPrefix.MatchString(k.TopicPrefix):
		return wrong("topic_prefix: want letters, digits, '.', '_' and '-', at most 200", nil, "kafka", "topic_prefix")
	case k.Partitions < 0 || k.Partitions > 10_000:
		return wrong("partitions %d: want 1 to 10000", []any{k.Partitions}, "kafka", "partitions")
	case k.ReplicationFactor < 0 || k.ReplicationFactor > 100:
		return wrong("replication_factor %d: want 1 to 100", []any{k.ReplicationFactor}, "kafka", "replication_factor")
	}
	if t := k.TLS; t != nil {
		t.made = &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
		if t.CA != "" {
			pem, err := read(t.CA)
			if err != nil {
				return wrong("%v", []any{err}, "kafka", "tls", "ca")
			}
			t.made.RootCAs = x509.NewCertPool()
			if !t.made.RootCAs.AppendCertsFromPEM(pem) {
				return wrong("%s has no certificate in PEM", []any{t.CA}, "kafka", "tls", "ca")
			}
		}
		if (t.Cert == "") != (t.Key == "") {
			return wrong("cert and key belong together: give both or none", nil, "kafka", "tls")
		}
		if t.Cert != "" {
			cert, err := read(t.Cert)
			if err != nil {
				return wrong("%v", []any{err}, "kafka", "tls", "cert")
			}
			key, err := read(t.Key)
			if err != nil {
				return wrong("%v", []any{err}, "kafka", "tls", "key")
			}
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return wrong("%s and %s: %v", []any{t.Cert, t.Key, err}, "kafka", "tls", "cert")
			}
			t.made.Certificates = []tls.Certificate{pair}
		}
	}
	if a := k.SASL; a != nil {
		switch {
		case !slices.Contains([]string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, a.Mechanism):
			return wrong("mechanism %q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", []any{a.Mechanism}, "kafka", "sasl", "mechanism")
		case a.User == "":
			return wrong("the login has no user", nil, "kafka", "sasl")
		case (a.Password == "") == (a.PasswordFile == ""):
			return wrong("the login needs password or password_file, and not both", nil, "kafka", "sasl")
		}
		if a.PasswordFile != "" {
			text, err := read(a.PasswordFile)
			if err != nil {
				return wrong("%v", []any{err}, "kafka", "sasl", "password_file")
			}
			if a.Password = secret(strings.TrimRight(string(text), "\r\n")); a.Password == "" {
				return wrong("%s is empty", []any{a.PasswordFile}, "kafka", "sasl", "password_file")
			}
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

// lineOf finds the line of a value by the keys and indexes that lead to it; where
// the path ends early, that of the last one found.
func lineOf(n *yaml.Node, path ...any) int {
	if n == nil {
		return 0
	}
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	line := n.Line
	for _, p := range path {
		var next *yaml.Node
		switch p := p.(type) {
		case int:
			if n.Kind == yaml.SequenceNode && p < len(n.Content) {
				next = n.Content[p]
				line = next.Line
			}
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == p {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}
