package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DetachStdio points os.Stdin, os.Stdout and os.Stderr to a null device of our
// own in dir and returns what os.Stdout and os.Stderr were.
//
// gVisor hands these three files to the first process in each sandbox, and
// changes their owner to the user that the sandbox runs as on the host. A
// program must therefore call this once, before Open, so that neither its
// terminal nor the machine's /dev/null is given away.
func DetachStdio(dir string) (stdout, stderr *os.File, err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, nil, fmt.Errorf("make null device: %w", err)
	}
	path := filepath.Join(dir, "null")
	const major, minor = 1, 3 // null(4)
	err = unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("make null device %s: %w", path, err)
	}
	null, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open null device: %w (is the data directory mounted with nodev?)", err)
	}
	stdout, stderr = os.Stdout, os.Stderr
	os.Stdin, os.Stdout, os.Stderr = null, null, null
	return stdout, stderr, nil
}
