package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kemi-go/kemi/examples/internal/site"
)

// configHelp are the keys that there are besides those of site.
const configHelp = `  retention: 72h                     how long topics on disk and on Kafka keep what was read (168h)
  kafka:                             for -bus kafka:...
    topic_prefix: kemi.              the topics are kemi.jobs, kemi.raw ...
    partitions: 64                   of a topic that has to be made; so many members may share it
    replication_factor: 3
    tls: {ca: ca.pem, cert: client.pem, key: client.key, server_name: kafka}
                                     {} for the authorities of this machine
    sasl: {mechanism: SCRAM-SHA-512, user: kemi, password: $KAFKA_PASSWORD}
                                     or PLAIN, SCRAM-SHA-256; or password_file: path
`

// config is what -config reads. Everything has a default; the zero config polls
// this machine.
type config struct {
	site.Site `yaml:",inline"`
	Retention site.Duration `yaml:"retention"`
	Kafka     kafkaConfig   `yaml:"kafka"`
}

func (c *config) interval() time.Duration { return time.Duration(c.Interval) }

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
	Mechanism    string      `yaml:"mechanism"`
	User         string      `yaml:"user"`
	Password     site.Secret `yaml:"password"`
	PasswordFile string      `yaml:"password_file"`
}

// Words implements site.Config.
func (c *config) Words() []string {
	return append(c.Site.Words(),
		"into main.kafkaConfig", "as settings: write {partitions: 64}",
		"into main.tlsConfig", "as TLS: write {ca: file}, or {}",
		"into main.saslConfig", "as a login: write {mechanism: m, user: u, password: $P}",
	)
}

// Check implements site.Config.
func (c *config) Check(f *site.File) error {
	if d := time.Duration(c.Retention); d != 0 && d < time.Hour {
		return f.At("retention").Errorf("retention %s: want an hour or more", d)
	}
	if err := c.Site.Check(f); err != nil {
		return err
	}
	return c.Kafka.check(f)
}

var topicPrefix = regexp.MustCompile(`^[a-zA-Z0-9._-]{0,200}$`)

// check reads the files that are named, so that what is wrong with them is told with
// the line that names them.
func (k *kafkaConfig) check(f *site.File) error {
	read := func(name string) ([]byte, error) { return os.ReadFile(f.Path(name)) }
	switch {
	case !topicPrefix.MatchString(k.TopicPrefix):
		return f.At("kafka", "topic_prefix").Errorf("topic_prefix: want letters, digits, '.', '_' and '-', at most 200")
	case k.Partitions < 0 || k.Partitions > 10_000:
		return f.At("kafka", "partitions").Errorf("partitions %d: want 1 to 10000", k.Partitions)
	case k.ReplicationFactor < 0 || k.ReplicationFactor > 100:
		return f.At("kafka", "replication_factor").Errorf("replication_factor %d: want 1 to 100", k.ReplicationFactor)
	}
	if t := k.TLS; t != nil {
		t.made = &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
		if t.CA != "" {
			pem, err := read(t.CA)
			if err != nil {
				return f.At("kafka", "tls", "ca").Errorf("%v", err)
			}
			t.made.RootCAs = x509.NewCertPool()
			if !t.made.RootCAs.AppendCertsFromPEM(pem) {
				return f.At("kafka", "tls", "ca").Errorf("%s has no certificate in PEM", t.CA)
			}
		}
		if (t.Cert == "") != (t.Key == "") {
			return f.At("kafka", "tls").Errorf("cert and key belong together: give both or none")
		}
		if t.Cert != "" {
			cert, err := read(t.Cert)
			if err != nil {
				return f.At("kafka", "tls", "cert").Errorf("%v", err)
			}
			key, err := read(t.Key)
			if err != nil {
				return f.At("kafka", "tls", "key").Errorf("%v", err)
			}
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return f.At("kafka", "tls", "cert").Errorf("%s and %s: %v", t.Cert, t.Key, err)
			}
			t.made.Certificates = []tls.Certificate{pair}
		}
	}
	if a := k.SASL; a != nil {
		switch {
		case !slices.Contains([]string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, a.Mechanism):
			return f.At("kafka", "sasl", "mechanism").Errorf("mechanism %q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", a.Mechanism)
		case a.User == "":
			return f.At("kafka", "sasl").Errorf("the login has no user")
		case (a.Password == "") == (a.PasswordFile == ""):
			return f.At("kafka", "sasl").Errorf("the login needs password or password_file, and not both")
		}
		if a.PasswordFile != "" {
			text, err := read(a.PasswordFile)
			if err != nil {
				return f.At("kafka", "sasl", "password_file").Errorf("%v", err)
			}
			if a.Password = site.Secret(strings.TrimRight(string(text), "\r\n")); a.Password == "" {
				return f.At("kafka", "sasl", "password_file").Errorf("%s is empty", a.PasswordFile)
			}
		}
	}
	return nil
}
