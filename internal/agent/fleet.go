package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Fleet is many hosts, each with a loopback address of its own (127.0.0.1,
// 127.0.0.2 …), all on one port. On Linux they share one socket, so that twenty
// thousand hosts cost no twenty thousand goroutines; elsewhere each has its own,
// and the addresses must exist.
type Fleet struct {
	hosts   map[netip.Addr]*Host
	sockets []*socket
	port    uint16
}

// ListenFleet starts the hosts, by address, on a port, 0 for any. The caller must
// Close the fleet.
func ListenFleet(port uint16, hosts map[netip.Addr]Config) (*Fleet, error) {
	f := &Fleet{hosts: make(map[netip.Addr]*Host, len(hosts)), port: port}
	for addr, cfg := range hosts {
		if !addr.Is4() || !addr.IsLoopback() {
			return nil, fmt.Errorf("agent: host %s of a fleet: want an address in 127.0.0.0/8", addr)
		}
		h, err := newHost(cfg)
		if err != nil {
			return nil, err
		}
		f.hosts[addr] = h
	}
	if err := f.listen(); err != nil {
		return nil, errors.Join(fmt.Errorf("agent: fleet: %w", err), f.Close())
	}
	return f, nil
}

// Port returns the port of all hosts.
func (f *Fleet) Port() uint16 { return f.port }

// Host returns the host at addr, nil if there is none.
func (f *Fleet) Host(addr netip.Addr) *Host { return f.hosts[addr] }

// Addrs returns where the hosts listen, sorted.
func (f *Fleet) Addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, 0, len(f.hosts))
	for a := range f.hosts {
		addrs = append(addrs, netip.AddrPortFrom(a, f.port))
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	return addrs
}

// Close stops all hosts and waits for their goroutines.
func (f *Fleet) Close() error {
	var errs []error
	for _, s := range f.sockets {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
