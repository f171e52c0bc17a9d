//go:build !unix

package engine

import "net/netip"

func (s *socket) send(msg []byte, to netip.AddrPort) error {
	_, err := s.WriteToUDPAddrPort(msg, to)
	return err
}
