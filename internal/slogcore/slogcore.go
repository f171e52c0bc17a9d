// Package slogcore is a zapcore.Core over a slog.Handler, for programs that log
// with log/slog and use a library that logs with zap.
package slogcore

import (
	"context"
	"log/slog"
	"maps"
	"slices"
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
	h := c.h
	if len(attrs) > 0 {
		h = h.WithAttrs(attrs)
	}
	for _, g := range groups { // zap.Namespace opens a group for what comes after
		h = h.WithGroup(g.name)
		if len(g.attrs) > 0 {
			h = h.WithAttrs(g.attrs)
		}
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
		pc = e.Caller.PC + 1 // slog wants a return address, zap has that of the call
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
	for n := len(groups) - 1; n >= 0; n-- { // the last group lies innermost
		g := slog.Attr{Key: groups[n].name, Value: slog.GroupValue(groups[n].attrs...)}
		if n > 0 {
			groups[n-1].attrs = append(groups[n-1].attrs, g)
		} else {
			attrs = append(attrs, g)
		}
	}
	r.AddAttrs(attrs...)
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
			for _, k := range slices.Sorted(maps.Keys(enc.Fields)) { // an inlined object has several
				add = append(add, slog.Any(k, enc.Fields[k]))
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
