package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// addresses reads the list and returns its targets, and its error.
func addresses(t *testing.T, d Discoverer) (string, string) {
	t.Helper()
	got, err := d.Targets(t.Context())
	var s []string
	for _, g := range got {
		s = append(s, g.Address)
	}
	if err != nil {
		return strings.Join(s, " "), err.Error()
	}
	return strings.Join(s, " "), ""
}

// What is changed is read, even when size and time stay the same.
func TestFileIsReadAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "hosts.yml")
	d := Files(name)
	if got, err := d.Targets(t.Context()); got != nil || err == nil {
		t.Errorf("without the file: %v, %v", got, err)
	}
	var when time.Time
	for i, host := range []string{"a", "b", "c", "d", "e", "f"} {
		// A time is used again while it is young. One that has grown old is trusted.
		if time.Since(when) > settled/2 {
			when = time.Now()
		}
		write(t, name, "- targets: ["+host+"]")
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
		if got, err := addresses(t, d); got != host || err != "" {
			t.Errorf("%d: %q, %q", i, got, err)
		}
	}
	// Replaced by another file with the old time, as rename does it.
	old := time.Now().Add(-time.Hour)
	for _, host := range []string{"d", "e"} {
		other := name + ".new"
		write(t, other, "- targets: ["+host+"]")
		if err := os.Chtimes(other, old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, name); err != nil {
			t.Fatal(err)
		}
		if got, err := addresses(t, d); got != host || err != "" {
			t.Errorf("%q, %q; want %s", got, err, host)
		}
	}
	// One that has not changed is not read.
	kept := d.(*files).known[name]
	if kept.info == nil {
		t.Error("a file that is an hour old is read every time")
	}
}

// A file that is wrong keeps its own last targets, and does not hold up the others.
func TestWrongFileKeepsItsTargets(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yml"), filepath.Join(dir, "b.json")
	write(t, a, "- targets: [a1]")
	write(t, b, `[{"targets": ["b1"]}]`)
	d := Files(filepath.Join(dir, "*.yml"), b, filepath.Join(dir, "a*"))
	check := func(want, wantErr string) {
		t.Helper()
		if got, err := addresses(t, d); got != want || (err == "") != (wantErr == "") || !strings.Contains(err, wantErr) {
			t.Errorf("%q, %q; want %q, %q", got, err, want, wantErr)
		}
	}
	check("a1 b1", "")
	write(t, a, "- targets: [a2]\n- targets: a3")
	write(t, b, `[{"targets": ["b2"]}]`)
	check("a1 b2", a+":2: targets: want a list")
	check("a1 b2", a+":2: targets: want a list") // told every time
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	check("a1 b2", b)
	write(t, a, "- targets: [a4]")
	write(t, b, `[]`)
	check("a4", "")
	if err := os.Remove(a); err != nil { // matched by patterns alone
		t.Fatal(err)
	}
	check("", "")
	if got, err := d.Targets(t.Context()); got == nil || err != nil {
		t.Errorf("%v, %v: want an empty list", got, err)
	}
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b, 0o700); err != nil {
		t.Fatal(err)
	}
	check("", "not a file")
}

func TestFilesSayWhatIsWrong(t *testing.T) {
	for name, d := range map[string]Discoverer{"no files": Files(), "bad pattern": Files("[")} {
		if got, err := d.Targets(t.Context()); got != nil || err == nil || !strings.HasPrefix(err.Error(), "inventory: ") {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
