package sinktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kemi-go/kemi"
)

// Faults are the chances, from 0 to 1, that a Write goes wrong in some way. At most
// one of Panic, Refuse, Partial and Lose happens to a Write; their sum is at most 1.
type Faults struct {
	Panic   float64       // Write panics and writes nothing
	Refuse  float64       // nothing is written, and the error says so
	Partial float64       // some records are written, and a partial error names the others
	Lose    float64       // all is written, and the answer is lost: an error comes back
	Delay   float64       // Write takes a while first, whatever comes of it
	For     time.Duration // the longest delay; 0 is 10 ms
}

// ErrInjected is what a sink made by [Faulty] fails with. It is transient.
var ErrInjected = errors.New("sinktest: injected fault")

// Faulty returns a sink that writes to s and fails as told. The same seed gives the
// same faults for the same order of Writes. It keeps the contract of a sink, so that
// what is before it must lose nothing; only what is lost by Lose may come twice.
func Faulty[T any](seed uint64, s kemi.Sink[T], f Faults) kemi.Sink[T] {
	if f.For <= 0 {
		f.For = 10 * time.Millisecond
	}
	return &faulty[T]{Faults: f, sink: s, rand: rand.New(rand.NewPCG(seed, seed))}
}

type faulty[T any] struct {
	Faults
	sink kemi.Sink[T]
	mu   sync.Mutex
	rand *rand.Rand
}

func (f *faulty[T]) Write(ctx context.Context, batch []T) error {
	if len(batch) == 0 {
		return nil
	}
	f.mu.Lock()
	slow, d, dice := f.rand.Float64() < f.Delay, f.rand.Int64N(int64(f.For))+1, f.rand.Float64()
	pick := rand.New(rand.NewPCG(f.rand.Uint64(), 0))
	f.mu.Unlock()

	if slow {
		t := time.NewTimer(time.Duration(d))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	happens := func(chance float64) bool {
		dice -= chance
		return dice < 0
	}
	switch {
	case happens(f.Panic):
		panic(ErrInjected)
	case happens(f.Refuse):
		return ErrInjected
	case happens(f.Partial):
		return f.partly(ctx, batch, pick)
	case happens(f.Lose):
		if err := f.sink.Write(ctx, batch); err != nil {
			return err
		}
		return ErrInjected
	}
	return f.sink.Write(ctx, batch)
}

// partly writes each record at even odds. At least one fails.
func (f *faulty[T]) partly(ctx context.Context, batch []T, pick *rand.Rand) error {
	sure := pick.IntN(len(batch))
	var (
		some   []T
		at     []int // some[i] is batch[at[i]]
		failed []kemi.Failure
	)
	for i, r := range batch {
		if i == sure || pick.IntN(2) == 0 {
			failed = append(failed, kemi.Failure{Index: i, Err: ErrInjected})
			continue
		}
		some, at = append(some, r), append(at, i)
	}
	if len(some) > 0 {
		if err := f.sink.Write(ctx, some); err != nil {
			inner, ok := kemi.Failures(err, some)
			if !ok {
				return err
			}
			for _, x := range inner {
				failed = append(failed, kemi.Failure{Index: at[x.Index], Err: x.Err})
			}
		}
	}
	return kemi.Partial(batch, failed...)
}
