package gvisor

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNetns makes a network namespace with a loopback interface that is up and
// nothing else. It lives as long as the file is open or a sandbox is in it.
func newNetns() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The thread ends with the goroutine, as it is never unlocked: no
		// other goroutine can find itself in the new namespace.
		runtime.LockOSThread()
		file, err := unshareNetns()
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

func unshareNetns() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring up loopback interface: %w", err)
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return file, nil
}
