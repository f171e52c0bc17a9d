package engine

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	logAgain = 30 * time.Second // the same trouble is told again after this long
	logOften = time.Second      // other trouble of the same sort, not more often than this
)

// journal keeps the last error of a flow, and logs an outage as one line and not one
// for every try.
type journal struct {
	log *zap.Logger

	mu     sync.Mutex
	last   string
	lastAt time.Time
	said   map[string]line // by message
}

// line is what was logged last under one message.
type line struct {
	err  string
	at   time.Time
	open bool // that it is over was not said yet
}

// note keeps err, and logs it unless that was just done.
func (j *journal) note(msg string, err error, fields ...zap.Field) {
	text := err.Error()
	if j.hold(msg, text, time.Now()) {
		return
	}
	if s := stackOf(err); s != "" {
		fields = append(fields, zap.String("stack", s))
	}
	j.log.Warn(msg, append(fields, zap.Error(err))...)
}

// hold tells whether a line is to be held back. The text of an outage may change with
// every batch ("3 of 100 records failed"), so that a new text is not enough.
func (j *journal) hold(msg, text string, now time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.lastAt = text, now
	if l, ok := j.said[msg]; ok {
		after := logOften
		if l.err == text {
			after = logAgain
		}
		if now.Sub(l.at) < after {
			return true
		}
	}
	j.said[msg] = line{text, now, true}
	return false
}

// cleared says once that the trouble told under msg has passed.
func (j *journal) cleared(msg, passed string, fields ...zap.Field) {
	j.mu.Lock()
	l := j.said[msg]
	said := l.open
	if said {
		l.open = false
		j.said[msg] = l
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
