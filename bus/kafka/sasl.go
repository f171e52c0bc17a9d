package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL is a login. It prints without its secrets.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER
	User      string
	Password  string
	// Token is asked for a token of OAUTHBEARER at each connection, by many goroutines.
	Token func(ctx context.Context) (string, error)
}

// String tells mechanism and user.
func (s SASL) String() string { return s.Mechanism + " as " + s.User }

// GoString is String.
func (s SASL) GoString() string { return s.String() }

func (s *SASL) mechanism() (sasl.Mechanism, error) {
	if s.Mechanism != "OAUTHBEARER" && (s.User == "" || s.Password == "") {
		return nil, fmt.Errorf("kafka: SASL %.50q needs User and Password", s.Mechanism)
	}
	switch s.Mechanism {
	case "PLAIN":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	case "OAUTHBEARER":
		if s.Token == nil {
			return nil, errors.New("kafka: SASL OAUTHBEARER needs Token")
		}
		return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := s.Token(ctx)
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("kafka: SASL.Token: %w", err)
			}
			return oauth.Auth{Token: token}, nil
		}), nil
	}
	return nil, fmt.Errorf("kafka: unknown SASL mechanism %.50q: want PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", s.Mechanism)
}
