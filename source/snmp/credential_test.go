package snmp_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source/snmp"
)

// However a credential or what holds it is printed, no secret is in it.
func TestSecretsAreNotPrinted(t *testing.T) {
	const community, auth, priv = "s3cret-community", "s3cret-auth-pass", "s3cret-priv-pass"
	v2 := snmp.Credential{Community: community}
	v3 := snmp.Credential{Version: snmp.V3, User: "kemi", AuthProtocol: snmp.SHA, AuthPassphrase: auth, PrivProtocol: snmp.AES, PrivPassphrase: priv}
	var logged bytes.Buffer
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&logged), zap.DebugLevel))
	cfg := snmp.Config{DefaultCredential: v2, Credentials: map[string]snmp.Credential{"a": v3}, Logger: log, Timeout: 20 * time.Millisecond}
	p, err := snmp.NewPoller(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a := newAgent(t)
	a.with(func(a *agent) { a.silent = true })
	for range 4 {
		poll(t, p, jobFor(a))
	}
	if !strings.Contains(logged.String(), "does not answer") {
		t.Errorf("a host that is down was not logged: %s", logged.String())
	}

	texts := []string{logged.String()}
	for _, x := range []any{v2, v3, &v3, cfg, []snmp.Credential{v3}, p} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, x))
		}
	}
	for _, x := range []any{v2, v3, &v3, map[string]any{"c": v3}} {
		b, err := json.Marshal(x)
		if err != nil {
			t.Error(err)
		}
		texts = append(texts, string(b))
		var buf bytes.Buffer
		slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "c", x)
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "c", x)
		log.Info("x", zap.Any("c", x), zap.Reflect("r", x))
		texts = append(texts, buf.String(), logged.String())
	}
	for _, bad := range []snmp.Credential{
		{Version: snmp.V3, User: "kemi", AuthProtocol: "SHA1", AuthPassphrase: auth},
		{Version: snmp.V3, User: "kemi", AuthProtocol: snmp.SHA, AuthPassphrase: auth, PrivProtocol: "3DES", PrivPassphrase: priv},
		{Community: strings.Repeat(community, 20)},
	} {
		_, err := snmp.NewPoller(snmp.Config{DefaultCredential: bad})
		if err == nil {
			t.Errorf("%v was taken", bad)
			continue
		}
		texts = append(texts, err.Error())
	}
	for _, text := range texts {
		for _, secret := range []string{community, auth, priv, fmt.Sprintf("%x", community), fmt.Sprintf("%x", auth)} {
			if strings.Contains(text, secret) {
				t.Fatalf("a secret is in %s", text)
			}
		}
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	ok := snmp.Credential{Community: "public"}
	scalar := func(s snmp.Scalar) []snmp.Profile { return []snmp.Profile{{Name: "x", Scalars: []snmp.Scalar{s}}} }
	for want, cfg := range map[string]snmp.Config{
		"needs a community":            {DefaultCredential: snmp.Credential{ContextName: "x"}},
		"set Version to V3":            {DefaultCredential: snmp.Credential{Community: "c", User: "u"}},
		"no community":                 {DefaultCredential: snmp.Credential{Version: snmp.V3, Community: "c", User: "u"}},
		"user name":                    {DefaultCredential: snmp.Credential{Version: snmp.V3}},
		`credential "b": the auth`:     {Credentials: map[string]snmp.Credential{"a": ok, "b": {Version: snmp.V3, User: "u", AuthProtocol: snmp.MD5, AuthPassphrase: "short"}}},
		"privacy needs authentication": {DefaultCredential: snmp.Credential{Version: snmp.V3, User: "u", PrivProtocol: snmp.AES, PrivPassphrase: "12345678"}},
		"without a name":               {Credentials: map[string]snmp.Credential{"": ok}},
		"unknown version":              {DefaultCredential: snmp.Credential{Version: 9}},
		"two profiles":                 {Profiles: []snmp.Profile{snmp.Linux(), snmp.Linux()}},
		"a profile needs a name":       {Profiles: []snmp.Profile{{}}},
		"needs a name and an OID":      {Profiles: scalar(snmp.Scalar{Name: "x"})},
		"no OID in numbers":            {Profiles: scalar(snmp.Scalar{Name: "x", OIDs: []string{"sysUpTime.0"}})},
		"taken as it is":               {Profiles: scalar(snmp.Scalar{Name: "x", OIDs: []string{"1.3.6"}, Kind: kemi.KindCounter, Scale: 2})},
		"needs columns":                {Profiles: []snmp.Profile{{Name: "x", Tables: []snmp.Table{{}}}}},
		"must not be negative":         {Timeout: -1},
		"SourceAddress":                {SourceAddress: 7},
	} {
		p, err := snmp.NewPoller(cfg)
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
