package gvisor

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Nothing but the main function is to run on the first thread of this process. gVisor
// starts its processes on threads that it takes into a sandbox's network for a moment,
// as newNetns does, and where they go back to is where the first thread is then: were
// that in a sandbox's network itself, a thread would stay there, and with it any
// connection that is later made on it.
func init() { runtime.LockOSThread() }

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
		// A thread that cannot go back ends with the goroutine, as it is not unlocked.
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
