package source_test

import (
	"context"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/source"
	"github.com/kemi-go/kemi/source/sourcetest"
)

// count returns a source that counts, a number at a time.
func count(from int) kemi.Source[int] {
	return source.Every(time.Millisecond, func(context.Context, time.Time) ([]int, error) {
		from++
		return []int{from}, nil
	})
}

func TestConformance(t *testing.T) {
	for name, made := range map[string]func() kemi.Source[int]{
		"FromSlice":      func() kemi.Source[int] { return source.FromSlice(make([]int, 2500)) },
		"Every":          func() kemi.Source[int] { return count(0) },
		"Merge":          func() kemi.Source[int] { return source.Merge(count(0), count(1e6), source.FromSlice([]int{-1, -2})) },
		"Merge of Merge": func() kemi.Source[int] { return source.Merge(source.Merge(count(0)), source.Merge(count(1e6))) },
	} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Run(t, func(testing.TB) sourcetest.Harness[int] {
				return sourcetest.Harness[int]{Source: made()}
			})
		})
	}
}
