package snmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/kemi-go/kemi/source/snmp/internal/codec"
)

// Version is a version of SNMP.
type Version uint8

// The versions a Poller speaks.
const (
	V2c Version = iota // community based, RFC 1901
	V3                 // with users, RFC 3414
)

// String returns 2c or 3.
func (v Version) String() string {
	if v == V3 {
		return "3"
	}
	return "2c"
}

// AuthProtocol is how messages of version 3 are signed (RFC 3414, RFC 7860).
type AuthProtocol string

// The authentication protocols.
const (
	NoAuth AuthProtocol = ""
	MD5    AuthProtocol = "MD5"
	SHA    AuthProtocol = "SHA"
	SHA224 AuthProtocol = "SHA-224"
	SHA256 AuthProtocol = "SHA-256"
	SHA384 AuthProtocol = "SHA-384"
	SHA512 AuthProtocol = "SHA-512"
)

// PrivProtocol is how messages of version 3 are encrypted.
type PrivProtocol string

// The privacy protocols: RFC 3414 (DES), RFC 3826 (AES with 128 bits), and the two ways
// in use to make a longer key: that of draft-blumenthal-aes-usm, which net-snmp
// follows, and that of draft-reeder-snmpv3-usm-3dese, which Cisco follows.
const (
	NoPriv  PrivProtocol = ""
	DES     PrivProtocol = "DES"
	AES     PrivProtocol = "AES"
	AES192  PrivProtocol = "AES-192"
	AES256  PrivProtocol = "AES-256"
	AES192C PrivProtocol = "AES-192-C"
	AES256C PrivProtocol = "AES-256-C"
)

// Credential is what lets a poller in. It prints as a few words without any secret, in
// logs, JSON and fmt alike. The zero Credential is version 2c with an empty
// community, which no agent takes.
type Credential struct {
	Version   Version
	Community string // of version 2c, at most 127 bytes

	User           string // of version 3, and all that follow
	AuthProtocol   AuthProtocol
	AuthPassphrase string // at least 8 bytes
	PrivProtocol   PrivProtocol
	PrivPassphrase string // at least 8 bytes
	ContextName    string // the default context if empty
}

// String names the version, user and protocols, and no secret.
func (c Credential) String() string {
	if c.Version == V2c {
		return "snmp v2c"
	}
	return strings.TrimRight(fmt.Sprintf("snmp v3 user %q %s %s", c.User, c.AuthProtocol, c.PrivProtocol), " ")
}

// GoString is String, for %#v.
func (c Credential) GoString() string { return c.String() }

// Format writes String for every verb, so that no verb shows the fields.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// MarshalText writes String. A Credential is not read back from it.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalJSON writes String as a JSON string.
func (c Credential) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// LogValue gives String to log/slog.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// encode returns the messages of requests for oids, defaultBinds at a time, or nil for
// version 3, where each message is encrypted and signed anew.
func (s *security) encode(oids []string) [][]byte {
	if s.user != nil {
		return nil
	}
	var msgs [][]byte
	for part := range slices.Chunk(oids, defaultBinds) {
		m, err := codec.EncodeV2c(s.credential.Community, codec.SampleID, codec.Request{Op: codec.Get, OIDs: part})
		if err != nil {
			return nil // the poll will say why
		}
		msgs = append(msgs, m)
	}
	return msgs
}

// security is a Credential made ready for use, shared by all hosts that use it.
type security struct {
	credential Credential
	user       *codec.User // of version 3
}

func newSecurity(c Credential) (*security, error) {
	switch c.Version {
	case V2c:
		if c.Community == "" {
			return nil, errors.New("version 2c needs a community")
		}
		if c.User != "" || c.AuthProtocol != "" || c.PrivProtocol != "" {
			return nil, errors.New("users belong to version 3: set Version to V3")
		}
		return &security{credential: c}, codec.CheckCommunity(c.Community)
	case V3:
		if c.Community != "" {
			return nil, errors.New("version 3 has users and no community")
		}
		u, err := codec.NewUser(c.User, string(c.AuthProtocol), c.AuthPassphrase, string(c.PrivProtocol), c.PrivPassphrase, c.ContextName)
		return &security{c, u}, err
	}
	return nil, fmt.Errorf("unknown version %d", c.Version)
}
