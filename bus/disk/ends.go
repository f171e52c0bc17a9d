package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file ENDS says where the partitions ended a short while ago. The engine does not
// notice all that can happen to the lists of its own files: a flipped bit near the end
// of one looks like a crash while it was written. A DB that ends before what is in this
// file has lost something.
//
//	topic 1 "raw" 12 0 7
//	crc32c 1a2b3c4d
const (
	endsName = "ENDS"
	endsMost = 64 << 20
)

type endsFile struct{ last []byte }

// noteEnds writes the file. It is for one goroutine at a time.
func (d *DB) noteEnds() {
	d.mu.Lock()
	topics := make([]*topic, 0, len(d.topics))
	for _, t := range d.topics {
		topics = append(topics, t)
	}
	d.mu.Unlock()
	slices.SortFunc(topics, func(a, b *topic) int { return strings.Compare(a.name, b.name) })
	ends := make([]topicEnds, len(topics))
	for i, t := range topics {
		ends[i].id, ends[i].name = t.id, t.name
		for _, p := range t.parts {
			p.mu.Lock()
			ends[i].ends = append(ends[i].ends, p.end)
			p.mu.Unlock()
		}
	}
	text := appendEnds(nil, ends)
	if bytes.Equal(text, d.ends.last) {
		return
	}
	if err := writeFile(d.fs, d.Dir, endsName, text); err != nil {
		d.log.Warn("disk: where the partitions end could not be noted", zap.Error(err))
		return
	}
	d.ends.last = text
}

type topicEnds struct {
	id   uint32
	name string
	ends []int64
}

func appendEnds(dst []byte, topics []topicEnds) []byte {
	for _, t := range topics {
		dst = append(dst, "topic "...)
		dst = strconv.AppendUint(dst, uint64(t.id), 10)
		dst = append(dst, ' ')
		dst = strconv.AppendQuote(dst, t.name)
		for _, n := range t.ends {
			dst = append(dst, ' ')
			dst = strconv.AppendInt(dst, n, 10)
		}
		dst = append(dst, '\n')
	}
	return appendSum(dst)
}

func appendSum(dst []byte) []byte { return fmt.Appendf(dst, "crc32c %08x\n", checksum(dst)) }

var errEnds = errors.New("not what was written")

// parseEnds reads what appendEnds has written.
func parseEnds(text []byte) ([]topicEnds, error) {
	i := bytes.LastIndex(text, []byte("crc32c "))
	if i < 0 || string(text[i:]) != fmt.Sprintf("crc32c %08x\n", checksum(text[:i])) {
		return nil, errEnds
	}
	var topics []topicEnds
	for line := range strings.Lines(string(text[:i])) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "topic ")
		digits, rest, _ := strings.Cut(rest, " ")
		id, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || !ok || id == 0 {
			return nil, errEnds
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, errEnds
		}
		t := topicEnds{id: uint32(id)}
		if t.name, err = strconv.Unquote(quoted); err != nil {
			return nil, errEnds
		}
		for _, f := range strings.Fields(rest[len(quoted):]) {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil || n < 0 || len(t.ends) == partitionMax {
				return nil, errEnds
			}
			t.ends = append(t.ends, n)
		}
		topics = append(topics, t)
	}
	return topics, nil
}

func readEnds(fs vfs.FS, dir string) ([]topicEnds, error) {
	text, err := readFile(fs, fs.PathJoin(dir, endsName), endsMost)
	if err != nil {
		return nil, err
	}
	return parseEnds(text)
}

// checkEnds compares what was loaded with the file.
func (d *DB) checkEnds() error {
	topics, err := readEnds(d.fs, d.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		d.log.Warn("disk: the file "+endsName+" is damaged; it is made anew, and nothing is lost by that", zap.Error(err))
		return nil
	}
	var lost []Range
	for _, e := range topics {
		t := d.topics[e.name]
		for p, end := range e.ends {
			have := int64(0)
			if t != nil && p < len(t.parts) {
				have = t.parts[p].end
			}
			if have < end {
				lost = append(lost, Range{e.name, int32(p), have, end})
			}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return damaged(d.Dir, fmt.Errorf("records that were on the disk are not there any more: %s", rangesText(lost)))
}
