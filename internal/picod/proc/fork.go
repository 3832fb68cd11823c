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
	restoreData, restoreProcesses := r.limitData(), r.limitProcesses()
	pid, err := syscall.ForkExec(file, argv, attr)
	restoreProcesses()
	restoreData()
	if err != nil {
		return &fs.PathError{Op: "fork/exec", Path: file, Err: err}
	}
	c.pid = pid
	r.reaper.owned[pid] = struct{}{}
	r.live[c] = struct{}{}
	return nil
}

// dataLimit is how far the data limit can be enforced.
type dataLimit int

const (
	dataNone dataLimit = iota
	dataSoft           // a command may lift it: the daemon could not lift a hard one either
	dataHard
)

// probeDataLimit finds out whether a data limit can be set and taken back.
func (r *Runner) probeDataLimit() {
	if r.cfg.MaxDataBytes == 0 {
		return
	}
	var old unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_DATA, nil, &old); err != nil {
		r.log.Warn("data limit cannot be enforced", "error", err)
		return
	}
	// So high that it hurts nobody if it stays.
	probe := unix.Rlimit{Cur: min(old.Cur, 1<<62), Max: min(old.Max, 1<<62)}
	err := unix.Prlimit(0, unix.RLIMIT_DATA, &probe, nil)
	if err == nil {
		err = unix.Prlimit(0, unix.RLIMIT_DATA, &old, nil)
	}
	r.data = dataHard
	if err != nil {
		r.data = dataSoft
		r.log.Warn("data limit can be lifted by commands", "error", err)
	}
}

// limitData puts the data limit on this process for the moment of a fork; the
// child inherits it. Only PicoD's own new mappings in that moment are affected.
func (r *Runner) limitData() (restore func()) {
	if r.data == dataNone {
		return func() {}
	}
	return r.limit(unix.RLIMIT_DATA, r.cfg.MaxDataBytes)
}

// limitProcesses does the same with the number of processes of a user, where
// groups limit only one command at a time. Elsewhere it would do harm: the user
// may have processes in other sandboxes of the same kernel.
func (r *Runner) limitProcesses() (restore func()) {
	if r.cfg.User == nil || r.cfg.MaxProcesses == 0 || r.cgroups == nil || r.cgroups.max == "" || r.cgroups.shared {
		return func() {}
	}
	return r.limit(unix.RLIMIT_NPROC, uint64(r.cfg.MaxProcesses)+r.helping.Load())
}

// limit lowers a limit of this process. Where a hard limit could not be taken
// back, only the soft one is lowered.
func (r *Runner) limit(resource int, to uint64) (restore func()) {
	var old unix.Rlimit
	if unix.Prlimit(0, resource, nil, &old) != nil {
		return func() {}
	}
	limit := unix.Rlimit{Cur: min(to, old.Max), Max: old.Max}
	if r.data == dataHard {
		limit.Max = limit.Cur
	}
	if err := unix.Prlimit(0, resource, &limit, nil); err != nil {
		r.log.Error("limit was not set", "resource", resource, "error", err)
		return func() {}
	}
	return func() {
		if err := unix.Prlimit(0, resource, &old, nil); err != nil {
			r.log.Error("limit of the daemon cannot be taken back", "resource", resource, "error", err)
		}
	}
}
