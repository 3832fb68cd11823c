package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const placePrefix = "agentcube-cluster-"

// place is what a node has on the machine that does not vanish with its
// namespaces: a folder, and control groups of the same name. Whoever uses it holds
// a lock on the folder, so that what others left can be told from what they use.
type place struct {
	path   string
	folder *os.File
}

// makePlace makes one below dir, after it has removed those that nobody uses.
func makePlace(dir string) (*place, error) {
	if err := sweep(dir); err != nil {
		return nil, err
	}
	for {
		path, err := os.MkdirTemp(dir, placePrefix)
		if err != nil {
			return nil, fmt.Errorf("make folder: %w", err)
		}
		p, err := lockPlace(path, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // swept before it was locked
		}
		if err != nil {
			return nil, err
		}
		// Containers of other users have their files below.
		if err := errors.Join(os.Chmod(path, 0o711), makeGroups(p.name())); err != nil {
			return nil, errors.Join(err, p.remove())
		}
		return p, nil
	}
}

// sweep removes the places below dir that nobody uses.
func sweep(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, placePrefix+"*"))
	if err != nil {
		return fmt.Errorf("list folders: %w", err)
	}
	for _, path := range paths {
		p, err := lockPlace(path, unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := p.remove(); err != nil {
			return fmt.Errorf("remove what another run left: %w", err)
		}
	}
	return nil
}

// lockPlace opens the folder at path and locks it; os.ErrNotExist says that
// somebody has removed it.
func lockPlace(path string, how int) (*place, error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock folder: %w", err), folder.Close())
	}
	if _, err := os.Stat(path); err != nil {
		return nil, errors.Join(fmt.Errorf("find folder: %w", err), folder.Close())
	}
	return &place{path: path, folder: folder}, nil
}

func (p *place) name() string { return filepath.Base(p.path) }

// remove removes the control groups and the folder, and then lets go of the lock.
func (p *place) remove() error {
	err := errors.Join(removeGroups(p.name()), os.RemoveAll(p.path), p.folder.Close())
	if err != nil {
		return fmt.Errorf("remove %s: %w", p.path, err)
	}
	return nil
}

// hierarchies lists where the hierarchies of control groups are mounted, of either
// version, and each once, wherever else somebody has mounted it or a part of it.
func hierarchies() ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return hierarchiesIn(string(table)), nil
}

func hierarchiesIn(mountinfo string) []string {
	var points []string
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		mount, source, found := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !found || len(fields) < 5 || !strings.HasPrefix(source, "cgroup") {
			continue
		}
		device, root, point := fields[2], fields[3], fields[4]
		if root == "/" && !seen[device] {
			seen[device] = true
			points = append(points, point)
		}
	}
	return points
}

// makeGroups makes a control group of that name in every hierarchy.
func makeGroups(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		group := filepath.Join(root, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			return fmt.Errorf("make control group: %w", err)
		}
		// In version 1 a new group may use no processor and no memory.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(group, file), value, 0o644); err != nil {
				return fmt.Errorf("set up control group: %w", err)
			}
		}
	}
	return nil
}

// removeGroups removes the control groups of that name and all below. The kernel
// may take a moment to see that what was in them is gone.
func removeGroups(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		group := filepath.Join(root, name)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err = removeTree(group); err == nil || time.Now().After(end) {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("remove control group: %w", err)
		}
	}
	return nil
}

// removeTree removes a group and those below, the lowest first.
func removeTree(group string) error {
	var dirs []string
	err := filepath.WalkDir(group, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
	}
	return nil
}
