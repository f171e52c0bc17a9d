// Package journal is a log for people in a hurry: one line an entry, with the time, where
// it happened, what, and why. The rest (records, tries, stacks) is left out.
package journal

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

type journal struct {
	write  func(line string)
	fields []zapcore.Field
}

// New returns a logger that calls write with each line. write must be safe for use by many
// goroutines.
func New(write func(line string)) *zap.Logger { return zap.New(journal{write: write}) }

func (j journal) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

func (j journal) With(fields []zapcore.Field) zapcore.Core {
	return journal{j.write, append(slices.Clip(j.fields), fields...)}
}

func (j journal) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if j.Enabled(e.Level) {
		return ce.AddCore(e, j)
	}
	return ce
}

func (j journal) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(slices.Clip(j.fields), fields...) {
		f.AddTo(enc)
	}
	text := func(keys ...string) string {
		for _, k := range keys {
			if v, ok := enc.Fields[k]; ok {
				return fmt.Sprint(v)
			}
		}
		return ""
	}
	line := e.Time.Format(time.TimeOnly)
	if e.Level >= zapcore.WarnLevel {
		line += " " + e.Level.CapitalString()
	}
	if where := cmp.Or(text("flow"), text("host")); where != "" {
		line += " " + where + ":"
	}
	line += " " + e.Message
	if why := text("error", "reason", "rule"); why != "" {
		line += ": " + why
	}
	j.write(line)
	return nil
}

func (j journal) Sync() error { return nil }
