package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/sandbox/gvisor/agent"
)

// process is a sentry process, held by a pidfd so that its number cannot come
// to mean another process.
type process struct {
	pid  int
	file *os.File // the pidfd, in Go's poller
	how  string   // it ended; set by wait, "" when that is not known
}

// openProcess takes hold of a process; when start is not zero it must be the
// process's start time.
func openProcess(pid int, start uint64) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}
	if start != 0 {
		if got, err := startTime(pid); err != nil || got != start {
			p.close()
			return nil, fmt.Errorf("open process %d: %w", pid, unix.ESRCH)
		}
	}
	return p, nil
}

func (p *process) close() { _ = p.file.Close() }

// wait returns when the process has ended, or with an error when the process
// was closed first. A child is reaped.
func (p *process) wait() error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	err = conn.Read(readable)
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	// Not a child when an earlier AgentCube started it: init reaps it then.
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		switch {
		case pid != p.pid:
		case status.Signaled():
			p.how = unix.SignalName(status.Signal())
		case status.Exited():
			p.how = fmt.Sprintf("exit status %d", status.ExitStatus())
		}
		return nil
	}
}

// ended reports whether the process is over, collected or not.
func (p *process) ended() (over bool) {
	conn, err := p.file.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { over = readable(fd) })
	}
	return over && err == nil
}

// readable is what a pidfd becomes when its process ends.
func readable(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

func (p *process) kill() error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	var sigErr error
	err = conn.Control(func(fd uintptr) { sigErr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	if err == nil {
		err = sigErr
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// startTime is when a process was started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	_, fields, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// readStat returns a process's name and the fields of proc_pid_stat(5) after
// it: the state comes first, the parent second, the start time twentieth.
func readStat(pid int) (name string, fields []string, err error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", nil, fmt.Errorf("read process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return "", nil, fmt.Errorf("read process %d: malformed stat", pid)
	}
	fields = strings.Fields(string(data[end+1:]))
	const least = 20
	if len(fields) < least {
		return "", nil, fmt.Errorf("read process %d: malformed stat", pid)
	}
	return string(data[open+1 : end]), fields, nil
}

// bootID tells this boot of the machine from every other.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// descendants is a process and everything below it.
func descendants(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		dir := filepath.Join("/proc", strconv.Itoa(out[i]), "task")
		threads, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, t := range threads {
			data, err := os.ReadFile(filepath.Join(dir, t.Name(), "children"))
			if err != nil {
				continue
			}
			for _, f := range strings.Fields(string(data)) {
				if child, err := strconv.Atoi(f); err == nil && !slices.Contains(out, child) {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

// sentriesBelow finds sentry processes whose bundle is below dir, by bundle
// directory. They are known from the command line that gVisor gives them.
func sentriesBelow(dir string) (map[string][]int, error) {
	candidates, err := sentries()
	if err != nil {
		return nil, err
	}
	found := map[string][]int{}
	prefix := "--bundle=" + dir + "/"
	for _, pid := range candidates {
		for arg := range strings.SplitSeq(string(commandLine(pid)), "\x00") {
			if rest, ok := strings.CutPrefix(arg, prefix); ok {
				id, _, _ := strings.Cut(rest, "/")
				found[id] = append(found[id], pid)
			}
		}
	}
	return found, nil
}

// sentries lists processes that can be sentries: those that were started as
// /proc/self/exe or by the sentry's own name, less their own children. Command lines are not read here: a
// guest that keeps the memory map of its stub processes busy could hold that up.
func sentries() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, fields, err := readStat(pid)
		if err != nil || (name != "exe" && name != agent.SentryFile) {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
	}
	var out []int
	for pid, parent := range parents {
		if _, below := parents[parent]; !below {
			out = append(out, pid)
		}
	}
	return out, nil
}

// commandLine is a process's command line, its parts ended by NUL. A process
// in the middle of execve has none for a moment.
func commandLine(pid int) []byte {
	for range 100 {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil || len(data) > 0 {
			return data
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// killAll ends processes and waits until they are gone.
func killAll(ctx context.Context, pids []int) error {
	for _, pid := range pids {
		p, err := openProcess(pid, 0)
		if err != nil {
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			return err
		}
		if err := killAndWait(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func killAndWait(ctx context.Context, p *process) error {
	defer p.close()
	if err := p.kill(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	if err := p.wait(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("wait for process %d: %w", p.pid, ctx.Err())
		}
		return err
	}
	return nil
}
