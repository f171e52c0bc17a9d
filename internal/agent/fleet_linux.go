package agent

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// listen serves all hosts through one socket. It is bound to no address, for one
// address is all that a socket can be bound to, but to the loopback interface; and
// what is not sent to the address of a host is not answered.
func (f *Fleet) listen() error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(f.port)})
	if err != nil {
		return err
	}
	s := newSocket(conn)
	f.sockets = append(f.sockets, s)
	f.port = s.local().Port()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	if err := raw.Control(func(fd uintptr) {
		opt = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		// Kernels before 5.7 let only root do this; the check of the address stands
		// behind it.
		_ = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, "lo")
	}); err != nil {
		return err
	}
	if opt != nil {
		return opt
	}
	s.wg.Go(func() { f.serve(s) })
	return nil
}

func (f *Fleet) serve(s *socket) {
	in, oob, w := make([]byte, maxMessage+1), make([]byte, 128), worker{}
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(in, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		self := destination(oob[:oobn])
		h := f.hosts[self]
		if h == nil {
			continue
		}
		info := sourceAddress(self)
		w.serve(h, s, self, in[:n], from, func(b []byte, to netip.AddrPort) {
			_, _, _ = s.conn.WriteMsgUDPAddrPort(b, info, to)
		})
	}
}

// destination reads the address that a datagram was sent to from its control
// messages: struct in_pktinfo is interface index, local address, and the address
// in the header (ip(7)).
func destination(oob []byte) netip.Addr {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		if m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_PKTINFO && len(m.Data) >= 12 {
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}

// sourceAddress makes the control message that sends a datagram from addr.
func sourceAddress(addr netip.Addr) []byte {
	b := make([]byte, syscall.CmsgSpace(12))
	// struct cmsghdr is a size_t length, an int level and an int type.
	n := syscall.CmsgLen(0)
	if n >= 16 {
		binary.NativeEndian.PutUint64(b, uint64(syscall.CmsgLen(12)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(syscall.CmsgLen(12)))
	}
	binary.NativeEndian.PutUint32(b[n-8:], syscall.IPPROTO_IP)
	binary.NativeEndian.PutUint32(b[n-4:], syscall.IP_PKTINFO)
	a := addr.As4()
	copy(b[n+4:], a[:])
	return b
}
