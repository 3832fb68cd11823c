package proc

import (
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// reaper keeps apart the children that a command waits for and the orphans that
// nobody does. Its lock spans fork and registration, so that a child that ends
// at once is never taken for an orphan.
type reaper struct {
	mu    sync.Mutex
	owned map[int]struct{}

	wake chan os.Signal
	stop chan struct{}
	done chan struct{}
}

func newReaper() *reaper { return &reaper{owned: map[int]struct{}{}} }

// run starts to collect orphans.
func (r *reaper) run() {
	r.wake, r.stop, r.done = make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(r.wake, unix.SIGCHLD)
	go func() {
		defer close(r.done)
		for {
			select {
			case <-r.stop:
				return
			case <-r.wake:
				r.sweep()
			}
		}
	}()
}

// close stops collecting and waits for the goroutine.
func (r *reaper) close() {
	if r.stop == nil {
		return
	}
	signal.Stop(r.wake)
	close(r.stop)
	<-r.done
}

// poke looks again: the last look ended at a child that had an owner.
func (r *reaper) poke() {
	if r.wake == nil {
		return
	}
	select {
	case r.wake <- unix.SIGCHLD:
	default:
	}
}

// sweep collects orphans until none waits, or until the next one to be
// collected belongs to a command; that one's owner pokes when it has it. The
// lock is free in between: a tree that dies and forks keeps orphans coming.
func (r *reaper) sweep() {
	for r.sweepOne() {
	}
}

// sweepOne reports whether there may be more to collect.
func (r *reaper) sweepOne() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var info siginfo
	err := info.peek()
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || info.pid == 0 {
		return false
	}
	if _, owned := r.owned[int(info.pid)]; owned {
		return false
	}
	got, err := unix.Wait4(int(info.pid), nil, unix.WNOHANG, nil)
	if got == int(info.pid) || errors.Is(err, unix.EINTR) {
		return true
	}
	r.sweepEach()
	return false
}

// sweepEach collects what /proc shows as ended children. It is needed where
// the kernel reports a child that it does not let be collected yet: gVisor was
// seen to do so, and asking it again and again would hold everybody up.
func (r *reaper) sweepEach() {
	for _, p := range processes() {
		if _, owned := r.owned[p.pid]; p.zombie && p.parent == os.Getpid() && !owned {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// collect takes the status of a child that has ended.
func (r *reaper) collect(pid int) (unix.WaitStatus, error) {
	defer r.poke()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owned, pid)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WNOHANG, nil)
		if !errors.Is(err, unix.EINTR) {
			return status, err
		}
	}
}

// disown leaves a child that does not end to the collector of orphans.
func (r *reaper) disown(pid int) {
	defer r.poke()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owned, pid)
}
