package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// helperProcesses is how many processes and threads a helper may have: what it
// forks ahead, and threads of the libraries that it has loaded.
const helperProcesses = 128

// helperRoom is how many of them the limit of the user's processes allows for.
const helperRoom = 8

// beginPatience bounds the wait for a spare to begin its command.
const beginPatience = time.Second

// Forker has processes that can become commands.
type Forker interface {
	// Fork returns a process that can become cmd, whose executable is file, or
	// nil. It must not hold the command up for more than a moment.
	Fork(cmd Command, file string) Spare
}

// Spare is a child of this process, adopted with [Runner.Adopt], that waits to
// become a command.
type Spare interface {
	PID() int
	PidFD() int // belongs to the Spare
	// Hand tells the process to become the command.
	Hand(files [3]int) error
	// Began reports whether it did. After false it never will.
	Began() bool
	// Discard ends a process that was not handed anything, and closes.
	Discard()
	Close()
}

// Helper is a long-lived process that works for the daemon as the user of
// commands, under the same limits, in a control group of its own.
type Helper struct {
	File  string // its executable
	child *child
}

// Help starts a helper: cmd's input is empty, its output is thrown away, and
// files are its descriptors from 3 on. It needs control groups, as without
// them the processes it forks could not be told apart, and a daemon that is
// the reaper of orphans.
func (r *Runner) Help(cmd Command, files ...*os.File) (_ *Helper, err error) {
	if r.cgroups == nil || !r.cfg.ReapOrphans {
		return nil, fmt.Errorf("start helper: %w", errors.ErrUnsupported)
	}
	file, err := lookup(cmd.Argv[0], getenv(cmd.Env, "PATH"))
	if err != nil {
		return nil, err
	}
	c := &child{runner: r, out: -1, err: -1, pidfd: -1, helper: true}
	r.helping.Add(helperRoom)
	h := &Helper{File: file, child: c}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if c.group, err = r.cgroups.helper(); err != nil {
		return nil, err
	}
	outW, errW := -1, -1
	defer func() {
		closeFD(&outW)
		closeFD(&errW)
	}()
	if err := errors.Join(pipe(&c.out, &outW), pipe(&c.err, &errW)); err != nil {
		return nil, err
	}
	attr := r.attr(c, cmd, int(r.null.Fd()), outW, errW)
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if err := r.forkIn(c, file, cmd.Argv, attr); err != nil {
		return nil, err
	}
	r.linger(&c.out)
	r.linger(&c.err)
	return h, nil
}

// Close ends the helper and all that is in its group. What it forked and was
// moved to the group of a command stays.
func (h *Helper) Close() {
	c, r := h.child, h.child.runner
	if c.group != nil {
		c.group.kill(killPatience)
	}
	if c.pid > 0 {
		_, _ = r.reaper.collect(c.pid)
	}
	r.finish(c)
	if c.group != nil {
		c.group.close()
	}
	r.helping.Add(^uint64(helperRoom - 1))
}

// Adopt makes a process that somebody else forked, and that has become a child
// of this one, a process that commands can be handed to. It must run as the user of
// commands and lead a session of its own. The returned pidfd is the caller's.
func (r *Runner) Adopt(pid int) (pidfd int, err error) {
	r.reaper.mu.Lock()
	defer r.reaper.mu.Unlock()
	if _, owned := r.reaper.owned[pid]; owned || pid <= 1 {
		return -1, fmt.Errorf("adopt process: %w", fs.ErrInvalid)
	}
	if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return -1, fmt.Errorf("adopt process: %w", err)
	}
	// Nothing collects children meanwhile, so that the number keeps its meaning.
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err == nil {
		p, ok := parseStat(pid, string(stat))
		if !ok || p.zombie || p.parent != os.Getpid() || p.session != pid || !r.commands(pid) {
			err = fs.ErrInvalid
		}
	}
	if err != nil {
		_ = unix.Close(pidfd)
		return -1, fmt.Errorf("adopt process: %w", err)
	}
	r.reaper.owned[pid] = struct{}{}
	return pidfd, nil
}

// commands tells whether a process runs as the user of commands.
func (r *Runner) commands(pid int) bool {
	want := uint32(os.Geteuid())
	if r.cfg.User != nil {
		want = r.cfg.User.UID
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			for _, id := range strings.Fields(ids) {
				if id != strconv.FormatUint(uint64(want), 10) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// Discard ends an adopted process that was not handed anything.
func (r *Runner) Discard(pid, pidfd int) {
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	r.reaper.disown(pid)
}

// become lets a spare process become the command; false: there is none.
func (r *Runner) become(c *child, cmd Command, file string, files [3]int) bool {
	if cmd.Forker == nil || c.group == nil {
		return false
	}
	s := cmd.Forker.Fork(cmd, file)
	if s == nil {
		return false
	}
	if r.take(c, s) != nil {
		s.Discard()
		return false
	}
	if err := s.Hand(files); err != nil {
		r.mu.Lock()
		delete(r.live, c)
		r.mu.Unlock()
		c.pid, c.pidfd = 0, -1
		s.Discard()
		return false
	}
	c.spare = s
	return true
}

// take moves a spare into the group of the command and makes it the child.
func (r *Runner) take(c *child, s Spare) error {
	if err := c.group.add(s.PID()); err != nil {
		return err
	}
	if r.cgroups.overfull() {
		return unix.EAGAIN
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fs.ErrClosed
	}
	c.pid, c.pidfd = s.PID(), s.PidFD()
	r.live[c] = struct{}{}
	return nil
}

// helper returns a group for a helper. It is beside those of commands, and so
// does not count against their common limit.
func (c *cgroups) helper() (*group, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fs.ErrClosed
	}
	c.next++
	g := &group{dir: c.base + "-helper" + strconv.Itoa(c.next), exact: c.exact()}
	if c.max != "" {
		g.max = strconv.Itoa(helperProcesses)
	}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	if err := g.open(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// add moves a process into g.
func (g *group) add(pid int) error {
	_, err := g.procs.WriteAt([]byte(strconv.Itoa(pid)), 0)
	if err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	return nil
}

// overfull tells whether the move of a process has broken the limit of all
// commands together, which the kernel allows for moves.
func (c *cgroups) overfull() bool {
	if c.max == "" || !c.shared {
		return false // RLIMIT_NPROC limits the user, spares included
	}
	text, err := os.ReadFile(filepath.Join(c.base, "pids.current"))
	if err != nil {
		return true
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	limit, limitErr := strconv.Atoi(c.max)
	return err != nil || limitErr != nil || now > limit
}
