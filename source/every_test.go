package source_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source"
)

func TestEveryKeepsItsRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder[string]
		began := time.Now()
		round := 0
		s := source.Every(10*time.Second, func(_ context.Context, now time.Time) ([]string, error) {
			if now.Location() != time.UTC || now != now.Round(0) {
				t.Errorf("now is %#v", now)
			}
			round++
			switch round {
			case 2:
				time.Sleep(3 * time.Second) // does not delay the next
			case 3:
				time.Sleep(25 * time.Second) // the rounds at 30 and 40 fall out
			case 5:
				return nil, nil // nothing to write
			}
			return []string{fmt.Sprint(now.Sub(began))}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 75*time.Second)
		defer cancel()
		if err := s.Run(ctx, &rec); err != nil {
			t.Error(err)
		}
		if got := rec.records(); !slices.Equal(got, []string{"0s", "10s", "20s", "50s", "1m10s"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestEveryWaitsForItsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Duration
		began := time.Now()
		s := source.Every(time.Second, func(_ context.Context, now time.Time) ([]int, error) {
			starts = append(starts, now.Sub(began))
			return []int{1}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := s.Run(ctx, kemi.SinkFunc[int](func(context.Context, []int) error {
			time.Sleep(2500 * time.Millisecond)
			return nil
		}))
		if took := time.Since(began); err != nil || took != 5500*time.Millisecond {
			t.Errorf("ended with %v after %v", err, took)
		}
		if !slices.Equal(starts, []time.Duration{0, 3 * time.Second}) {
			t.Errorf("rounds at %v", starts)
		}
	})
}

func TestEveryEnds(t *testing.T) {
	bad := errors.New("no such table")
	failing := func(err error) kemi.Source[int] {
		return source.Every(time.Second, func(ctx context.Context, _ time.Time) ([]int, error) { return []int{1}, err })
	}
	synctest.Test(t, func(t *testing.T) {
		var rec recorder[int]
		if err := failing(bad).Run(t.Context(), &rec); !errors.Is(err, bad) || len(rec.records()) > 0 {
			t.Errorf("fn failed: %v, %d records", err, len(rec.records()))
		}
		err := failing(nil).Run(t.Context(), kemi.SinkFunc[int](func(context.Context, []int) error { return bad }))
		if !errors.Is(err, bad) {
			t.Errorf("the Write failed: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		obeys := source.Every(time.Second, func(ctx context.Context, _ time.Time) ([]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if err := obeys.Run(ctx, &rec); err != nil {
			t.Errorf("fn obeyed: %v", err)
		}
	})
	if err := source.Every[int](0, nil).Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "interval") {
		t.Errorf("no interval: %v", err)
	}
}
