// Package layering holds the rules of who may import whom. It has tests only.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kemi-go/kemi"

// parents are the kinds of stages. What lies in their folders are leaves.
var parents = []string{"source", "transform", "sink", "rule", "bus"}

// clients are the modules of others, each with the folders that exist for it. zap is
// everybody's, and the examples may use what is here. A new line is a new dependency
// of everyone who imports the folder: it is meant to be noticed.
var clients = map[string][]string{
	"github.com/cockroachdb/pebble/v2":    {"bus/disk"},
	"github.com/gosnmp/gosnmp":            {"source/snmp", "internal/agent"},
	"github.com/klauspost/compress":       {"bus/disk"},
	"github.com/prometheus/prometheus":    {"rule/promql"},
	"github.com/shirou/gopsutil/v4":       {"internal/agent"},
	"github.com/twmb/franz-go":            {"bus/kafka", "internal/e2e"},
	"go.opentelemetry.io/proto/slim/otlp": {"bus/codec/otlp", "internal/e2e"},
	"google.golang.org/protobuf":          {"bus/codec/otlp", "internal/e2e"},
	"go.yaml.in/yaml/v3":                  {"rule/promql", "source/inventory"},
	"golang.org/x/term":                   {"examples"},
}

// common are leaves that the others of their kind are made with. They need no modules of
// others.
var common = []string{"bus/codec", "bus/codec/columnar", "bus/codec/jsonl", "bus/codec/otlp"}

// leaf is the folder of a stage, under which it may have folders of its own.
func leaf(dir string) string {
	parts := strings.SplitN(dir, "/", 4)
	n := 2
	if len(parts) > 2 && parts[1] == "notify" { // a room of several
		n = 3
	}
	return strings.Join(parts[:min(n, len(parts))], "/")
}

// listed is what go list says of a package.
type listed struct {
	ImportPath   string
	Standard     bool
	Module       *struct{ Path string }
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list returns the packages of this module and all they depend on, by import path.
func list(t *testing.T) map[string]*listed {
	t.Helper()
	// -test adds what only tests need; -e goes on where a package is broken, as the
	// compiler will say that better.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-test",
		"-json=ImportPath,Standard,Module,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatal(err)
		case !strings.ContainsAny(p.ImportPath, " ") && !strings.HasSuffix(p.ImportPath, ".test"): // not made for a test
			all[p.ImportPath] = &p
		}
	}
}

// root is the folder of the module.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// folder is where a package of this module lies, "." for the root; ok is false for
// any other package.
func folder(path string) (dir string, ok bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

// kind is the parent a folder belongs to: "sink" for sink and for sink/opentsdb.
func kind(dir string) string {
	top, _, _ := strings.Cut(dir, "/")
	return top
}

// reach returns all packages that one depends on, those its tests import too.
func reach(all map[string]*listed, p *listed, tests bool) map[string]bool {
	seen := map[string]bool{}
	var visit func(paths []string)
	visit = func(paths []string) {
		for _, path := range paths {
			if seen[path] || path == p.ImportPath {
				continue
			}
			seen[path] = true
			if q := all[path]; q != nil {
				visit(q.Imports)
			}
		}
	}
	visit(p.Imports)
	if tests {
		visit(p.TestImports)
		visit(p.XTestImports)
	}
	return seen
}

// isSuite tells whether a folder has a conformance suite: sink/sinktest.
func isSuite(dir string) bool { return dir == kind(dir)+"/"+kind(dir)+"test" }

func isZap(path string) bool {
	return strings.HasPrefix(path, "go.uber.org/zap") || path == "go.uber.org/multierr"
}

// TestWhoMayImportWhom goes through all packages.
//
//   - The root and the parents need the standard library, zap, the root and internal.
//   - A leaf needs its own kind besides, what is internal to that, and the clients that
//     exist for it. Leaves of
//     different kinds do not know each other, not even in tests or by way of internal;
//     but a test may use any conformance suite, as those of strangers do.
//   - Nobody imports the examples.
func TestWhoMayImportWhom(t *testing.T) {
	all := list(t)
	for path, p := range all {
		dir, ok := folder(path)
		if !ok {
			continue
		}
		k := kind(dir)
		for dep := range reach(all, p, true) {
			if d, ok := folder(dep); ok && kind(d) == "examples" && k != "examples" {
				t.Errorf("%s imports %s: examples are for reading", dir, d)
			}
		}
		switch {
		case dir == "." || slices.Contains(parents, dir):
			for dep := range reach(all, p, false) {
				d, ours := folder(dep)
				switch {
				case ours && (d == "." || kind(d) == "internal"), !ours && (isZap(dep) || standard(all, dep)):
				case dir != "." && client(dep, dir):
				default:
					t.Errorf("%s needs %s: the root and the parents keep to the standard library and zap", dir, dep)
				}
			}
		case slices.Contains(parents, k):
			for dep := range reach(all, p, true) {
				d, ours := folder(dep)
				// Tests use the suites, and those of a suite show it on a stage.
				suite := (isSuite(d) || isSuite(dir)) && !reach(all, p, false)[dep]
				known := d == "." || d == k || kind(d) == "internal" || leaf(d) == leaf(dir) || kind(d) == k && (slices.Contains(common, d) || strings.HasPrefix(d, k+"/internal/"))
				if ours && !known && !suite {
					t.Errorf("%s needs %s: leaves do not know each other; make a fake in internal, or meet in an example", dir, d)
				}
			}
		}
	}
}

// TestEveryClientHasItsFolder looks at what is imported from other modules.
func TestEveryClientHasItsFolder(t *testing.T) {
	all := list(t)
	used := map[string]bool{}
	for path, p := range all {
		dir, ok := folder(path)
		if !ok {
			continue
		}
		for _, dep := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if _, ours := folder(dep); ours || isZap(dep) || standard(all, dep) {
				continue
			}
			if !client(dep, dir) {
				t.Errorf("%s imports %s, which does not exist for it: see the list of clients in this test", dir, dep)
			}
			for mod := range clients {
				used[mod] = used[mod] || within(dep, mod)
			}
		}
	}
	for mod := range clients {
		if !used[mod] {
			t.Errorf("nothing imports %s: take it from the list of clients and from go.mod", mod)
		}
	}
}

func standard(all map[string]*listed, path string) bool {
	p := all[path]
	return p != nil && p.Standard || path == "C" || path == "unsafe"
}

// client tells whether dep is of a module that exists for dir.
func client(dep, dir string) bool {
	for mod, dirs := range clients {
		if within(dep, mod) {
			return kind(dir) == "examples" || slices.ContainsFunc(dirs, func(d string) bool { return within(dir, d) })
		}
	}
	return false
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
