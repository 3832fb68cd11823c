package proc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// noLimit is the highest value pids.max takes everywhere. The word "max" is not
// understood by every kernel that has the file.
const noLimit = "4194304"

// manyMembers is how many processes make a tree look like a fork bomb.
const manyMembers = 8

// cgroups owns the control groups of the commands. They are in one hierarchy, that
// of the pids controller if it can be had: gVisor, where a process is in several
// hierarchies, asks only one of them, any one, whether it may fork.
type cgroups struct {
	mount string // where the hierarchy is
	base  string // parent of the commands' groups
	max   string // processes per group; "" when they cannot be limited
	// shared tells that the limit of base holds for all groups below it
	// together. In gVisor it does not.
	shared bool

	home *os.File // "tasks" of the root: where PicoD's threads live

	mu     sync.Mutex
	closed bool
	next   int
	idle   []*group // released; a group may still hold background processes
}

// group is the control group of one command.
type group struct {
	dir   string
	tasks *os.File // takes threads
	procs *os.File // takes processes
	limit *os.File // "pids.max"; nil when processes cannot be limited
	max   string   // what limit holds
	// exact tells that "pids.current" counts what lives and what is being born.
	// So it is in gVisor, where a fork that was under way when its process was
	// killed is a member later; Linux counts the uncollected, and gives up
	// such forks.
	exact bool

	mu     sync.Mutex
	frozen int
}

// openCgroups mounts what is needed below dir. limitErr says why processes
// cannot be limited; err, why there are no groups at all.
func openCgroups(dir string, maxProcesses int) (c *cgroups, limitErr, err error) {
	c = &cgroups{mount: filepath.Join(dir, "pids"), max: noLimit}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if maxProcesses > 0 {
		c.max = strconv.Itoa(maxProcesses)
	}
	if limitErr = mountCgroup(c.mount, "pids"); limitErr != nil {
		c.mount, c.max = filepath.Join(dir, "track"), ""
		if err := mountCgroup(c.mount, "none,name=picod"); err != nil {
			return c, limitErr, err
		}
	}
	// Where daemons of several sandboxes share a kernel they share the
	// hierarchy too, and may all be process 1.
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	c.base = filepath.Join(c.mount, "picod-"+hex.EncodeToString(random[:]))
	if err := os.Mkdir(c.base, 0o700); err != nil {
		return c, limitErr, fmt.Errorf("make control group: %w", err)
	}
	if c.max != "" {
		if err := os.WriteFile(filepath.Join(c.base, "pids.max"), []byte(c.max), 0); err != nil {
			return c, limitErr, fmt.Errorf("set process limit: %w", err)
		}
	}
	if c.home, err = os.OpenFile(filepath.Join(c.mount, "tasks"), os.O_WRONLY, 0); err != nil {
		return c, limitErr, fmt.Errorf("open control group: %w", err)
	}
	c.shared, err = c.probeShared()
	return c, limitErr, err
}

// probeShared finds out whether what is in a command's group counts for the
// limit of all, and whether groups can be joined at all.
func (c *cgroups) probeShared() (shared bool, err error) {
	g, err := c.acquire()
	if err != nil {
		return false, err
	}
	defer c.release(g)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.enter(g); err != nil {
		return false, err
	}
	if c.max != "" {
		count, err := os.ReadFile(filepath.Join(c.base, "pids.current"))
		shared = err == nil && strings.TrimSpace(string(count)) != "0"
	}
	return shared, c.leave()
}

func mountCgroup(dir, options string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount("cgroup", dir, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount cgroup (%s): %w", options, err)
	}
	return nil
}

// acquire returns an empty group.
func (c *cgroups) acquire() (*group, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fs.ErrClosed
	}
	for i, g := range c.idle {
		if members, err := g.members(); err == nil && len(members) == 0 {
			c.idle = append(c.idle[:i], c.idle[i+1:]...)
			g.exact = c.exact()
			return g, nil
		}
	}
	c.next++
	g := &group{dir: filepath.Join(c.base, "c"+strconv.Itoa(c.next)), max: c.max, exact: c.exact()}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	if err := g.open(); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *group) open() (err error) {
	if g.tasks, err = os.OpenFile(filepath.Join(g.dir, "tasks"), os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open control group: %w", err)
	}
	if g.procs, err = os.OpenFile(filepath.Join(g.dir, "cgroup.procs"), os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open control group: %w", err)
	}
	if g.max == "" {
		return nil
	}
	if g.limit, err = os.OpenFile(filepath.Join(g.dir, "pids.max"), os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open process limit: %w", err)
	}
	if _, err = g.limit.WriteAt([]byte(g.max), 0); err != nil {
		return fmt.Errorf("set process limit: %w", err)
	}
	return nil
}

func (c *cgroups) exact() bool { return c.max != "" && !c.shared }

// release gives a group back; what still runs in it keeps it from being reused.
func (c *cgroups) release(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, g)
}

// enter moves the calling thread into g and so under the process limit.
func (c *cgroups) enter(g *group) error {
	if err := step(g.tasks); err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	return nil
}

// leave moves the calling thread back to where PicoD lives.
func (c *cgroups) leave() error { return step(c.home) }

// step moves the calling thread into the group whose tasks file is given.
func step(tasks *os.File) error {
	_, err := tasks.WriteAt([]byte("0"), 0)
	return err
}

// members returns the processes in g, without PicoD's own.
func (g *group) members() ([]int, error) {
	// Opened anew each time: an open file goes on showing an old list.
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("read control group: %w", err)
	}
	var pids []int
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("read control group: %w", err)
		}
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// kill ends every process in g and returns when none is left (true) or patience
// ends. A tree that is large or forks while it is killed has its forks refused
// until it is gone.
func (g *group) kill(patience time.Duration) bool {
	hit := map[int]bool{}
	frozen := false
	defer func() {
		if frozen {
			g.thaw()
		}
	}()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		complete := frozen // nothing is born behind the back of this look
		pids, err := g.members()
		if err != nil || len(pids) == 0 && (!g.exact || g.unused()) {
			return true
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
		}
		outrun := len(hit) > 0 && slices.ContainsFunc(pids, func(pid int) bool { return !hit[pid] })
		for _, pid := range pids {
			hit[pid] = true
		}
		// One that ended stays a member until it is collected.
		living := slices.ContainsFunc(pids, alive)
		if !living && complete && !g.exact {
			return true
		}
		if !frozen && (outrun || !living || len(pids) > manyMembers) {
			frozen = true
			g.freeze()
			continue
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// unused tells that nothing lives in g, and that nothing is being born either.
func (g *group) unused() bool {
	count, err := os.ReadFile(filepath.Join(g.dir, "pids.current"))
	return err != nil || strings.TrimSpace(string(count)) == "0"
}

// freeze refuses new processes to g until every freeze was thawed.
func (g *group) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen++; g.frozen == 1 && g.limit != nil {
		_, _ = g.limit.WriteAt([]byte("0"), 0)
	}
}

func (g *group) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen--; g.frozen == 0 && g.limit != nil {
		_, _ = g.limit.WriteAt([]byte(g.max), 0)
	}
}

// killAll ends what is left in any group and stops new ones from being made.
func (c *cgroups) killAll(patience time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, g := range c.idle {
		g.kill(patience)
	}
}

// close removes groups and mounts. It works on a half-opened value too.
func (c *cgroups) close() {
	for _, g := range c.idle {
		g.close()
	}
	c.idle = nil
	if c.home != nil {
		_ = c.home.Close()
	}
	if c.base != "" {
		removeGroup(c.base)
	}
	_ = unix.Unmount(c.mount, unix.MNT_DETACH)
	for _, dir := range []string{"pids", "track"} {
		_ = os.Remove(filepath.Join(filepath.Dir(c.mount), dir))
	}
}

func (g *group) close() {
	for _, f := range []*os.File{g.tasks, g.procs, g.limit} {
		if f != nil {
			_ = f.Close()
		}
	}
	removeGroup(g.dir)
}

// removeGroup removes a group; killed processes may stay in it for a moment.
func removeGroup(dir string) {
	for range 100 {
		if err := os.Remove(dir); !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
