package inventory

import (
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

func hosts50k(b *testing.B) (*Source, []Target, []host) {
	b.Helper()
	targets, err := parse("f", listOf(50_000), true)
	if err != nil {
		b.Fatal(err)
	}
	s := newSource(b, Static(), Config{})
	return s, targets, s.hosts(targets)
}

// One whole cycle of 50,000 hosts: what scheduling costs in a minute.
func BenchmarkCycle50k(b *testing.B) {
	_, _, hosts := hosts50k(b)
	var s schedule
	now := time.Now()
	s.replace(hosts, now)
	batch := make([]kemi.Job, 0, 1000)
	jobs := 0
	b.ReportAllocs()
	for b.Loop() {
		for end := now.Add(time.Minute); now.Before(end); {
			now = now.Add(max(time.Microsecond, s.wait(now)))
			batch, _ = s.take(batch[:0], now)
			jobs += len(batch)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(jobs), "ns/job")
}

// One reading of a list of 50,000 hosts that has not changed.
func BenchmarkRead50k(b *testing.B) {
	text := listOf(50_000)
	s, targets, _ := hosts50k(b)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parse("f", text, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("yaml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parse("f", text, false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tidy", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if good, _ := tidy(targets); len(good) != len(targets) {
				b.Fatal(len(good))
			}
		}
	})
	b.Run("plan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.hosts(targets)
		}
	})
}
