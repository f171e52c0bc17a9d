package disk

import (
	"fmt"
	"strings"
)

// Range is offsets of a partition, from From to before To.
type Range struct {
	Topic     string
	Partition int32
	From, To  int64
}

// String says it in words.
func (r Range) String() string {
	return fmt.Sprintf("topic %q, partition %d, offsets %d to %d", r.Topic, r.Partition, r.From, r.To-1)
}

func rangesText(ranges []Range) string {
	const most = 10
	var text []string
	for _, r := range ranges[:min(len(ranges), most)] {
		text = append(text, r.String())
	}
	if n := len(ranges) - most; n > 0 {
		text = append(text, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(text, "; ")
}
