package inventory_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/source/sourcetest"
)

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(tb testing.TB) sourcetest.Harness[kemi.Job] {
		// So many hosts that there are jobs in every tenth of a second, from the start. Each is
		// worth delivering for twenty seconds, longer than the suite waits for anything.
		targets := make([]inventory.Target, 1000)
		for i := range targets {
			targets[i] = inventory.Target{Address: fmt.Sprint("host", i), Labels: kemi.LabelsOf("rack", "r7")}
		}
		s, err := inventory.New(inventory.Static(targets...), inventory.Config{FirstInterval: 20 * time.Second})
		if err != nil {
			tb.Fatal(err)
		}
		return sourcetest.Harness[kemi.Job]{Source: s, Key: func(j kemi.Job) string { return j.Resource }}
	})
}
