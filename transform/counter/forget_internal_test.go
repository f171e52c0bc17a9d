package counter

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
)

// lane feeds one counter and one speed per host and tells how much is remembered.
type lane struct {
	*Rates
	t testing.TB
}

func newLane(t testing.TB) lane {
	r, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return lane{r, t}
}

func (l lane) poll(host string, at time.Time, rows ...string) (rates int) {
	var ms []kemi.Metric
	for _, row := range rows {
		labels := kemi.LabelsOf("host", host, "interface", row)
		ms = append(ms, kemi.Counter("if_in_octets", labels, at, uint64(at.Unix())), kemi.Gauge("if_speed_bits", labels, at, 1e9))
	}
	out, err := l.Apply(context.Background(), nil, ms)
	if err != nil {
		l.t.Fatal(err)
	}
	return len(out) - len(rows)
}

func (l lane) entries() (n int) {
	for _, h := range l.hosts {
		n += len(h.series) + len(h.references)
	}
	return n
}

func (l lane) remembered(hosts, entries int) {
	l.t.Helper()
	if n := l.entries(); len(l.hosts) != hosts || n != entries {
		l.t.Errorf("%d hosts and %d entries are remembered, want %d and %d", len(l.hosts), n, hosts, entries)
	}
}

var begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func TestOldSeriesAreForgotten(t *testing.T) {
	l := newLane(t)
	for i := range 500 { // a container with a new interface every minute
		l.poll("web1", begin.Add(time.Duration(i)*time.Minute), "eth0", fmt.Sprint("veth", i))
	}
	if n := l.entries(); n > 2*(1+18) {
		t.Errorf("%d entries are remembered", n)
	}
}

func TestSilentHostsAreForgotten(t *testing.T) {
	l := newLane(t)
	for i := range 100 {
		l.poll(fmt.Sprint("gone", i), begin, "eth0")
	}
	for i := range 22 {
		l.poll("web1", begin.Add(time.Duration(i)*time.Minute), "eth0")
	}
	l.remembered(1, 2)
}

func TestHostsThatComeOnceAreForgotten(t *testing.T) {
	l := newLane(t)
	for i := range 1000 { // jobs, each a host of its own
		l.poll(fmt.Sprint("job", i), begin.Add(time.Duration(i)*time.Minute), "eth0")
	}
	if len(l.hosts) > 25 {
		t.Errorf("%d hosts are remembered", len(l.hosts))
	}
}

// Hosts with wrong clocks neither make the lane forget the others, nor stop it
// from forgetting.
func TestWrongClocksDoNotMatter(t *testing.T) {
	for _, skew := range []time.Duration{-48 * time.Hour, -time.Hour, time.Hour, 48 * time.Hour, 50 * 365 * 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			l := newLane(t)
			l.poll("skewed", begin.Add(skew), "eth0") // the first of all
			l.poll("gone", begin, "eth0")
			for i := 1; i <= 400; i++ {
				now := begin.Add(time.Duration(i) * time.Minute)
				for _, h := range []string{"a", "b", "c"} {
					if n := l.poll(h, now, "eth0"); n != 1 && i > 1 {
						t.Fatalf("%d rates of %s after %d minutes, want 1", n, h, i)
					}
				}
				if n := l.poll("skewed", now.Add(skew), "eth0"); n != 1 {
					t.Fatalf("%d rates of the skewed host after %d minutes, want 1", n, i)
				}
			}
			l.remembered(4, 8)
		})
	}
}

// One host sends what it has kept for a day, at once.
func TestBackfillDoesNotMakeTheLaneForget(t *testing.T) {
	l := newLane(t)
	for i := range 10 {
		l.poll("web1", begin.Add(time.Duration(i)*time.Minute), "eth0")
	}
	for i := range 1440 {
		l.poll("mobile", begin.Add(time.Duration(i-1440)*time.Minute), "eth0")
	}
	if n := l.poll("web1", begin.Add(10*time.Minute), "eth0"); n != 1 {
		t.Errorf("%d rates of web1, want 1", n)
	}
}

// One record from the year 2099, and never again: the lane finds back.
func TestOneRecordFromTheFuture(t *testing.T) {
	l := newLane(t)
	l.poll("broken", begin.AddDate(73, 0, 0), "eth0")
	rows := make([]string, 1000)
	for i := range rows {
		rows[i] = fmt.Sprint("eth", i)
	}
	for i := range 100 {
		l.poll("web1", begin.Add(time.Duration(i)*time.Minute), rows...)
	}
	l.remembered(1, 2000)
}

func TestNamesAreForgotten(t *testing.T) {
	l := newLane(t)
	for i := range 1000 {
		m := kemi.Counter(fmt.Sprint("request_", i), kemi.LabelsOf("host", "web1"), begin.Add(time.Duration(i)*time.Minute), 1)
		if _, err := l.Apply(context.Background(), nil, []kemi.Metric{m}); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.defs) > 10 || l.entries() > 20 {
		t.Errorf("%d names and %d series are remembered", len(l.defs), l.entries())
	}
}
