//go:build !unix

package engine

func readBuffer(*socket) int { return 0 }
