//go:build !linux

package client

import "syscall"

// giveUp leaves it to the system how long a server may be gone without a word.
func giveUp(_, _ string, _ syscall.RawConn) error { return nil }
