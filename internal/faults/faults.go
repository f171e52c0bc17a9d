// Package faults says how many faults a test injects, and with which seed. Fault tests
// run always, with few faults; what they promise is shown by many.
package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Count returns how many of all faults are to be injected. The environment variable
// KEMI_FAULTS says it: "all"; "tenth"; nothing, or "few", for a hundredth, which is as
// much as everybody's go test ./... has time for. It is one at least.
func Count(tb testing.TB, all int) int {
	tb.Helper()
	n := all
	switch v := os.Getenv("KEMI_FAULTS"); v {
	case "", "few":
		n = all / 100
	case "tenth":
		n = all / 10
	case "all":
	default:
		tb.Fatalf("KEMI_FAULTS is %q: want few, tenth or all", v)
	}
	return max(n, 1)
}

// Seed returns the seed of a test and logs it. The environment variable KEMI_SEED makes
// it that of an earlier run.
func Seed(tb testing.TB) uint64 {
	tb.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("KEMI_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			tb.Fatalf("KEMI_SEED is %q: want a number", v)
		}
	}
	tb.Logf("KEMI_SEED=%d", seed)
	return seed
}

// Report logs a line for the table of faults, which go test -v shows.
func Report(tb testing.TB, format string, args ...any) {
	tb.Helper()
	tb.Logf("FAULTS %s: %s", tb.Name(), fmt.Sprintf(format, args...))
}
