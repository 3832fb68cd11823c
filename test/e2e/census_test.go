package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// census counts what a server and its sandboxes have on the machine.
type census struct {
	processes int // kernels of sandboxes, and what belongs to none of them
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
func (s *server) sandboxes() []int { return slices.DeleteFunc(s.processes(), notSandbox) }

func notSandbox(pid int) bool {
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return !bytes.HasPrefix(args, []byte("runsc-sandbox\x00"))
}

// counted lists the kernels of sandboxes and what belongs to none of them.
// How many processes a kernel has for those inside is its own affair.
func (s *server) counted() []int {
	return slices.DeleteFunc(s.processes(), func(pid int) bool {
		if !notSandbox(pid) {
			return false
		}
		for up := parent(pid); up > 1; up = parent(up) {
			if !notSandbox(up) {
				return true
			}
		}
		return false
	})
}

// parent is 0 when there is none any more.
func parent(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	up, _ := strconv.Atoi(fields[1])
	return up
}

func (s *server) census() census {
	var c census
	c.processes = len(s.counted())
	// Also the mounts of the server's own namespace, should it have one.
	for _, pid := range []int{os.Getpid(), s.cmd.Process.Pid} {
		table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		c.mounts += strings.Count(string(table), s.dir)
	}
	// Of either version, and below a service.
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/", "/sys/fs/cgroup/*/*/"} {
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

// settled waits until the counts are what they were. Open files are counted
// where it matters: the server keeps some ready for what comes next.
func (s *server) settled(t *testing.T, want census) {
	t.Helper()
	var got census
	want.fds = 0
	for deadline := time.Now().Add(patience / 3); ; time.Sleep(20 * time.Millisecond) {
		got = s.census()
		got.fds = 0
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("left on the machine: %v; it was: %v", got, want)
	for _, pid := range s.counted() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		t.Logf("process %d: %.400q", pid, args)
	}
}

// entries are the names in a folder of the server's data.
func (s *server) entries(folder string) []string {
	found, err := os.ReadDir(filepath.Join(s.data, folder))
	if err != nil {
		return []string{err.Error()}
	}
	names := []string{}
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

// empty checks that nothing of a session is on the disk.
func (s *server) empty(t *testing.T) {
	t.Helper()
	for _, folder := range []string{"sandboxes", "runs", "snapshots"} {
		if names := s.entries(folder); len(names) > 0 {
			t.Errorf("left behind in %s: %v", folder, names)
		}
	}
}
