package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/kemi-go/kemi/bus/memory"
)

// topic is what the user is told of a topic in memory.
type topic interface {
	fmt.Stringer
	Stats() memory.Stats
}

// waiting is the records on the topics, by the flow that is to read them, and the topics
// that are full.
func (s *stats) waiting() (unread map[string]int, full []string) {
	unread = map[string]int{}
	for _, t := range s.topics {
		st := t.Stats()
		for _, r := range st.Readers {
			unread[r.Name] += r.Waiting
		}
		if st.Blocked > 0 {
			full = append(full, t.String())
		}
	}
	return unread, full
}

// foot is what stands below the alerts on the screen.
func (s *stats) foot(width int, draining bool) []string {
	lines := append([]string{""}, wrap(s.ledger(), width-1)...)
	if _, full := s.waiting(); len(full) > 0 {
		lines = append(lines, red("STANDSTILL ")+strings.Join(full, " ")+" full: what comes before waits, polling and rules too")
	}
	if draining {
		return append(lines, fmt.Sprintf("draining, at most %s; Ctrl-C again stops now", s.pipeline.DrainTimeout))
	}
	return append(lines, "Ctrl-C drains and stops")
}

// ledger is the flows with what each has done, waits for, and suffers from.
func (s *stats) ledger() string {
	var b strings.Builder
	b.WriteString("FLOWS")
	unread, _ := s.waiting()
	for _, f := range s.pipeline.Stats() {
		fmt.Fprintf(&b, "  %s %d", f.Name, f.Done)
		if n := unread[f.Name]; n > 0 {
			fmt.Fprintf(&b, " (%d waiting)", n)
		}
		if f.LastErr != "" && time.Since(f.LastErrTime) < 10*time.Second {
			b.WriteString(" (failing)")
		}
	}
	return b.String()
}

// drained says what the pipeline did, and what of it did not get through: that is
// lost, as the topics are in memory.
func (s *stats) drained() string {
	text, left := "drained:", 0
	unread, _ := s.waiting()
	for _, f := range s.pipeline.Stats() {
		text += fmt.Sprintf(" %s %d", f.Name, f.Done)
		if n := unread[f.Name]; n > 0 {
			text += fmt.Sprintf(" (%d not)", n)
			left += n
		}
		text += ","
		if err := f.Balance(); err != nil {
			text += " (" + err.Error() + ")"
		}
	}
	return fmt.Sprintf("%s left behind %d", text, left)
}
