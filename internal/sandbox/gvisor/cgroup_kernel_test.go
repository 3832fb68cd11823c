package gvisor

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// playedKernel is cgroup v2 in a folder: what the kernel says yes and no to, as
// far as this package has to do with it.
type playedKernel struct {
	t     *testing.T
	root  string
	marks map[string]bool // delegated groups
	stay  map[string]bool // processes that cannot be moved
	// sealed: no controller can be turned on.
	sealed bool
}

// playKernel makes a hierarchy with these controllers. Where the root is that of
// a container it is a group like others.
func playKernel(t *testing.T, controllers string, container bool) *playedKernel {
	t.Helper()
	k := &playedKernel{t: t, root: t.TempDir(), marks: map[string]bool{}, stay: map[string]bool{}}
	k.set("", "cgroup.controllers", controllers)
	k.set("", "cgroup.subtree_control", "")
	k.set("", "cgroup.procs", "")
	if container {
		k.set("", "cgroup.type", "domain")
	}
	return k
}

func (k *playedKernel) host(own string) groupHost { return groupHost{fs: k, root: k.root, own: own} }

func (k *playedKernel) get(group, file string) string {
	k.t.Helper()
	data, err := os.ReadFile(filepath.Join(k.root, group, file))
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (k *playedKernel) set(group, file, value string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.root, group, file), []byte(value+"\n"), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

// groups are all groups, by their paths below the root, which is "".
func (k *playedKernel) groups() (all []string) {
	_ = filepath.WalkDir(k.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			all = append(all, strings.TrimPrefix(strings.TrimPrefix(path, k.root), "/"))
		}
		return nil
	})
	return all
}

func (k *playedKernel) under(dir string) string {
	return strings.TrimPrefix(strings.TrimPrefix(dir, k.root), "/")
}

func up(group string) string { return strings.TrimSuffix(filepath.Dir("/" + group)[1:], "/") }

func (k *playedKernel) delegated(dir string) bool { return k.marks[k.under(dir)] }

func (k *playedKernel) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := k.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	g := k.under(dir)
	k.set(g, "cgroup.procs", "")
	k.set(g, "cgroup.type", "domain")
	k.set(g, "cgroup.subtree_control", "")
	k.give(g, strings.Fields(k.get(up(g), "cgroup.subtree_control")))
	return nil
}

// give has a group be held by controllers, and by no others.
func (k *playedKernel) give(group string, controllers []string) {
	k.set(group, "cgroup.controllers", strings.Join(controllers, " "))
	for controller, files := range map[string]string{
		"memory": "memory.max memory.swap.max memory.oom.group memory.current memory.events", "cpu": "cpu.max", "pids": "pids.max pids.events",
	} {
		for _, file := range strings.Fields(files) {
			if slices.Contains(controllers, controller) {
				k.set(group, file, "0")
			} else {
				_ = os.Remove(filepath.Join(k.root, group, file))
			}
		}
	}
}

func (k *playedKernel) rmdir(dir string) error {
	g := k.under(dir)
	if _, err := os.Stat(dir); err != nil {
		return unix.ENOENT
	}
	if k.get(g, "cgroup.procs") != "" || len(childGroups(dir)) > 0 {
		return unix.EBUSY
	}
	return os.RemoveAll(dir)
}

func (k *playedKernel) write(file, value string) error {
	g, name := k.under(filepath.Dir(file)), filepath.Base(file)
	if _, err := os.Stat(file); err != nil {
		return unix.ENOENT
	}
	switch name {
	case "cgroup.procs":
		return k.enter(g, value)
	case "cgroup.subtree_control":
		return k.control(g, value[:1] == "+", value[1:])
	}
	k.set(g, name, value)
	return nil
}

// domain tells a group from the root, which may do anything.
func (k *playedKernel) domain(group string) bool {
	_, err := os.Stat(filepath.Join(k.root, group, "cgroup.type"))
	return err == nil
}

// threaded: it has processes, and controllers for groups below.
func (k *playedKernel) threaded(group string) bool {
	return k.domain(group) && k.get(group, "cgroup.procs") != "" && k.get(group, "cgroup.subtree_control") != ""
}

func (k *playedKernel) enter(group, pid string) error {
	switch {
	case k.stay[pid]:
		return unix.EACCES
	case k.domain(group) && k.get(group, "cgroup.subtree_control") != "":
		return unix.EBUSY
	case group != "" && k.threaded(up(group)):
		return unix.EOPNOTSUPP
	}
	found := false
	for _, g := range k.groups() {
		pids := strings.Fields(k.get(g, "cgroup.procs"))
		if i := slices.Index(pids, pid); i >= 0 {
			k.set(g, "cgroup.procs", strings.Join(slices.Delete(pids, i, i+1), "\n"))
			found = true
		}
	}
	if !found {
		return unix.ESRCH
	}
	k.set(group, "cgroup.procs", k.get(group, "cgroup.procs")+"\n"+pid)
	return nil
}

func (k *playedKernel) control(group string, on bool, controller string) error {
	have := strings.Fields(k.get(group, "cgroup.subtree_control"))
	below := childGroups(filepath.Join(k.root, group))
	switch {
	case k.sealed:
		return unix.EPERM
	case !slices.Contains(strings.Fields(k.get(group, "cgroup.controllers")), controller):
		return unix.ENOENT
	case on && slices.Contains(have, controller):
		return nil
	case on && controller == "memory" && k.threaded(group):
		return unix.EOPNOTSUPP
	case on && controller == "memory" && k.domain(group) && k.get(group, "cgroup.procs") != "":
		return unix.EBUSY
	case on:
		have = append(have, controller)
	default:
		for _, name := range below {
			if slices.Contains(strings.Fields(k.get(filepath.Join(group, name), "cgroup.subtree_control")), controller) {
				return unix.EBUSY
			}
		}
		have = slices.DeleteFunc(have, func(c string) bool { return c == controller })
	}
	k.set(group, "cgroup.subtree_control", strings.Join(have, " "))
	for _, name := range below {
		k.give(filepath.Join(group, name), have)
	}
	return nil
}
