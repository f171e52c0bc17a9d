package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/internal/faketsd"
)

// tell says every now and then how the flows are doing, a line for each, until it is
// told to stop.
func (s *stats) tell(w io.Writer, every time.Duration) (stop func()) {
	if every <= 0 {
		return func() {}
	}
	ended, quiet := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(quiet)
		t := time.NewTicker(every)
		defer t.Stop()
		before, at := s.pipeline.Stats(), time.Now()
		for {
			select {
			case <-ended:
				return
			case now := <-t.C:
				stats, readers := s.pipeline.Stats(), s.on.readers()
				lines := now.Format(time.TimeOnly) + " how the flows are doing\n"
				for i, f := range stats {
					rate := float64(f.Done-before[i].Done) / now.Sub(at).Seconds()
					lines += statusLine(f, rate, readers, s.notes(f.Name)) + "\n"
				}
				fmt.Fprint(w, lines)
				before, at = stats, now
			}
		}
	}()
	return func() {
		close(ended)
		<-quiet
	}
}

// statusLine says what a flow has done, what waits for it, and what it suffers from.
func statusLine(f kemi.FlowStats, rate float64, readers map[string]reader, notes string) string {
	line := fmt.Sprintf("  %-10s %8d records %7.1f/s", f.Name, f.Done, rate)
	if r, reads := readers[f.Name]; reads {
		line += fmt.Sprintf("  lag %d", r.lag)
		if r.rewinds > 0 {
			// Lanes without records have nothing to compare, nor have those that share the
			// state of the first.
			line += fmt.Sprintf("  replays %d, compared and the same %d", r.rewinds, r.proved)
		}
		if r.lost > 0 {
			line += fmt.Sprintf("  NEVER READ %d", r.lost)
		}
		if r.damaged > 0 {
			line += fmt.Sprintf("  DAMAGED PARTITIONS %d", r.damaged)
		}
	}
	if f.Mismatches > 0 {
		line += fmt.Sprintf("  MISMATCHES %d", f.Mismatches)
	}
	if n := f.Dead + f.Dropped; n > 0 {
		line += fmt.Sprintf("  refused %d", n)
	}
	if since := time.Since(f.LastErrTime); f.LastErr != "" && since < 10*time.Second {
		how := fmt.Sprintf("failed %v ago", since.Round(time.Second))
		if f.OldestWrite > time.Second {
			how = "FAILING"
		}
		line += "  " + how + ": " + f.LastErr
	}
	return line + notes
}

// notes is what only some flows have to say.
func (s *stats) notes(flow string) string {
	switch {
	case flow == "poller":
		if n := s.poller.Stats().Stale; n > 0 {
			return fmt.Sprintf("  too old and dropped %d", n)
		}
	case flow == "forwarder" && s.stored != nil:
		return "  in the store: " + newest(s.stored())
	case flow == "alert":
		firing := 0
		for _, a := range s.rules.Active() {
			if a.State == kemi.StateFiring {
				firing++
			}
		}
		return fmt.Sprintf("  firing %d", firing)
	}
	return ""
}

// newest says how many points there are, and what the newest of some are.
func newest(points []faketsd.Point) string {
	last := map[string]string{}
	for _, p := range points {
		last[p.Metric] = p.Value
	}
	text := fmt.Sprintf("%d points", len(points))
	for _, m := range []string{"cpu_used_percent", "memory_used_percent", "load1"} {
		if v, ok := last[m]; ok {
			whole, frac, _ := strings.Cut(v, ".")
			text += fmt.Sprintf(", %s %s", m, strings.TrimSuffix(whole+"."+frac[:min(2, len(frac))], "."))
		}
	}
	return text
}

// drained says what the flows did, and what waits for them: on a durable bus that is
// for the next start, and in memory it is lost.
func (s *stats) drained() string {
	var b strings.Builder
	b.WriteString("drained:")
	left, readers := int64(0), s.on.readers()
	for _, f := range s.pipeline.Stats() {
		fmt.Fprintf(&b, " %s %d", f.Name, f.Done)
		if n := readers[f.Name].lag; n > 0 {
			fmt.Fprintf(&b, " (lag %d)", n)
			left += n
		}
		if err := f.Balance(); err != nil {
			b.WriteString(" (" + err.Error() + ")")
		}
		b.WriteString(",")
	}
	if s.on.keeps {
		b.WriteString(" and what waits is kept for the next start")
	} else {
		fmt.Fprintf(&b, " left behind %d", left)
	}
	return b.String()
}
