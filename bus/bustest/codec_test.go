package bustest_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
)

func batches() [][]record {
	return [][]record{
		{{Key: "web1", Seq: 1, Text: "a"}, {Key: "web2", Seq: -1 << 62, Text: strings.Repeat("ä\x00\n\"", 20)}},
		{{}},
		make([]record, 300),
	}
}

func TestCodec(t *testing.T) {
	bustest.RunCodec(t, bustest.Codec(), nil, batches()...)
}

func FuzzCodec(f *testing.F) { bustest.FuzzCodec(f, bustest.Codec(), batches()...) }

// bentCodec is a codec that was good.
type bentCodec struct {
	bus.Codec[record]
	name   string
	encode func(good bus.Codec[record], dst []byte, batch []record) ([]byte, error)
	decode func(good bus.Codec[record], dst []record, src []byte) ([]record, error)
}

func (c bentCodec) Name() string {
	if c.name != "" {
		return c.name
	}
	return c.Codec.Name()
}

func (c bentCodec) AppendBatch(dst []byte, batch []record) ([]byte, error) {
	if c.encode == nil {
		return c.Codec.AppendBatch(dst, batch)
	}
	return c.encode(c.Codec, dst, batch)
}

func (c bentCodec) DecodeBatch(dst []record, src []byte) ([]record, error) {
	if c.decode == nil {
		return c.Codec.DecodeBatch(dst, src)
	}
	return c.decode(c.Codec, dst, src)
}

func TestBrokenCodecsAreCaught(t *testing.T) {
	var shared atomic.Pointer[[]record]
	for breaks, x := range map[string]struct {
		caught string
		codec  bentCodec
	}{
		"has no version": {"Name", bentCodec{name: "json"}},
		"loses the text": {"RoundTrip", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			got, err := good.DecodeBatch(dst, src)
			for i := range got[len(dst):] {
				got[len(dst)+i].Text = ""
			}
			return got, err
		}}},
		"overwrites dst": {"RoundTrip", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			return good.DecodeBatch(dst[:0], src)
		}}},
		"encodes over dst": {"RoundTrip", bentCodec{encode: func(good bus.Codec[record], dst []byte, batch []record) ([]byte, error) {
			return good.AppendBatch(dst[:0], batch)
		}}},
		"changes the batch": {"RoundTrip", bentCodec{encode: func(good bus.Codec[record], dst []byte, batch []record) ([]byte, error) {
			if len(batch) > 0 {
				batch[0].Seq++
			}
			return good.AppendBatch(dst, batch)
		}}},
		"encodes in another way each time": {"Determinism", bentCodec{encode: func(good bus.Codec[record], dst []byte, batch []record) ([]byte, error) {
			dst, err := good.AppendBatch(dst, batch)
			return append(dst, strings.Repeat(" ", rand.IntN(10))...), err
		}}},
		"keeps strings of src": {"SourceIsNotKept", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			got, err := good.DecodeBatch(dst, src)
			for i := range got[len(dst):] {
				if r := &got[len(dst)+i]; r.Key != "" {
					at := strings.Index(string(src), r.Key)
					r.Key = unsafe.String(&src[at], len(r.Key))
				}
			}
			return got, err
		}}},
		"has state": {"ManyGoroutines", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			got, err := good.DecodeBatch(nil, src)
			shared.Store(&got)
			runtime.Gosched()
			return append(dst, *shared.Load()...), err
		}}},
		"panics": {"Damage", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			if src[len(src)-1] != ']' {
				panic("no end")
			}
			return good.DecodeBatch(dst, src)
		}}},
		"believes lengths": {"Damage", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			if len(src) < 4 {
				return dst, errors.New("short")
			}
			buf := make([]byte, binary.LittleEndian.Uint32(src)>>6)
			return good.DecodeBatch(dst, src[copy(buf, src[:0]):])
		}}},
		"spoils dst with an error": {"Damage", bentCodec{decode: func(good bus.Codec[record], dst []record, src []byte) ([]record, error) {
			got, err := good.DecodeBatch(dst, src)
			if err != nil {
				return nil, err
			}
			return got, nil
		}}},
	} {
		t.Run(breaks, func(t *testing.T) {
			x.codec.Codec = bustest.Codec()
			v := &verdict{TB: t}
			v.judge(func() { bustest.CheckCodec(v, x.caught, x.codec, batches()...) })
			if len(v.said) == 0 {
				t.Errorf("%s found nothing wrong", x.caught)
			}
		})
	}
}
