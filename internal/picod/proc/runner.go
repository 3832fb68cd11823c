package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killPatience bounds one killing of a tree.
	killPatience = time.Second
	// killAgain bounds the killing of what has not ended by then.
	killAgain = 30 * time.Second
	// closePatience bounds the last killing of all.
	closePatience = 5 * time.Second
	// killGrace bounds the wait for a killed child to end.
	killGrace = 500 * time.Millisecond
	// maxLingering bounds the pipes that background processes keep open.
	maxLingering = 1024
	// forkRetries and forkPause bound the wait for room below the process limit.
	forkRetries = 20
	forkPause   = 5 * time.Millisecond
)

// User is the account that commands run as.
type User struct{ UID, GID uint32 }

// Config says how commands are run. The zero value runs them as the daemon's
// own user without limits.
type Config struct {
	User         *User  // nil: the user of the daemon
	MaxProcesses int    // processes of all commands together; 0: no limit
	CgroupDir    string // where control groups are mounted; "": none are used
	OutputBudget int64  // bytes that the output of all commands may take at a time
	ReapOrphans  bool   // be the reaper of everything below; needs a process of its own
}

// Command is one command to run.
type Command struct {
	Argv      []string
	Dir       string
	Env       []string
	Stdin     []byte
	Timeout   time.Duration // zero or less: it is over before it starts
	MaxOutput int           // bytes kept of each stream
	Forker    Forker        // asked for a process to use first; nil: there is none
}

// Result is how a command ended. Release must be called when the output is not
// needed any more.
type Result struct {
	Stdout, Stderr *Output
	ExitCode       int    // -1: ended by a signal; 124: timed out; 1: not started
	StartError     string // why it was not started; "" if it was
	StartKind      StartKind
	TimedOut       bool
	Canceled       bool // the context ended first
}

// Release gives the memory of the output back.
func (r *Result) Release() {
	r.Stdout.release()
	r.Stderr.release()
}

// Runner runs commands. Make one with New, then Open it.
type Runner struct {
	cfg     Config
	log     *slog.Logger
	budget  budget
	reaper  *reaper
	cgroups *cgroups // nil: the walk of /proc is used
	null    *os.File

	hard    bool          // a lowered hard limit of this process can be raised again
	helping atomic.Uint64 // processes that helpers may have besides commands

	mu        sync.Mutex
	lingering map[*os.File]struct{}
	drains    sync.WaitGroup
	runs      sync.WaitGroup
	live      map[*child]struct{}
	closed    bool
	serial    int
}

// New returns a Runner that is not open yet.
func New(cfg Config, log *slog.Logger) *Runner {
	if cfg.OutputBudget <= 0 {
		cfg.OutputBudget = 256 << 20
	}
	r := &Runner{cfg: cfg, log: log, reaper: newReaper(), lingering: map[*os.File]struct{}{}, live: map[*child]struct{}{}}
	r.budget.left.Store(cfg.OutputBudget)
	return r
}

// Open gets what commands need. Without control groups the trees of commands
// are found through /proc, which is logged; without the process limit that was
// asked for, commands are not run at all.
func (r *Runner) Open() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open empty input: %w", err)
	}
	r.null = null
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("open pidfd: %w", err)
	}
	_ = unix.Close(fd)
	if r.cfg.CgroupDir != "" {
		c, limitErr, err := openCgroups(r.cfg.CgroupDir, r.cfg.MaxProcesses)
		if err == nil {
			r.cgroups = c
		}
		if err = errors.Join(limitErr, err); err != nil && r.cfg.MaxProcesses > 0 {
			r.closeFiles()
			return fmt.Errorf("limit processes: %w", err)
		}
		if r.cgroups == nil {
			r.log.Warn("control groups not available, process trees are found through /proc", "error", err)
		}
	} else if r.cfg.MaxProcesses > 0 {
		r.closeFiles()
		return errors.New("limit processes: that takes control groups, and there is no folder for them")
	}
	r.probeHardLimit()
	if r.cfg.ReapOrphans {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become reaper: %w", err)
		}
		r.reaper.run()
	}
	return nil
}

// Close kills every command and what it left behind, and frees everything.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.live {
		c.kill()
	}
	r.mu.Unlock()
	r.runs.Wait() // what was just killed ends within its grace
	if r.cgroups != nil {
		r.cgroups.killAll(closePatience)
	} else {
		killTree(0, r.marker(""), closePatience)
	}
	r.mu.Lock()
	for f := range r.lingering {
		_ = f.Close()
	}
	r.mu.Unlock()
	r.drains.Wait()
	// The reaper goes last: groups are empty only when all is collected.
	r.closeFiles()
	if r.cfg.ReapOrphans {
		r.reaper.close()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}
}

// closeFiles removes the groups, and closes what else is open.
func (r *Runner) closeFiles() {
	if r.cgroups != nil {
		r.cgroups.close()
	}
	if r.null != nil {
		_ = r.null.Close()
	}
}

// Run runs one command to its end, its time-out, or the end of ctx. A command
// that cannot be started is a result, not an error.
func (r *Runner) Run(ctx context.Context, cmd Command) *Result {
	res := &Result{Stdout: newOutput(cmd.MaxOutput, &r.budget), Stderr: newOutput(cmd.MaxOutput, &r.budget)}
	deadline := time.Now().Add(cmd.Timeout)
	if cmd.Timeout <= 0 {
		res.TimedOut, res.ExitCode = true, 124
		return res
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		res.ExitCode, res.StartError, res.StartKind = 1, fs.ErrClosed.Error(), StartOther
		return res
	}
	r.runs.Add(1)
	r.mu.Unlock()
	defer r.runs.Done()
	for {
		c, err := r.start(cmd)
		if err != nil {
			res.ExitCode, res.StartError = 1, startError(cmd.Argv[0], r.cfg.MaxProcesses, err)
			res.StartKind = startKind(err)
			return res
		}
		done := r.await(ctx, c, deadline, res)
		r.finish(c)
		if done {
			return res
		}
		cmd.Forker = nil
	}
}

// child is one started command.
type child struct {
	pid    int
	pidfd  int
	out    int // read ends; -1 once at their end or handed on
	err    int
	group  *group
	marker string
	dying  atomic.Bool // group is being killed in the background, and released then
	spare  Spare       // what the process was before; it owns pidfd
	helper bool        // the group is not one of those of commands
	runner *Runner
}

// kill ends the whole tree. What does not end in time is killed again in the
// background, so that whoever waits for the command gets an answer.
func (c *child) kill() {
	if c.group == nil {
		killTree(c.pid, c.marker, killPatience)
		return
	}
	if c.group.kill(killPatience) {
		return
	}
	if c.dying.CompareAndSwap(false, true) {
		c.runner.runs.Go(func() {
			c.group.kill(killAgain)
			if !c.helper {
				c.runner.cgroups.release(c.group)
			}
		})
	}
}

// start forks and executes cmd.
func (r *Runner) start(cmd Command) (_ *child, err error) {
	c := &child{runner: r, out: -1, err: -1, pidfd: -1}
	defer func() {
		if err != nil {
			r.finish(c)
		}
	}()
	if r.cgroups != nil {
		if c.group, err = r.cgroups.acquire(); err != nil {
			return nil, err
		}
	} else {
		r.mu.Lock()
		r.serial++
		c.marker = r.marker(strconv.Itoa(r.serial))
		r.mu.Unlock()
		cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], c.marker)
		c.marker += "\x00"
	}
	file, err := lookup(cmd.Argv[0], getenv(cmd.Env, "PATH"))
	if err != nil {
		return nil, err
	}
	stdin := int(r.null.Fd())
	if len(cmd.Stdin) > 0 {
		if stdin, err = inputFile(cmd.Stdin); err != nil {
			return nil, err
		}
		defer unix.Close(stdin)
	}
	outW, errW := -1, -1
	defer func() {
		closeFD(&outW)
		closeFD(&errW)
	}()
	if err := pipe(&c.out, &outW); err != nil {
		return nil, err
	}
	if err := pipe(&c.err, &errW); err != nil {
		return nil, err
	}
	if r.become(c, cmd, file, [3]int{stdin, outW, errW}) {
		return c, nil
	}
	return c, r.forkIn(c, file, cmd.Argv, r.attr(c, cmd, stdin, outW, errW))
}

// attr says how the process of a command is made.
func (r *Runner) attr(c *child, cmd Command, stdin, stdout, stderr int) *syscall.ProcAttr {
	attr := &syscall.ProcAttr{
		Dir: cmd.Dir, Env: cmd.Env,
		Files: []uintptr{uintptr(stdin), uintptr(stdout), uintptr(stderr)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &c.pidfd},
	}
	if u := r.cfg.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	return attr
}

// forkIn forks and executes, again where that fails for the moment.
func (r *Runner) forkIn(c *child, file string, argv []string, attr *syscall.ProcAttr) error {
	for try := 0; ; try++ {
		err := r.fork(c, file, argv, attr)
		for n := 0; errors.Is(err, errJoin) && n < forkRetries; n++ {
			// Threads were seen in gVisor that no group takes in: try others.
			done := make(chan error)
			go func() { done <- r.fork(c, file, argv, attr) }()
			err = <-done
		}
		// What was just killed counts until it is reaped, which takes a moment.
		if !errors.Is(err, unix.EAGAIN) || r.cfg.MaxProcesses == 0 || try == forkRetries {
			return err
		}
		time.Sleep(forkPause)
	}
}

// marker is the variable that tells the processes of a command; without
// a serial, the beginning that those of all commands of this Runner share.
func (r *Runner) marker(serial string) string {
	return fmt.Sprintf("%s=%d-%p.%s", markerVar, os.Getpid(), r, serial)
}

// finish frees what a command held.
func (r *Runner) finish(c *child) {
	r.mu.Lock()
	delete(r.live, c)
	r.mu.Unlock()
	closeFD(&c.out)
	closeFD(&c.err)
	if c.spare != nil {
		c.spare.Close()
		c.pidfd = -1
	}
	closeFD(&c.pidfd)
	// A group whose killing goes on must not get another command meanwhile.
	if c.group != nil && !c.dying.Load() && !c.helper {
		r.cgroups.release(c.group)
	}
}

func pipe(r, w *int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	*r, *w = p[0], p[1]
	// Only the end that is read here: the command expects to block.
	if err := unix.SetNonblock(p[0], true); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	return nil
}

// inputFile returns an anonymous file that holds the input of a command.
func inputFile(data []byte) (int, error) {
	fd, err := unix.MemfdCreate("stdin", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make input: %w", err)
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("write input: %w", err)
		}
		off += max(n, 0)
	}
	return fd, nil
}

func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
		*fd = -1
	}
}
