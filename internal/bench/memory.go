package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settle is how long a new sandbox is left alone before its memory is looked at.
const settle = 2 * time.Second

// memory measures what an idle session costs.
func (r *runner) memory(ctx context.Context) ([]Result, error) {
	ops := []op{r.idleSession}
	if r.stock != nil {
		ops = append(ops, r.idleStock)
	}
	if err := r.take(ctx, min(r.N, heavyRuns), 1, ops...); err != nil {
		return nil, err
	}
	return []Result{r.result(IdleMemory, "MiB", 1, refStockPython)}, nil
}

func (r *runner) idleSession(ctx context.Context, _ int) (err error) {
	s, remove, err := r.session(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	return r.recordMemory(ctx, IdleMemory, s.Info.SandboxID)
}

func (r *runner) idleStock(ctx context.Context, _ int) error {
	c, err := r.stock.start(ctx, []string{"python3", "-c", "print(1, flush=True); import time; time.sleep(3600)"})
	if err != nil {
		return err
	}
	defer c.kill()
	return r.recordMemory(ctx, refStockPython, c.id)
}

func (r *runner) recordMemory(ctx context.Context, series, sandboxID string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	n, err := ownMemory("/proc", sandboxID)
	if err != nil {
		return err
	}
	r.record(series, float64(n)/(1<<20))
	return nil
}

// ownMemory is the memory in bytes that would be free without the sandbox:
// the anonymous memory of its processes, shared parts counted once, and all
// of its memory files, mapped or not. Program text and the image's pages, which
// sandboxes share, do not count.
func ownMemory(proc, sandboxID string) (int64, error) {
	pids, err := processesOf(proc, sandboxID)
	if err != nil {
		return 0, err
	}
	if len(pids) == 0 {
		return 0, fmt.Errorf("find processes of sandbox %s: none can be seen; bench has to run as root where the sandboxes are", sandboxID)
	}
	var total int64
	files := map[uint64]bool{}
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		anonymous, err := anonymousMemory(filepath.Join(dir, "smaps_rollup"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		total += anonymous + memoryFiles(filepath.Join(dir, "fd"), files)
	}
	return total, nil
}

// anonymousMemory reads the proportional share of anonymous memory.
func anonymousMemory(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "Pss_Anon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no Pss_Anon: the kernel is too old")
}

// memoryFiles adds up the memory files among the open files in dir that are
// not in seen yet.
func memoryFiles(dir string, seen map[uint64]bool) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var total int64
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if link, err := os.Readlink(path); err != nil || !strings.HasPrefix(link, "/memfd:") {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Blocks * 512
		}
	}
	return total
}

// processesOf returns the processes whose command line or control group names
// the sandbox, and all processes below them.
func processesOf(proc, sandboxID string) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	var queue []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		if parent, ok := parentOf(filepath.Join(dir, "status")); ok {
			children[parent] = append(children[parent], pid)
		}
		if isPart(dir, sandboxID) {
			queue = append(queue, pid)
		}
	}
	found := map[int]bool{}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if !found[pid] {
			found[pid] = true
			queue = append(queue, children[pid]...)
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

// isPart reports whether the process in dir belongs to the sandbox. The stock
// command line that waits for a sandbox is no part of it.
func isPart(dir, sandboxID string) bool {
	if group, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil && bytes.Contains(group, []byte("/"+sandboxID)) {
		return true
	}
	raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(raw) == 0 {
		return false
	}
	program, _, _ := bytes.Cut(raw, []byte{0})
	part := string(program) == "runsc-sandbox" || string(program) == "runsc-gofer"
	return part && bytes.Contains(raw, []byte(sandboxID))
}

func parentOf(status string) (int, bool) {
	f, err := os.Open(status)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "PPid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			return pid, err == nil
		}
	}
	return 0, false
}
