package log_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/sink/notify/log"
	"github.com/kemi-go/kemi/sink/sinktest"
)

var t0 = time.Date(2026, 11, 20, 21, 57, 0, 0, time.UTC)

func alert(i int) kemi.Alert {
	l := kemi.LabelsOf("alertname", "HighCPU", "host", fmt.Sprint("web", i))
	return kemi.Alert{
		Rule: "HighCPU", Labels: l, Annotations: kemi.LabelsOf("summary", "two\nlines"), State: kemi.StateFiring,
		Time: t0, StartsAt: t0.Add(-time.Minute), Value: 97.5, Fingerprint: kemi.Fingerprint(l.Hash()),
	}
}

func alerts(from, n int) []kemi.Alert {
	b := make([]kemi.Alert, n)
	for i := range b {
		b[i] = alert(from + i)
	}
	return b
}

// file is a writer that can fail, and can be read while it is written.
type file struct {
	mu   sync.Mutex
	b    bytes.Buffer
	room int // bytes until it fails; below 0: no end
}

var errFull = errors.New("no space left on device")

func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room < 0 || len(p) <= f.room {
		return f.b.Write(p)
	}
	n, _ := f.b.Write(p[:f.room])
	f.room = 0
	return n, errFull
}

func (f *file) set(room int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = room
}

// alerts reads the whole lines back, and counts the others.
func (f *file) alerts() (all []kemi.Alert, torn int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for line := range strings.Lines(f.b.String()) {
		var a kemi.Alert
		if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &a) != nil {
			torn++
			continue
		}
		all = append(all, a)
	}
	return all, torn
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(testing.TB) sinktest.Harness[kemi.Alert] {
		f := &file{room: -1}
		return sinktest.Harness[kemi.Alert]{
			Sink:   log.New(f),
			New:    alert,
			Stored: func() []kemi.Alert { all, _ := f.alerts(); return all },
			Bad: func(i int) kemi.Alert { // its time has no JSON
				a := alert(i)
				a.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
				return a
			},
			Down: func() (up func()) {
				f.set(0)
				return func() { f.set(-1) }
			},
		}
	})
}

// TestFullDisk fills the disk at every byte of a batch: the alerts that are not named
// as failed are in the file, in whole lines, and what is written later is whole too.
func TestFullDisk(t *testing.T) {
	var size bytes.Buffer
	if err := log.New(&size).Write(t.Context(), alerts(0, 3)); err != nil {
		t.Fatal(err)
	}
	for room := range size.Len() {
		f := &file{room: room}
		s := log.New(f)
		batch := alerts(0, 3)
		err := s.Write(t.Context(), batch)
		failed, ok := kemi.Failures(err, batch)
		if !ok || !errors.Is(failed[0].Err, errFull) || kemi.IsPermanent(failed[0].Err) {
			t.Fatalf("room %d: %v", room, err)
		}
		got, _ := f.alerts()
		if len(got) != len(batch)-len(failed) || failed[0].Index != len(got) {
			t.Fatalf("room %d: %d whole lines, %d failed from %d on", room, len(got), len(failed), failed[0].Index)
		}
		f.set(-1)
		if err := s.Write(t.Context(), batch[failed[0].Index:]); err != nil {
			t.Fatal(err)
		}
		got, torn := f.alerts()
		seen := map[kemi.Labels]bool{}
		for _, a := range got {
			seen[a.Labels] = true
		}
		// A line that only lacked its end is whole now, and told twice.
		if len(seen) != 3 || len(got)+torn > 4 {
			t.Fatalf("room %d: then %d whole lines of %d alerts, %d torn", room, len(got), len(seen), torn)
		}
	}
}

// TestCounts gives the counts and errors that writers answer with, also those that
// break their contract.
func TestCounts(t *testing.T) {
	oops := errors.New("not synced")
	for _, c := range []struct {
		name string
		n    func(size int) int
		err  error
		want error
	}{
		{"all", func(size int) int { return size }, nil, nil},
		{"less, without an error", func(size int) int { return size - 1 }, nil, io.ErrShortWrite},
		{"below nothing", func(int) int { return -1 }, nil, io.ErrShortWrite},
		{"below nothing, with an error", func(int) int { return -1 }, oops, oops},
		{"more", func(size int) int { return size + 1 }, nil, nil},
		{"more, with an error", func(size int) int { return size + 1 }, oops, oops},
		{"all, with an error", func(size int) int { return size }, oops, oops},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := log.New(writer(func(p []byte) (int, error) { return c.n(len(p)), c.err }))
			for range 2 {
				batch := alerts(0, 2)
				err := s.Write(t.Context(), batch)
				if failed, ok := kemi.Failures(err, batch); ok {
					err = failed[len(failed)-1].Err
				}
				if !errors.Is(err, c.want) || kemi.IsPermanent(err) {
					t.Errorf("the last of the batch: %v, want %v", err, c.want)
				}
			}
		})
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func Example() {
	s := log.New(os.Stdout)
	a := alert(1)
	a.State, a.EndsAt = kemi.StateResolved, t0
	_ = s.Write(context.Background(), []kemi.Alert{a})
	// Output:
	// {"rule":"HighCPU","labels":{"alertname":"HighCPU","host":"web1"},"annotations":{"summary":"two\nlines"},"state":"resolved","time":"2026-11-20T21:57:00Z","startsAt":"2026-11-20T21:56:00Z","endsAt":"2026-11-20T21:57:00Z","fingerprint":"2583252845720d2f","value":97.5}
}
