package codec_test

import (
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
)

func TestTypesAreToldApartByName(t *testing.T) {
	names := []string{
		codec.TypeName[kemi.Metric](), codec.TypeName[kemi.Log](), codec.TypeName[kemi.Alert](),
		codec.TypeName[kemi.Job](), codec.TypeName[kemi.DeadLetter](), codec.TypeName[open](),
	}
	want := []string{"kemi.Metric", "kemi.Log", "kemi.Alert", "kemi.Job", "kemi.DeadLetter", "github.com/kemi-go/kemi/bus/codec_test.open"}
	for i, a := range names {
		if a != want[i] {
			t.Errorf("%s, want %s", a, want[i])
		}
		for k, b := range names {
			if codec.SameType(a, b) != (i == k) {
				t.Errorf("%s and %s: %v", a, b, codec.SameType(a, b))
			}
		}
	}
}

// A type of a program's own may get another name; what it is made of is its own matter.
func TestATypeOfAProgramMayBeRenamed(t *testing.T) {
	if a, b := codec.TypeName[open](), codec.TypeName[hidden](); a == b || !codec.SameType(a, b) {
		t.Errorf("%s and %s", a, b)
	}
	for _, other := range []string{codec.TypeName[*kemi.Metric](), codec.TypeName[[]byte](), codec.TypeName[map[string]kemi.Log]()} {
		if codec.SameType(codec.TypeName[kemi.Metric](), other) || !codec.SameType(codec.TypeName[open](), other) {
			t.Error(other)
		}
	}
}
