package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	defaultDrain = 30 * time.Second
	reportEvery  = 5 * time.Second
)

type env struct {
	Env
	hard context.Context // ends with the hard stop
}

// errHardStop is the cause a Write sees when it is cut off.
var errHardStop = errors.New("kemi: stopped before the batch was delivered")

// Run runs the flows until ctx is done, one of them fails, or all have ended.
func Run(ctx context.Context, e Env, flows []Flow) error {
	if e.Logger == nil {
		e.Logger = zap.NewNop()
	}
	if e.Name != "" {
		e.Logger = e.Logger.With(zap.String("pipeline", e.Name))
	}
	if e.DrainTimeout <= 0 {
		e.DrainTimeout = defaultDrain
	}
	// The hard stop is not ctx's child: ctx asks the sources to end, and what they
	// have handed over is finished after that.
	hard, cut := context.WithCancelCause(context.Background())
	defer cut(nil)
	shared := &env{e, hard}

	names := map[string]bool{}
	for _, f := range flows {
		if names[f.Name()] {
			return fmt.Errorf("kemi: two flows are called %q", f.Name())
		}
		names[f.Name()] = true
	}
	for _, f := range flows {
		if err := f.start(shared); err != nil {
			return err
		}
	}

	type running struct {
		Flow
		ask  context.CancelFunc
		done chan struct{}
		err  error
		over atomic.Bool
	}
	failed := make(chan struct{}, len(flows))
	all := make([]*running, len(flows))
	for i, f := range flows {
		// The soft context keeps the values of ctx and not its end: each source is
		// asked in its turn.
		soft, ask := context.WithCancel(context.WithoutCancel(ctx))
		defer ask()
		r := &running{Flow: f, ask: ask, done: make(chan struct{})}
		all[i] = r
		go func() {
			defer close(r.done)
			defer r.over.Store(true)
			if err := r.run(soft); err != nil {
				r.err = fmt.Errorf("kemi: flow %q: %w", r.Name(), err)
				e.Logger.Error("flow failed", zap.String("flow", r.Name()), zap.Error(err))
				failed <- struct{}{}
			}
		}()
	}
	ended := make(chan struct{})
	go func() {
		for _, r := range all {
			<-r.done
		}
		close(ended)
	}()

	select {
	case <-ctx.Done():
	case <-failed:
	case <-ended:
		return errorsOf(all, func(r *running) error { return r.err })
	}

	// The soft stop, flow after flow.
	go func() {
		for _, r := range all {
			r.ask()
			<-r.done
		}
	}()
	began := time.Now()
	deadline := time.NewTimer(e.DrainTimeout)
	defer deadline.Stop()
	report := time.NewTicker(reportEvery)
	defer report.Stop()
	for {
		select {
		case <-ended:
			return errorsOf(all, func(r *running) error { return r.err })
		case <-report.C:
			for _, r := range all {
				if !r.over.Load() {
					logWaiting(e.Logger, r, time.Since(began))
				}
			}
		case <-deadline.C:
			if hard.Err() == nil {
				e.Logger.Warn("drain timeout: cutting off what is still under way", zap.Duration("after", e.DrainTimeout))
				cut(errHardStop)
				for _, r := range all {
					r.ask()
				}
				deadline.Reset(max(e.DrainTimeout/4, 2*time.Second))
				continue
			}
			// A stage that ignores its context cannot be ended from outside.
			return errorsOf(all, func(r *running) error {
				if r.over.Load() {
					return r.err
				}
				return fmt.Errorf("kemi: flow %q did not stop: a stage ignores its context", r.Name())
			})
		}
	}
}

func errorsOf[R any](rs []R, of func(R) error) error {
	var errs []error
	for _, r := range rs {
		if err := of(r); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func logWaiting(log *zap.Logger, f Flow, since time.Duration) {
	ws := f.busy()
	if len(ws) == 0 {
		log.Info("stopping: the source still runs", zap.String("flow", f.Name()), zap.Duration("for", since))
	}
	for _, w := range ws {
		log.Info("stopping: a write is still under way", zap.String("flow", f.Name()), zap.String("lane", w.lane),
			zap.Duration("waiting", w.since), zap.String("last_error", w.err))
	}
}

// caught turns a panic of a stage into an error with a stack.
func caught(stage string, p any) error {
	err, ok := p.(error)
	if ok {
		err = fmt.Errorf("panic in %s: %w", stage, err)
	} else {
		err = fmt.Errorf("panic in %s: %v", stage, p)
	}
	return &permanent{err: err, stack: string(debug.Stack())}
}
