package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/examples/internal/journal"
	"github.com/kemi-go/kemi/sink/notify/log"
)

// screen keeps the last state of every host and draws it. It is fed by two flows
// through its two sinks; drawing takes a lock and no part in the flow of records.
// Where the output is no terminal, a poll is a line and nothing is drawn.
type screen struct {
	out      io.Writer
	terminal bool
	size     func() (width, height int)
	foot     func(width int) []string // what stands below the alerts

	mu     sync.Mutex
	hosts  map[string]*hostView
	firing map[kemi.Fingerprint]kemi.Alert
	told   []string // the last changes of alerts, oldest first
	said   []string // the last lines of the log
	drawn  int      // lines of the last frame
	began  time.Time
	stale  time.Duration // a host without news for so long is shown as such; 0: never
}

// hostView is what the screen shows of a host: the last poll, and a short history.
type hostView struct {
	name   string
	at     time.Time
	up     bool
	reason string
	poll   poll
	cpu    history
	mem    history
	in     history
	send   history
}

// poll is one poll of one host. NaN is "not known (yet)": the first poll has no rates.
type poll struct {
	cpu, mem, in, out float64
	disk              float64 // of the fullest file system
	mount             string
}

const historyLength = 60 // polls

type history []float64

func (h *history) add(v float64) {
	*h = append(*h, v)
	if len(*h) > historyLength {
		*h = (*h)[len(*h)-historyLength:]
	}
}

func newScreen(out io.Writer, terminal bool, size func() (int, int)) *screen {
	return &screen{
		out: out, terminal: terminal, size: size, foot: func(int) []string { return nil },
		hosts: map[string]*hostView{}, firing: map[kemi.Fingerprint]kemi.Alert{}, began: time.Now(),
	}
}

// metrics is the sink of the calculated metrics.
func (s *screen) metrics() kemi.Sink[kemi.Metric] { return pane[kemi.Metric]{s.takeMetrics} }

// alerts is the sink of the alerts: the screen, or lines of JSON.
func (s *screen) alerts() kemi.Sink[kemi.Alert] {
	if s.terminal {
		return pane[kemi.Alert]{s.takeAlerts}
	}
	return log.New(s.out)
}

// pane is a sink of the screen, by that name in the diagram.
type pane[T any] struct{ kemi.SinkFunc[T] }

func (pane[T]) String() string { return "screen" }

// logger logs to the screen, and to stderr unless that is the same terminal.
func (s *screen) logger(stderr io.Writer, sameTerminal bool) *zap.Logger {
	return journal.New(func(line string) {
		line = clean(line)
		s.mu.Lock()
		defer s.mu.Unlock()
		// The same said again, but for the time in front, takes the place of the old.
		same := func(l string) bool { return len(l) > 8 && len(line) > 8 && l[8:] == line[8:] }
		again := slices.ContainsFunc(s.said, same)
		s.said = append(slices.DeleteFunc(s.said, same), line)
		s.said = s.said[max(len(s.said)-3, 0):]
		if again {
			return
		}
		if !s.terminal || !sameTerminal {
			fmt.Fprintln(stderr, line)
		}
	})
}

// takeMetrics takes whole polls: the metrics of one poll come in one batch, which may
// hold polls of several hosts.
func (s *screen) takeMetrics(_ context.Context, batch []kemi.Metric) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(batch) > 0 {
		host, at := batch[0].Host(), batch[0].Time
		n := 1
		for n < len(batch) && batch[n].Host() == host && batch[n].Time.Equal(at) {
			n++
		}
		s.take(host, at, batch[:n])
		batch = batch[n:]
	}
	return nil
}

func (s *screen) take(host string, at time.Time, ms []kemi.Metric) {
	p := poll{cpu: math.NaN(), mem: math.NaN(), in: math.NaN(), out: math.NaN(), disk: math.NaN()}
	up, reason, polled := false, "", false
	add := func(sum *float64, v float64) {
		if math.IsNaN(*sum) {
			*sum = 0
		}
		*sum += v
	}
	for _, m := range ms {
		v := m.Float()
		switch m.Name {
		case "up":
			up, polled = v > 0, true
		case "snmp_failure":
			reason = m.Labels.Get("reason")
		case "cpu_used_percent":
			p.cpu = v
		case "memory_used_percent":
			p.mem = v
		case "disk_used_percent":
			if math.IsNaN(p.disk) || v > p.disk {
				p.disk, p.mount = v, m.Labels.Get("mount")
			}
		case "if_in_bits_per_second":
			if m.Labels.Get("interface") != "lo" {
				add(&p.in, v)
			}
		case "if_out_bits_per_second":
			if m.Labels.Get("interface") != "lo" {
				add(&p.out, v)
			}
		}
	}
	if !polled {
		return
	}
	h := s.hosts[host]
	if h == nil {
		h = &hostView{name: host}
		s.hosts[host] = h
	}
	h.at, h.up, h.reason, h.poll = at, up, reason, p
	h.cpu.add(p.cpu)
	h.mem.add(p.mem)
	h.in.add(p.in)
	h.send.add(p.out)
	if !s.terminal {
		fmt.Fprintln(s.out, clean(h.line()))
	}
}

// line is a host on one plain line.
func (h *hostView) line() string {
	at := h.at.Local().Format(time.TimeOnly)
	if !h.up {
		return fmt.Sprintf("%s %s down (%s)", at, h.name, cmp.Or(h.reason, "no answer"))
	}
	disk := "disk -"
	if h.poll.mount != "" {
		disk = fmt.Sprintf("disk %s %s", h.poll.mount, percent(h.poll.disk))
	}
	line := fmt.Sprintf("%s %s up  cpu %s  memory %s  %s  in %s  out %s", at, h.name,
		percent(h.poll.cpu), percent(h.poll.mem), disk, bitrate(h.poll.in), bitrate(h.poll.out))
	if h.reason != "" {
		line += "  (incomplete: " + h.reason + ")"
	}
	return line
}

func (s *screen) takeAlerts(_ context.Context, batch []kemi.Alert) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range batch {
		if a.State == kemi.StateFiring {
			s.firing[a.Fingerprint] = a
		} else {
			delete(s.firing, a.Fingerprint)
		}
		s.told = append(s.told, fmt.Sprintf("%s  %-8s  %s", a.Time.Local().Format(time.TimeOnly), a.State, describe(a)))
	}
	if len(s.told) > 5 {
		s.told = s.told[len(s.told)-5:]
	}
	return nil
}

func describe(a kemi.Alert) string {
	text := a.Annotations.Get("summary")
	if text == "" {
		text = a.Labels.Without("alertname").String()
	}
	return a.Rule + ": " + text
}

// drawEvery draws until ctx is done, and once more at the end.
func (s *screen) drawEvery(ctx context.Context, every time.Duration) {
	if !s.terminal {
		return
	}
	fmt.Fprint(s.out, "\x1b[?25l") // no cursor
	defer fmt.Fprint(s.out, "\x1b[?25h")
	t := time.NewTicker(every)
	defer t.Stop()
	for ctx.Err() == nil {
		s.draw()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	s.draw()
}

// draw writes one frame over the last one.
func (s *screen) draw() {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	width, height := s.size()
	lines := s.frame(time.Now(), width, height-1)
	var b bytes.Buffer
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", s.drawn) // the terminal may have echoed a ^C
	}
	for _, l := range lines {
		b.WriteString(cut(l, width-1))
		b.WriteString("\x1b[0m\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = len(lines)
	_, _ = s.out.Write(b.Bytes())
}

// frame is the screen in at most height lines.
func (s *screen) frame(now time.Time, width, height int) []string {
	cols := columnsOf(width)
	hosts := slices.SortedFunc(maps.Values(s.hosts), func(a, b *hostView) int {
		// Those that are down first, so that they are seen where not all fit.
		if a.up != b.up {
			return map[bool]int{false: -1, true: 1}[a.up]
		}
		return strings.Compare(a.name, b.name)
	})
	foot := s.foot(width)
	if len(s.said) > 0 {
		foot = append(foot, "")
		for _, l := range s.said {
			foot = append(foot, wrap(l, width-1)...)
		}
	}
	down := 0
	for _, h := range hosts {
		if !h.up {
			down++
		}
	}
	lines := []string{
		bold(fmt.Sprintf("kemi  %s  running %s  hosts %d  down %d  alerts %d", now.Format(time.TimeOnly),
			now.Sub(s.began).Truncate(time.Second), len(hosts), down, len(s.firing))),
		"",
		dim(cols.line("HOST", "CPU", "", "MEMORY", "", "  DISK", "IN", "", "OUT", "")),
	}
	// The hosts get what the alerts and the foot leave over, the alerts at most half.
	active := slices.SortedFunc(maps.Values(s.firing), func(a, b kemi.Alert) int {
		return cmp.Or(a.StartsAt.Compare(b.StartsAt), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	alerts := []string{"", dim("ALERTS")}
	for _, a := range active {
		alerts = append(alerts, red("firing ")+" since "+a.StartsAt.Local().Format(time.TimeOnly)+"  "+clean(describe(a)))
	}
	if len(active) == 0 {
		alerts = append(alerts, "none firing")
	}
	if len(s.told) > 0 {
		alerts = append(alerts, "", dim("TOLD"))
		for _, t := range s.told {
			alerts = append(alerts, clean(t))
		}
	}
	if most := max(height/2-1, 4); len(alerts) > most {
		alerts = append(alerts[:most-1], fmt.Sprintf("… %d more lines", len(alerts)-most+1))
	}
	room := max(height-len(lines)-len(alerts)-len(foot), 2)
	if len(hosts) == 0 {
		lines = append(lines, "waiting for the first poll …")
	}
	for i, h := range hosts {
		if i+1 == room && len(hosts) > room {
			lines = append(lines, fmt.Sprintf("… %d more hosts", len(hosts)-i))
			break
		}
		lines = append(lines, h.row(cols, now, s.stale))
	}
	lines = append(append(lines, alerts...), foot...)
	return lines[:min(len(lines), max(height, 1))]
}

// columns is how wide the histories are: what the fixed columns leave of the width.
type columns struct{ cpu, other int }

const fixedColumns = 69

func columnsOf(width int) columns {
	rest := max(width-1-fixedColumns, 0)
	return columns{cpu: min(rest*2/5, historyLength), other: min(rest/5, historyLength)}
}

// line puts the cells of a row side by side. Each history is as wide as its column.
func (c columns) line(host, cpu, cpuHistory, mem, memHistory, disk, in, inHistory, out, outHistory string) string {
	return fmt.Sprintf("%-12s %6s %-*s  %6s %-*s  %-15s %9s %-*s %9s %-*s", cut(host, 12), cpu, c.cpu, cpuHistory,
		mem, c.other, memHistory, disk, in, c.other, inHistory, out, c.other, outHistory)
}

func (h *hostView) row(c columns, now time.Time, stale time.Duration) string {
	if age := now.Sub(h.at); stale > 0 && age > stale {
		return fmt.Sprintf("%-12s ", cut(clean(h.name), 12)) + red("  no news for "+age.Truncate(time.Second).String())
	}
	if !h.up {
		return fmt.Sprintf("%-12s ", cut(clean(h.name), 12)) + red("  down: "+cmp.Or(clean(h.reason), "no answer"))
	}
	disk := "     -"
	if h.poll.mount != "" {
		disk = fmt.Sprintf("%6s %s", percent(h.poll.disk), cut(clean(h.poll.mount), 8))
	}
	return c.line(clean(h.name), percent(h.poll.cpu), spark(h.cpu, c.cpu, 100), percent(h.poll.mem), spark(h.mem, c.other, 100),
		disk, bitrate(h.poll.in), spark(h.in, c.other, 0), bitrate(h.poll.out), spark(h.send, c.other, 0))
}

// spark draws the end of a history in width cells, the newest at the right, on a
// scale from 0 to top. Top 0 is the largest value there is.
func spark(h history, width int, top float64) string {
	const blank = ' '
	cells := []rune("▁▂▃▄▅▆▇█")
	h = h[max(len(h)-width, 0):]
	if top == 0 {
		for _, v := range h {
			if v > top {
				top = v
			}
		}
	}
	out := slices.Repeat([]rune{blank}, width-len(h))
	for _, v := range h {
		switch {
		case math.IsNaN(v):
			out = append(out, blank)
		case top <= 0:
			out = append(out, cells[0])
		default:
			out = append(out, cells[min(max(int(v/top*8), 0), 7)])
		}
	}
	return string(out)
}

// wrap breaks a line of plain text at spaces, into at most three lines.
func wrap(s string, width int) []string {
	var lines []string
	for len(lines) < 2 && utf8.RuneCountInString(s) > width {
		head := cut(s, width)
		if i := strings.LastIndexByte(head, ' '); i > width/2 {
			head = head[:i]
		}
		lines = append(lines, head)
		s = "  " + strings.TrimLeft(s[len(head):], " ")
	}
	return append(lines, s)
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", v)
}

func bitrate(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	for _, unit := range []string{"b/s", "kb/s", "Mb/s", "Gb/s"} {
		if v < 1000 {
			return fmt.Sprintf("%.3g %s", math.Round(v*10)/10, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.3g Tb/s", v)
}

func bold(s string) string { return "\x1b[1m" + s + "\x1b[0m" }
func dim(s string) string  { return "\x1b[2m" + s + "\x1b[0m" }
func red(s string) string  { return "\x1b[31m" + s + "\x1b[0m" }

// clean keeps what a host or a rule says from speaking to the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// cut keeps the first width characters of a line; colours take no room.
func cut(s string, width int) string {
	n := 0
	for i := 0; i < len(s); {
		if s[i] == '\x1b' {
			end := strings.IndexByte(s[i:], 'm')
			if end < 0 {
				return s[:i]
			}
			i += end + 1
			continue
		}
		if n == width {
			return s[:i]
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		i += size
		n++
	}
	return s
}
