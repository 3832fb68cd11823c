package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// DetachStdio makes this process's standard input, output and error a null
// device of our own in dir, and returns new files for what output and error
// were. The trace of a crash still goes to the old standard error.
//
// gVisor hands the three files to the first process in each sandbox, and
// changes their owner to the user that the sandbox runs as on the host. A
// program must therefore call this once, before Open, so that neither its
// terminal nor the machine's /dev/null is given away.
func DetachStdio(dir string) (stdout, stderr *os.File, err error) {
	null, err := nullDevice(dir)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	if stdout, err = duplicate(os.Stdout); err != nil {
		return nil, nil, err
	}
	if stderr, err = duplicate(os.Stderr); err != nil {
		return nil, nil, err
	}
	if err := debug.SetCrashOutput(stderr, debug.CrashOptions{}); err != nil {
		return nil, nil, fmt.Errorf("keep crash output: %w", err)
	}
	// The descriptors are replaced below the os.File values: a value that is
	// replaced instead would close its descriptor when it is collected.
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return nil, nil, fmt.Errorf("replace descriptor %d: %w", fd, err)
		}
	}
	return stdout, stderr, nil
}

func nullDevice(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make null device: %w", err)
	}
	path := filepath.Join(dir, "null")
	const major, minor = 1, 3 // null(4)
	err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make null device %s: %w", path, err)
	}
	null, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open null device: %w (is the data directory mounted with nodev?)", err)
	}
	return null, nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// holdNumbers keeps this process from using the descriptors 253 to 255, for as
// long as it lives. A sandbox's process inherits the socket that gVisor makes
// for it, which is not marked to be closed, under the number that it has here,
// and does not start when it finds one of these in use, as it puts its own
// standard files there.
func holdNumbers() error {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("hold descriptors: %w", err)
	}
	defer f.Close()
	const first, count = 253, 3
	for number := first; number < first+count; number++ {
		got, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, number)
		if err != nil {
			return fmt.Errorf("hold descriptor %d: %w", number, err)
		}
		if got != number { // it is held already
			unix.Close(got)
		}
	}
	return nil
}
