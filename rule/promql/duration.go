package promql

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// parseDuration reads a duration as Prometheus writes it: 90s, 1h30m, 7d, 0. The
// units are y (365 days), w, d, h, m, s and ms, each at most once and in this order.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	units := []struct {
		name string
		d    time.Duration
	}{
		{"y", 365 * 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour},
		{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond},
	}
	bad := fmt.Errorf("%q is not a duration: want something like 90s, 5m or 1h30m", s)
	if s == "" {
		return 0, bad
	}
	var sum time.Duration
	for rest := s; rest != ""; {
		var n int64
		i := 0
		for ; i < len(rest) && '0' <= rest[i] && rest[i] <= '9'; i++ {
			if n > math.MaxInt64/100 {
				return 0, bad
			}
			n = n*10 + int64(rest[i]-'0')
		}
		unit := rest[i:]
		if j := strings.IndexAny(unit, "0123456789"); j >= 0 {
			unit = unit[:j]
		}
		rest = rest[i+len(unit):]
		for len(units) > 0 && units[0].name != unit {
			units = units[1:]
		}
		if i == 0 || len(units) == 0 || n > int64((math.MaxInt64-sum)/units[0].d) {
			return 0, bad
		}
		sum += time.Duration(n) * units[0].d
		units = units[1:]
	}
	return sum, nil
}
