package inventory_test

import (
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/inventory"
	"github.com/kemi-go/kemi/source/sourcetest"
)

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(tb testing.TB) sourcetest.Harness[kemi.Job] {
		s, err := inventory.New(inventory.Static(
			inventory.Target{Address: "10.0.0.1", Labels: kemi.LabelsOf("rack", "r7")}, inventory.Target{Address: "10.0.0.2"}, inventory.Target{Address: "10.0.0.3"},
		), inventory.Config{Interval: 200 * time.Millisecond})
		if err != nil {
			tb.Fatal(err)
		}
		return sourcetest.Harness[kemi.Job]{Source: s, Key: func(j kemi.Job) string { return j.Resource }}
	})
}
