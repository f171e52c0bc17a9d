package bustest

import (
	"testing"

	"github.com/kemi-go/kemi/bus"
)

// CheckNames are the names of the checks.
func CheckNames() []string {
	var names []string
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// Check runs one check on tb.
func Check(tb testing.TB, name string, b Bus) {
	for _, c := range checks {
		if c.name == name {
			if why := c.run(tb, b); why != "" {
				tb.Fatalf("%s was skipped: %s", name, why)
			}
			return
		}
	}
	tb.Fatalf("there is no check %q", name)
}

// CheckCodec runs one check of a codec on tb.
func CheckCodec(tb testing.TB, name string, c bus.Codec[Record], batches ...[]Record) {
	k := newCodecCheck(c, nil, batches)
	for _, x := range k.checks() {
		if x.name == name {
			x.do(tb)
			return
		}
	}
	tb.Fatalf("there is no check %q", name)
}
