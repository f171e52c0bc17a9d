package codec

import (
	"crypto"
	"encoding/hex"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// The vectors of RFC 3414, appendix A.3.
func TestKeysOfTheRFC(t *testing.T) {
	const engine = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
	for _, c := range []struct {
		hash           crypto.Hash
		key, localized string
	}{
		{crypto.MD5, "9faf3283884e92834ebc9847d8edd963", "526f5eed9fcce26f8964c2930787d82b"},
		{crypto.SHA1, "9fb5cc0381497b3793528939ff788d5d79145211", "6695febc9288e36282235fc7151f128497b38f3f"},
	} {
		key := passwordKey(c.hash, []byte("maplesyrup"))
		if got := hex.EncodeToString(key); got != c.key {
			t.Errorf("%v: key %s, want %s", c.hash, got, c.key)
		}
		if got := hex.EncodeToString(localize(c.hash, key, engine)); got != c.localized {
			t.Errorf("%v: localized %s, want %s", c.hash, got, c.localized)
		}
	}
}

// Our keys are those gosnmp makes, which real agents were tried with.
func TestKeysAreThoseOfGosnmp(t *testing.T) {
	const engine = "\x80\x00\x1f\x88\x04an engine"
	for an, auth := range authProtocols {
		for pn, priv := range privProtocols {
			if an == "" || pn == "" {
				continue
			}
			u, err := NewUser("kemi", an, "authpass123", pn, "privpass123", "")
			if err != nil {
				t.Fatal(err)
			}
			want := gosnmp.UsmSecurityParameters{AuthoritativeEngineID: engine, UserName: "kemi", AuthenticationProtocol: auth, AuthenticationPassphrase: "authpass123", PrivacyProtocol: priv, PrivacyPassphrase: "privpass123"}
			if err := want.InitSecurityKeys(); err != nil {
				t.Fatal(err)
			}
			s := NewSession(u)
			s.discovered(header{engine: engine}, time.Now())
			if string(s.authKey) != string(want.SecretKey) {
				t.Errorf("%s: authentication keys differ", an)
			}
			if n := len(s.privKey); string(s.privKey) != string(want.PrivacyKey[:min(n, len(want.PrivacyKey))]) {
				t.Errorf("%s %s: privacy keys differ", an, pn)
			}
		}
	}
}

// A key for the engine of each host must not cost a hash of a megabyte: at 20,000 hosts
// that is two minutes of CPU.
func BenchmarkLocalize(b *testing.B) {
	for _, priv := range []string{"AES", "AES-256"} {
		b.Run(priv, func(b *testing.B) {
			u, err := NewUser("kemi", "SHA-256", "authpass123", priv, "privpass123", "")
			if err != nil {
				b.Fatal(err)
			}
			s := NewSession(u)
			now := time.Now()
			s.discovered(header{engine: "12345678"}, now)
			b.ReportAllocs()
			for b.Loop() {
				s.discovered(header{engine: "12345678"}, now)
			}
		})
	}
}

func TestSaltsAreNotUsedTwice(t *testing.T) {
	for _, priv := range []string{"DES", "AES"} {
		u, err := NewUser("kemi", "SHA", "authpass123", priv, "privpass123", "")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range 1000 {
			s := string(u.nextSalt(3))
			if seen[s] || len(s) != 8 {
				t.Fatalf("%s: salt %x comes again", priv, s)
			}
			seen[s] = true
		}
	}
}
