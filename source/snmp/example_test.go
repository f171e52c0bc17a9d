package snmp_test

import (
	"context"
	"fmt"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// A poller stands between a source of jobs and a sink of metrics.
func Example() {
	poller, err := snmp.NewPoller(snmp.Config{
		DefaultCredential: snmp.Credential{Community: "public"},
		Credentials: map[string]snmp.Credential{
			"vault/dmz": {
				Version: snmp.V3, User: "kemi",
				AuthProtocol: snmp.SHA256, AuthPassphrase: "from a secret store",
				PrivProtocol: snmp.AES, PrivPassphrase: "from a secret store",
			},
		},
		Timeout:  50 * time.Millisecond, // nobody answers in this example
		Patience: time.Minute,           // and no Tick follows, as there is one job alone
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer poller.Close()

	jobs := kemi.SourceFunc[kemi.Job](func(ctx context.Context, out kemi.Sink[kemi.Job]) error {
		return out.Write(ctx, []kemi.Job{{Target: "192.0.2.1", Resource: "web1", Auth: "vault/dmz", Profiles: []string{"linux"}}})
	})
	metrics := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
		for _, m := range batch {
			if m.Name == "up" {
				fmt.Println(m.Name, m.Labels, m.Float())
			}
		}
		return nil
	})
	p := &kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("poll", jobs, poller, metrics)}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: up {host="web1"} 0
}

func ExampleCredential() {
	c := snmp.Credential{
		Version: snmp.V3, User: "kemi",
		AuthProtocol: snmp.SHA256, AuthPassphrase: "never shown",
		PrivProtocol: snmp.AES, PrivPassphrase: "never shown",
	}
	fmt.Printf("%v\n%+v\n", c, c)
	// Output:
	// snmp v3 user "kemi" SHA-256 AES
	// snmp v3 user "kemi" SHA-256 AES
}

// A profile of one's own: the temperature sensors of lm-sensors.
func ExampleProfile() {
	const table = "1.3.6.1.4.1.2021.13.16.2.1."
	const (
		device = iota
		value
	)
	sensors := snmp.Profile{
		Name: "sensors",
		Tables: []snmp.Table{{
			Columns:  []snmp.Column{device: {OID: table + "2"}, value: {OID: table + "3"}},
			Label:    "sensor",
			Identity: func(r *snmp.Row) string { return r.At(device).Text() },
			Metrics: func(r *snmp.Row) {
				if v := r.At(value); v.OK() {
					r.Gauge("temperature_celsius", v.Float()/1000)
				}
			},
		}},
	}
	poller, err := snmp.NewPoller(snmp.Config{
		DefaultCredential: snmp.Credential{Community: "public"},
		Profiles:          []snmp.Profile{snmp.Linux(), sensors},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(poller.Stats().Hosts, poller.Close())
	// Output: 0 <nil>
}
