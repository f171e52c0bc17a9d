package engine

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	logAgain  = 30 * time.Second // the same trouble is told again after this long
	logOften  = time.Second      // other trouble of the same sort, not more often than this
	logCauses = 8                // and not more of it in the time of logAgain
)

// journal keeps the last error of a flow, and logs an outage as one line and not one
// for every try.
type journal struct {
	log *zap.Logger

	mu     sync.Mutex
	last   string
	lastAt time.Time
	said   map[string]*line // by message
}

// line is what was logged lately under one message.
type line struct {
	told map[string]time.Time // by cause
	at   time.Time            // the last of them
	open bool                 // that it is over was not said yet
}

// note keeps err, and logs it unless that was just done.
func (j *journal) note(msg string, err error, fields ...zap.Field) {
	if j.hold(msg, err, time.Now()) {
		return
	}
	if s := stackOf(err); s != "" {
		fields = append(fields, zap.String("stack", s))
	}
	j.log.Warn(msg, append(fields, zap.Error(err))...)
}

// hold tells whether a line is to be held back.
func (j *journal) hold(msg string, err error, now time.Time) bool {
	why := strings.Join(causes(nil, err), "\n")
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.lastAt = err.Error(), now
	l := j.said[msg]
	if l == nil {
		l = &line{told: map[string]time.Time{}}
		j.said[msg] = l
	}
	maps.DeleteFunc(l.told, func(_ string, at time.Time) bool { return now.Sub(at) >= logAgain })
	if _, known := l.told[why]; known || len(l.told) >= logCauses || now.Sub(l.at) < logOften {
		return true
	}
	l.told[why], l.at, l.open = now, now, true
	return false
}

// causes appends to dst what lies at the bottom of err, each text once. What is
// wrapped around it changes with every batch while the trouble is the same ("3 of 100
// records failed"); of a partial the first failure counts.
func causes(dst []string, err error) []string {
	switch e := err.(type) {
	case *partial:
		return causes(dst, e.failed[0].Err)
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return causes(dst, inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			dst = causes(dst, inner)
		}
		return dst
	}
	if text := err.Error(); !slices.Contains(dst, text) {
		dst = append(dst, text)
	}
	return dst
}

// cleared says once that the trouble told under msg has passed.
func (j *journal) cleared(msg, passed string, fields ...zap.Field) {
	j.mu.Lock()
	l := j.said[msg]
	said := l != nil && l.open
	if said {
		l.open = false
	}
	j.mu.Unlock()
	if said {
		j.log.Info(passed, fields...)
	}
}

func (j *journal) lastError() (string, time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last, j.lastAt
}
