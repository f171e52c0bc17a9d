// Package slogcore is a zapcore.Core over a slog.Handler, for programs that log
// with log/slog and use a library that logs with zap.
package slogcore

import (
	"context"
	"log/slog"
	"time"

	"go.uber.org/zap/zapcore"
)

// New returns a core that writes to h.
func New(h slog.Handler) zapcore.Core { return core{h} }

type core struct{ h slog.Handler }

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel: // DPanic, Panic and Fatal too
		return slog.LevelError + 4*slog.Level(l-zapcore.ErrorLevel)
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	case l == zapcore.InfoLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (c core) Enabled(l zapcore.Level) bool {
	return c.h.Enabled(context.Background(), level(l))
}

func (c core) With(fields []zapcore.Field) zapcore.Core {
	attrs, groups := convert(fields)
	h := c.h.WithAttrs(attrs)
	for _, g := range groups { // zap.Namespace opens a group for what comes after
		h = h.WithGroup(g.name).WithAttrs(g.attrs)
	}
	return core{h}
}

func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	var pc uintptr
	if e.Caller.Defined {
		pc = e.Caller.PC
	}
	t := e.Time
	if t.IsZero() {
		t = time.Now()
	}
	r := slog.NewRecord(t, level(e.Level), e.Message, pc)
	if e.LoggerName != "" {
		r.AddAttrs(slog.String("logger", e.LoggerName))
	}
	attrs, groups := convert(fields)
	for i := len(groups) - 1; i >= 0; i-- { // the last group lies innermost
		in := groups[i].attrs
		if i+1 < len(groups) {
			in = append(in, slog.Attr{Key: groups[i+1].name, Value: slog.GroupValue(groups[i+1].attrs...)})
			groups[i].attrs = in
		}
	}
	r.AddAttrs(attrs...)
	if len(groups) > 0 {
		r.AddAttrs(slog.Attr{Key: groups[0].name, Value: slog.GroupValue(groups[0].attrs...)})
	}
	if e.Stack != "" {
		r.AddAttrs(slog.String("stack", e.Stack))
	}
	return c.h.Handle(context.Background(), r)
}

func (c core) Sync() error { return nil }

type group struct {
	name  string
	attrs []slog.Attr
}

// convert lets zap encode each field, and hands the value on.
func convert(fields []zapcore.Field) (attrs []slog.Attr, groups []group) {
	for _, f := range fields {
		if f.Type == zapcore.NamespaceType {
			groups = append(groups, group{name: f.Key})
			continue
		}
		var add []slog.Attr
		switch f.Type {
		case zapcore.SkipType:
			continue
		case zapcore.StringType:
			add = []slog.Attr{slog.String(f.Key, f.String)}
		case zapcore.DurationType:
			add = []slog.Attr{slog.Duration(f.Key, time.Duration(f.Integer))}
		case zapcore.ErrorType:
			add = []slog.Attr{slog.Any(f.Key, f.Interface)}
		default:
			enc := zapcore.NewMapObjectEncoder()
			f.AddTo(enc)
			for k, v := range enc.Fields {
				add = append(add, slog.Any(k, v))
			}
		}
		if n := len(groups); n > 0 {
			groups[n-1].attrs = append(groups[n-1].attrs, add...)
		} else {
			attrs = append(attrs, add...)
		}
	}
	return attrs, groups
}
