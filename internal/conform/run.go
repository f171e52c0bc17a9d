package conform

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long a suite waits for what should happen soon. It only ends a
// test that has failed already, so it is long.
const Patience = 10 * time.Second

// Done waits for c, and tells whether it was closed in time.
func Done(c <-chan struct{}, patience time.Duration) bool {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// Try calls fn and turns a panic into text with a stack.
func Try(fn func()) (panicked string) {
	defer func() {
		if p := recover(); p != nil {
			panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	fn()
	return ""
}

// Goroutines returns the stacks of all goroutines but those of the package testing,
// by number.
func Goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := map[string]string{}
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		if number, _, ok := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " "); ok && !strings.Contains(stack, "created by testing.") {
			all[number] = stack
		}
	}
	return all
}

// Leaked waits until there are no goroutines but those of before, and returns the
// stacks of the others if that does not come about. One that ends by itself, such
// as that of a closed connection, gets the time to.
func Leaked(before map[string]string, patience time.Duration) string {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		var left []string
		for number, stack := range Goroutines() {
			if _, old := before[number]; !old {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return strings.Join(left, "\n\n")
		}
	}
}

// Failures runs fn with a TB of its own and returns what fn reported as failed. It
// does what the package testing does for a test: FailNow ends fn, a panic is a
// failure, Context is done before the cleanups, which run last in, first out.
func Failures(t testing.TB, fn func(tb testing.TB)) []string {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{TB: t, ctx: ctx}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer f.recovered()
		fn(f)
	}()
	<-ended
	cancel()
	for len(f.cleanups) > 0 {
		last := f.cleanups[len(f.cleanups)-1]
		f.cleanups = f.cleanups[:len(f.cleanups)-1]
		func() {
			defer f.recovered()
			last()
		}()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// fake embeds a real TB, for its TempDir, and because the interface is sealed.
type fake struct {
	testing.TB
	ctx      context.Context
	mu       sync.Mutex
	failed   []string
	cleanups []func()
}

func (f *fake) recovered() {
	if p := recover(); p != nil {
		f.Errorf("panic: %v", p)
	}
}

func (f *fake) Helper()                  {}
func (f *fake) Context() context.Context { return f.ctx }
func (f *fake) Log(...any)               {}
func (f *fake) Logf(string, ...any)      {}
func (f *fake) Cleanup(fn func())        { f.cleanups = append(f.cleanups, fn) }

func (f *fake) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = append(f.failed, fmt.Sprintf(format, args...))
}

func (f *fake) Error(args ...any) { f.Errorf("%s", strings.TrimSpace(fmt.Sprintln(args...))) }
func (f *fake) Fail()             { f.Errorf("failed") }

func (f *fake) FailNow() {
	f.Fail()
	runtime.Goexit()
}

func (f *fake) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

func (f *fake) Fatal(args ...any) {
	f.Error(args...)
	runtime.Goexit()
}

func (f *fake) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.failed) > 0
}

// Skipping says that there was nothing to check, which is no failure.
func (f *fake) Skip(...any)          { runtime.Goexit() }
func (f *fake) Skipf(string, ...any) { runtime.Goexit() }
func (f *fake) SkipNow()             { runtime.Goexit() }
