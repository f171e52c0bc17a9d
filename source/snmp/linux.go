package snmp

import (
	"strings"

	"github.com/kemi-go/kemi"
)

const (
	mib2 = "1.3.6.1.2.1."
	host = "1.3.6.1.2.1.25." // HOST-RESOURCES-MIB, RFC 2790
	ucd  = "1.3.6.1.4.1.2021."
)

// Linux returns the profile "linux": a Linux host with net-snmp's agent. The objects
// are those of SNMPv2-MIB, IF-MIB, TCP-MIB, HOST-RESOURCES-MIB, UCD-SNMP-MIB and
// UCD-DISKIO-MIB.
//
// Disks are the fixed ones of hrStorageTable without those that live in memory or in a
// container engine's folder, which are told by their place: hrStorageTable calls all
// of them fixed disks. memory_available_bytes is MemAvailable where the agent gives it
// (net-snmp 5.9), else free + buffers + cached.
//
// These are its metrics. Each has the label host, the labels of the job, service if the
// job has one, and those that are named here. A counter32 wraps at 32 bits.
//
//	uptime_seconds              gauge      s; of the host
//	users                       gauge      logged in
//	processes                   gauge
//	tcp_established             gauge      connections (CLOSE-WAIT too)
//	tcp_in_segments             counter32
//	tcp_out_segments            counter32  without those sent again
//	tcp_retransmitted_segments  counter32
//	cpu_ticks                   counter32  1/100 s, of all CPUs together; mode: user, nice, system,
//	                                       idle, iowait, irq, softirq, steal
//	cpu_count                   gauge
//	interrupts                  counter32
//	context_switches            counter32
//	swap_in_pages               counter32
//	swap_out_pages              counter32
//	load1, load5, load15        gauge      load average of 1, 5 and 15 minutes
//	memory_total_bytes          gauge      B
//	memory_available_bytes      gauge      B; for new programs, without swapping
//	memory_free_bytes           gauge      B
//	memory_buffers_bytes        gauge      B
//	memory_cached_bytes         gauge      B
//	memory_shared_bytes         gauge      B
//	swap_total_bytes            gauge      B
//	swap_free_bytes             gauge      B
//	disk_total_bytes            gauge      B; mount
//	disk_used_bytes             gauge      B; mount
//	disk_reads                  counter32  operations; device
//	disk_writes                 counter32  operations; device
//	disk_read_bytes             counter    B; device (*)
//	disk_written_bytes          counter    B; device (*)
//	disk_busy_microseconds      counter    µs with a request under way; device
//	if_in_octets                counter    B; interface, ifindex (*)
//	if_out_octets               counter    B; interface, ifindex (*)
//	if_in_errors                counter32  packets; interface, ifindex
//	if_out_errors               counter32  packets; interface, ifindex
//	if_in_discards              counter32  packets; interface, ifindex
//	if_out_discards             counter32  packets; interface, ifindex
//	if_speed_bits               gauge      bit/s; interface, ifindex
//	if_up                       gauge      1: ifOperStatus is up, else 0; interface, ifindex
//	if_admin_up                 gauge      1: ifAdminStatus is up, else 0; interface, ifindex
//
//	(*) a counter32 of agents without the object of 64 bits
//
// The rate that [transform/counter] makes of a counter has its unit per second; the
// package comment has the metrics of the poll itself, which every profile has.
//
// [transform/counter]: https://pkg.go.dev/github.com/kemi-go/kemi/transform/counter
func Linux() Profile {
	gauge := func(name string, scale float64, oids ...string) Scalar {
		return Scalar{Name: name, OIDs: oids, Scale: scale, NotNegative: true}
	}
	counter := func(name string, oid string, labels ...kemi.Label) Scalar {
		return Scalar{Name: name, OIDs: []string{oid}, Kind: kemi.KindCounter32, Labels: labels}
	}
	kernel := func(name, n string, labels ...kemi.Label) Scalar {
		s := counter(name, ucd+"11."+n+".0", labels...)
		s.Needs = ucd + "11.53.0" // idle ticks are only 0 just after the agent has started
		return s
	}
	cpu := func(mode, n string) Scalar { return kernel("cpu_ticks", n, kemi.Label{Name: "mode", Value: mode}) }
	const kB = 1024
	return Profile{
		Name: "linux",
		Scalars: []Scalar{
			gauge("uptime_seconds", 0.01, host+"1.1.0"),
			gauge("users", 0, host+"1.5.0"),
			gauge("processes", 0, host+"1.6.0"),
			gauge("tcp_established", 0, mib2+"6.9.0"),
			counter("tcp_in_segments", mib2+"6.10.0"),
			counter("tcp_out_segments", mib2+"6.11.0"),
			counter("tcp_retransmitted_segments", mib2+"6.12.0"),
			// .52 is time in the kernel alone; .55 is 0 on Linux; guest time is part of user.
			cpu("user", "50"), cpu("nice", "51"), cpu("system", "52"), cpu("idle", "53"),
			cpu("iowait", "54"), cpu("irq", "56"), cpu("softirq", "61"), cpu("steal", "64"),
			gauge("cpu_count", 0, ucd+"11.67.0"),
			kernel("interrupts", "59"),
			kernel("context_switches", "60"),
			kernel("swap_in_pages", "62"),
			kernel("swap_out_pages", "63"),
			gauge("load1", 0.01, ucd+"10.1.5.1"),
			gauge("load5", 0.01, ucd+"10.1.5.2"),
			gauge("load15", 0.01, ucd+"10.1.5.3"),
			// The objects of 64 bits first: an INTEGER of kB ends at 2 TiB.
			gauge("memory_total_bytes", kB, ucd+"4.20.0", ucd+"4.5.0"),
			gauge("memory_free_bytes", kB, ucd+"4.21.0", ucd+"4.6.0"),
			gauge("memory_shared_bytes", kB, ucd+"4.24.0", ucd+"4.13.0"),
			gauge("memory_buffers_bytes", kB, ucd+"4.25.0", ucd+"4.14.0"),
			gauge("memory_cached_bytes", kB, ucd+"4.26.0", ucd+"4.15.0"),
			{
				Name:  "memory_available_bytes",
				OIDs:  []string{ucd + "4.27.0", ucd + "4.21.0", ucd + "4.6.0", ucd + "4.25.0", ucd + "4.14.0", ucd + "4.26.0", ucd + "4.15.0"},
				Gauge: memoryAvailable, NotNegative: true,
			},
			gauge("swap_total_bytes", kB, ucd+"4.18.0", ucd+"4.3.0"),
			gauge("swap_free_bytes", kB, ucd+"4.19.0", ucd+"4.4.0"),
		},
		Tables: []Table{disks(), diskIO(), interfaces()},
		Watch:  []string{mib2 + "2.1.0"}, // ifNumber
	}
}

func memoryAvailable(v []Value) (float64, bool) {
	if v[0].IsNumber() {
		return v[0].Float() * 1024, true
	}
	sum := 0.0
	for i := 1; i < len(v); i += 2 {
		part := either(v[i], v[i+1])
		if !part.IsNumber() {
			return 0, false
		}
		if part.Float() < 0 {
			return part.Float(), true // which says that it is nonsense, whatever the others are
		}
		sum += part.Float()
	}
	return sum * 1024, true
}

// disks is hrStorageTable. The agent may change the units of a row to make its numbers
// fit 31 bits, so units are read along with them.
func disks() Table {
	const (
		kind = iota
		descr
		units
		size
		used
	)
	const fixedDisk = "." + host + "2.1.4"
	return Table{
		Columns: []Column{
			kind:  {OID: host + "2.3.1.2", Static: true},
			descr: {OID: host + "2.3.1.3"},
			units: {OID: host + "2.3.1.4"},
			size:  {OID: host + "2.3.1.5"},
			used:  {OID: host + "2.3.1.6"},
		},
		Label: "mount",
		Identity: func(r *Row) string {
			mount := r.At(descr).Text()
			if r.At(kind).OID() != fixedDisk || inMemory(mount) {
				return ""
			}
			return mount
		},
		Metrics: func(r *Row) {
			u, s := r.At(units).Float(), r.At(size)
			if u <= 0 || s.Uint() == 0 {
				return
			}
			r.Gauge("disk_total_bytes", float64(s.Uint())*u)
			if v := r.At(used); v.IsNumber() {
				r.Gauge("disk_used_bytes", float64(v.Uint())*u)
			}
		},
	}
}

// inMemory tells the places of file systems that are no disk: in memory, of the kernel,
// read-only images, or a container's view of another disk.
func inMemory(mount string) bool {
	for _, dir := range []string{
		"/dev", "/proc", "/run", "/sys", "/snap", "/var/snap", "/var/run", "/var/lock",
		"/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/kubelet",
	} {
		if mount == dir && !strings.HasPrefix(dir, "/var/lib/") || strings.HasPrefix(mount, dir+"/") {
			return true
		}
	}
	return false
}

// diskIO is diskIOTable of UCD-DISKIO-MIB.
func diskIO() Table {
	const (
		device = iota
		reads
		writes
		read64
		written64
		read
		written
		busy
	)
	const io = ucd + "13.15.1.1."
	return Table{
		Columns: []Column{
			device:    {OID: io + "2"},
			reads:     {OID: io + "5"},
			writes:    {OID: io + "6"},
			read64:    {OID: io + "12"},
			written64: {OID: io + "13"},
			read:      {OID: io + "3", Instead: read64 + 1},
			written:   {OID: io + "4", Instead: written64 + 1},
			busy:      {OID: io + "14"},
		},
		Label: "device",
		Identity: func(r *Row) string {
			d := r.At(device).Text()
			for _, p := range []string{"ram", "loop", "zram", "fd", "sr"} {
				if rest, ok := strings.CutPrefix(d, p); ok && rest != "" && strings.Trim(rest, "0123456789") == "" {
					return ""
				}
			}
			return d
		},
		Metrics: func(r *Row) {
			r.Counter("disk_reads", r.At(reads))
			r.Counter("disk_writes", r.At(writes))
			r.Counter("disk_read_bytes", either(r.At(read64), r.At(read)))
			r.Counter("disk_written_bytes", either(r.At(written64), r.At(written)))
			r.Counter("disk_busy_microseconds", r.At(busy))
		},
	}
}

func either(a, b Value) Value {
	if a.IsNumber() {
		return a
	}
	return b
}

// interfaces is ifTable and ifXTable of IF-MIB (RFC 2863), which have one index.
func interfaces() Table {
	const (
		name = iota
		descr
		admin
		oper
		in64
		out64
		in
		out
		inDiscards
		inErrors
		outDiscards
		outErrors
		speed
		highSpeed
	)
	const (
		table  = mib2 + "2.2.1."
		xtable = mib2 + "31.1.1.1."
	)
	return Table{
		Columns: []Column{
			name:        {OID: xtable + "1"},
			descr:       {OID: table + "2", Instead: name + 1},
			admin:       {OID: table + "7"},
			oper:        {OID: table + "8"},
			in64:        {OID: xtable + "6"},
			out64:       {OID: xtable + "10"},
			in:          {OID: table + "10", Instead: in64 + 1},
			out:         {OID: table + "16", Instead: out64 + 1},
			inDiscards:  {OID: table + "13"},
			inErrors:    {OID: table + "14"},
			outDiscards: {OID: table + "19"},
			outErrors:   {OID: table + "20"},
			speed:       {OID: table + "5", Static: true},
			highSpeed:   {OID: xtable + "15", Static: true},
		},
		Label:      "interface",
		IndexLabel: "ifindex",
		Identity: func(r *Row) string {
			if n := r.At(name).Text(); n != "" {
				return n
			}
			return r.At(descr).Text()
		},
		Metrics: func(r *Row) {
			r.Counter("if_in_octets", either(r.At(in64), r.At(in)))
			r.Counter("if_out_octets", either(r.At(out64), r.At(out)))
			r.Counter("if_in_discards", r.At(inDiscards))
			r.Counter("if_in_errors", r.At(inErrors))
			r.Counter("if_out_discards", r.At(outDiscards))
			r.Counter("if_out_errors", r.At(outErrors))
			isUp := func(metric string, v Value) {
				if !v.IsNumber() {
					return
				}
				x := 0.0
				if v.Uint() == 1 {
					x = 1
				}
				r.Gauge(metric, x)
			}
			isUp("if_up", r.At(oper))
			isUp("if_admin_up", r.At(admin))
			// ifSpeed is exact and ends at 2^32-1 bit/s; ifHighSpeed is in Mbit/s.
			switch s, h := r.At(speed).Uint(), r.At(highSpeed).Uint(); {
			case s > 0 && s < 1<<32-1:
				r.Gauge("if_speed_bits", float64(s))
			case h > 0:
				r.Gauge("if_speed_bits", float64(h)*1e6)
			}
		},
	}
}
