// Package conform has what the conformance suites share: a hash that sees through
// records, a look at who is still running, and a testing.TB on which a suite may
// fail, so that the suites themselves can be tested.
package conform

import (
	"fmt"
	"hash/maphash"
	"math"
	"reflect"
	"time"
)

// The seed is one for the program: hashes are compared within a run only.
var seed = maphash.MakeSeed()

// Hash returns 64 bits that change when anything changes that can be reached from
// v: through pointers, slices, maps and unexported fields. Two records that a
// reader cannot tell apart have the same hash, wherever they lie in memory.
func Hash(v any) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	write(&h, reflect.ValueOf(v), maxDepth)
	return h.Sum64()
}

// Hashes returns the hash of each record.
func Hashes[T any](batch []T) []uint64 {
	hs := make([]uint64, len(batch))
	for i := range batch {
		hs[i] = Hash(&batch[i])
	}
	return hs
}

// Diff describes the first difference between two slices of records, or is "".
func Diff[T any](want, got []T) string {
	for i := range min(len(want), len(got)) {
		if Hash(&want[i]) != Hash(&got[i]) {
			return fmt.Sprintf("record %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	switch {
	case len(got) < len(want):
		return fmt.Sprintf("%d records, want %d; the first missing one is %+v", len(got), len(want), want[len(got)])
	case len(got) > len(want):
		return fmt.Sprintf("%d records, want %d; the first one too many is %+v", len(got), len(want), got[len(want)])
	}
	return ""
}

// maxDepth bounds the walk through records that point to themselves.
const maxDepth = 24

var timeType = reflect.TypeFor[time.Time]()

func write(h *maphash.Hash, v reflect.Value, depth int) {
	if !v.IsValid() || depth == 0 {
		h.WriteByte(0)
		return
	}
	number := func(n uint64) {
		maphash.WriteComparable(h, n)
	}
	number(uint64(v.Kind()))
	switch v.Kind() {
	case reflect.Bool:
		maphash.WriteComparable(h, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		number(uint64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		number(v.Uint())
	case reflect.Float32, reflect.Float64:
		number(math.Float64bits(v.Float()))
	case reflect.Complex64, reflect.Complex128:
		number(math.Float64bits(real(v.Complex())))
		number(math.Float64bits(imag(v.Complex())))
	case reflect.String:
		number(uint64(v.Len()))
		h.WriteString(v.String())
	case reflect.Slice, reflect.Array:
		number(uint64(v.Len()))
		for i := range v.Len() {
			write(h, v.Index(i), depth-1)
		}
	case reflect.Map:
		// The order of a map is no part of it.
		var sum uint64
		for it := v.MapRange(); it.Next(); {
			var e maphash.Hash
			e.SetSeed(seed)
			write(&e, it.Key(), depth-1)
			write(&e, it.Value(), depth-1)
			sum += e.Sum64()
		}
		number(uint64(v.Len()))
		number(sum)
	case reflect.Struct:
		if v.Type() == timeType {
			// An instant is the same in every zone; the zone's tables are not walked, as
			// the package time fills them in lazily.
			if v.CanInterface() {
				t := v.Interface().(time.Time)
				number(uint64(t.Unix()))
				number(uint64(t.Nanosecond()))
				return
			}
			number(v.Field(0).Uint())
			number(uint64(v.Field(1).Int()))
			return
		}
		for i := range v.NumField() {
			write(h, v.Field(i), depth-1)
		}
	case reflect.Pointer:
		write(h, v.Elem(), depth-1)
	case reflect.Interface:
		if !v.IsNil() {
			h.WriteString(v.Elem().Type().String())
		}
		write(h, v.Elem(), depth-1)
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		number(uint64(v.Pointer()))
	}
}
