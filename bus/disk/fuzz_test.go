package disk

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/s2"
)

// FuzzRecord has values of records of anybody's making, with a good checksum.
func FuzzRecord(f *testing.F) {
	f.Add(tickBody)
	f.Add(appendBody(nil, false, 0, "lines/1", 3, []byte("abc")))
	enc, err := newEncoder()
	if err != nil {
		f.Fatal(err)
	}
	dec, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	packed := enc.EncodeAll(bytes.Repeat([]byte("a"), 1000), nil)
	f.Add(appendBody(nil, false, flagZstd, "lines/1", 1000, packed))
	f.Add(appendBody(nil, false, flagS2, "lines/1", 1000, s2.Encode(nil, bytes.Repeat([]byte("a"), 1000))))
	key := offsetKey(kindRecord, 1, 2, 3)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parse(key, body); err == nil {
			t.Fatal("a checksum by chance")
		}
		value := append(make([]byte, headLen), body...)
		putHead(value, key, checksum(body), 1, 2, 3)
		s, err := parse(key, value)
		if err != nil {
			return
		}
		if again := appendBody(nil, s.tick, s.pack, string(s.codec), s.raw, s.data); len(again) > len(body) {
			t.Errorf("%q reads back as %q", body, again)
		}
		if raw, err := unpack(dec, nil, &s); err == nil && len(raw) != s.raw {
			t.Errorf("%d bytes of %d", len(raw), s.raw)
		}
		if _, err := parse(offsetKey(kindRecord, 1, 2, 4), value); err == nil {
			t.Error("a record is taken in the place of another")
		}
	})
}

// FuzzSmall has keys and values of all other kinds.
func FuzzSmall(f *testing.F) {
	key := partKey(kindBounds, 1, 2)
	f.Add(key, sealInts(key, 1, 2, 3, 4, 5)[4:])
	key = topicKey("a")
	f.Add(key, sealInts(key, 1, 2, 3, 4)[4:])
	key = markKey(1, 2, "a@b")
	f.Add(key, sealInts(key, 7)[4:])
	key = offsetKey(kindHole, 1, 2, 3)
	f.Add(key, sealInts(key, 9)[4:])
	key = readerPartKey(kindPosition, 1, readerName{"g", true}, 3)
	f.Add(key, []byte{1, 2, 3})
	f.Add(append(readerPartKey(kindKept, 1, readerName{"g", true}, 3), 'k'), []byte("v"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(key) == 0 {
			return
		}
		_ = readSmall(key, value)
		_ = readSmall(key, seal(key, value))
		_ = describe(key)
	})
}

func FuzzEnds(f *testing.F) {
	f.Add(appendEnds(nil, []topicEnds{{1, "a b\n", []int64{1, 2}}, {7, "", nil}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, appendSum(text)} {
			if topics, err := parseEnds(text); err == nil {
				again, err := parseEnds(appendEnds(nil, topics))
				if err != nil || len(again) != len(topics) {
					t.Errorf("%q reads back as %v, %v", text, again, err)
				}
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(formatText + "1\n"))
	f.Add([]byte(formatText + "2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		fs := vfs.NewMem()
		if err := writeFile(fs, "", formatFile, text); err != nil {
			t.Fatal(err)
		}
		if _, err := checkFormat(fs, ""); err == nil && string(text) != formatText+"1\n" {
			t.Errorf("%q is taken for a header", text)
		}
	})
}

// FuzzLogBatch has batches of the engine's log, as Check and Repair read them.
func FuzzLogBatch(f *testing.F) {
	db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		f.Fatal(err)
	}
	b := db.NewBatch()
	_ = b.Set([]byte("a"), []byte("b"), nil)
	_ = b.DeleteRange([]byte("a"), []byte("b"), nil)
	_ = b.Delete([]byte("a"), nil)
	_ = b.LogData([]byte("end"), nil)
	f.Add(b.Repr())
	f.Fuzz(func(_ *testing.T, repr []byte) {
		_ = readBatch(repr, func(version, []byte, []byte) {})
	})
}
