package proc

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFiles is the hard limit of open files that commands inherit.
const maxFiles = 65536

// Harden sets, once and for the whole process, what PicoD needs for itself and
// what all of its children inherit: no core dumps, no reading of its memory by
// others, a bounded number of open files. With drop set, no child ever gains a
// capability again; leave it out when commands are to run as root.
//
// It must be called from main, before any command is started, in a program that
// is not linked with C.
func Harden(drop bool) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("read file limit: %w", err)
	}
	if files.Max > maxFiles {
		files = unix.Rlimit{Cur: maxFiles, Max: maxFiles}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
			return fmt.Errorf("limit files: %w", err)
		}
	}
	if !drop {
		return nil
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); errno != 0 {
		return fmt.Errorf("forbid new privileges: %w", errno)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		// Without the right to drop, the set is bounded by whoever started us.
		_, _, _ = syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
	}
	return nil
}
