package main

import (
	"context"
	"runtime"
	"time"
)

const (
	burnAfter = 15 * time.Second // first show what is normal
	burnFor   = time.Minute
)

// burn loads every core for a minute, to make the rule HighCPU fire and resolve. A
// tenth of the time is left, for the pipeline runs in the same process.
func burn(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(burnAfter):
	}
	ctx, cancel := context.WithTimeout(ctx, burnFor)
	defer cancel()
	for range runtime.NumCPU() {
		go func() {
			for ctx.Err() == nil {
				for began := time.Now(); time.Since(began) < 90*time.Millisecond; {
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	<-ctx.Done()
}
