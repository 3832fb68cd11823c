package proc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// cgroups owns the control groups of the commands.
type cgroups struct {
	track  string // mount point of the hierarchy that only tells who belongs to whom
	limit  string // mount point of the pids hierarchy; "" if it cannot be had
	base   string // parent of the commands' groups in track
	capped string // the limited group in limit

	trackHome, limitHome *os.File // "tasks" of both roots: where PicoD's threads live
	limitTasks           *os.File
	limitMax             *os.File
	max                  string // what limitMax holds

	freezeMu sync.Mutex
	frozen   int

	mu     sync.Mutex
	closed bool
	next   int
	idle   []*group // released; a group may still hold background processes
}

// group is the control group of one command.
type group struct {
	dir   string
	tasks *os.File
}

// openCgroups mounts what is needed below dir. limitErr says why processes
// cannot be limited; err, why there are no groups at all.
func openCgroups(dir string, maxProcesses int) (c *cgroups, limitErr, err error) {
	c = &cgroups{max: noLimit, track: filepath.Join(dir, "track")}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := mountCgroup(c.track, "none,name=picod"); err != nil {
		return c, nil, err
	}
	// Where daemons of several sandboxes share a kernel they share the
	// hierarchy too, and may all be process 1.
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	own := "picod-" + hex.EncodeToString(random[:])
	c.base = filepath.Join(c.track, own)
	if err := os.Mkdir(c.base, 0o700); err != nil {
		return c, nil, fmt.Errorf("make control group: %w", err)
	}
	if c.trackHome, err = os.OpenFile(filepath.Join(c.track, "tasks"), os.O_WRONLY, 0); err != nil {
		return c, nil, fmt.Errorf("open control group: %w", err)
	}
	if err := step(c.trackHome); err != nil {
		return c, nil, fmt.Errorf("join control group: %w", err)
	}
	if maxProcesses > 0 {
		c.max = strconv.Itoa(maxProcesses)
	}
	limitErr = c.openLimit(filepath.Join(dir, "pids"), own)
	return c, limitErr, nil
}

func (c *cgroups) openLimit(mount, own string) (err error) {
	if err := mountCgroup(mount, "pids"); err != nil {
		return err
	}
	c.limit = mount
	c.capped = filepath.Join(mount, own)
	if err := os.Mkdir(c.capped, 0o700); err != nil {
		return fmt.Errorf("make limit group: %w", err)
	}
	if c.limitHome, err = os.OpenFile(filepath.Join(mount, "tasks"), os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open limit group: %w", err)
	}
	if c.limitMax, err = os.OpenFile(filepath.Join(c.capped, "pids.max"), os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("open limit: %w", err)
	}
	if _, err = c.limitMax.WriteAt([]byte(c.max), 0); err != nil {
		return fmt.Errorf("set process limit: %w", err)
	}
	tasks, err := os.OpenFile(filepath.Join(c.capped, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open limit group: %w", err)
	}
	c.limitTasks = tasks
	return nil
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
			return g, nil
		}
	}
	c.next++
	g := &group{dir: filepath.Join(c.base, "c"+strconv.Itoa(c.next))}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	var err error
	if g.tasks, err = os.OpenFile(filepath.Join(g.dir, "tasks"), os.O_WRONLY, 0); err != nil {
		g.close()
		return nil, fmt.Errorf("open control group: %w", err)
	}
	return g, nil
}

// release gives a group back; what still runs in it keeps it from being reused.
func (c *cgroups) release(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, g)
}

// enter moves the calling thread into g and under the process limit.
func (c *cgroups) enter(g *group) error {
	if err := step(g.tasks); err != nil {
		return fmt.Errorf("join control group: %w", err)
	}
	if c.limitTasks != nil {
		if err := step(c.limitTasks); err != nil {
			return fmt.Errorf("join limit group: %w", err)
		}
	}
	return nil
}

// leave moves the calling thread back to where PicoD lives.
func (c *cgroups) leave() error {
	err := step(c.trackHome)
	if c.limitTasks != nil {
		err = errors.Join(err, step(c.limitHome))
	}
	return err
}

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

// kill ends every process in g and returns when none is left or patience ends.
// A tree that is large or forks while it is killed has all forks of all
// commands refused until it is gone.
func (c *cgroups) kill(g *group, patience time.Duration) {
	hit := map[int]bool{}
	frozen := false
	for end := time.Now().Add(patience); time.Now().Before(end); {
		pids, err := g.members()
		// One that ended stays a member until it is collected.
		pids = slices.DeleteFunc(pids, func(pid int) bool { return !alive(pid) })
		if err != nil || len(pids) == 0 {
			break
		}
		outrun := len(hit) > 0 && slices.ContainsFunc(pids, func(pid int) bool { return !hit[pid] })
		if (outrun || len(pids) > manyMembers) && !frozen && c.limitTasks != nil {
			frozen = true
			c.freeze()
		}
		fresh := len(hit) == 0 || outrun
		for _, pid := range pids {
			hit[pid] = true
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
		}
		if !fresh {
			time.Sleep(time.Millisecond)
		}
	}
	if frozen {
		c.thaw()
	}
}

// freeze refuses new processes to all commands until every freeze was thawed.
func (c *cgroups) freeze() {
	c.freezeMu.Lock()
	defer c.freezeMu.Unlock()
	if c.frozen++; c.frozen == 1 {
		_, _ = c.limitMax.WriteAt([]byte("0"), 0)
	}
}

func (c *cgroups) thaw() {
	c.freezeMu.Lock()
	defer c.freezeMu.Unlock()
	if c.frozen--; c.frozen == 0 {
		_, _ = c.limitMax.WriteAt([]byte(c.max), 0)
	}
}

// killAll ends what is left in any group and stops new ones from being made.
func (c *cgroups) killAll(patience time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, g := range c.idle {
		c.kill(g, patience)
	}
}

// close removes groups and mounts. It works on a half-opened value too.
func (c *cgroups) close() {
	for _, g := range c.idle {
		g.close()
	}
	c.idle = nil
	for _, f := range []*os.File{c.trackHome, c.limitHome, c.limitTasks, c.limitMax} {
		if f != nil {
			_ = f.Close()
		}
	}
	for _, dir := range []string{c.base, c.capped} {
		if dir != "" {
			removeGroup(dir)
		}
	}
	for _, mount := range []string{c.track, c.limit} {
		if mount != "" {
			_ = unix.Unmount(mount, unix.MNT_DETACH)
			_ = os.Remove(mount)
		}
	}
}

func (g *group) close() {
	if g.tasks != nil {
		_ = g.tasks.Close()
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
