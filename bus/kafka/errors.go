package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What an error of this package may be about, for [errors.Is]. The text says more.
var (
	ErrLogin     = errors.New("the login was refused")
	ErrForbidden = errors.New("the user may not do this")
	ErrTLS       = errors.New("TLS does not come about")
	ErrUnreached = errors.New("no broker answers")
	ErrNoTopic   = errors.New("there is no such topic")
	ErrRecreated = errors.New("the topic was deleted, and made again")
	ErrTooLarge  = errors.New("too large")
	// ErrFull says that Config.BufferMemory was used up until the context of a Write was
	// done. Nothing is written; a source that is pushed to answers with 429.
	ErrFull = errors.New("too much waits to be acknowledged")
)

// said is an error in words, with what it is about and where it came from.
type said struct {
	text  string
	kind  error
	cause error
}

func (e *said) Error() string   { return e.text + ": " + e.cause.Error() }
func (e *said) Unwrap() []error { return []error{e.kind, e.cause} }

// explain says what an error of the client means and what to do about it.
func (c *Cluster) explain(err error, topic string) error {
	var (
		unknownCA *tls.CertificateVerificationError
		remote    *net.OpError
		plain     tls.RecordHeaderError
		host      x509.HostnameError
		first     *kgo.ErrFirstReadEOF
		network   net.Error
		already   *said
	)
	is := func(codes ...*kerr.Error) bool {
		for _, k := range codes {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	say := func(kind error, format string, args ...any) error {
		return &said{fmt.Sprintf(format, args...), kind, err}
	}
	switch {
	case err == nil, errors.As(err, &already):
		return err
	case is(kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState):
		if c.config.SASL == nil {
			return say(ErrLogin, "%v: the broker wants a login: give Config.SASL", ErrLogin)
		}
		return say(ErrLogin, "%v for %v: look at Config.SASL", ErrLogin, *c.config.SASL)
	case is(kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed):
		return say(ErrForbidden, "%v: it needs the ACLs Describe, Read, Write on topic %q, Read on its groups (%q and what begins with it), "+
			"IdempotentWrite, and Create if topics are to be made", ErrForbidden, topic, topic+".")
	case errors.As(err, &unknownCA), errors.As(err, &host):
		return say(ErrTLS, "%v: the broker's certificate is not to be trusted: look at RootCAs and ServerName of Config.TLS", ErrTLS)
	case errors.As(err, &plain):
		return say(ErrTLS, "%v: what answers there speaks no TLS: look at the port, or take Config.TLS away", ErrTLS)
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert; its type has no name
		return say(ErrTLS, "%v: the broker does not take our certificate: look at Certificates of Config.TLS", ErrTLS)
	case errors.As(err, &first):
		return say(ErrUnreached, "%v: it hangs up at once: a listener with TLS or SASL does that where Config.TLS or Config.SASL is missing", ErrUnreached)
	case is(kerr.UnknownTopicID, kerr.InconsistentTopicID):
		return say(ErrRecreated, "%v under topic %q: what was on it is gone, positions in it mean nothing; "+
			"make sure that this was meant, delete the groups that read it (their names begin with %q), and start again", ErrRecreated, topic, topic+".")
	case is(kerr.UnknownTopicOrPartition):
		return say(ErrNoTopic, "%v as %q: make it, or look why it was deleted", ErrNoTopic, topic)
	case is(kerr.MessageTooLarge, kerr.RecordListTooLarge):
		return say(ErrTooLarge, "%v for topic %q: its max.message.bytes is less than it was: raise it, or start again, which reads it anew", ErrTooLarge, topic)
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("the cluster is closed: %w", err)
	case errors.Is(err, context.Canceled):
		return err
	case c.config.SASL != nil && errors.Is(err, io.EOF):
		return say(ErrUnreached, "%v: it hangs up during the login as %v: look at Config.SASL, and whether this listener has SASL", ErrUnreached, *c.config.SASL)
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, context.DeadlineExceeded):
		return say(ErrUnreached, "%v", ErrUnreached)
	}
	return err
}

// final tells whether trying again does not help until somebody has acted.
func final(err error) bool {
	return errors.Is(err, ErrNoTopic) || errors.Is(err, ErrRecreated) || errors.Is(err, ErrLogin) || errors.Is(err, ErrForbidden)
}
