package transform_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform"
)

// show applies a transform to some words and prints what comes of them.
func show(t kemi.Transform[string, string], words ...string) {
	got, err := t.Apply(context.Background(), nil, words)
	fmt.Printf("%q %v\n", got, err)
}

func ExampleMap() {
	length := transform.Map(func(s string) int { return len(s) })
	fmt.Println(length.Apply(context.Background(), nil, []string{"up", "memory_total_bytes"}))
	// Output:
	// [2 18] <nil>
}

func ExampleFilter() {
	rates := transform.Filter(func(name string) bool { return strings.HasSuffix(name, "_rate") })
	show(rates, "load1", "disk_reads_rate", "users")
	// Output:
	// ["disk_reads_rate"] <nil>
}

func ExampleFlatMap() {
	words := transform.FlatMap(func(dst []string, line string) []string {
		return append(dst, strings.Fields(line)...)
	})
	show(words, "one two", "", "three")
	// Output:
	// ["one" "two" "three"] <nil>
}

func ExampleThen() {
	lengths := transform.Map(func(s string) int { return len(s) })
	even := transform.Filter(func(n int) bool { return n%2 == 0 })
	fmt.Println(transform.Then(lengths, even).Apply(context.Background(), nil, []string{"a", "bb", "cccc"}))
	// Output:
	// [2 4] <nil>
}

// changes is a transform with state: it lets a word through that differs from the
// one before. Each lane has a fork of its own.
type changes struct{ last string }

func (c *changes) Fork() kemi.Transform[string, string] { return &changes{} }

func (c *changes) Apply(_ context.Context, dst, src []string) ([]string, error) {
	for _, s := range src {
		if s != c.last {
			dst = append(dst, s)
		}
		c.last = s
	}
	return dst, nil
}

func ExampleChain() {
	chain := transform.Chain(
		transform.Map(strings.ToLower),
		&changes{},
		transform.Filter(func(s string) bool { return s != "" }),
	)
	show(chain, "UP", "up", "", "Down", "DOWN", "up")
	// Output:
	// ["up" "down" "up"] <nil>
}
