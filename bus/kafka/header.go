package kafka

import (
	"errors"
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

// entryOf reads a record. known is a codec that is likely.
func entryOf(r *kgo.Record, known string) recovery.Entry {
	e := recovery.Entry{Offset: r.Offset, Time: r.Timestamp, Value: r.Value}
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case headerCodec:
			if e.Codec = known; string(h.Value) != known {
				e.Codec = string(h.Value)
			}
		case headerOrigin:
			// One that is none is not ours: such a record is taken as often as it comes.
			e.Stamp, _ = origin.Parse(string(h.Value))
		case headerAfter:
			e.After.Seq, e.After.Ordinal = parseAfter(string(h.Value))
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

func appendAfter(dst []byte, s origin.Stamp) []byte {
	dst = strconv.AppendUint(dst, uint64(s.Seq), 10)
	dst = append(dst, '/')
	return strconv.AppendUint(dst, uint64(s.Ordinal), 10)
}

// parseAfter reads what appendAfter has written; 0 for anything else.
func parseAfter(text string) (origin.Seq, uint32) {
	a, b, _ := strings.Cut(text, "/")
	seq, bad := strconv.ParseUint(a, 10, 64)
	ordinal, worse := strconv.ParseUint(b, 10, 32)
	if bad != nil || worse != nil {
		return 0, 0
	}
	return origin.Seq(seq), uint32(ordinal)
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
