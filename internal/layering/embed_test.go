package layering

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is what a stranger writes: a stage and a pipeline, with the root alone.
const program = `package main

import (
	"context"
	"fmt"

	"github.com/kemi-go/kemi"
)

// percent is a stage.
type percent struct{}

func (percent) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		dst = append(dst, kemi.Gauge(m.Name+"_percent", m.Labels, m.Time, 100*m.Float()))
	}
	return dst, nil
}

func main() {
	poll := kemi.SourceFunc[kemi.Metric](func(ctx context.Context, out kemi.Sink[kemi.Metric]) error {
		var m kemi.Metric
		return out.Write(ctx, []kemi.Metric{kemi.Gauge("cpu", kemi.LabelsOf("host", "web1"), m.Time, 0.5)})
	})
	print := kemi.SinkFunc[kemi.Metric](func(_ context.Context, batch []kemi.Metric) error {
		fmt.Println(batch[0].Name, batch[0].Labels, batch[0].Float())
		return nil
	})
	p := kemi.Pipeline{Flows: []*kemi.Flow{kemi.Pipe("calculate", poll, percent{}, print)}}
	if err := p.Run(context.Background()); err != nil {
		panic(err)
	}
}
`

// TestTheRootCostsAStrangerLittle builds a module of its own outside of this one, that
// imports the root and nothing else, runs it, and counts what its go.sum had to take in.
func TestTheRootCostsAStrangerLittle(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sums, err := os.ReadFile(filepath.Join(root(t), "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	write("main.go", program)
	write("go.mod", fmt.Sprintf("module example.com/stranger\n\ngo 1.26.0\n\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", module, root(t)))
	command := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		// What this module was built with is in the module cache; nothing is fetched.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOSUMDB=off")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := command("run", ".")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "cpu_percent {host=\"web1\"} 50\n"; !strings.HasSuffix(out, want) {
		t.Errorf("the program printed %q, want %q", out, want)
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Count(sum, []byte("\n"))
	t.Logf("go.sum has %d lines, that of this module %d:\n%s", lines, bytes.Count(sums, []byte("\n")), sum)
	if lines > 20 {
		t.Errorf("go.sum of a program that imports the root has %d lines, want at most 20", lines)
	}
	list, err := command("list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
	if err != nil {
		t.Fatalf("%v\n%s", err, list)
	}
	for mod := range strings.FieldsSeq(list) {
		if mod != "example.com/stranger" && mod != module && !isZap(mod) {
			t.Errorf("the program links %s", mod)
		}
	}
}
