package opentsdb_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/kemi-go/kemi/sink/opentsdb"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"if_in_octets":            "if_in_octets",
		"/var/lib-1.x":            "/var/lib-1.x",
		"eth0:1":                  "eth0_x3a_1",
		"서울 1":                    "_xec849cec9ab820_1",
		"a=b, c#d":                "a_x3d_b_x2c20_c_x23_d",
		"é":                       "_xc3a9_",
		"\xff":                    "_xff_",
		"_x41_":                   "_x5f_x41_", // looks like an escape
		"_x4_":                    "_x4_",      // does not
		"_x4G_":                   "_x4G_",
		"_xAB_":                   "_xAB_", // digits are lower case
		"_xab\x01":                "_x5f_xab_x01_",
		"_xab":                    "_xab",
		"\x01_xab_":               "_x01__x5f_xab_",
		"\x01x41_":                "_x01_x41_",
		"__x41_":                  "__x5f_x41_",
		strings.Repeat("_x41", 2): "_x5f_x41_x41",
	} {
		if got := opentsdb.Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
		if got := opentsdb.Unescape(want); got != in {
			t.Errorf("Unescape(%q) = %q, want %q", want, got, in)
		}
	}
}

// checkEscape holds the two properties: what comes out is legal, and it comes back.
// That it comes back is also what keeps different strings different.
func checkEscape(t *testing.T, s string) {
	t.Helper()
	e := opentsdb.Escape(s)
	if i := strings.IndexFunc(e, func(r rune) bool {
		return !strings.ContainsRune("-_./0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", r)
	}); i >= 0 {
		t.Fatalf("Escape(%q) = %q: illegal at %d", s, e, i)
	}
	if got := opentsdb.Unescape(e); got != s {
		t.Fatalf("Escape(%q) = %q, which Unescape makes %q", s, e, got)
	}
	if (e == "") != (s == "") {
		t.Fatalf("Escape(%q) = %q", s, e)
	}
	if got := string(opentsdb.AppendEscape([]byte("host="), s)); got != "host="+e {
		t.Fatalf("AppendEscape(%q) = %q, and Escape %q", s, got, e)
	}
}

// TestEscapeProperties tries every string of up to 6 characters of those that matter
// to the rule, and many longer ones.
func TestEscapeProperties(t *testing.T) {
	const alphabet = "_x4a \xec"
	seen := map[string]string{}
	var try func(s string, more int)
	try = func(s string, more int) {
		checkEscape(t, s)
		e := opentsdb.Escape(s)
		if other, ok := seen[e]; ok && other != s {
			t.Fatalf("%q and %q are both %q", s, other, e)
		}
		seen[e] = s
		if more > 0 {
			for i := range len(alphabet) {
				try(s+alphabet[i:i+1], more-1)
			}
		}
	}
	try("", 6)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := make([]byte, r.IntN(40))
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		checkEscape(t, string(b))
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "eth0:1", "서울", "_x41_", "_xab\x01", "\xff_x_", "__x5f_"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkEscape(t, s)
		_ = opentsdb.Unescape(s) // any string may come back from a server
	})
}
