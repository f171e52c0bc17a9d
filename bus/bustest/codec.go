package bustest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kemi-go/kemi/bus"
)

// RunCodec checks that a codec keeps the contract of [bus.Codec], on the given
// batches and on bytes that are damaged versions of their encodings. The batches
// should have what is hard on a codec: empty and odd strings, largest and smallest
// numbers, not-a-numbers, zero times. equal says when a record came back as it was;
// nil stands for reflect.DeepEqual.
func RunCodec[T any](t *testing.T, c bus.Codec[T], equal func(a, b T) bool, batches ...[]T) {
	for _, c := range newCodecCheck(c, equal, batches).checks() {
		t.Run(c.name, func(t *testing.T) { c.do(t) })
	}
}

// FuzzCodec feeds a codec with bytes of anybody's making, from the encodings of the
// given batches on. It must not panic, and what it takes for records it must be able
// to encode and to read again.
func FuzzCodec[T any](f *testing.F, c bus.Codec[T], batches ...[]T) {
	for _, b := range batches {
		src, err := c.AppendBatch(nil, b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		batch, err := c.DecodeBatch(nil, src)
		if err != nil {
			return
		}
		again, err := c.AppendBatch(nil, batch)
		if err != nil {
			t.Fatalf("records that were decoded cannot be encoded: %v", err)
		}
		same, err := c.DecodeBatch(nil, again)
		if err != nil || len(same) != len(batch) {
			t.Fatalf("of %d records that were decoded and encoded again, %d come back: %v", len(batch), len(same), err)
		}
	})
}

type codecCheck[T any] struct {
	bus.Codec[T]
	equal   func(a, b []T) bool
	batches [][]T
}

type namedCheck struct {
	name string
	do   func(tb testing.TB)
}

func newCodecCheck[T any](c bus.Codec[T], equal func(a, b T) bool, batches [][]T) codecCheck[T] {
	if equal == nil {
		equal = func(a, b T) bool { return reflect.DeepEqual(a, b) }
	}
	return codecCheck[T]{c, func(a, b []T) bool { return slices.EqualFunc(a, b, equal) }, append(batches, nil)}
}

func (k codecCheck[T]) checks() []namedCheck {
	return []namedCheck{
		{"Name", k.name},
		{"RoundTrip", k.roundTrip},
		{"Determinism", k.determinism},
		{"SourceIsNotKept", k.sourceIsNotKept},
		{"ManyGoroutines", k.manyGoroutines},
		{"Damage", k.damage},
	}
}

func (k codecCheck[T]) name(tb testing.TB) {
	name, version, ok := strings.Cut(k.Name(), "/")
	if !ok || name == "" || version == "" {
		tb.Errorf("the name %q is not a name and a version, such as json/1", k.Name())
	}
}

// encode encodes a batch behind some bytes, which must stay.
func (k codecCheck[T]) encode(tb testing.TB, batch []T) []byte {
	tb.Helper()
	before := slices.Clone(batch)
	dst, err := k.AppendBatch([]byte("before"), batch)
	switch {
	case err != nil:
		tb.Fatalf("AppendBatch of %d records: %v", len(batch), err)
	case !bytes.HasPrefix(dst, []byte("before")):
		tb.Fatal("AppendBatch does not append: what was in dst is gone")
	case !k.equal(before, batch):
		tb.Fatal("AppendBatch changed the batch")
	}
	return dst[len("before"):]
}

func (k codecCheck[T]) roundTrip(tb testing.TB) {
	for i, batch := range k.batches {
		src := k.encode(tb, batch)
		before := bytes.Clone(src)
		got, err := k.DecodeBatch(nil, src)
		switch {
		case err != nil:
			tb.Errorf("batch %d: DecodeBatch: %v", i, err)
		case !k.equal(got, batch):
			tb.Errorf("batch %d came back as\n%+v, and was\n%+v", i, got, batch)
		case !bytes.Equal(before, src):
			tb.Errorf("batch %d: DecodeBatch changed src", i)
		}
		if dst := slices.Clone(batch[:min(1, len(batch))]); len(dst) == 1 {
			got, err := k.DecodeBatch(dst, src)
			if err != nil || !k.equal(got, slices.Concat(batch[:1], batch)) {
				tb.Errorf("batch %d: DecodeBatch does not append to dst (%v)", i, err)
			}
		}
	}
}

func (k codecCheck[T]) determinism(tb testing.TB) {
	for i, batch := range k.batches {
		first := k.encode(tb, batch)
		for range 20 {
			if !bytes.Equal(first, k.encode(tb, batch)) {
				tb.Errorf("batch %d gives other bytes the second time", i)
				break
			}
		}
	}
}

func (k codecCheck[T]) sourceIsNotKept(tb testing.TB) {
	for i, batch := range k.batches {
		src := k.encode(tb, batch)
		got, err := k.DecodeBatch(nil, src)
		if err != nil {
			tb.Errorf("batch %d: DecodeBatch: %v", i, err)
			continue
		}
		for j := range src {
			src[j] ^= 0x55
		}
		if !k.equal(got, batch) {
			tb.Errorf("batch %d: the records change when src is used for something else", i)
		}
	}
}

func (k codecCheck[T]) manyGoroutines(tb testing.TB) {
	want := make([][]byte, len(k.batches))
	for i, batch := range k.batches {
		want[i] = k.encode(tb, batch)
	}
	var all sync.WaitGroup
	for first := range 4 {
		all.Go(func() {
			for n := range 20 * len(k.batches) {
				i := (first + n) % len(k.batches) // another one than the others, should they keep step
				batch := k.batches[i]
				src, err := k.AppendBatch(nil, batch)
				if err != nil || !bytes.Equal(src, want[i]) {
					tb.Errorf("batch %d gives other bytes beside other goroutines (%v)", i, err)
				}
				got, err := k.DecodeBatch(nil, want[i])
				if err != nil || !k.equal(got, batch) {
					tb.Errorf("batch %d gives other records beside other goroutines (%v)", i, err)
				}
			}
		})
	}
	all.Wait()
}

// damageMemory is what a decoder may take for bytes that are damaged: much more than
// the good ones need, and much less than a false length can ask for.
func damageMemory(src []byte) uint64 { return 16<<20 + 1000*uint64(len(src)) }

func (k codecCheck[T]) damage(tb testing.TB) {
	seed := rand.Uint64()
	tb.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i, batch := range k.batches {
		src := k.encode(tb, batch)
		for n := range 2000 {
			bad := damaged(rnd, src, n)
			var dst []T
			if len(batch) > 0 {
				dst = slices.Clone(batch[:1])
			}
			before := allocated()
			got, err := k.decode(dst, bad)
			if used := allocated() - before; used > damageMemory(src) {
				tb.Fatalf("batch %d: %d damaged bytes took %d MB to decode: %q", i, len(bad), used>>20, bad)
			}
			if p, ok := errors.AsType[panicked](err); ok {
				tb.Fatalf("batch %d: DecodeBatch panics (%v) on %q", i, p.value, bad)
			}
			if len(got) < len(dst) || !k.equal(got[:len(dst)], dst) {
				tb.Fatalf("batch %d: DecodeBatch changes what was in dst, on %q", i, bad)
			}
		}
	}
}

type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprint(p.value) }

func (k codecCheck[T]) decode(dst []T, src []byte) (got []T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked{p}
		}
	}()
	return k.DecodeBatch(dst, src)
}

// damaged is the n-th of the ways to damage src: cut short at every place as far as n
// goes, then by chance.
func damaged(rnd *rand.Rand, src []byte, n int) []byte {
	if n < len(src) && n < 500 {
		return bytes.Clone(src[:n])
	}
	bad := bytes.Clone(src)
	for range 1 + rnd.IntN(4) {
		if len(bad) == 0 {
			bad = append(bad, byte(rnd.Uint32()))
		}
		switch at := rnd.IntN(len(bad)); rnd.IntN(5) {
		case 0:
			bad[at] ^= 1 << rnd.IntN(8)
		case 1:
			bad[at] = 0xff // makes lengths large
		case 2:
			bad = slices.Insert(bad, at, byte(rnd.Uint32()))
		case 3:
			bad = slices.Delete(bad, at, min(at+1+rnd.IntN(8), len(bad)))
		case 4:
			end := min(at+9, len(bad)) // the largest number there is
			for j := at; j < end; j++ {
				bad[j] = 0xff
			}
		}
	}
	return bad
}

// allocated is how much memory the program has ever asked for.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
