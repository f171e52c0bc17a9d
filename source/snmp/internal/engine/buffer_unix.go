//go:build unix

package engine

import "syscall"

// readBuffer returns the size of the receive buffer that the kernel granted, 0 if it
// does not say.
func readBuffer(c *socket) int {
	n := 0
	_ = c.raw.Control(func(fd uintptr) {
		n, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
	})
	return max(n, 0)
}
