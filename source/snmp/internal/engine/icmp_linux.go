package engine

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
)

// watchErrors asks the kernel to keep ICMP errors of the socket, with the datagram
// that caused each (IP_RECVERR of ip(7)): a socket that is not connected does not
// hear of them otherwise, and a refused host would cost a timeout.
func watchErrors(c *socket) {
	// Without the option a refused host is one that does not answer.
	_ = c.raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_RECVERR, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR, 1)
	})
}

// isBounce tells whether an error of a write may be about another datagram.
func isBounce(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTDOWN)
}

// readErrors hands over every error that waits on the socket, and returns how many
// there were.
func readErrors(c *socket, f func(quoted []byte, to netip.AddrPort, err error)) int {
	n := 0
	_ = c.raw.Control(func(fd uintptr) {
		var quoted [2048]byte
		var control [512]byte
		for n < 10_000 {
			nq, nc, _, from, err := syscall.Recvmsg(int(fd), quoted[:], control[:], syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
			if err != nil {
				return
			}
			n++
			if why := errorOf(control[:nc]); why != nil {
				f(quoted[:nq], addrOf(from), why)
			}
		}
	})
	return n
}

// errorOf reads the struct sock_extended_err among the control messages.
func errorOf(control []byte) error {
	msgs, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		v4 := m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_RECVERR
		v6 := m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < 8 {
			continue
		}
		switch syscall.Errno(binary.NativeEndian.Uint32(m.Data)) {
		case syscall.ECONNREFUSED:
			return ErrRefused
		case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EACCES, syscall.ENOPROTOOPT:
			return ErrUnreachable
		}
	}
	return nil
}

func addrOf(sa syscall.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
