//go:build !linux

package engine

import "net/netip"

// Only Linux tells a socket that is not connected about ICMP errors. Elsewhere a
// refused host is one that does not answer.

func watchErrors(*socket) {}

func isBounce(error) bool { return false }

func readErrors(*socket, func(quoted []byte, to netip.AddrPort, err error)) int { return 0 }
