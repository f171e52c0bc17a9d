package counter_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/counter"
)

// hostPoll is a poll of the standard Linux profile: 46 counters and 36 gauges.
func hostPoll(host string, s float64) []kemi.Metric {
	base := kemi.LabelsOf("host", host, "service", "shop")
	t := at(s)
	var ms []kemi.Metric
	gauge := func(l kemi.Labels, names ...string) {
		for _, n := range names {
			ms = append(ms, kemi.Gauge(n, l, t, 1e9+s))
		}
	}
	gauge(base, "up", "snmp_complete_ratio", "snmp_poll_seconds", "snmp_rtt_seconds", "agent_uptime_seconds", "uptime_seconds",
		"processes", "users", "tcp_established", "cpu_count", "load1", "load5", "load15", "memory_total_bytes",
		"memory_available_bytes", "memory_free_bytes", "memory_buffers_bytes", "memory_cached_bytes", "swap_total_bytes", "swap_free_bytes")
	for _, n := range []string{"tcp_in_segments", "tcp_out_segments", "tcp_retransmitted_segments", "interrupts", "context_switches", "swap_in_pages", "swap_out_pages"} {
		ms = append(ms, kemi.Counter32(n, base, t, uint32(s)))
	}
	for _, mode := range []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"} {
		ms = append(ms, kemi.Counter32("cpu_ticks", base.With("mode", mode), t, uint32(s)))
	}
	for i := range 5 {
		gauge(base.With("mount", "/disk"+strconv.Itoa(i)), "disk_total_bytes", "disk_used_bytes")
	}
	for _, dev := range []string{"sda", "sdb"} {
		l := base.With("device", dev)
		ms = append(ms, kemi.Counter("disk_read_bytes", l, t, uint64(s)), kemi.Counter("disk_written_bytes", l, t, uint64(s)),
			kemi.Counter32("disk_reads", l, t, uint32(s)), kemi.Counter32("disk_writes", l, t, uint32(s)), kemi.Counter("disk_busy_microseconds", l, t, uint64(s)))
	}
	for i := range 3 {
		l := base.Merge(kemi.Label{Name: "interface", Value: "eth" + strconv.Itoa(i)}, kemi.Label{Name: "ifindex", Value: strconv.Itoa(i + 1)})
		gauge(l, "if_speed_bits", "if_up")
		ms = append(ms, kemi.Counter("if_in_octets", l, t, uint64(s)), kemi.Counter("if_out_octets", l, t, uint64(s)),
			kemi.Counter32("if_in_errors", l, t, uint32(s)), kemi.Counter32("if_out_errors", l, t, uint32(s)),
			kemi.Counter32("if_in_discards", l, t, uint32(s)), kemi.Counter32("if_out_discards", l, t, uint32(s)))
	}
	return ms
}

func advance(batch []kemi.Metric, by time.Duration) {
	t := batch[0].Time.Add(by)
	for i := range batch {
		m := &batch[i]
		switch m.Kind {
		case kemi.KindCounter:
			*m = kemi.Counter(m.Name, m.Labels, t, m.Uint()+100)
		case kemi.KindCounter32:
			*m = kemi.Counter32(m.Name, m.Labels, t, uint32(m.Uint())+100)
		default:
			m.Time = t
			if m.Name == "agent_uptime_seconds" {
				*m = kemi.Gauge(m.Name, m.Labels, t, m.Float()+by.Seconds())
			}
		}
	}
}

// naive is what one writes first: a map by a string made of name and labels, the
// difference over the difference of the Times, and no rule but "not below zero".
type naive map[string]kemi.Metric

func (n naive) Apply(_ context.Context, dst, src []kemi.Metric) ([]kemi.Metric, error) {
	for _, m := range src {
		if m.Kind == kemi.KindGauge {
			dst = append(dst, m)
			continue
		}
		k := m.Name + m.Labels.String()
		old, ok := n[k]
		n[k] = m
		if dt := m.Time.Sub(old.Time).Seconds(); ok && dt > 0 && m.Float() >= old.Float() {
			dst = append(dst, kemi.Gauge(m.Name+"_rate", m.Labels, m.Time, (m.Float()-old.Float())/dt))
		}
	}
	return dst, nil
}

func BenchmarkApply(b *testing.B) {
	for _, hosts := range []int{1, 2000} {
		polls := make([][]kemi.Metric, hosts)
		for i := range polls {
			polls[i] = hostPoll(fmt.Sprintf("host%05d", i), 1e6)
		}
		for _, peer := range []struct {
			name string
			via  func() kemi.Transform[kemi.Metric, kemi.Metric]
		}{
			{"kemi", func() kemi.Transform[kemi.Metric, kemi.Metric] { return newRates(b, counter.Config{}) }},
			{"naive", func() kemi.Transform[kemi.Metric, kemi.Metric] { return naive{} }},
		} {
			b.Run(fmt.Sprintf("%s/hosts=%d", peer.name, hosts), func(b *testing.B) {
				via := peer.via()
				var dst []kemi.Metric
				for _, p := range polls {
					dst, _ = via.Apply(context.Background(), dst[:0], p)
				}
				b.ReportAllocs()
				records, i := 0, 0
				var spent time.Duration // without the making of the next poll
				for b.Loop() {
					p := polls[i%hosts]
					i++
					advance(p, time.Minute)
					began := time.Now()
					dst, _ = via.Apply(context.Background(), dst[:0], p)
					spent += time.Since(began)
					records += len(p)
				}
				b.ReportMetric(float64(spent.Nanoseconds())/float64(records), "ns/record")
			})
		}
	}
}

// BenchmarkMemory tells what a series costs: state, maps, all.
func BenchmarkMemory(b *testing.B) {
	const hosts = 2000
	polls := make([][]kemi.Metric, hosts)
	counters := 0
	for i := range polls {
		polls[i] = hostPoll(fmt.Sprintf("host%05d", i), 1e6)
		for _, m := range polls[i] {
			if m.Kind.IsCounter() {
				counters++
			}
		}
	}
	var dst []kemi.Metric
	for b.Loop() {
		r := newRates(b, counter.Config{})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for _, p := range polls {
			dst, _ = r.Apply(context.Background(), dst[:0], p)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(counters), "B/series")
		runtime.KeepAlive(r)
	}
}
