package kemi_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/kemi-go/kemi"
)

// segments is a source with partitions: files, say, each read in order, and read on
// from where it was committed.
type segments struct {
	parts     map[string][]string
	mu        sync.Mutex
	committed map[string]int
}

// Run opens a lane for each partition and works each in a goroutine of its own. A
// lane takes one batch at a time and in order, so when its Write returns nil,
// everything before is safe too, and the offset may be committed.
func (s *segments) Run(ctx context.Context, out kemi.Sink[string]) error {
	var all sync.WaitGroup
	for id, lines := range s.parts {
		all.Go(func() {
			lane := kemi.OpenLane(out, id)
			from := s.committed[id]

			// What the state depends on is fed again, with the output muted. (A bus
			// goes back by lane.Horizon; here it is from the start.)
			lane.Mute(true)
			if lane.Write(ctx, lines[:from]) != nil {
				return
			}
			lane.Mute(false)

			for i := from; i < len(lines) && ctx.Err() == nil; i++ {
				if lane.Write(ctx, lines[i:i+1]) != nil {
					return // a hard stop: not committed, so it comes again
				}
				s.mu.Lock()
				s.committed[id] = i + 1
				s.mu.Unlock()
			}
			// The lane stays open: this is the end of the input, and the flow closes it
			// after what is still open in the transform was given out. A partition that
			// is taken away is closed here.
		})
	}
	all.Wait()
	return nil
}

// numbered numbers the lines of a partition. Its count is state.
type numbered struct{ n int }

func (*numbered) Fork() kemi.Transform[string, string] { return &numbered{} }

func (l *numbered) Apply(_ context.Context, dst, src []string) ([]string, error) {
	for _, line := range src {
		l.n++
		dst = append(dst, fmt.Sprint(l.n, " ", line))
	}
	return dst, nil
}

// A source with partitions opens a lane for each. The first line of the partition was
// committed before a restart: it is fed again for its state and not written again.
func ExampleOpenLane() {
	src := &segments{
		parts:     map[string][]string{"p0": {"to be", "or not to be", "that is the question"}},
		committed: map[string]int{"p0": 1},
	}
	print := kemi.SinkFunc[string](func(_ context.Context, batch []string) error {
		fmt.Println(batch)
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("number", src, &numbered{}, print)}}
	if err := p.Run(context.Background()); err != nil {
		fmt.Println(err)
	}
	fmt.Println("committed:", src.committed["p0"])
	// Output:
	// [2 or not to be]
	// [3 that is the question]
	// committed: 3
}
