package sink_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink"
)

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batch := []string{"a", "b"}
		hang := func(then func(ctx context.Context, b []string) error) kemi.Sink[string] {
			return sink.Timeout(kemi.SinkFunc[string](func(ctx context.Context, b []string) error {
				<-ctx.Done()
				return then(ctx, b)
			}), time.Second)
		}
		began := time.Now()
		for what, c := range map[string]struct {
			then func(ctx context.Context, b []string) error
			want string
		}{
			"passes on":               {func(ctx context.Context, _ []string) error { return ctx.Err() }, "(~)"},
			"made it after all":       {func(context.Context, []string) error { return nil }, "++"},
			"takes it for permanent":  {func(ctx context.Context, _ []string) error { return kemi.Permanent(ctx.Err()) }, "(~)"},
			"and for single records":  {func(_ context.Context, b []string) error { return say("+x")(b) }, "+~"},
			"names those it had time": {func(_ context.Context, b []string) error { return say("~+")(b) }, "~+"},
		} {
			err := hang(c.then).Write(t.Context(), batch)
			if got := verdict(err, batch); got != c.want {
				t.Errorf("a sink that %s: %s, want %s (%v)", what, got, c.want, err)
			}
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("five Writes took %v", took)
		}
		err := hang(func(ctx context.Context, _ []string) error { return kemi.Permanent(ctx.Err()) }).Write(t.Context(), batch)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began = time.Now()
		err = hang(func(ctx context.Context, _ []string) error { return ctx.Err() }).Write(ctx, batch)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Millisecond {
			t.Errorf("with less time from the caller: %v after %v", err, took)
		}
		bad := sink.Timeout(answer(say("(x)")), time.Second)
		if got := verdict(bad.Write(t.Context(), batch), batch); got != "(x)" {
			t.Errorf("refused in time: %s", got)
		}
		if a := (&store{}); sink.Timeout[string](a, 0) != kemi.Sink[string](a) {
			t.Errorf("no limit is not the sink itself")
		}
	})
}
