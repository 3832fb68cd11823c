package proc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// markerVar is set for commands where control groups cannot be had, so that
// processes that left their session and lost their parent are still found.
const markerVar = "AGENTCUBE_EXEC"

// process is what the walk of /proc needs to know about one.
type process struct {
	pid, parent, group, session int
	zombie                      bool
}

// killTree ends the descendants of root, the members of its session and what
// carries the marker; root may be 0 for the marker alone. It returns when none is left or patience ends.
func killTree(root int, marker string, patience time.Duration) {
	end := time.Now().Add(patience)
	// A process in the middle of execve shows no marker for a moment: only the
	// second look that finds nothing is believed.
	empty := 0
	for pass := 0; ; pass++ {
		if root > 0 {
			_ = unix.Kill(-root, unix.SIGKILL)
		}
		pids := treeOf(root, marker)
		if len(pids) == 0 {
			empty++
		} else {
			empty = 0
		}
		if empty == 2 || time.Now().After(end) {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if pass > 0 || empty > 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// treeOf lists the living processes of a command.
func treeOf(root int, marker string) []int {
	all := processes()
	in := map[int]bool{root: true}
	for grown := root > 0; grown; {
		grown = false
		for _, p := range all {
			if !in[p.pid] && (in[p.parent] || p.group == root || p.session == root) {
				in[p.pid], grown = true, true
			}
		}
	}
	var pids []int
	for _, p := range all {
		if p.pid == os.Getpid() || p.zombie {
			continue
		}
		if in[p.pid] || carries(p.pid, marker) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// carries reports whether a process was started with the marker.
func carries(pid int, marker string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && marker != "" && bytes.Contains(env, []byte(marker))
}

// processes reads what /proc shows; processes that end meanwhile are left out.
func processes() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parseStat(pid, string(stat)); ok {
			all = append(all, p)
		}
	}
	return all
}

// alive reports whether a process has not ended yet.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	p, ok := parseStat(pid, string(stat))
	return ok && !p.zombie
}

// parseStat reads the fields behind the name, which may itself hold spaces and
// closing parentheses.
func parseStat(pid int, stat string) (process, bool) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 4 {
		return process{}, false
	}
	p := process{pid: pid, zombie: f[0] == "Z" || f[0] == "X"}
	for i, to := range []*int{&p.parent, &p.group, &p.session} {
		n, err := strconv.Atoi(f[i+1])
		if err != nil {
			return process{}, false
		}
		*to = n
	}
	return p, true
}
