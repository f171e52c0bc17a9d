package agent

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	stdnet "net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// Where the objects are. The names are those of SNMPv2-MIB, IF-MIB,
// HOST-RESOURCES-MIB (RFC 2790), TCP-MIB, UCD-SNMP-MIB and UCD-DISKIO-MIB.
const (
	mibSystem    = "1.3.6.1.2.1.1."
	mibInterface = "1.3.6.1.2.1.2."
	mibIfEntry   = "1.3.6.1.2.1.2.2.1."
	mibIfXEntry  = "1.3.6.1.2.1.31.1.1.1."
	mibTCP       = "1.3.6.1.2.1.6."
	mibHR        = "1.3.6.1.2.1.25."
	mibHRStorage = "1.3.6.1.2.1.25.2.3.1."
	mibUCD       = "1.3.6.1.4.1.2021."
	mibDskEntry  = "1.3.6.1.4.1.2021.9.1."
	mibDiskIO    = "1.3.6.1.4.1.2021.13.15.1.1."
	engineTime   = "1.3.6.1.6.3.10.2.1.3.0"
)

// Machine is a Tree with the real numbers of this machine, made by [System].
type Machine struct {
	start time.Time

	mu       sync.Mutex
	taken    time.Time // of view
	view     *View
	slow     map[string]Value // what changes seldom and costs much
	slowTime time.Time
	disks    map[string]int // rows of hrStorageTable and dskTable, by mount point
	devices  map[string]int // rows of diskIOTable, by device
	// Times of each CPU when a minute began, the last two minutes, for hrProcessorLoad.
	minutes [2]cpuTimes
}

type cpuTimes struct {
	at    time.Time
	times []cpu.TimesStat
}

// System returns the objects of this machine that the standard Linux profile asks
// for, under the OIDs and with the types of net-snmp. What cannot be found out here
// (on another operating system, in a container, without rights) is absent, never 0.
//
// The numbers are read when they are asked for, at most once a second, all at once:
// sysUpTime and the counters of one answer belong together.
func System() *Machine {
	return &Machine{start: time.Now(), disks: map[string]int{}, devices: map[string]int{}}
}

// View returns the numbers of now, or those of up to a second ago.
func (m *Machine) View() *View {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.view == nil || now.Sub(m.taken) >= time.Second {
		m.view, m.taken = NewView(m.read(now)), now
	}
	return m.view
}

// objects collects what one reading finds.
type objects map[string]Value

func (o objects) put(mib string, column, row int, v Value) {
	o[mib+strconv.Itoa(column)+"."+strconv.Itoa(row)] = v
}

func (m *Machine) read(now time.Time) objects {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	o := objects{}
	if m.slow == nil || now.Sub(m.slowTime) >= time.Minute {
		m.slow, m.slowTime = readSlow(ctx), now
	}
	maps.Copy(o, m.slow)

	up := now.Sub(m.start)
	o[mibSystem+"3.0"] = TimeTicks(uint32(up / (10 * time.Millisecond)))
	o[engineTime] = Integer(int32(up / time.Second))
	if s, err := host.UptimeWithContext(ctx); err == nil {
		o[mibHR+"1.1.0"] = TimeTicks(uint32(s * 100))
	}
	if pids, err := process.PidsWithContext(ctx); err == nil {
		o[mibHR+"1.6.0"] = Gauge32(gauge(uint64(len(pids))))
	}
	m.readCPU(ctx, o, now)
	readLoad(ctx, o)
	readMemory(ctx, o)
	m.readDisks(ctx, o)
	m.readDevices(ctx, o)
	readInterfaces(ctx, o)
	readTCP(ctx, o)
	return o
}

// readSlow reads what is worth asking only once a minute.
func readSlow(ctx context.Context) objects {
	o := objects{}
	// The enterprise ids of net-snmp's agents, by which a poller tells systems apart.
	ids := map[string]string{"linux": "10", "freebsd": "8", "windows": "13", "darwin": "16"}
	o[mibSystem+"2.0"] = ObjectID("1.3.6.1.4.1.8072.3.2." + cmp.Or(ids[runtime.GOOS], "255"))
	descr := runtime.GOOS
	if name, err := os.Hostname(); err == nil {
		o[mibSystem+"5.0"] = String(name)
		descr += " " + name
	}
	if v, err := host.KernelVersionWithContext(ctx); err == nil {
		descr += " " + v
	}
	o[mibSystem+"1.0"] = String(descr + " " + runtime.GOARCH)
	if users, err := host.UsersWithContext(ctx); err == nil {
		o[mibHR+"1.5.0"] = Gauge32(uint32(len(users)))
	}
	if n, err := cpu.CountsWithContext(ctx, true); err == nil {
		o[mibUCD+"11.67.0"] = Integer(int32(n))
	}
	return o
}

// ticks turns seconds into hundredths, which are the clock ticks of Linux.
func ticks(seconds float64) Value { return Counter32(uint32(uint64(math.Round(seconds * 100)))) }

func (m *Machine) readCPU(ctx context.Context, o objects, now time.Time) {
	if all, err := cpu.TimesWithContext(ctx, false); err == nil && len(all) == 1 {
		t := all[0]
		o[mibUCD+"11.50.0"] = ticks(t.User)
		o[mibUCD+"11.51.0"] = ticks(t.Nice)
		o[mibUCD+"11.52.0"] = ticks(t.System)
		o[mibUCD+"11.53.0"] = ticks(t.Idle)
		if runtime.GOOS == "linux" { // elsewhere they are not known, and not 0
			o[mibUCD+"11.54.0"] = ticks(t.Iowait)
			o[mibUCD+"11.56.0"] = ticks(t.Irq)
			o[mibUCD+"11.61.0"] = ticks(t.Softirq)
			o[mibUCD+"11.64.0"] = ticks(t.Steal)
		}
	}
	if each, err := cpu.TimesWithContext(ctx, true); err == nil && len(each) > 0 {
		m.readProcessors(o, now, each)
	}
	// gopsutil does not have the interrupts.
	if stat, err := os.ReadFile("/proc/stat"); err == nil {
		for name, oid := range map[string]string{"intr": "11.59.0", "ctxt": "11.60.0"} {
			if n, ok := firstNumber(stat, name); ok {
				o[mibUCD+oid] = Counter32(uint32(n))
			}
		}
	}
}

// firstNumber returns the first number after a name at the start of a line.
func firstNumber(text []byte, name string) (uint64, bool) {
	_, rest, ok := bytes.Cut(text, []byte("\n"+name+" "))
	if !ok {
		return 0, false
	}
	end := bytes.IndexAny(rest, " \n")
	if end < 0 {
		end = len(rest)
	}
	n, err := strconv.ParseUint(string(rest[:end]), 10, 64)
	return n, err == nil
}

// readProcessors puts hrProcessorLoad: the mean of the last minute. As in net-snmp,
// there is none in the first minute.
func (m *Machine) readProcessors(o objects, now time.Time, each []cpu.TimesStat) {
	then := m.minutes[0]
	if now.Sub(m.minutes[1].at) >= time.Minute {
		m.minutes[0], m.minutes[1] = m.minutes[1], cpuTimes{now, each}
	}
	if len(then.times) != len(each) {
		return
	}
	for i, t := range each {
		was := then.times[i]
		all, idle := total(t)-total(was), t.Idle+t.Iowait-was.Idle-was.Iowait
		if all > 0 {
			// net-snmp's first processor is row 196608.
			o.put(mibHR+"3.3.1.", 2, 196608+i, Integer(int32(math.Round(100*max(0, min(1, 1-idle/all))))))
		}
	}
}

// total leaves out guest time, which is in user time already.
func total(t cpu.TimesStat) float64 {
	return t.User + t.Nice + t.System + t.Idle + t.Iowait + t.Irq + t.Softirq + t.Steal
}

func readLoad(ctx context.Context, o objects) {
	if runtime.GOOS == "windows" {
		return // there is none; gopsutil would start to sample one
	}
	if l, err := load.AvgWithContext(ctx); err == nil {
		for i, v := range []float64{l.Load1, l.Load5, l.Load15} {
			o.put(mibUCD+"10.1.", 5, i+1, Integer(integer(uint64(math.Round(v*100)))))
		}
	}
}

func readMemory(ctx context.Context, o objects) {
	// kB puts an object of 32 bits, in the column col, and its twin of 64 bits (a
	// CounterBasedGauge64: a Counter64 on the wire, but a gauge). 0 is no such object.
	kB := func(bytes uint64, col, twin int) {
		if col != 0 {
			o.put(mibUCD+"4.", col, 0, Integer(integer(bytes/1024)))
		}
		o.put(mibUCD+"4.", twin, 0, Counter64(bytes/1024))
	}
	storage := func(row int, kind int, descr string, total, used uint64) {
		putStorage(o, row, mibHR+"2.1."+strconv.Itoa(kind), descr, 1024, total, used)
	}
	v, err := mem.VirtualMemoryWithContext(ctx)
	if err == nil {
		kB(v.Total, 5, 20)
		kB(v.Free, 6, 21)
		kB(v.Available, 0, 27)
		if runtime.GOOS == "linux" {
			kB(v.Shared, 13, 24)
			kB(v.Buffers, 14, 25)
			kB(v.Cached, 15, 26)
		}
		o[mibHR+"2.2.0"] = Integer(integer(v.Total / 1024))
		storage(1, 2, "Physical memory", v.Total, v.Total-v.Free)
	}
	s, swapErr := mem.SwapMemoryWithContext(ctx)
	if swapErr != nil {
		return
	}
	kB(s.Total, 3, 18)
	kB(s.Free, 4, 19)
	if runtime.GOOS == "linux" {
		const page = 4096 // gopsutil multiplied by it, whatever the page is
		o[mibUCD+"11.62.0"] = Counter32(uint32(s.Sin / page))
		o[mibUCD+"11.63.0"] = Counter32(uint32(s.Sout / page))
	}
	storage(10, 3, "Swap space", s.Total, s.Used)
	if err == nil {
		storage(3, 3, "Virtual memory", v.Total+s.Total, v.Total-v.Free+s.Used)
	}
}

// putStorage puts a row of hrStorageTable. Units grow until the size fits into 31
// bits, as in net-snmp.
func putStorage(o objects, row int, kind, descr string, units, total, used uint64) {
	for total/units > math.MaxInt32 {
		units *= 2
	}
	o.put(mibHRStorage, 1, row, Integer(int32(row)))
	o.put(mibHRStorage, 2, row, ObjectID(kind))
	o.put(mibHRStorage, 3, row, String(descr))
	o.put(mibHRStorage, 4, row, Integer(integer(units)))
	o.put(mibHRStorage, 5, row, Integer(integer(total/units)))
	o.put(mibHRStorage, 6, row, Integer(integer(used/units)))
}

// rowOf returns the row that belongs to name, a new one if there is none. A name
// keeps its row for good.
func rowOf(rows map[string]int, name string) int {
	n, ok := rows[name]
	if !ok {
		n = len(rows) + 1
		rows[name] = n
	}
	return n
}

func (m *Machine) readDisks(ctx context.Context, o objects) {
	partitions, err := disk.PartitionsWithContext(ctx, false) // no network file systems: they can hang
	if err != nil {
		partitions = nil
	}
	if runtime.GOOS != "windows" {
		// In a container / is an overlay, which does not count as a disk, but is the one
		// that fills up.
		isRoot := func(p disk.PartitionStat) bool { return p.Mountpoint == "/" }
		if !slices.ContainsFunc(partitions, isRoot) {
			partitions = append([]disk.PartitionStat{{Device: "overlay", Mountpoint: "/"}}, partitions...)
		}
	}
	seen := map[string]bool{}
	for _, p := range partitions {
		// A bind mount shows the same disk again, in a container even on single files.
		if fi, err := os.Stat(p.Mountpoint); err != nil || !fi.IsDir() || seen[p.Device] {
			continue
		}
		u, err := disk.UsageWithContext(ctx, p.Mountpoint)
		if err != nil || u.Total == 0 {
			continue
		}
		seen[p.Device] = true
		row := rowOf(m.disks, p.Mountpoint)
		putStorage(o, 30+row, mibHR+"2.1.4", p.Mountpoint, 4096, u.Total, u.Used)

		o.put(mibDskEntry, 1, row, Integer(int32(row)))
		o.put(mibDskEntry, 2, row, String(p.Mountpoint))
		o.put(mibDskEntry, 3, row, String(p.Device))
		for i, bytes := range []uint64{u.Total, u.Free, u.Used} {
			kB := bytes / 1024
			o.put(mibDskEntry, 6+i, row, Integer(integer(kB)))
			o.put(mibDskEntry, 11+2*i, row, Gauge32(uint32(kB)))
			o.put(mibDskEntry, 12+2*i, row, Gauge32(uint32(kB>>32)))
		}
	}
}

func (m *Machine) readDevices(ctx context.Context, o objects) {
	stats, err := disk.IOCountersWithContext(ctx)
	if err != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(stats)) {
		s := stats[name]
		if s.ReadCount+s.WriteCount == 0 {
			continue // loop and ram devices nobody uses
		}
		row := rowOf(m.devices, name)
		o.put(mibDiskIO, 1, row, Integer(int32(row)))
		o.put(mibDiskIO, 2, row, String(name))
		o.put(mibDiskIO, 3, row, Counter32(uint32(s.ReadBytes)))
		o.put(mibDiskIO, 4, row, Counter32(uint32(s.WriteBytes)))
		o.put(mibDiskIO, 5, row, Counter32(uint32(s.ReadCount)))
		o.put(mibDiskIO, 6, row, Counter32(uint32(s.WriteCount)))
		o.put(mibDiskIO, 12, row, Counter64(s.ReadBytes))
		o.put(mibDiskIO, 13, row, Counter64(s.WriteBytes))
		if runtime.GOOS == "linux" {
			o.put(mibDiskIO, 14, row, Counter64(s.IoTime*1000)) // ms to µs
		}
	}
}

func readInterfaces(ctx context.Context, o objects) {
	ifs, err := stdnet.Interfaces()
	if err != nil {
		return
	}
	stats, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		stats = nil
	}
	byName := make(map[string]net.IOCountersStat, len(stats))
	for _, s := range stats {
		byName[s.Name] = s
	}
	o[mibInterface+"1.0"] = Integer(int32(len(ifs)))
	for _, i := range ifs {
		readInterface(o, i)
		s, ok := byName[i.Name]
		if !ok {
			continue
		}
		o.put(mibIfEntry, 10, i.Index, Counter32(uint32(s.BytesRecv)))
		o.put(mibIfEntry, 13, i.Index, Counter32(uint32(s.Dropin)))
		o.put(mibIfEntry, 14, i.Index, Counter32(uint32(s.Errin)))
		o.put(mibIfEntry, 16, i.Index, Counter32(uint32(s.BytesSent)))
		o.put(mibIfEntry, 19, i.Index, Counter32(uint32(s.Dropout)))
		o.put(mibIfEntry, 20, i.Index, Counter32(uint32(s.Errout)))
		o.put(mibIfXEntry, 6, i.Index, Counter64(s.BytesRecv))
		o.put(mibIfXEntry, 10, i.Index, Counter64(s.BytesSent))
	}
}

// readInterface puts what an interface is, beside its counters.
func readInterface(o objects, i stdnet.Interface) {
	kind, admin, oper := 1, 2, 2 // ifType other; down
	switch {
	case i.Flags&stdnet.FlagLoopback != 0:
		kind = 24 // softwareLoopback
	case len(i.HardwareAddr) == 6:
		kind = 6 // ethernetCsmacd
	}
	if i.Flags&stdnet.FlagUp != 0 {
		admin = 1
	}
	if i.Flags&stdnet.FlagRunning != 0 {
		oper = 1
	}
	o.put(mibIfEntry, 1, i.Index, Integer(int32(i.Index)))
	o.put(mibIfEntry, 2, i.Index, String(i.Name))
	o.put(mibIfEntry, 3, i.Index, Integer(int32(kind)))
	o.put(mibIfEntry, 4, i.Index, Integer(int32(i.MTU)))
	o.put(mibIfEntry, 6, i.Index, String(string(i.HardwareAddr)))
	o.put(mibIfEntry, 7, i.Index, Integer(int32(admin)))
	o.put(mibIfEntry, 8, i.Index, Integer(int32(oper)))
	o.put(mibIfXEntry, 1, i.Index, String(i.Name))
	o.put(mibIfXEntry, 18, i.Index, String("")) // ifAlias
	o.put(mibIfXEntry, 19, i.Index, TimeTicks(0))
	// Mbit/s, which Linux has for real links alone; gopsutil does not have it at all.
	b, err := os.ReadFile(fmt.Sprintf("/sys/class/net/%s/speed", i.Name))
	if err != nil {
		return
	}
	if mbit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
		o.put(mibIfEntry, 5, i.Index, Gauge32(gauge(mbit*1e6)))
		o.put(mibIfXEntry, 15, i.Index, Gauge32(gauge(mbit)))
	}
}

func readTCP(ctx context.Context, o objects) {
	protos, err := net.ProtoCountersWithContext(ctx, []string{"tcp"})
	if err != nil || len(protos) != 1 {
		return
	}
	for name, oid := range map[string]string{"InSegs": "10.0", "OutSegs": "11.0", "RetransSegs": "12.0"} {
		if n, ok := protos[0].Stats[name]; ok {
			o[mibTCP+oid] = Counter32(uint32(n))
		}
	}
	if n, ok := protos[0].Stats["CurrEstab"]; ok {
		o[mibTCP+"9.0"] = Gauge32(gauge(uint64(max(n, 0))))
	}
}

// integer and gauge cap a number at what its type can hold: these do not wrap.
func integer(n uint64) int32 { return int32(min(n, math.MaxInt32)) }
func gauge(n uint64) uint32  { return uint32(min(n, math.MaxUint32)) }
