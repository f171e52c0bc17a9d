package bustest

import (
	"encoding/json"
	"fmt"

	"github.com/kemi-go/kemi/bus"
)

// Record is what the checks write. Its key is Key; records of a key count from 0.
type Record struct {
	Key   string `json:"key"`
	Seq   int    `json:"seq"`            // of the key
	Batch int    `json:"batch"`          // of the key: the Write it came with
	Of    int    `json:"of"`             // so many records of the key came with that Write
	Text  string `json:"text,omitempty"` // ballast
}

// PartitionKey is Key.
func (r Record) PartitionKey() string { return r.Key }

// Codec returns a codec of Records, for topics that need one. It is JSON.
func Codec() bus.Codec[Record] { return codec{} }

type codec struct{}

func (codec) Name() string { return "bustest/1" }

func (codec) AppendBatch(dst []byte, batch []Record) ([]byte, error) {
	b, err := json.Marshal(batch)
	return append(dst, b...), err
}

func (codec) DecodeBatch(dst []Record, src []byte) ([]Record, error) {
	var batch []Record
	if err := json.Unmarshal(src, &batch); err != nil {
		return dst, fmt.Errorf("bustest: %w", err)
	}
	return append(dst, batch...), nil
}
