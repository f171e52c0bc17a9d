package kemi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/kemi-go/kemi"
)

// logged gives what log wrote through slog, as JSON.
func logged(t *testing.T, o *slog.HandlerOptions, log func(*zap.Logger)) map[string]any {
	t.Helper()
	var b bytes.Buffer
	log(kemi.FromSlog(slog.New(slog.NewJSONHandler(&b, o))))
	if b.Len() == 0 {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		t.Fatalf("%v: %s", err, b.Bytes())
	}
	return m
}

func TestFromSlogOfNilIsSilent(t *testing.T) {
	if l := kemi.FromSlog(nil); l != nil {
		t.Errorf("FromSlog(nil) = %v", l)
	}
}

func TestFromSlogKeepsLevels(t *testing.T) {
	for from, to := range map[zapcore.Level]string{
		zap.DebugLevel: "DEBUG", zap.InfoLevel: "INFO", zap.WarnLevel: "WARN", zap.ErrorLevel: "ERROR", zap.DPanicLevel: "ERROR+4",
	} {
		m := logged(t, &slog.HandlerOptions{Level: slog.LevelDebug}, func(l *zap.Logger) { l.Log(from, "hello") })
		if m["level"] != to || m["msg"] != "hello" {
			t.Errorf("%v: %v", from, m)
		}
	}
	if m := logged(t, &slog.HandlerOptions{Level: slog.LevelWarn}, func(l *zap.Logger) { l.Info("hello") }); m != nil {
		t.Errorf("below the handler's level: %v", m)
	}
	if l := kemi.FromSlog(slog.New(slog.NewJSONHandler(nil, nil))); l.Core().Enabled(zap.DebugLevel) || !l.Core().Enabled(zap.InfoLevel) {
		t.Error("the handler's level is not the logger's")
	}
}

type pair struct{ a, b int }

func (p pair) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt("b", p.b)
	e.AddInt("a", p.a)
	return nil
}

func TestFromSlogKeepsFields(t *testing.T) {
	m := logged(t, nil, func(l *zap.Logger) {
		l.Named("poller").With(zap.String("pipeline", "stats")).Info("polled",
			zap.Int("hosts", 12), zap.Duration("took", time.Second), zap.Error(errors.New("late")), zap.Bool("ok", true),
			zap.Float64("ratio", 0.5), zap.Time("at", time.Unix(1, 0).UTC()), zap.Strings("who", []string{"a", "b"}),
			zap.Object("pair", pair{1, 2}), zap.Inline(pair{3, 4}), zap.Skip(), zap.Error(nil), zap.Stringer("kind", kemi.KindCounter))
	})
	want := map[string]any{
		"level": "INFO", "msg": "polled", "logger": "poller", "pipeline": "stats", "hosts": 12.0, "took": 1e9, "error": "late", "ok": true,
		"ratio": 0.5, "at": "1970-01-01T00:00:01Z", "who": []any{"a", "b"}, "pair": map[string]any{"a": 1.0, "b": 2.0}, "a": 3.0, "b": 4.0,
		"kind": "counter",
	}
	delete(m, "time")
	if fmt.Sprint(m) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", m, want)
	}
}

func TestFromSlogKeepsNamespaces(t *testing.T) {
	m := logged(t, nil, func(l *zap.Logger) {
		l.With(zap.Int("a", 1), zap.Namespace("x"), zap.Int("b", 2)).
			Info("m", zap.Int("c", 3), zap.Namespace("y"), zap.Int("d", 4), zap.Namespace("z"), zap.Int("e", 5))
	})
	delete(m, "time")
	want := "map[a:1 level:INFO msg:m x:map[b:2 c:3 y:map[d:4 z:map[e:5]]]]"
	if fmt.Sprint(m) != want {
		t.Errorf("got %v, want %v", m, want)
	}
}

func TestFromSlogKnowsTheCaller(t *testing.T) {
	_, file, line, _ := runtime.Caller(0)
	m := logged(t, &slog.HandlerOptions{AddSource: true}, func(l *zap.Logger) { l.Info("here") })
	src, _ := m["source"].(map[string]any)
	if src["line"] != float64(line+1) || filepath.Base(fmt.Sprint(src["file"])) != filepath.Base(file) {
		t.Errorf("source %v, want line %d of %s", src, line+1, file)
	}
}

func TestFromSlogKeepsStacks(t *testing.T) {
	m := logged(t, nil, func(l *zap.Logger) { l.WithOptions(zap.AddStacktrace(zap.ErrorLevel)).Error("broken") })
	if s, _ := m["stack"].(string); s == "" {
		t.Errorf("%v", m)
	}
}

// TestAPipelineLogsToSlog is the use it is for.
func TestAPipelineLogsToSlog(t *testing.T) {
	var b bytes.Buffer
	runPipeline(t, &kemi.Pipeline{
		Name:   "stats",
		Flows:  []*kemi.Flow{kemi.Connect("store", once(items(0, 1)), always(kemi.Permanent(errDown)))},
		Logger: kemi.FromSlog(slog.New(slog.NewTextHandler(&b, nil))),
	})
	for _, want := range []string{"level=WARN", "pipeline=stats", "flow=store", "dropped: the pipeline has no dead letters", errDown.Error()} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("logged %s without %q", &b, want)
		}
	}
}
