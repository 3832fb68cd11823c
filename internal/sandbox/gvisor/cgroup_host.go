package gvisor

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// groupFS is how control groups are changed. Tests play the kernel's part.
type groupFS interface {
	// mkdir makes a group, and those above it.
	mkdir(dir string) error
	rmdir(dir string) error
	write(file, value string) error
	// delegated reports whether the group was left to whoever lives in it.
	delegated(dir string) bool
}

// groupHost is where control groups are.
type groupHost struct {
	fs   groupFS
	root string // where they are mounted
	own  string // cgroup v2: the group of this process, "/" is root
}

// thisHost is the machine, or the container, that this process runs on.
func thisHost() groupHost {
	h := groupHost{fs: kernelGroups{}, root: "/sys/fs/cgroup"}
	// Without it, root it is.
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if own, ok := strings.CutPrefix(line, "0::"); ok {
			h.own = strings.TrimSpace(own)
		}
	}
	return h
}

// base, of cgroup v2, is the group below which those of sandboxes are made:
// that of the service that this process is, when its manager has left it to the
// service (systemd: Delegate=yes), else the root of what is mounted. Where there
// are sandboxes already, which an earlier process made, others go, too.
func (h groupHost) base(parent string) string {
	bases := []string{h.root}
	if service := h.service(); service != "" {
		bases = []string{service, h.root}
	}
	for _, base := range bases {
		if len(childGroups(filepath.Join(base, parent))) > 0 {
			return base
		}
	}
	return bases[0]
}

// service is the delegated group that this process is in, or "". It may be in
// a group of its own just below it (systemd: DelegateSubgroup=). What is above
// belongs to others: a user's terminal is below a group that was delegated to
// the manager of all the user's services.
func (h groupHost) service() string {
	own := filepath.Join(h.root, h.own)
	for _, dir := range []string{own, filepath.Dir(own)} {
		if strings.HasPrefix(dir, h.root+"/") && h.fs.delegated(dir) {
			return dir
		}
	}
	return ""
}

// childGroups are the names of the groups below a group.
func childGroups(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// kernelGroups are those of the kernel.
type kernelGroups struct{}

func (kernelGroups) mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }

func (kernelGroups) rmdir(dir string) error { return unix.Rmdir(dir) }

func (kernelGroups) write(file, value string) error {
	return os.WriteFile(file, []byte(value), 0o644)
}

// delegated looks for the mark that systemd leaves on such groups.
func (kernelGroups) delegated(dir string) bool {
	for _, mark := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, mark, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}
