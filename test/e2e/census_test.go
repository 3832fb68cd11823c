package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// census counts what a server and its sandboxes have on the machine.
type census struct {
	processes int // of sandboxes; the server's own is not counted
	mounts    int
	cgroups   int
	files     int // below the server's folders
	fds       int // open in the server
}

func (c census) String() string {
	return fmt.Sprintf("%d processes, %d mounts, %d control groups, %d files, %d open files of the server",
		c.processes, c.mounts, c.cgroups, c.files, c.fds)
}

// group is the name of the control group that holds the server's sandboxes.
func (s *server) group() string {
	sum := sha256.Sum256([]byte(filepath.Join(s.data, "sandboxes")))
	return "agentcube-" + hex.EncodeToString(sum[:4])
}

// processes lists what runs for sandboxes of this server: what is in their
// control groups, or names the server's folder among its arguments.
func (s *server) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == s.cmd.Process.Pid || pid == os.Getpid() {
			continue
		}
		groups, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if bytes.Contains(groups, []byte(s.group())) || bytes.Contains(args, []byte(s.data+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// sandboxes lists the processes that are the kernels of sandboxes.
func (s *server) sandboxes() []int {
	var pids []int
	for _, pid := range s.processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.HasPrefix(args, []byte("runsc-sandbox\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (s *server) census() census {
	var c census
	c.processes = len(s.processes())
	// Also the mounts of the server's own namespace, should it have one.
	for _, pid := range []int{os.Getpid(), s.cmd.Process.Pid} {
		table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		c.mounts += strings.Count(string(table), s.dir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, _ := filepath.Glob(pattern + s.group())
		for _, dir := range dirs {
			_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					c.cgroups++
				}
				return nil
			})
		}
	}
	for _, dir := range []string{s.data, s.path("tmp"), s.path("x")} {
		_ = filepath.WalkDir(dir, func(string, fs.DirEntry, error) error {
			c.files++
			return nil
		})
	}
	open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	c.fds = len(open)
	return c
}

// settled waits until the counts are what they were; fewer open files will do.
func (s *server) settled(t *testing.T, want census) {
	t.Helper()
	var got census
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got = s.census()
		if got.fds <= want.fds {
			got.fds = want.fds
		}
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("left on the machine: %v; it was: %v", got, want)
	for _, pid := range s.processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		t.Logf("process %d: %q", pid, args)
	}
}
