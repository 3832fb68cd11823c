package proc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is the part of the kernel's siginfo_t that tells who ended; the
// layout is the one of 64-bit Linux.
type siginfo struct {
	_   [3]int32
	_   int32
	pid int32
	_   [108]byte
}

// peek finds a child that has ended, without collecting it; pid 0 means none.
func (s *siginfo) peek() error {
	return unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(s)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
}
