//go:build !unix

package engine

import "net"

func readBuffer(*net.UDPConn) int { return 0 }
