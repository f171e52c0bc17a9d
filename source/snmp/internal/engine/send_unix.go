//go:build unix

package engine

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// send sends one datagram and never waits: a full send buffer is errBusy. It is filled
// by datagrams to neighbours that do not answer ARP, which the kernel keeps for
// seconds; a write that waited for them would hold up every other host of the socket.
func (s *socket) send(msg []byte, to netip.AddrPort) error {
	var sa syscall.Sockaddr
	switch a := to.Addr(); {
	case a.Zone() != "":
		_, err := s.WriteToUDPAddrPort(msg, to)
		return err
	case a.Is4():
		sa = &syscall.SockaddrInet4{Port: int(to.Port()), Addr: a.As4()}
	default:
		sa = &syscall.SockaddrInet6{Port: int(to.Port()), Addr: a.As16()}
	}
	var err error
	closed := s.raw.Write(func(fd uintptr) bool {
		for {
			if err = syscall.Sendto(int(fd), msg, syscall.MSG_DONTWAIT, sa); !errors.Is(err, syscall.EINTR) {
				return true
			}
		}
	})
	switch {
	case closed != nil:
		return net.ErrClosed
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOBUFS):
		return errBusy
	}
	return err
}
