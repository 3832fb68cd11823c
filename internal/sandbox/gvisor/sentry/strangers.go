package sentry

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CloseStrangers closes the sockets that were not meant for this process. gVisor
// does not mark those that it makes to be closed on exec, so that a sandbox that
// starts at the same moment as another has that one's too: the socket over which
// its neighbour is controlled. What is meant for it stands in its arguments. The
// process is executed twice, and this is for the first time, in which it is still
// to set up its root.
func CloseStrangers(args []string) error {
	if !slices.Contains(args, "--setup-root") {
		return nil
	}
	const open = "/proc/self/fd"
	entries, err := os.ReadDir(open)
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	mine := given(args)
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || mine[fd] {
			continue
		}
		file, err := os.Readlink(open + "/" + e.Name())
		if err != nil || !strings.HasPrefix(file, "socket:") {
			continue // the listing's own, or nothing that leads anywhere
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close file %d: %w", fd, err)
		}
	}
	return nil
}

// given are the file descriptors that arguments name: --x-fd=3, --x-fds=4,5 and
// --x-fd=6:0, which is 6 to be known as 0.
func given(args []string) map[int]bool {
	fds := map[int]bool{}
	for _, arg := range args {
		name, list, _ := strings.Cut(arg, "=")
		if !strings.HasSuffix(name, "-fd") && !strings.HasSuffix(name, "-fds") {
			continue
		}
		for value := range strings.SplitSeq(list, ",") {
			number, _, _ := strings.Cut(value, ":")
			if fd, err := strconv.Atoi(number); err == nil {
				fds[fd] = true
			}
		}
	}
	return fds
}
