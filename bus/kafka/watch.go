package kafka

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// sayEvery is how often the same trouble is told.
const sayEvery = 30 * time.Second

// watch sees connections come and go, and remembers the last trouble.
type watch struct {
	logger *zap.Logger

	mu    sync.Mutex
	said  map[string]time.Time
	err   string
	at    time.Time
	fails uint64
}

var _ kgo.HookBrokerConnect = (*watch)(nil)

// OnBrokerConnect is for the client.
func (w *watch) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	w.mu.Lock()
	w.fails++
	w.mu.Unlock()
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	w.note("a broker cannot be reached", err, zap.String("broker", addr))
}

// note tells trouble, each kind of it once in a while.
func (w *watch) note(what string, err error, fields ...zap.Field) {
	now := time.Now()
	w.mu.Lock()
	if w.said == nil {
		w.said = map[string]time.Time{}
	}
	quiet := now.Sub(w.said[what]) < sayEvery
	if !quiet {
		w.said[what] = now
	}
	if err != nil {
		w.err, w.at = what+": "+err.Error(), now
	}
	w.mu.Unlock()
	if !quiet {
		w.logger.Warn("kafka: "+what, append(fields, zap.Error(err))...)
	}
}
