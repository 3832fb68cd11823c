package gvisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// leafGroup takes the processes that were in the group below which sandboxes'
// groups are made.
const leafGroup = "agentcube.init"

// vacateTries bounds how often new processes are moved out of a group.
const vacateTries = 100

// delegate turns the controllers on for the groups of sandboxes. Those that it
// cannot are missing afterwards.
func (g *cgroups) delegate() {
	base := ""
	for _, base = range g.roots {
		break
	}
	if base == "" {
		return
	}
	if err := g.delegateBelow(base); err != nil {
		for _, c := range controllers {
			if g.roots[c] != "" {
				g.cannot(c, err)
			}
		}
	}
	if len(g.roots) == 0 {
		_ = g.fs.rmdir(filepath.Join(base, g.parent))
		g.giveBack(base)
	}
}

func (g *cgroups) delegateBelow(base string) error {
	off, err := g.off(base)
	if err != nil {
		return err
	}
	// First of all: with processes in it a group can have some controllers for
	// those below, as for threads, and they could have no processes then.
	if len(off) > 0 {
		if err := g.vacate(base); err != nil {
			return err
		}
	}
	for _, c := range off {
		if err := g.turnOn(base, c); err != nil {
			g.cannot(c, err)
			continue
		}
		g.turnedOn = append(g.turnedOn, c)
	}
	for _, c := range controllers {
		if g.roots[c] != "" {
			if err := g.turnOn(filepath.Join(base, g.parent), c); err != nil {
				g.cannot(c, err)
			}
		}
	}
	return nil
}

// off are the controllers that groups below dir do not have yet.
func (g *cgroups) off(dir string) ([]string, error) {
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return nil, fmt.Errorf("read cgroup controllers: %w", err)
	}
	var off []string
	for _, c := range controllers {
		if g.roots[c] != "" && !hasWord(string(on), c) {
			off = append(off, c)
		}
	}
	return off, nil
}

func (g *cgroups) turnOn(dir, controller string) error {
	if err := g.fs.write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller); err != nil {
		return fmt.Errorf("turn it on for groups below: %w", err)
	}
	return nil
}

// vacate moves the processes of a group to a leaf below it: save in the root of
// all groups, the kernel wants processes in leaves only. They are those of our
// service, or of the container that we are in, whose root this group is then.
func (g *cgroups) vacate(base string) error {
	if _, err := os.Stat(filepath.Join(base, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return nil // only the root of all groups has no type
	}
	if pids, err := readPIDs(base); err != nil || len(pids) == 0 {
		return err
	}
	leaf := filepath.Join(base, leafGroup)
	if err := g.fs.mkdir(leaf); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := g.move(base, leaf); err != nil {
		_ = g.move(leaf, base) // as far as it goes; nothing is lost where they are
		_ = g.fs.rmdir(leaf)
		return err
	}
	return nil
}

// move moves all processes of a group to another, also those that begin
// meanwhile.
func (g *cgroups) move(from, to string) error {
	for range vacateTries {
		pids, err := readPIDs(from)
		if err != nil || len(pids) == 0 {
			return err
		}
		if slices.Contains(pids, 0) {
			return fmt.Errorf("%s holds processes that cannot be seen from here, and so not be moved to a group below it", from)
		}
		for _, pid := range pids {
			err := g.fs.write(filepath.Join(to, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %d from %s to %s: %w", pid, from, to, err)
			}
		}
	}
	return fmt.Errorf("%s gets new processes all the time", from)
}

// giveBack undoes what delegate did, unless somebody else has groups there now
// that may count on it. Nothing depends on that it works.
func (g *cgroups) giveBack(base string) {
	if slices.ContainsFunc(childGroups(base), func(name string) bool { return name != leafGroup }) {
		return
	}
	for _, c := range g.turnedOn {
		if g.fs.write(filepath.Join(base, "cgroup.subtree_control"), "-"+c) != nil {
			return
		}
	}
	g.turnedOn = nil
	if leaf := filepath.Join(base, leafGroup); g.move(leaf, base) == nil {
		_ = g.fs.rmdir(leaf)
	}
}
