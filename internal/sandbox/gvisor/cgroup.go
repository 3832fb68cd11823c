package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox"
)

const cgroupPeriod = 100_000 // microseconds

// cgroups makes one control group per sandbox, below a parent of this
// driver's own. On cgroup v2 a sandbox has one directory, on v1 one in every
// hierarchy that is mounted.
type cgroups struct {
	fs     groupFS
	parent string // path below each of roots
	budget int64  // memory of all sandboxes together, in bytes; 0: no bound
	v2     bool
	// roots are the directories below which parent is, by controller:
	// "memory", "cpu", "pids". Of v1, the root of the controller's hierarchy.
	roots map[string]string
	// missing says why a controller cannot be used.
	missing map[string]string
	// turnedOn, of v2, are the controllers that were not on before.
	turnedOn []string
}

var controllers = []string{"memory", "cpu", "pids"}

// findCgroups looks which controllers can be used. It makes nothing.
func findCgroups(host groupHost, parent string, budget int64) *cgroups {
	g := &cgroups{fs: host.fs, parent: parent, budget: budget, roots: map[string]string{}, missing: map[string]string{}}
	if _, err := os.Stat(filepath.Join(host.root, "cgroup.controllers")); err == nil {
		g.v2 = true
	}
	for _, c := range controllers {
		dir := filepath.Join(host.root, c)
		if g.v2 {
			dir = host.base(parent)
			available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
			if !hasWord(string(available), c) {
				g.missing[c] = "cgroup v2 controller " + c + " is not available in " + dir
				continue
			}
		} else if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			g.missing[c] = "cgroup v1 controller " + c + " is not mounted at " + dir
			continue
		}
		if unix.Access(dir, unix.W_OK) != nil {
			g.missing[c] = dir + " is not writable"
			continue
		}
		g.roots[c] = dir
	}
	return g
}

// cannot notes why a controller that was found cannot be used after all.
func (g *cgroups) cannot(controller string, err error) {
	g.missing[controller] = fmt.Sprintf("%s controller %s: %v", g.version(), controller, err)
	delete(g.roots, controller)
}

func hasWord(s, word string) bool {
	for _, f := range strings.Fields(s) {
		if f == word {
			return true
		}
	}
	return false
}

// version is "cgroup v1" or "cgroup v2".
func (g *cgroups) version() string {
	if g.v2 {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// dirs are the distinct directories of a sandbox's group.
func (g *cgroups) dirs(id string) []string {
	var out []string
	for _, c := range controllers {
		root, ok := g.roots[c]
		if !ok {
			continue
		}
		out = append(out, filepath.Join(root, g.parent, id))
		if g.v2 {
			break
		}
	}
	return out
}

// open makes the parent group and sets its limit. Controllers that turn out not
// to be usable are missing afterwards.
func (g *cgroups) open() error {
	for c, root := range g.roots {
		if err := g.fs.mkdir(filepath.Join(root, g.parent)); err != nil {
			g.cannot(c, err)
		}
	}
	if g.v2 {
		g.delegate()
	}
	root, ok := g.roots["memory"]
	if !ok {
		return nil
	}
	file, limit := "memory.limit_in_bytes", "-1"
	if g.v2 {
		file, limit = "memory.max", "max"
	} else {
		// Kernels before 5.11 count children only when told to.
		_ = g.fs.write(filepath.Join(root, g.parent, "memory.use_hierarchy"), "1")
	}
	if g.budget > 0 {
		limit = strconv.FormatInt(g.budget, 10)
	}
	if err := g.fs.write(filepath.Join(root, g.parent, file), limit); err != nil {
		return fmt.Errorf("set cgroup limit %s of all sandboxes: %w", file, err)
	}
	return nil
}

// create makes the group of a sandbox and sets its limits.
func (g *cgroups) create(id string, r sandbox.Resources) error {
	for _, dir := range g.dirs(id) {
		if err := g.fs.mkdir(dir); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	for _, v := range g.values(r) {
		root, ok := g.roots[v.controller]
		if !ok {
			continue
		}
		file := filepath.Join(root, g.parent, id, v.file)
		if err := g.fs.write(file, v.value); err != nil {
			if v.optional {
				continue
			}
			return fmt.Errorf("set cgroup limit %s: %w", v.file, err)
		}
	}
	return nil
}

// limitCPU holds the group of a sandbox to its share of the processors, or lets
// it have as much as there is for as long as the sandbox's kernel works for the
// host: to start, and to save its state. Of the guest, only what was running when
// a sandbox was paused runs then, for the moment until its agent answers.
func (g *cgroups) limitCPU(id string, r sandbox.Resources, limited bool) error {
	root, ok := g.roots["cpu"]
	if !ok {
		return nil
	}
	for _, v := range g.values(r) {
		if v.file != "cpu.max" && v.file != "cpu.cfs_quota_us" {
			continue
		}
		value := v.value
		switch {
		case limited:
		case g.v2:
			value = "max " + strconv.Itoa(cgroupPeriod)
		default:
			value = "-1"
		}
		if err := g.fs.write(filepath.Join(root, g.parent, id, v.file), value); err != nil {
			return fmt.Errorf("set cgroup limit %s: %w", v.file, err)
		}
	}
	return nil
}

// standBack gives the group of a sandbox a small part of the processors where
// others want them too, or the usual one. Where that cannot be, nothing changes.
func (g *cgroups) standBack(id string, back bool) {
	root, ok := g.roots["cpu"]
	if !ok {
		return
	}
	file, small, usual := "cpu.shares", "64", "1024"
	if g.v2 {
		file, small, usual = "cpu.weight", "6", "100"
	}
	value := usual
	if back {
		value = small
	}
	_ = g.fs.write(filepath.Join(root, g.parent, id, file), value)
}

type cgroupValue struct {
	controller, file, value string
	optional                bool // not every kernel has it
}

// values are the files to write. Files written in the sandbox live in its
// memory, so the memory limit of the group is the sum of both. The limit on
// host processes is a backstop: a guest process costs several host threads,
// and PicoD holds the guest's own limit. gVisor's kernel fails when it is reached.
//
// Out of memory, the kernel ends the process of the group that holds the most:
// that of the guest, which has touched what it has, or gVisor's own. On v2
// memory.oom.group would have it end all of them, as v1 never does.
func (g *cgroups) values(r sandbox.Resources) []cgroupValue {
	memory := strconv.FormatInt(r.MemoryBytes+r.DiskBytes, 10)
	quota := strconv.FormatInt(r.CPUMillis*cgroupPeriod/1000, 10)
	period := strconv.Itoa(cgroupPeriod)
	pids := strconv.FormatInt(r.Processes*8+1024, 10)
	if g.v2 {
		return []cgroupValue{
			{"memory", "memory.max", memory, false},
			{"memory", "memory.swap.max", "0", true},
			{"cpu", "cpu.max", quota + " " + period, false},
			{"pids", "pids.max", pids, false},
		}
	}
	return []cgroupValue{
		{"memory", "memory.limit_in_bytes", memory, false},
		{"memory", "memory.memsw.limit_in_bytes", memory, true},
		{"cpu", "cpu.cfs_period_us", period, false},
		{"cpu", "cpu.cfs_quota_us", quota, false},
		{"pids", "pids.max", pids, false},
	}
}

// join moves processes into the group of a sandbox.
func (g *cgroups) join(id string, pids []int) error {
	for _, dir := range g.dirs(id) {
		for _, pid := range pids {
			err := g.fs.write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("join cgroup: %w", err)
			}
		}
	}
	return nil
}

// members are the processes in the group of a sandbox.
func (g *cgroups) members(id string) []int {
	var pids []int
	for _, dir := range g.dirs(id) {
		// A group that is not there has no members.
		found, _ := readPIDs(dir)
		pids = append(pids, found...)
	}
	return pids
}

// readPIDs lists the processes in one group. A process of another PID namespace
// is 0.
func readPIDs(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	var pids []int
	for _, line := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// memoryUsed is the memory of the group in bytes; 0 when it is not counted.
func (g *cgroups) memoryUsed(id string) int64 {
	root, ok := g.roots["memory"]
	if !ok {
		return 0
	}
	file := "memory.usage_in_bytes"
	if g.v2 {
		file = "memory.current"
	}
	data, err := os.ReadFile(filepath.Join(root, g.parent, id, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// oomKills is how many processes of the group the kernel has ended because the
// group was at its memory limit.
func (g *cgroups) oomKills(id string) int {
	if g.v2 {
		return g.count(id, "memory", "memory.events", "oom_kill")
	}
	return g.count(id, "memory", "memory.oom_control", "oom_kill")
}

// forksRefused is how often the group was at its limit of processes.
func (g *cgroups) forksRefused(id string) int { return g.count(id, "pids", "pids.events", "max") }

// count reads a counter from a file of "name number" lines; 0 when it cannot.
func (g *cgroups) count(id, controller, file, name string) int {
	root, ok := g.roots[controller]
	if !ok {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(root, g.parent, id, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// remove removes the group of a sandbox whose processes have ended. The kernel
// lets go of a group a moment after its last process.
func (g *cgroups) remove(ctx context.Context, id string) error {
	for _, dir := range g.dirs(id) {
		if err := g.removeOne(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

func (g *cgroups) removeOne(ctx context.Context, dir string) error {
	for delay := time.Millisecond; ; delay = min(2*delay, 50*time.Millisecond) {
		err := g.fs.rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", dir, ctx.Err())
		case <-time.After(delay):
		}
	}
}

// ids are the sandboxes that have a group.
func (g *cgroups) ids() []string {
	seen := map[string]bool{}
	var out []string
	for _, root := range g.roots {
		entries, err := os.ReadDir(filepath.Join(root, g.parent))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// removeParent removes the parent group when no sandbox is left below it.
func (g *cgroups) removeParent() {
	for _, root := range g.roots {
		// Fails while a sandbox is left, which is what is wanted.
		if g.fs.rmdir(filepath.Join(root, g.parent)) == nil && g.v2 {
			g.giveBack(root)
		}
	}
}
