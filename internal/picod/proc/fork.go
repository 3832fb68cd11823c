package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// errJoin says that the thread could not step into the groups of a command.
var errJoin = errors.New("start command")

// fork starts the child from a thread that is inside the command's groups for
// just as long, so that the child is inside them from its first instruction.
func (r *Runner) fork(c *child, file string, argv []string, attr *syscall.ProcAttr) error {
	if r.cgroups != nil {
		runtime.LockOSThread()
		defer func() {
			if err := r.cgroups.leave(); err != nil {
				// The thread stays locked: it ends with its goroutine instead of
				// running other work inside a command's limits.
				r.log.Error("thread cannot leave control group", "error", err)
				return
			}
			runtime.UnlockOSThread()
		}()
		if err := r.cgroups.enter(c.group); err != nil {
			return fmt.Errorf("%w: %w", errJoin, err)
		}
	}
	r.reaper.mu.Lock()
	defer r.reaper.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	restore := r.limitProcesses()
	pid, err := syscall.ForkExec(file, argv, attr)
	restore()
	if err != nil {
		return &fs.PathError{Op: "fork/exec", Path: file, Err: err}
	}
	c.pid = pid
	r.reaper.owned[pid] = struct{}{}
	r.live[c] = struct{}{}
	return nil
}

// probeHardLimit finds out whether this process may raise a hard limit that it
// has lowered. Where it may not, what it can put on a command, the command can
// lift.
func (r *Runner) probeHardLimit() {
	if !r.limitsUser() {
		return
	}
	var old unix.Rlimit
	err := unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &old)
	if err == nil {
		// So little lower, or so high, that it hurts nobody if it stays.
		top := max(min(old.Max, 1<<30), 1) - 1
		probe := unix.Rlimit{Cur: min(old.Cur, top), Max: top}
		err = unix.Prlimit(0, unix.RLIMIT_NPROC, &probe, nil)
	}
	if err == nil {
		err = unix.Prlimit(0, unix.RLIMIT_NPROC, &old, nil)
	}
	r.hard = err == nil
	if err != nil {
		r.log.Warn("process limit can be lifted by commands", "error", err)
	}
}

// limitsUser tells whether RLIMIT_NPROC limits all commands: where groups limit
// only one command at a time. Elsewhere it would do harm: the user may have
// processes in other sandboxes of the same kernel.
func (r *Runner) limitsUser() bool {
	return r.cfg.User != nil && r.cfg.MaxProcesses > 0 && r.cgroups != nil && r.cgroups.max != "" && !r.cgroups.shared
}

// limitProcesses puts the limit on the number of processes of a user on this
// process for the moment of a fork; the child inherits it.
func (r *Runner) limitProcesses() (restore func()) {
	if !r.limitsUser() {
		return func() {}
	}
	var old unix.Rlimit
	if unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &old) != nil {
		return func() {}
	}
	limit := unix.Rlimit{Cur: min(uint64(r.cfg.MaxProcesses)+r.helping.Load(), old.Max), Max: old.Max}
	if r.hard {
		limit.Max = limit.Cur
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &limit, nil); err != nil {
		r.log.Error("process limit was not set", "error", err)
		return func() {}
	}
	return func() {
		if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &old, nil); err != nil {
			r.log.Error("process limit of the daemon cannot be taken back", "error", err)
		}
	}
}
