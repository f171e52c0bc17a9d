//go:build !linux

package agent

import (
	"net"
	"net/netip"
)

// listen gives each host its own socket.
func (f *Fleet) listen() error {
	for addr, h := range f.hosts {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, f.port)))
		if err != nil {
			return err
		}
		s := newSocket(conn)
		f.sockets, f.port = append(f.sockets, s), s.local().Port()
		s.serveHost(h)
	}
	return nil
}
