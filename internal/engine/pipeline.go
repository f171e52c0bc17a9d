package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
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
	defer cut(errOver)
	shared := &env{e, hard}

	var wrong []error
	names := map[string]bool{}
	for _, f := range flows {
		if names[f.Name()] {
			wrong = append(wrong, fmt.Errorf("kemi: two flows are called %q", f.Name()))
		}
		names[f.Name()] = true
		wrong = append(wrong, f.check())
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	for _, f := range flows {
		if err := f.start(shared); err != nil {
			return err
		}
	}

	failed := make(chan struct{}, 1)
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
			r.run(soft, func(err error) {
				e.Logger.Error("flow failed", zap.String("flow", r.Name()), zap.Error(err))
				r.fail(fmt.Errorf("kemi: flow %q: %w", r.Name(), err))
				select {
				case failed <- struct{}{}:
				default: // it is known already that one has
				}
			})
		}()
	}

	// Flow after flow is seen to its end, and from the soft stop on is asked for it.
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for _, r := range all {
			select {
			case <-r.done:
			case <-stop:
				r.ask()
				<-r.done
			}
		}
	}()

	select {
	case <-ended:
		return errorsOf(all)
	case <-ctx.Done():
	case <-failed:
	}
	close(stop)
	began := time.Now()
	deadline := time.NewTimer(e.DrainTimeout)
	defer deadline.Stop()
	report := time.NewTicker(reportEvery)
	defer report.Stop()
	for {
		select {
		case <-ended:
			return errorsOf(all)
		case <-report.C:
			for _, r := range all {
				if !r.over() {
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
			for _, r := range all {
				if !r.over() {
					r.fail(fmt.Errorf("kemi: flow %q did not stop: %s", r.Name(), ignoring(r)))
				}
			}
			return errorsOf(all)
		}
	}
}

// running is a flow that Run has started.
type running struct {
	Flow
	ask  context.CancelFunc // the soft stop
	done chan struct{}

	mu   sync.Mutex
	errs []error
}

func (r *running) fail(err error) {
	r.mu.Lock()
	r.errs = append(r.errs, err)
	r.mu.Unlock()
}

func (r *running) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func errorsOf(all []*running) error {
	var errs []error
	for _, r := range all {
		r.mu.Lock()
		errs = append(errs, r.errs...)
		r.mu.Unlock()
	}
	return errors.Join(errs...)
}

// ignoring says which stages of a flow keep it from ending.
func ignoring(f Flow) string {
	var stages []string
	for _, w := range f.busy() {
		if !slices.Contains(stages, w.stage) {
			stages = append(stages, w.stage)
		}
	}
	switch len(stages) {
	case 0:
		return "its source ignores its context"
	case 1:
		return stages[0] + " ignores its context"
	}
	slices.Sort(stages)
	return strings.Join(stages, " and ") + " ignore their contexts"
}

func logWaiting(log *zap.Logger, f Flow, since time.Duration) {
	ws := f.busy()
	if len(ws) == 0 {
		log.Info("stopping: the source still runs", zap.String("flow", f.Name()), zap.Duration("for", since))
	}
	for _, w := range ws {
		log.Info("stopping: a write is still under way", zap.String("flow", f.Name()), zap.String("lane", w.lane),
			zap.String("stage", w.stage), zap.Duration("waiting", w.since), zap.String("last_error", w.lastErr))
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
