package codec

import (
	"reflect"
	"strings"

	"github.com/kemi-go/kemi"
)

const ours = "kemi." // no module of another has a path like that

// TypeName names the type of the records of a topic, for a topic that keeps it and finds
// out when it is opened with another one: "kemi.Metric" and so on for the records of
// kemi, and for all others the path of the package and the name.
func TypeName[T any]() string {
	t := reflect.TypeFor[T]()
	switch path := t.PkgPath(); path {
	case "":
		return t.String()
	case reflect.TypeFor[kemi.Metric]().PkgPath():
		return ours + t.Name()
	default:
		return path + "." + t.Name()
	}
}

// SameType tells whether records written under the one name of a type may be read under
// the other. Programs rename their own types and move them, so these are taken for each
// other; those of kemi keep their names, and each stands for itself.
func SameType(a, b string) bool {
	return a == b || !strings.HasPrefix(a, ours) && !strings.HasPrefix(b, ours)
}
