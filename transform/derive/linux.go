package derive

// Linux returns a new slice with the formulas of the standard Linux profile, over the
// rates that transform/counter makes:
//
//   - cpu_used_percent: the time in which the CPUs ran something, of all time. Waiting for
//     a disk (iowait) is no use of a CPU, which is free to run something else
//     meanwhile; it is cpu_iowait_percent. Both and the idle time are 100 %. All eight
//     modes have to be there, for without one of them the total would be wrong. (guest
//     and guest_nice are in user and nice already.)
//   - load1_per_cpu.
//   - memory_used_percent: what is not available to a new program without swapping
//     (MemAvailable, Linux 3.14 and net-snmp 5.9); on older hosts, what is neither free
//     nor buffers nor cache, which is about the same.
//   - swap_used_percent: of hosts that have swap.
//   - disk_used_percent, for each mount: used of all, with what is kept for root.
//   - disk_busy_percent, for each device: the time with a request under way (iostat's %util).
//   - if_in_bits_per_second and if_out_bits_per_second, for each interface.
//   - if_in_utilisation_percent and if_out_utilisation_percent, of the interface's speed, for
//     each direction. A speed of 10 Mbit/s or less gives none: net-snmp says so of every
//     interface whose speed it does not know, such as loopback.
//   - tcp_retransmit_percent: segments sent again per segments sent (RFC 4022,
//     tcpRetransSegs and tcpOutSegs; the latter does not count the former).
func Linux() []Formula {
	const (
		used  = `(cpu_ticks_rate{mode="user"} + cpu_ticks_rate{mode="nice"} + cpu_ticks_rate{mode="system"} + cpu_ticks_rate{mode="irq"} + cpu_ticks_rate{mode="softirq"} + cpu_ticks_rate{mode="steal"})`
		total = `(` + used + ` + cpu_ticks_rate{mode="idle"} + cpu_ticks_rate{mode="iowait"})`
	)
	return []Formula{
		{"cpu_used_percent", `100 * ` + used + ` / ` + total},
		{"cpu_iowait_percent", `100 * cpu_ticks_rate{mode="iowait"} / ` + total},
		{"load1_per_cpu", `load1 / cpu_count`},
		{"memory_used_percent", `100 * (1 - memory_available_bytes / memory_total_bytes)`},
		{"memory_used_percent", `100 * (memory_total_bytes - memory_free_bytes - memory_buffers_bytes - memory_cached_bytes) / memory_total_bytes`},
		{"swap_used_percent", `100 * (1 - swap_free_bytes / swap_total_bytes)`},
		{"disk_used_percent", `100 * disk_used_bytes / disk_total_bytes`},
		{"disk_busy_percent", `clamp(disk_busy_microseconds_rate / 1e4, 0, 100)`},
		{"if_in_bits_per_second", `8 * if_in_octets_rate`},
		{"if_out_bits_per_second", `8 * if_out_octets_rate`},
		{"if_in_utilisation_percent", `100 * if_in_bits_per_second / above(if_speed_bits, 10e6)`},
		{"if_out_utilisation_percent", `100 * if_out_bits_per_second / above(if_speed_bits, 10e6)`},
		{"tcp_retransmit_percent", `100 * tcp_retransmitted_segments_rate / tcp_out_segments_rate`},
	}
}
