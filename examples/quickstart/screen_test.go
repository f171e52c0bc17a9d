package main

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kemi-go/kemi"
)

var colours = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

func pollOf(host string, at time.Time, up float64) []kemi.Metric {
	l := kemi.LabelsOf("host", host)
	ms := []kemi.Metric{kemi.Gauge("up", l, at, up)}
	if up > 0 {
		ms = append(ms,
			kemi.Gauge("cpu_used_percent", l, at, 50),
			kemi.Gauge("memory_used_percent", l, at, 25),
			kemi.Gauge("disk_used_percent", l.With("mount", "/"), at, 10),
			kemi.Gauge("disk_used_percent", l.With("mount", "/var"), at, 90),
			kemi.Gauge("if_in_bits_per_second", l.With("interface", "eth0"), at, 1500),
			kemi.Gauge("if_in_bits_per_second", l.With("interface", "lo"), at, 9e9),
			kemi.Gauge("if_out_bits_per_second", l.With("interface", "eth0"), at, 2.5e6))
	} else {
		ms = append(ms, kemi.Gauge("snmp_failure", l.With("reason", "timeout"), at, 1))
	}
	return ms
}

func TestOneLineForAHostAndAPoll(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, false, nil)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	batch := append(pollOf("web1", at, 1), pollOf("web2", at, 0)...)
	if err := s.takeMetrics(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	want := "03:04:05 web1 up  cpu 50.0%  memory 25.0%  disk /var 90.0%  in 1.5 kb/s  out 2.5 Mb/s\n" +
		"03:04:05 web2 down (timeout)\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestFrameFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, true, func() (int, int) { return 60, 12 })
	s.foot = func(int) []string { return []string{"", "foot"} }
	at := time.Now()
	for i := range 30 {
		if err := s.takeMetrics(t.Context(), pollOf("host"+string(rune('a'+i%26))+strings.Repeat("x", i), at, float64(i%2))); err != nil {
			t.Fatal(err)
		}
	}
	labels := kemi.LabelsOf("alertname", "HighCPU", "host", "a")
	notes := kemi.LabelsOf("summary", "\x1b]0;evil\a is busy")
	if err := s.takeMetrics(t.Context(), pollOf("!\x1b]0;evil\a", at, 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.takeAlerts(t.Context(), []kemi.Alert{{Rule: "HighCPU", Labels: labels, Annotations: notes, State: kemi.StateFiring, Time: at, StartsAt: at}}); err != nil {
		t.Fatal(err)
	}
	s.draw()
	text := colours.ReplaceAllString(out.String(), "")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) > 11 {
		t.Errorf("%d lines on a terminal of 12", len(lines))
	}
	for _, l := range lines {
		if utf8.RuneCountInString(l) > 60 {
			t.Errorf("line of %d characters on a terminal of 60: %q", utf8.RuneCountInString(l), l)
		}
	}
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\a") {
		t.Errorf("a label speaks to the terminal: %q", text)
	}
	if !strings.Contains(text, "down 16") || !strings.Contains(text, "HighCPU") || !strings.Contains(text, "foot") {
		t.Errorf("the frame lacks something:\n%s", text)
	}
	first := strings.Count(out.String(), "\n")
	s.draw()
	if !strings.Contains(out.String(), "\x1b["+string(rune('0'+first/10))+string(rune('0'+first%10))+"A") && first >= 10 {
		t.Errorf("the second frame does not go back over the first")
	}
}

func TestSparkKeepsItsWidth(t *testing.T) {
	for _, h := range []history{nil, {1}, {0, 50, 100, math.NaN(), 200, -1}, make(history, 40)} {
		if got := utf8.RuneCountInString(spark(h, 10, 100)); got != 10 {
			t.Errorf("%v: %d cells, want 10", h, got)
		}
	}
	if got := spark(history{0, 50, 99}, 3, 100); got != "▁▅█" {
		t.Errorf("got %q", got)
	}
}

func TestWrapKeepsWordsAndWidth(t *testing.T) {
	text := "WARN store: the sink failed: dial tcp 127.0.0.1:14242: connection refused"
	lines := wrap(text, 40)
	if len(lines) != 2 || strings.Join(strings.Fields(strings.Join(lines, " ")), " ") != text {
		t.Errorf("%q", lines)
	}
	if lines := wrap(strings.Repeat("x", 500), 40); len(lines) != 3 || len(lines[0]) != 40 {
		t.Errorf("%q", lines)
	}
}

func TestAHostWithoutNewsIsShownAsSuch(t *testing.T) {
	s := newScreen(&bytes.Buffer{}, true, nil)
	s.stale = 15 * time.Second
	at := time.Now()
	if err := s.takeMetrics(t.Context(), pollOf("web1", at, 1)); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(s.frame(at.Add(10*time.Second), 100, 30), "\n"); !strings.Contains(text, "50.0%") {
		t.Errorf("a host polled ten seconds ago:\n%s", text)
	}
	if text := strings.Join(s.frame(at.Add(time.Minute), 100, 30), "\n"); strings.Contains(text, "50.0%") || !strings.Contains(text, "no news for 1m0s") {
		t.Errorf("a host polled a minute ago:\n%s", text)
	}
}

func TestLinesDoNotSpeakToTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out, false, nil)
	if err := s.takeMetrics(t.Context(), pollOf("web\x1b[31m\a", time.Now(), 1)); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\a") {
		t.Errorf("%q", out.String())
	}
}
