// Package codec says which codecs a topic writes and reads. The codecs themselves are in
// the folders below; those that need modules of others are not imported here.
package codec

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
	"github.com/kemi-go/kemi/bus/codec/columnar"
	"github.com/kemi-go/kemi/bus/codec/jsonl"
)

// Set is the codecs of one topic. It writes one and reads several, each record by the
// name in its header, so that a topic can change its codec while it runs: first the
// readers learn the new one, then the writers change to it, and the old one goes from
// the readers when its last record has.
//
// The zero Set cannot be used: see [For]. A Set is read-only once it is in use, and
// may then be used by many goroutines.
type Set[T any] struct {
	Write bus.Codec[T]
	Read  []bus.Codec[T] // besides Write
}

// For returns what a topic uses unless it is told otherwise: it writes columns where
// there are any, for metrics and logs, and JSON for all other types; it reads both.
func For[T any]() Set[T] {
	text := jsonl.Codec[T]()
	var columns any
	switch any((*T)(nil)).(type) {
	case *kemi.Metric:
		columns = columnar.Metrics()
	case *kemi.Log:
		columns = columnar.Logs()
	}
	if c, ok := columns.(bus.Codec[T]); ok {
		return Set[T]{Write: c, Read: []bus.Codec[T]{text}}
	}
	return Set[T]{Write: text}
}

// Writing returns a set that writes c and reads what s reads and writes, for a topic that
// changes its codec.
func (s Set[T]) Writing(c bus.Codec[T]) Set[T] {
	changed := Set[T]{Write: c}
	for _, old := range append([]bus.Codec[T]{s.Write}, s.Read...) {
		if c != nil && old != nil && old.Name() != c.Name() {
			changed.Read = append(changed.Read, old)
		}
	}
	return changed
}

// Find returns the codec of that name. The error lists those there are; nobody but a
// newer program, or a stranger, can have written such a record, and asking again does
// not help.
func (s Set[T]) Find(name string) (bus.Codec[T], error) {
	if s.Write != nil && s.Write.Name() == name {
		return s.Write, nil
	}
	for _, c := range s.Read {
		if c.Name() == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("codec: the codec %q is unknown: this topic reads %s", name, strings.Join(s.names(), ", "))
}

func (s Set[T]) names() []string {
	var names []string
	if s.Write != nil {
		names = append(names, s.Write.Name())
	}
	for _, c := range s.Read {
		names = append(names, c.Name())
	}
	return names
}

// Check says what is wrong with a set that a user has made.
func (s Set[T]) Check() error {
	if s.Write == nil {
		return errors.New("codec: the set has no codec to write with: set Write, or begin with codec.For")
	}
	for _, c := range s.Read {
		if c == nil {
			return errors.New("codec: one of the codecs to read with is nil: take it out of Read")
		}
	}
	seen := map[string]bool{}
	for _, name := range s.names() {
		switch head, version, ok := strings.Cut(name, "/"); {
		case !ok || head == "" || version == "":
			return fmt.Errorf("codec: a codec calls itself %q: want a name and a version, such as json/1", name)
		case seen[name]:
			return fmt.Errorf("codec: two codecs are called %s: take one out of Read, which need not have that of Write", name)
		}
		seen[name] = true
	}
	if s.Write.Name() == jsonl.Name {
		if t := reflect.TypeFor[T](); !shows(t, 0) {
			return fmt.Errorf("codec: %v has no field that JSON would show, so that its records would come back empty: "+
				"export its fields, give it MarshalJSON and UnmarshalJSON, or set Codecs", t)
		}
	}
	return nil
}

// shows tells whether JSON has anything of a value of type t. A struct without any
// fields has all there is of it.
func shows(t reflect.Type, depth int) bool {
	for _, m := range []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()} {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return depth > 10 || shows(t.Elem(), depth+1)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("json") != "-" && (f.IsExported() || f.Anonymous && (depth > 10 || shows(f.Type, depth+1))) {
				return true
			}
		}
		return t.NumField() == 0
	}
	return true
}
