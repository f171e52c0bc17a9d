package kafka

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kemi-go/kemi/bus/internal/recovery"
	"github.com/kemi-go/kemi/internal/origin"
)

const (
	headerCodec  = "kemi-codec"
	headerOrigin = "kemi-origin"
	headerAfter  = "kemi-after"
	headerTick   = "kemi-tick"

	metadataMax = 4096 // bytes of metadata that a broker takes with a commit (offset.metadata.max.bytes)
)

// parser reads records of one partition. It remembers what many of them have in common,
// so that a record costs no memory.
type parser struct {
	codec   string                   // one that is likely
	sources map[string]origin.Source // by how they are written, up to the last but one '/'
}

const sourcesMax = 1 << 10 // remembered

func (p *parser) entry(r *kgo.Record) recovery.Entry {
	e := recovery.Entry{Offset: r.Offset, Time: r.Timestamp, Value: r.Value}
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case headerCodec:
			if string(h.Value) != p.codec {
				p.codec = string(h.Value)
			}
			e.Codec = p.codec
		case headerOrigin:
			// One that is none is not ours: such a record is taken as often as it comes.
			e.Stamp = p.stamp(h.Value)
		case headerAfter:
			e.After.Seq, e.After.Ordinal = parseAfter(h.Value)
		case headerTick:
			e.Tick = len(r.Value) == 0
		}
	}
	if e.Stamp.Seq == 0 {
		e.After.Seq = 0
	}
	e.After.Source = e.Stamp.Source
	return e
}

// stamp reads what origin.Stamp has written; zero for anything else.
func (p *parser) stamp(text []byte) origin.Stamp {
	end := bytes.LastIndexByte(text[:max(bytes.LastIndexByte(text, '/'), 0)], '/')
	if end >= 0 {
		if s, ok := p.sources[string(text[:end])]; ok {
			if seq, ordinal := parseAfter(text[end+1:]); seq != 0 {
				return origin.Stamp{Source: s, Seq: seq, Ordinal: ordinal}
			}
		}
	}
	s, err := origin.Parse(string(text))
	if err != nil {
		return origin.Stamp{}
	}
	if len(p.sources) >= sourcesMax || p.sources == nil {
		p.sources = map[string]origin.Source{}
	}
	p.sources[string(text[:end])] = s.Source
	return s
}

func appendAfter(dst []byte, s origin.Stamp) []byte {
	dst = strconv.AppendUint(dst, uint64(s.Seq), 10)
	dst = append(dst, '/')
	return strconv.AppendUint(dst, uint64(s.Ordinal), 10)
}

// parseAfter reads what appendAfter has written; 0 for anything else.
func parseAfter(text []byte) (origin.Seq, uint32) {
	seq, rest, ok := number(text, math.MaxUint64)
	if !ok || len(rest) == 0 || rest[0] != '/' {
		return 0, 0
	}
	ordinal, rest, ok := number(rest[1:], math.MaxUint32)
	if !ok || len(rest) > 0 {
		return 0, 0
	}
	return origin.Seq(seq), uint32(ordinal)
}

// number reads a decimal number as it is written: without zeros before it.
func number(text []byte, most uint64) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(text) && '0' <= text[i] && text[i] <= '9'; i++ {
		d := uint64(text[i] - '0')
		if n > (most-d)/10 || i > 0 && n == 0 {
			return 0, nil, false
		}
		n = 10*n + d
	}
	return n, text[i:], i > 0
}

// metadata is what stands beside a committed offset.
type metadata struct {
	position *recovery.Position // nil: it is too long, and with the kept state
	kept     string             // which of the kept states belongs to it; "": none
}

var errMetadata = errors.New("kafka: not the metadata of a commit of kemi")

func (m *metadata) text() string {
	if m.position == nil {
		return "kemi1@" + m.kept
	}
	if m.kept == "" {
		return m.position.Text()
	}
	return m.position.Text() + ";" + m.kept
}

func parseMetadata(text string) (m metadata, err error) {
	if kept, ok := strings.CutPrefix(text, "kemi1@"); ok {
		m.kept = kept
	} else {
		var pos string
		pos, m.kept, ok = strings.Cut(text, ";")
		m.position = new(recovery.Position)
		if err := m.position.ParseText(pos); err != nil {
			return metadata{}, err
		}
		if !ok {
			return m, nil
		}
	}
	if _, _, err := splitName(m.kept); err != nil {
		return metadata{}, err
	}
	return m, nil
}
