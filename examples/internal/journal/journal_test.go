package journal

import (
	"errors"
	"slices"
	"testing"

	"go.uber.org/zap"
)

func TestJournalSaysWhereWhatAndWhy(t *testing.T) {
	var lines []string
	l := New(func(line string) { lines = append(lines, line[len("15:04:05 "):]) })
	l.With(zap.String("pipeline", "stats"), zap.String("flow", "store")).Warn("the sink failed",
		zap.Int("records", 5), zap.Error(errors.New("connection refused")))
	l.Debug("nobody reads this")
	l.Info("metric rules were reloaded", zap.Int("files", 1))
	want := []string{"WARN store: the sink failed: connection refused", "metric rules were reloaded"}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}
