package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// footprint is the memory in bytes that would be free without a sandbox: the
// anonymous memory of its processes, shared parts counted once, and all of its
// memory files, mapped or not. Program text and the image's pages, which
// sandboxes share, do not count.
type footprint struct {
	guest int64 // the memory file of the guest: user code, its files, PicoD
	heap  int64 // the Go heap of gVisor's kernel
	rest  int64 // its other anonymous memory
	stubs int64 // the processes in which guest code runs, and the memory file they share with the kernel
	// pageTables are the host kernel's, for all of these; they are not part of the total.
	pageTables int64
}

func (f footprint) total() int64 { return f.guest + f.heap + f.rest + f.stubs }

const allParts = "guest_memory,kernel_heap,kernel_rest,stubs,page_tables_not_counted"

func (f footprint) parts() map[string]int64 {
	return map[string]int64{
		"guest_memory": f.guest, "kernel_heap": f.heap, "kernel_rest": f.rest, "stubs": f.stubs,
		"page_tables_not_counted": f.pageTables,
	}
}

// footprintOf adds up the process, gVisor's kernel, and all below it.
func footprintOf(proc string, kernel int) (footprint, error) {
	var f footprint
	children, err := childrenOf(proc)
	if err != nil {
		return f, err
	}
	files := map[uint64]bool{}
	queue := []int{kernel}
	for len(queue) > 0 {
		pid := queue[0]
		queue = append(queue[1:], children[pid]...)
		err := f.add(filepath.Join(proc, strconv.Itoa(pid)), pid == kernel, files)
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
		if err != nil && (!gone || pid == kernel) {
			return f, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
	}
	return f, nil
}

func (f *footprint) add(dir string, kernel bool, files map[uint64]bool) error {
	anonymous, err := kibibytes(filepath.Join(dir, "smaps_rollup"), "Pss_Anon:")
	if err != nil {
		return err
	}
	tables, err := kibibytes(filepath.Join(dir, "status"), "VmPTE:")
	if err != nil {
		return err
	}
	f.pageTables += tables
	guest, other := memoryFiles(filepath.Join(dir, "fd"), files)
	f.guest += guest
	f.stubs += other
	if !kernel {
		f.stubs += anonymous
		return nil
	}
	heap, err := goHeap(filepath.Join(dir, "smaps"))
	f.heap += heap
	f.rest += max(0, anonymous-heap)
	return err
}

// kibibytes reads a line of a file in /proc, in bytes.
func kibibytes(path, name string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in %s: the kernel is too old", name, filepath.Base(path))
}

// goHeap adds up the anonymous memory where Go puts its heap: in mappings
// without a name, above the program and far below where the kernel puts what
// has no address of its own.
func goHeap(smaps string) (int64, error) {
	const from, to = 1 << 36, 0x7000 << 32
	f, err := os.Open(smaps)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total int64
	inside := false
	s := bufio.NewScanner(f)
	for s.Scan() {
		words := strings.Fields(s.Text())
		if len(words) >= 5 && !strings.HasSuffix(words[0], ":") { // address, rights, offset, device, inode, and a name
			low, _, _ := strings.Cut(words[0], "-")
			at, err := strconv.ParseUint(low, 16, 64)
			inside = err == nil && at >= from && at < to && (len(words) == 5 || strings.HasPrefix(words[5], "[anon:"))
			continue
		}
		if len(words) == 3 && words[0] == "Anonymous:" && inside {
			kib, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				return 0, err
			}
			total += kib << 10
		}
	}
	return total, s.Err()
}

// memoryFiles adds up the memory files among the open files in dir that are
// not in seen yet: those of guests, and others.
func memoryFiles(dir string, seen map[uint64]bool) (guest, other int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		link, err := os.Readlink(path)
		if err != nil || !strings.HasPrefix(link, "/memfd:") {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || seen[st.Ino] {
			continue
		}
		seen[st.Ino] = true
		if strings.HasPrefix(link, "/memfd:runsc-memory") {
			guest += st.Blocks * 512
		} else {
			other += st.Blocks * 512
		}
	}
	return guest, other
}

// sandboxPID is gVisor's kernel for a sandbox that runs, by the driver's
// record in the server's data folder.
func sandboxPID(dataDir, sandboxID string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dataDir, "sandboxes", sandboxID, "record.json"))
	if err != nil {
		return 0, fmt.Errorf("find process of sandbox: %w", err)
	}
	var rec struct {
		At *struct {
			PID int `json:"pid"`
		} `json:"at"`
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return 0, fmt.Errorf("find process of sandbox: %w", err)
	}
	if rec.At == nil {
		return 0, fmt.Errorf("find process of sandbox %s: it is paused", sandboxID)
	}
	return rec.At.PID, nil
}

// sentriesOf returns the processes that are gVisor's kernel for a stock sandbox.
func sentriesOf(proc, id string) (pids []int, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		program, rest, _ := bytes.Cut(raw, []byte{0})
		if err == nil && string(program) == "runsc-sandbox" && bytes.Contains(rest, []byte(id)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// childrenOf lists the children of every process.
func childrenOf(proc string) (map[int][]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(filepath.Join(proc, e.Name(), "status")); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	return children, nil
}

func parentOf(status string) (int, bool) {
	data, err := os.ReadFile(status)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			return pid, err == nil
		}
	}
	return 0, false
}
