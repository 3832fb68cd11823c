package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A hierarchy that a test had mounted a second time was used twice.
func TestHierarchies(t *testing.T) {
	const mountinfo = `25 21 254:0 / / rw,relatime - ext4 /dev/root rw
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 25 0:27 / /tmp/again/cpu rw,relatime - cgroup none rw,cpu
34 25 0:29 /some/group /tmp/part rw,relatime - cgroup none rw,pids
`
	want := []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"}
	if got := hierarchiesIn(mountinfo); !slices.Equal(got, want) {
		t.Errorf("hierarchies are at %q, want %q", got, want)
	}
}

// What nobody has locked is removed, and what somebody has is not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	used, err := makePlace(dir)
	if err != nil {
		t.Fatal(err)
	}
	left, err := makePlace(dir)
	if err != nil {
		t.Fatal(err)
	}
	left.folder.Close() // as when its process is killed
	if err := sweep(dir); err != nil {
		t.Fatal(err)
	}
	if places, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(places, []string{used.path}) {
		t.Errorf("there are %q", places)
	}
	if found := groups(left.name()); len(found) > 0 {
		t.Errorf("there are %q", found)
	}
	if found := groups(used.name()); len(found) == 0 {
		t.Error("the control groups of a place that is used are gone")
	}
	if err := used.remove(); err != nil {
		t.Error(err)
	}
	if found := groups(used.name()); len(found) > 0 {
		t.Errorf("there are %q", found)
	}
	if _, err := os.Stat(used.path); err == nil {
		t.Error("the folder is there")
	}
}

// groups finds the control groups of that name, of either version.
func groups(name string) (found []string) {
	for _, root := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		more, _ := filepath.Glob(root + name)
		found = append(found, more...)
	}
	return found
}
