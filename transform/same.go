package transform

import (
	"math"
	"reflect"
)

// sameDepth bounds the walk through records that point to themselves. What differs
// only further down counts as different.
const sameDepth = 100

// same tells whether a and b, which have one type, hold the same. Unlike for
// [reflect.DeepEqual], a NaN is the same as itself, and so is a function: a batch
// that is offered again is the same batch.
func same(a, b reflect.Value, depth int) bool {
	if depth == 0 {
		return false
	}
	switch a.Kind() {
	case reflect.Float32, reflect.Float64:
		return math.Float64bits(a.Float()) == math.Float64bits(b.Float())
	case reflect.Complex64, reflect.Complex128:
		x, y := a.Complex(), b.Complex()
		return math.Float64bits(real(x)) == math.Float64bits(real(y)) && math.Float64bits(imag(x)) == math.Float64bits(imag(y))
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return a.Pointer() == b.Pointer()
	case reflect.Pointer:
		return a.Pointer() == b.Pointer() || !a.IsNil() && !b.IsNil() && same(a.Elem(), b.Elem(), depth-1)
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.Elem().Type() == b.Elem().Type() && same(a.Elem(), b.Elem(), depth-1)
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i), depth-1) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i), depth-1) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Pointer() == b.Pointer() {
			return true
		}
		if a.Len() != b.Len() {
			return false
		}
		for it := a.MapRange(); it.Next(); {
			v := b.MapIndex(it.Key())
			if !v.IsValid() || !same(it.Value(), v, depth-1) {
				return false
			}
		}
		return true
	}
	return a.Equal(b) // a boolean, an integer or a string
}
