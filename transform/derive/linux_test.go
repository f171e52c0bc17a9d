package derive_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kemi-go/kemi"
	"github.com/kemi-go/kemi/transform/derive"
)

var modes = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}

// linuxPoll makes a poll as it comes from transform/counter; missing leaves things out.
func linuxPoll(rng *rand.Rand, missing bool) []kemi.Metric {
	var ms []kemi.Metric
	put := func(name string, v float64, labels ...string) {
		if !missing || rng.IntN(8) > 0 {
			ms = append(ms, gauge(name, v, labels...))
		}
	}
	some := func(n float64) float64 { // 0 now and then
		if rng.IntN(10) == 0 {
			return 0
		}
		return math.Floor(n * rng.Float64())
	}
	put("up", 1)
	for _, m := range modes {
		put("cpu_ticks_rate", some(200), "mode", m)
	}
	put("cpu_count", 4)
	put("load1", some(10))
	total := some(64e9)
	put("memory_total_bytes", total)
	put("memory_available_bytes", total/2)
	put("memory_free_bytes", total/4)
	put("memory_buffers_bytes", total/8)
	put("memory_cached_bytes", total/16)
	put("swap_total_bytes", some(1e9))
	put("swap_free_bytes", 0)
	for i := range 12 {
		l := []string{"mount", fmt.Sprint("/", i)}
		put("disk_total_bytes", some(1e12), l...)
		put("disk_used_bytes", some(1e11), l...)
		put("disk_busy_microseconds_rate", some(1.2e6), "device", fmt.Sprint("sd", i))
		l = []string{"interface", fmt.Sprint("eth", i), "ifindex", fmt.Sprint(i)}
		put("if_in_octets_rate", some(1e8), l...)
		put("if_out_octets_rate", some(1e8), l...)
		put("if_speed_bits", []float64{0, 10e6, 1e9}[rng.IntN(3)], l...)
	}
	put("tcp_out_segments_rate", some(1000))
	put("tcp_retransmitted_segments_rate", some(10))
	rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	return ms
}

// byHand says the same as the formulas, one metric after another.
func byHand(ms []kemi.Metric) (out []kemi.Metric) {
	at := map[string]float64{}
	for _, m := range ms {
		at[m.Name+m.Labels.Without("host", "service").String()] = m.Float()
	}
	get := func(name string, labels ...string) float64 {
		if v, ok := at[name+kemi.LabelsOf(labels...).String()]; ok {
			return v
		}
		return math.NaN()
	}
	put := func(name string, v float64, labels ...string) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out = append(out, gauge(name, v, labels...))
		}
	}
	all := 0.0
	for _, m := range modes {
		all += get("cpu_ticks_rate", "mode", m)
	}
	idle, wait := get("cpu_ticks_rate", "mode", "idle"), get("cpu_ticks_rate", "mode", "iowait")
	put("cpu_used_percent", 100-100*(idle+wait)/all)
	put("cpu_iowait_percent", 100*wait/all)
	put("load1_per_cpu", get("load1")/get("cpu_count"))
	total := get("memory_total_bytes")
	used := total - get("memory_available_bytes")
	if math.IsNaN(used) {
		used = total - get("memory_free_bytes") - get("memory_buffers_bytes") - get("memory_cached_bytes")
	}
	put("memory_used_percent", used/total*100)
	put("swap_used_percent", 100*(get("swap_total_bytes")-get("swap_free_bytes"))/get("swap_total_bytes"))
	put("tcp_retransmit_percent", 100*get("tcp_retransmitted_segments_rate")/get("tcp_out_segments_rate"))
	for i := range 12 {
		l := []string{"mount", fmt.Sprint("/", i)}
		put("disk_used_percent", 100*get("disk_used_bytes", l...)/get("disk_total_bytes", l...), l...)
		l = []string{"device", fmt.Sprint("sd", i)}
		put("disk_busy_percent", min(100, get("disk_busy_microseconds_rate", l...)/1e6*100), l...)
		l = []string{"interface", fmt.Sprint("eth", i), "ifindex", fmt.Sprint(i)}
		for _, way := range []string{"in", "out"} {
			bits := 8 * get("if_"+way+"_octets_rate", l...)
			put("if_"+way+"_bits_per_second", bits, l...)
			if speed := get("if_speed_bits", l...); speed > 10e6 {
				put("if_"+way+"_utilisation_percent", 100*bits/speed, l...)
			}
		}
	}
	return out
}

func TestLinuxAgreesWithCalculationByHand(t *testing.T) {
	v := newValues(t, derive.Linux()...)
	seen := map[string]int{}
	for seed := range uint64(300) {
		ms := linuxPoll(rand.New(rand.NewPCG(seed, 5)), seed%4 > 0)
		got, want := sorted(derived(t, v, ms)), sorted(byHand(ms))
		if !slices.EqualFunc(got, want, func(a, b kemi.Metric) bool {
			return a.Name == b.Name && a.Labels == b.Labels && math.Abs(a.Float()-b.Float()) <= 1e-9*(1+math.Abs(b.Float()))
		}) {
			t.Fatalf("seed %d:\n got %s\nwant %s", seed, text(got), text(want))
		}
		for _, m := range got {
			seen[m.Name]++
		}
	}
	for _, f := range derive.Linux() {
		if seen[f.Name] == 0 {
			t.Errorf("%s was never derived", f.Name)
		}
	}
	if len(seen) != 12 {
		t.Errorf("%d names are derived: %v", len(seen), seen)
	}
}
