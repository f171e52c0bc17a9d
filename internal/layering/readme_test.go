package layering_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The program in the README compiles, and the excerpt is word for word from the
// example it is said to be from.
func TestReadmeCompiles(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ownStage, err := os.ReadFile("../../examples/ownstage/main.go")
	if err != nil {
		t.Fatal(err)
	}
	programs := 0
	blocks := strings.Split(string(text), "```go\n")
	for _, b := range blocks[1:] {
		code, _, closed := strings.Cut(b, "```")
		if !closed {
			t.Fatal("a block of code does not end")
		}
		if !strings.HasPrefix(code, "package main") {
			for part := range strings.SplitSeq(code, "\n\n") {
				part = strings.TrimSpace(part)
				if _, after, ok := strings.Cut(part, "\n"); ok && strings.HasPrefix(part, "//") {
					part = after // the comment of the example says more
				}
				if !strings.Contains(string(ownStage), part) {
					t.Errorf("this is not in examples/ownstage:\n%s", part)
				}
			}
			continue
		}
		programs++
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "vet", file)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the program in the README: %v\n%s", err, out)
		}
	}
	if programs == 0 {
		t.Error("the README has no program")
	}
}
