package main

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/bus"
)

// filesIn are the files of a directory, by name.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(text)
	}
	return files
}

// writtenTo makes a directory with records on the topic metrics, and says how many.
func writtenTo(t *testing.T, dir string) (records int) {
	t.Helper()
	on, err := openDisk(dir, 0, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		var batch []kemi.Metric
		for host := range 50 { // one record each
			labels := kemi.LabelsOf("host", fmt.Sprint("h", host), "of", strconv.FormatUint(rand.Uint64(), 36))
			batch = append(batch, kemi.Gauge("x", labels, time.Unix(int64(i), 0).UTC(), rand.Float64()))
		}
		if err := on.metrics.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		records += len(batch)
	}
	if err := on.close(); err != nil {
		t.Fatal(err)
	}
	// The next life does without the log of the first, so that each record is in one place.
	if on, err = openDisk(dir, 0, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if err := on.close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// flip flips a bit in the middle of the largest file of the storage engine, which is
// where most records are.
func flip(t *testing.T, dir string) {
	t.Helper()
	name, text := "", ""
	for n, b := range filesIn(t, dir) {
		if ext := filepath.Ext(n); (ext == ".sst" || ext == ".log") && len(b) > len(text) {
			name, text = n, b
		}
	}
	b := []byte(text)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A bad disk: -check says what is damaged and changes nothing, -repair takes it out, and
// what it does not call lost is there.
func TestDamageIsToldAndTakenOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	written := writtenTo(t, dir)
	look := func(how string) (code int, out string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		code = run(t.Context(), []string{how, "-bus=disk:" + dir, "-config=/no/such/config.yml"}, &stdout, &stderr)
		if stderr.Len() > 0 {
			t.Errorf("%s: %s", how, stderr.String())
		}
		return code, stdout.String()
	}
	for _, how := range []string{"-check", "-repair"} {
		before := filesIn(t, dir)
		code, out := look(how)
		if code != 0 || !strings.HasPrefix(out, fmt.Sprintf("%s is sound\n%d good records\n", dir, written)) {
			t.Errorf("%s of what is sound: exit %d\n%s", how, code, out)
		}
		if !maps.Equal(filesIn(t, dir), before) {
			t.Errorf("%s has changed what is sound", how)
		}
	}

	flip(t, dir)
	before := filesIn(t, dir)
	code, checked := look("-check")
	if code != 1 || !strings.HasPrefix(checked, dir+" is damaged\n") || !strings.Contains(checked, "\n-repair takes the damage out") {
		t.Errorf("-check: exit %d\n%s", code, checked)
	}
	if !maps.Equal(filesIn(t, dir), before) {
		t.Error("-check has changed something")
	}
	lost := 0
	places := regexp.MustCompile(`(?m)^lost: topic "metrics", partition \d+, offsets (\d+) to (\d+)$`)
	for _, m := range places.FindAllStringSubmatch(checked, -1) {
		from, _ := strconv.Atoi(m[1])
		to, _ := strconv.Atoi(m[2])
		lost += to - from + 1
	}
	if lost == 0 || lost >= written {
		t.Fatalf("-check says that %d of %d records are lost:\n%s", lost, written, checked)
	}

	code, repaired := look("-repair")
	if code != 1 || !strings.HasPrefix(repaired, dir+" was damaged, and is repaired\n") || !strings.Contains(repaired, "\nthe old files are in "+dir+"/damaged-") {
		t.Errorf("-repair: exit %d\n%s", code, repaired)
	}
	if told := fmt.Sprint(places.FindAllString(repaired, -1)); told != fmt.Sprint(places.FindAllString(checked, -1)) {
		t.Errorf("-check said\n%s\nand -repair\n%s", checked, repaired)
	}
	for _, how := range []string{"-check", "-repair"} {
		code, out := look(how)
		if code != 0 || !strings.HasPrefix(out, fmt.Sprintf("%s is sound\n%d good records\nlost to an earlier repair: topic", dir, written-lost)) {
			t.Errorf("%s of what was repaired: exit %d\n%s", how, code, out)
		}
	}
	if n := countOn(t, dir, func(on *topics) bus.Topic[kemi.Metric] { return on.metrics }); n != written-lost {
		t.Errorf("%d records are there, of %d written and %d lost", n, written, lost)
	}
}
