package codec

import (
	"bytes"
	"crypto"
	_ "crypto/md5"    // for crypto.Hash, as the three below
	_ "crypto/sha1"   // SHA
	_ "crypto/sha256" // SHA-224, SHA-256
	_ "crypto/sha512" // SHA-384, SHA-512
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gosnmp/gosnmp"
)

// User is a user of the User-based Security Model (RFC 3414). Make one with
// [NewUser] and share it among the sessions of every host: the costly half of its
// keys is made once. It may be used by many goroutines.
type User struct {
	name, context string
	auth          gosnmp.SnmpV3AuthProtocol
	priv          gosnmp.SnmpV3PrivProtocol
	authKey       func() []byte // of the password, for no engine yet
	privKey       func() []byte
	salt          atomic.Uint64
}

var authProtocols = map[string]gosnmp.SnmpV3AuthProtocol{
	"": gosnmp.NoAuth, "MD5": gosnmp.MD5, "SHA": gosnmp.SHA, "SHA-224": gosnmp.SHA224,
	"SHA-256": gosnmp.SHA256, "SHA-384": gosnmp.SHA384, "SHA-512": gosnmp.SHA512,
}

var privProtocols = map[string]gosnmp.SnmpV3PrivProtocol{
	"": gosnmp.NoPriv, "DES": gosnmp.DES, "AES": gosnmp.AES, "AES-192": gosnmp.AES192,
	"AES-256": gosnmp.AES256, "AES-192-C": gosnmp.AES192C, "AES-256-C": gosnmp.AES256C,
}

// minPassphrase is the least length of RFC 3414, section 11.2, which agents hold too.
const minPassphrase = 8

// NewUser checks its arguments and returns the user. An empty protocol means none.
func NewUser(name, auth, authPass, priv, privPass, context string) (*User, error) {
	u := &User{name: name, context: context}
	var ok bool
	switch {
	case name == "" || len(name) > 32:
		return nil, errors.New("a user name has 1 to 32 bytes")
	case len(context) > 255:
		return nil, errors.New("a context name has at most 255 bytes")
	}
	if u.auth, ok = authProtocols[auth]; !ok {
		return nil, fmt.Errorf("unknown authentication protocol %q: want MD5, SHA, SHA-224, SHA-256, SHA-384 or SHA-512", auth)
	}
	if u.priv, ok = privProtocols[priv]; !ok {
		return nil, fmt.Errorf("unknown privacy protocol %q: want DES, AES, AES-192, AES-256, AES-192-C or AES-256-C", priv)
	}
	switch {
	case u.auth == gosnmp.NoAuth && u.priv != gosnmp.NoPriv:
		return nil, errors.New("privacy needs authentication")
	case u.auth != gosnmp.NoAuth && len(authPass) < minPassphrase:
		return nil, fmt.Errorf("the authentication passphrase needs at least %d bytes", minPassphrase)
	case u.priv != gosnmp.NoPriv && len(privPass) < minPassphrase:
		return nil, fmt.Errorf("the privacy passphrase needs at least %d bytes", minPassphrase)
	}
	h := u.auth.HashType()
	u.authKey = sync.OnceValue(func() []byte { return passwordKey(h, []byte(authPass)) })
	u.privKey = u.authKey
	if privPass != authPass {
		u.privKey = sync.OnceValue(func() []byte { return passwordKey(h, []byte(privPass)) })
	}
	u.salt.Store(rand.Uint64())
	return u, nil
}

func (u *User) flags() gosnmp.SnmpV3MsgFlags {
	switch {
	case u.priv != gosnmp.NoPriv:
		return gosnmp.AuthPriv
	case u.auth != gosnmp.NoAuth:
		return gosnmp.AuthNoPriv
	}
	return gosnmp.NoAuthNoPriv
}

// passwordKey is the algorithm of RFC 3414, appendix A.2: the digest of a megabyte
// of the password, written again and again.
func passwordKey(h crypto.Hash, password []byte) []byte {
	const total = 1 << 20
	d := h.New()
	chunk := bytes.Repeat(password, 4096/len(password)+1)
	left := total
	for ; left >= len(chunk); left -= len(chunk) {
		d.Write(chunk)
	}
	d.Write(chunk[:left])
	return d.Sum(nil)
}

// localize makes the key of one engine (RFC 3414, section 2.6).
func localize(h crypto.Hash, key []byte, engine string) []byte {
	d := h.New()
	d.Write(key)
	d.Write([]byte(engine))
	d.Write(key)
	return d.Sum(nil)
}

// localizePriv makes the privacy key of one engine, of the length the cipher needs.
// AES-128 and DES take the start of the localized key, as RFC 3826 section 1.2 and RFC 3414 section
// 8.2.1 say; a longer key is made by the extension of draft-blumenthal-aes-usm-04, section
// 3.1.2.1, or that of draft-reeder-snmpv3-usm-3dese, section 2.1, which Cisco uses.
func (u *User) localizePriv(engine string) []byte {
	h := u.auth.HashType()
	key := localize(h, u.privKey(), engine)
	var need int
	switch u.priv {
	case gosnmp.DES, gosnmp.AES:
		need = 16
	case gosnmp.AES192, gosnmp.AES192C:
		need = 24
	default:
		need = 32
	}
	for last := key; len(key) < need; {
		if u.priv == gosnmp.AES192C || u.priv == gosnmp.AES256C {
			last = localize(h, passwordKey(h, last), engine)
		} else {
			d := h.New()
			d.Write(key)
			last = d.Sum(nil)
		}
		key = append(key[:len(key):len(key)], last...)
	}
	return key[:need]
}

const (
	maxClock   = 1<<31 - 1 // of engine boots and time: RFC 3414, section 2.2
	timeWindow = 150       // seconds: RFC 3414, section 2.2.3
)

// Session is what is known about the engine of one host. It belongs to the host and
// not to the engine ID, because machines made from one image have the same. One
// goroutine uses it at a time.
type Session struct {
	user   *User
	engine string
	// The engine's clock as of at. newest is the latest time seen in an authentic
	// message, against replays.
	boots, clock, newest uint32
	at                   time.Time
	synced               bool // the clock was authentic
	authKey, privKey     []byte
}

// NewSession returns a session that knows nothing yet.
func NewSession(u *User) *Session { return &Session{user: u} }

// Known tells whether the engine has been discovered. Until then Encode makes the
// request that discovers it.
func (s *Session) Known() bool { return s.engine != "" }

// Forget makes the session as new: the engine has been replaced.
func (s *Session) Forget() { *s = Session{user: s.user} }

// Report says why an agent did not process a request of version 3.
type Report uint8

// The reports of RFC 3414, section 5, and RFC 3412.
const (
	NoReport        Report = iota
	ReportEngine           // the engine ID is not the agent's; the session knows the right one now, or none
	ReportWindow           // our notion of the agent's clock is wrong; the session knows better now
	ReportUser             // the agent does not know the user
	ReportDigest           // the authentication passphrase or protocol is wrong
	ReportDecrypt          // the privacy passphrase or protocol is wrong
	ReportLevel            // the agent wants another security level of this user
	ReportOther            // another report
	ReportDiscovery        // the answer to a discovery
)

var reports = map[string]Report{
	".1.3.6.1.6.3.15.1.1.1.0": ReportLevel,
	".1.3.6.1.6.3.15.1.1.2.0": ReportWindow,
	".1.3.6.1.6.3.15.1.1.3.0": ReportUser,
	".1.3.6.1.6.3.15.1.1.4.0": ReportEngine,
	".1.3.6.1.6.3.15.1.1.5.0": ReportDigest,
	".1.3.6.1.6.3.15.1.1.6.0": ReportDecrypt,
}

// Encode returns the message of a request with id as msgID and request-id or, while
// the engine is not known, the message that discovers it (RFC 3414, section 4).
func (s *Session) Encode(id uint32, r Request, now time.Time) ([]byte, error) {
	p := gosnmp.SnmpPacket{
		Version:       gosnmp.Version3,
		MsgFlags:      gosnmp.Reportable,
		SecurityModel: gosnmp.UserSecurityModel,
		MsgID:         id,
		RequestID:     id,
		PDUType:       gosnmp.GetRequest,
	}
	if !s.Known() {
		p.SecurityParameters = &gosnmp.UsmSecurityParameters{AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv}
	} else {
		sp := s.security()
		sp.AuthoritativeEngineBoots, sp.AuthoritativeEngineTime = s.boots, s.timeAt(now)
		sp.PrivacyParameters = s.user.nextSalt(s.boots)
		p.SecurityParameters = sp
		p.MsgFlags |= s.user.flags()
		p.ContextEngineID, p.ContextName = s.engine, s.user.context
		p.PDUType = gosnmp.PDUType(r.Op)
		p.MaxRepetitions = r.MaxRepetitions
		p.Variables = variables(r.OIDs)
	}
	b, err := p.MarshalMsg()
	if err != nil {
		return nil, errors.New("snmp: encode: the request cannot be written or encrypted")
	}
	return b, nil
}

// nextSalt is one that this user has not used before: the counters of RFC 3414, section
// 8.1.1.1, and RFC 3826, section 3.1.2.1, which start at random.
func (u *User) nextSalt(boots uint32) []byte {
	salt := make([]byte, 8)
	n := u.salt.Add(1)
	binary.BigEndian.PutUint64(salt, n)
	if u.priv == gosnmp.DES {
		binary.BigEndian.PutUint32(salt, boots)
	}
	return salt
}

// security returns the parameters of this session. They never hold a passphrase:
// where gosnmp needs a key that is not there, it must fail and not make one.
func (s *Session) security() *gosnmp.UsmSecurityParameters {
	return &gosnmp.UsmSecurityParameters{
		AuthoritativeEngineID:  s.engine,
		UserName:               s.user.name,
		AuthenticationProtocol: s.user.auth,
		PrivacyProtocol:        s.user.priv,
		SecretKey:              s.authKey,
		PrivacyKey:             s.privKey,
	}
}

// timeAt is the engine's clock, carried on from when it was last heard.
func (s *Session) timeAt(now time.Time) uint32 {
	return uint32(min(int64(s.clock)+int64(max(now.Sub(s.at), 0)/time.Second), maxClock))
}

// Decode reads the answer to the request with that id. It may write to msg and keeps
// nothing of it. A report changes what the session knows; see [Report].
func (s *Session) Decode(id uint32, msg []byte, now time.Time) (Answer, error) {
	h, ok := parseHeader(msg)
	if !ok {
		return Answer{}, ErrMalformed
	}
	flags := gosnmp.SnmpV3MsgFlags(h.flags) & gosnmp.AuthPriv
	switch {
	case h.id != int64(id) || h.model != int64(gosnmp.UserSecurityModel):
		return Answer{}, ErrMismatch
	case flags&gosnmp.AuthNoPriv == 0 && (s.user.auth != gosnmp.NoAuth || !s.Known()):
		return s.decodePlainReport(h, msg, now)
	case !s.Known() || h.engine != s.engine || h.user != s.user.name:
		// gosnmp would make keys for another engine out of a passphrase it has not got,
		// and so accept a message that anyone can sign.
		return Answer{}, ErrMismatch
	case flags == gosnmp.AuthPriv && s.user.priv == gosnmp.NoPriv || flags > s.user.flags():
		return Answer{}, ErrMismatch
	}
	g := gosnmp.GoSNMP{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel,
		MsgFlags: flags, SecurityParameters: s.security(),
	}
	p, err := decode(&g, msg)
	if err != nil {
		return Answer{}, err
	}
	if p.PDUType != gosnmp.Report && (p.PDUType != gosnmp.GetResponse || flags != s.user.flags()) {
		// The level of an answer is that of its request (RFC 3412, section 7.2.11). A
		// request of ours that someone sends back is signed as well.
		return Answer{}, ErrMismatch
	}
	report := reportOf(p)
	if p.PDUType == gosnmp.Report && report == ReportWindow {
		// The message is authentic and tells the clock of the engine.
		s.boots, s.clock, s.newest, s.at, s.synced = h.boots, h.time, h.time, now, flags&gosnmp.AuthNoPriv != 0
		return Answer{Report: report}, nil
	}
	if flags&gosnmp.AuthNoPriv != 0 && !s.inWindow(h, now) {
		return Answer{}, ErrWindow
	}
	if p.PDUType == gosnmp.Report {
		return Answer{Report: report}, nil
	}
	return answer(p)
}

func reportOf(p *gosnmp.SnmpPacket) Report {
	if p.PDUType == gosnmp.Report && len(p.Variables) > 0 {
		if r, ok := reports[p.Variables[0].Name]; ok {
			return r
		}
	}
	return ReportOther
}

// inWindow is RFC 3414, section 3.2, step 7b: an authentic message moves our notion
// of the engine's clock forward, and one that is older than the window is a replay.
func (s *Session) inWindow(h header, now time.Time) bool {
	if !s.synced || h.boots > s.boots || h.boots == s.boots && h.time > s.newest {
		s.boots, s.clock, s.newest, s.at, s.synced = h.boots, h.time, h.time, now, true
	}
	return s.boots != maxClock && h.boots == s.boots && int64(h.time) >= int64(s.timeAt(now))-timeWindow
}

// decodePlainReport reads a message without authentication where we would sign: only
// a report may come so.
func (s *Session) decodePlainReport(h header, msg []byte, now time.Time) (Answer, error) {
	g := gosnmp.GoSNMP{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel,
		SecurityParameters: &gosnmp.UsmSecurityParameters{AuthenticationProtocol: gosnmp.NoAuth, PrivacyProtocol: gosnmp.NoPriv},
	}
	p, err := decode(&g, msg)
	if err != nil {
		return Answer{}, err
	}
	if p.PDUType != gosnmp.Report {
		return Answer{}, ErrAuth
	}
	report := reportOf(p)
	if !s.Known() {
		// RFC 3411, section 5: an engine ID has 5 to 32 bytes. Some devices answer a
		// discovery with another report than that of an unknown engine.
		if len(h.engine) < 5 || len(h.engine) > 32 {
			return Answer{}, ErrMismatch
		}
		s.discovered(h, now)
		return Answer{Report: ReportDiscovery}, nil
	}
	switch report {
	case ReportWindow:
		// Anyone could send it: RFC 3414 has it signed.
		return Answer{}, ErrWindow
	case ReportEngine:
		if h.engine == s.engine {
			return Answer{}, ErrMismatch
		}
		s.Forget()
		if len(h.engine) >= 5 && len(h.engine) <= 32 {
			s.discovered(h, now)
		}
	}
	return Answer{Report: report}, nil
}

func (s *Session) discovered(h header, now time.Time) {
	s.engine, s.boots, s.clock, s.at = h.engine, h.boots, h.time, now
	s.newest, s.synced = 0, false
	if s.user.auth != gosnmp.NoAuth {
		s.authKey = localize(s.user.auth.HashType(), s.user.authKey(), s.engine)
	}
	if s.user.priv != gosnmp.NoPriv {
		s.privKey = s.user.localizePriv(s.engine)
	}
}
