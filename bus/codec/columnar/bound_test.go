package columnar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kemi-go/kemi"
)

// TestWhatIsRememberedHasABound shows a codec ever new names and label sets.
func TestWhatIsRememberedHasABound(t *testing.T) {
	var h held
	last := map[kemi.Labels]bool{}
	for i := range 3 * maxHeld {
		set := kemi.LabelsOf("host", fmt.Sprint("h", i))
		h.add(set)
		if i >= 2*maxHeld {
			last[set] = true
		}
	}
	h.add(kemi.LabelsOf("text", strings.Repeat("x", maxHeldText)))
	for _, set := range h.sets {
		delete(last, set)
	}
	if len(h.sets) != maxHeld || len(last) > 0 {
		t.Errorf("%d sets are held, want %d; %d of the last ones are not", len(h.sets), maxHeld, len(last))
	}

	var names texts
	for i := range 3 * maxNames {
		src := fmt.Appendf(nil, "\x02\x05\x81\x01n%04x%s", i, strings.Repeat("x", maxName+1))
		names.read(&reader{src: src})
		if a, b := names.name(0), names.name(1); a != fmt.Sprintf("n%04x", i) || len(b) != maxName+1 {
			t.Fatalf("names %q and %q", a, b)
		}
		names.forget()
		if len(names.old) > maxNames || names.old[strings.Repeat("x", maxName+1)] != "" {
			t.Fatalf("%d names are kept, want at most %d, and short ones", len(names.old), maxNames)
		}
	}
	if len(names.old) == 0 {
		t.Error("no name is kept")
	}
}
