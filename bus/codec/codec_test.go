package codec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/bustest"
	"github.com/kemi-go/kemi/bus/codec"
	"github.com/kemi-go/kemi/bus/codec/columnar"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
)

// reads tells the names that a set reads, in order, the one it writes first.
func reads[T any](t *testing.T, s codec.Set[T], names ...string) {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Error(err)
	}
	if got := s.Write.Name(); got != names[0] {
		t.Errorf("it writes %s, want %s", got, names[0])
	}
	if len(s.Read) != len(names)-1 {
		t.Errorf("it reads %d codecs besides, want %v", len(s.Read), names[1:])
	}
	for _, name := range names {
		if c, err := s.Find(name); err != nil || c.Name() != name {
			t.Errorf("Find(%q): %v, %v", name, c, err)
		}
	}
}

func TestForKnowsTheRecordsOfKemi(t *testing.T) {
	reads(t, codec.For[kemi.Metric](), "kcol-metrics/1", "json/1")
	reads(t, codec.For[kemi.Log](), "kcol-logs/1", "json/1")
	reads(t, codec.For[kemi.Alert](), "json/1")
	reads(t, codec.For[*kemi.Metric](), "json/1")
	reads(t, codec.For[struct{ A int }](), "json/1")
	reads(t, codec.For[any](), "json/1")
}

func TestWritingAnotherCodecReadsTheOldOne(t *testing.T) {
	old := codec.For[kemi.Metric]()
	reads(t, old.Writing(jsonl.Codec[kemi.Metric]()), "json/1", "kcol-metrics/1")
	reads(t, old.Writing(columnar.Metrics()), "kcol-metrics/1", "json/1")
	reads(t, codec.For[bustest.Record]().Writing(bustest.Codec()), "bustest/1", "json/1")
	reads(t, old, "kcol-metrics/1", "json/1")
	reads(t, codec.Set[kemi.Metric]{}.Writing(columnar.Metrics()), "kcol-metrics/1")
}

func TestAnUnknownCodecIsNamed(t *testing.T) {
	_, err := codec.For[kemi.Metric]().Find("otlp/1")
	if err == nil || !strings.Contains(err.Error(), `"otlp/1" is unknown: this topic reads kcol-metrics/1, json/1`) {
		t.Error(err)
	}
	if _, err := (codec.Set[kemi.Metric]{}).Find("json/1"); err == nil {
		t.Error("the empty set has found a codec")
	}
}

type called struct {
	bus.Codec[kemi.Metric]
	name string
}

func (c called) Name() string { return c.name }

func TestCheckSaysWhatToDo(t *testing.T) {
	text := jsonl.Codec[kemi.Metric]()
	for want, s := range map[string]codec.Set[kemi.Metric]{
		"set Write, or begin with codec.For": {Read: []bus.Codec[kemi.Metric]{text}},
		"is nil: take it out of Read":        {Write: text, Read: []bus.Codec[kemi.Metric]{nil}},
		"two codecs are called json/1":       {Write: text, Read: []bus.Codec[kemi.Metric]{text}},
		`calls itself "json": want a name`:   {Write: called{text, "json"}},
		`calls itself "/1": want a name`:     {Write: called{text, "/1"}},
		"no codec to write with":             codec.For[kemi.Metric]().Writing(nil),
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A topic of metrics turns to JSON, so that others can read it. What it had in columns
// is still read.
func ExampleSet_Writing() {
	codecs := codec.For[kemi.Metric]().Writing(jsonl.Codec[kemi.Metric]())
	old, err := codecs.Find("kcol-metrics/1")
	fmt.Println(codecs.Write.Name(), old.Name(), err)
	// Output: json/1 kcol-metrics/1 <nil>
}
