package gvisor

import (
	"errors"
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
		runtime.LockOSThread()
		home, err := os.Open(threadNetns())
		if err != nil {
			done <- result{nil, fmt.Errorf("open network namespace: %w", err)}
			return
		}
		defer home.Close()
		file, err := unshareNetns()
		// The first thread of a process never ends, and gVisor takes its namespace
		// for everybody's: it has to go back. A thread that cannot ends with the
		// goroutine, as it is not unlocked.
		back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		if back == nil {
			runtime.UnlockOSThread()
		} else if err == nil {
			err = errors.Join(fmt.Errorf("leave network namespace: %w", back), file.Close())
		}
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

// threadNetns is the network namespace of the calling thread.
func threadNetns() string { return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()) }

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
	file, err := os.Open(threadNetns())
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return file, nil
}
