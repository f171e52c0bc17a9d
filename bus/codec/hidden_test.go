package codec_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus/codec"
)

type (
	hidden struct {
		shop string
		n    int
	}
	embedded struct{ hidden } //nolint:unused // for its shape
	open     struct {
		hidden //nolint:unused // for its shape
		Shop   string
	}
	texty struct{ n int }
)

func (texty) MarshalText() ([]byte, error) { return []byte("x"), nil }

// TestATypeThatJSONDoesNotShowIsRefused: its records would come back empty, and Write
// would have called them safe.
func TestATypeThatJSONDoesNotShowIsRefused(t *testing.T) {
	_ = hidden{shop: "a", n: 1}
	_ = texty{n: 1}
	for name, err := range map[string]error{
		"hidden": codec.For[hidden]().Check(), "pointer": codec.For[*hidden]().Check(),
		"slice": codec.For[[]hidden]().Check(), "embedded": codec.For[embedded]().Check(),
	} {
		if err == nil || !strings.Contains(err.Error(), "export its fields") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"int": codec.For[int]().Check(), "open": codec.For[open]().Check(), "empty": codec.For[struct{}]().Check(),
		"time": codec.For[time.Time]().Check(), "text": codec.For[texty]().Check(), "any": codec.For[any]().Check(),
		"job": codec.For[kemi.Job]().Check(), "alert": codec.For[kemi.Alert]().Check(), "log": codec.For[kemi.Log]().Check(),
		"map": codec.For[map[string]hidden]().Check(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
