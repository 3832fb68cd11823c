package proc

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readSize = 64 << 10
	// drainLimit bounds what is still read after the end of the direct child,
	// when a background process keeps writing.
	drainLimit = 1 << 20
)

// await reads the output of c until its direct child has ended, and fills res.
// It reports false when c is a spare process that never became the command: it is
// gone, and the command may be started anew.
func (r *Runner) await(ctx context.Context, c *child, deadline time.Time, res *Result) (done bool) {
	var canceled atomic.Bool
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		canceled.Store(true)
		c.kill()
	})
	buf := make([]byte, readSize)
	ended, began := c.begin(deadline, buf, res)
	if began && !ended {
		ended = c.pump(deadline, buf, res)
	}
	if !ended {
		res.TimedOut = began || !time.Now().Before(deadline)
		c.kill()
		ended = c.pump(time.Now().Add(killGrace), buf, res)
	}
	if !stop() {
		<-killed
		res.Canceled = true
	}
	res.ExitCode = -1
	if ended {
		status, err := r.reaper.collect(c.pid)
		if err == nil && status.Exited() {
			res.ExitCode = status.ExitStatus()
		}
	} else {
		r.reaper.disown(c.pid)
		r.log.Error("command does not end although it was killed")
	}
	if !began && !res.TimedOut && !res.Canceled {
		return false
	}
	if res.TimedOut {
		res.ExitCode = 124
	}
	c.drain(buf, res)
	if !res.TimedOut && !res.Canceled {
		r.linger(&c.out)
		r.linger(&c.err)
	}
	return true
}

// begin waits, where c was a spare process, until it has become the command or
// has shown that it will not.
func (c *child) begin(deadline time.Time, buf []byte, res *Result) (ended, began bool) {
	if c.spare == nil {
		return false, true
	}
	patience := time.Now().Add(beginPatience)
	if deadline.Before(patience) {
		patience = deadline
	}
	ended = c.pump(patience, buf, res)
	return ended, c.spare.Began()
}

// pump moves output until the child has ended (true) or the deadline passes.
func (c *child) pump(deadline time.Time, buf []byte, res *Result) bool {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{
			{Fd: int32(c.pidfd), Events: unix.POLLIN},
			{Fd: int32(c.out), Events: unix.POLLIN},
			{Fd: int32(c.err), Events: unix.POLLIN},
		}
		wait := unix.NsecToTimespec(left.Nanoseconds())
		_, err := unix.Ppoll(fds, &wait, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if err != nil {
			continue
		}
		if fds[1].Revents != 0 {
			read(&c.out, buf, res.Stdout)
		}
		if fds[2].Revents != 0 {
			read(&c.err, buf, res.Stderr)
		}
		if fds[0].Revents != 0 {
			return true
		}
	}
}

// drain takes what is in the pipes when the child has ended.
func (c *child) drain(buf []byte, res *Result) {
	for n := 0; n < drainLimit; {
		got := read(&c.out, buf, res.Stdout)
		if got == 0 {
			break
		}
		n += got
	}
	for n := 0; n < drainLimit; {
		got := read(&c.err, buf, res.Stderr)
		if got == 0 {
			break
		}
		n += got
	}
}

// read moves one buffer of output; at the end of the stream it closes the pipe.
func read(fd *int, buf []byte, to *Output) int {
	if *fd < 0 {
		return 0
	}
	for {
		n, err := unix.Read(*fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0
		case err != nil || n == 0:
			closeFD(fd)
			return 0
		}
		to.write(buf[:n])
		return n
	}
}

// linger keeps emptying a pipe that background processes hold, so that a server
// that writes a log neither blocks nor gets a broken pipe.
func (r *Runner) linger(fd *int) {
	if *fd < 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.lingering) >= maxLingering {
		return
	}
	f := os.NewFile(uintptr(*fd), "background output")
	*fd = -1
	r.lingering[f] = struct{}{}
	r.drains.Go(func() {
		_, _ = io.Copy(io.Discard, f)
		_ = f.Close()
		r.mu.Lock()
		delete(r.lingering, f)
		r.mu.Unlock()
	})
}
