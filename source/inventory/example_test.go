package inventory_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/inventory"
)

// A list written in code, and the jobs that come of it.
func Example() {
	hosts := inventory.Static(inventory.Target{Address: "10.0.0.1:161", Resource: "web1", Service: "shop"})
	source, err := inventory.New(hosts, inventory.Config{
		Interval:      time.Minute,
		FirstInterval: 3 * time.Second, // rates within seconds
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	err = source.Run(ctx, kemi.SinkFunc[kemi.Job](func(_ context.Context, jobs []kemi.Job) error {
		for _, j := range jobs {
			fmt.Println("poll", j.Resource, "at", j.Target, "for", j.Profiles)
		}
		stop()
		return nil
	}))
	fmt.Println(err)
	// Output:
	// poll web1 at 10.0.0.1:161 for [linux]
	// <nil>
}

// Lists in files, in the format of Prometheus's file_sd.
func ExampleFiles() {
	dir, err := os.MkdirTemp("", "inventory")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	list := `
- targets: [10.0.0.1, 10.0.0.2]
  labels: {service: shop, rack: r7}
- targets: [10.0.0.3]
  labels: {host: db1, __interval__: 10s}
`
	if err := os.WriteFile(filepath.Join(dir, "shop.yml"), []byte(list), 0o600); err != nil {
		log.Fatal(err)
	}
	targets, err := inventory.Files(filepath.Join(dir, "*.yml")).Targets(context.Background())
	for _, t := range targets {
		fmt.Println(t.Resource, t.Address, t.Service, t.Interval, t.Labels)
	}
	fmt.Println(err)
	// Output:
	// 10.0.0.1 10.0.0.1 shop 0s {rack="r7"}
	// 10.0.0.2 10.0.0.2 shop 0s {rack="r7"}
	// db1 10.0.0.3  10s {}
	// <nil>
}

// A list from a server, and one written in code beside it.
func ExampleHTTP() {
	cmdb, err := inventory.HTTP(inventory.HTTPConfig{
		URL:           "https://cmdb.example.net/targets",
		Authorization: inventory.BearerFile("/etc/kemi/cmdb.token"),
	})
	if err != nil {
		log.Fatal(err)
	}
	all := inventory.Join(inventory.Static(inventory.Target{Address: "localhost"}), cmdb)
	if _, err := inventory.New(all, inventory.Config{}); err != nil {
		log.Fatal(err)
	}
}

// A source of hosts of one's own is one function.
func ExampleDiscovererFunc() {
	racks := inventory.DiscovererFunc(func(context.Context) ([]inventory.Target, error) {
		var targets []inventory.Target
		for i := range 3 {
			targets = append(targets, inventory.Target{Address: fmt.Sprintf("10.0.0.%d", i+1)})
		}
		return targets, nil
	})
	targets, _ := racks.Targets(context.Background())
	fmt.Println(len(targets))
	// Output: 3
}
