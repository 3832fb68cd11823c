package httpserve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// AddrInUseError tells who holds an address that could not be taken.
type AddrInUseError struct {
	Addr string
	// PID and Command are of the process that listens; 0 and "" when it cannot be seen.
	PID     int
	Command string
	// AgentCube: it answers as AgentCube does.
	AgentCube bool
	Err       error
}

// Error implements error.
func (e *AddrInUseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen on %s: address already in use", e.Addr)
	switch {
	case e.AgentCube && e.PID != 0:
		fmt.Fprintf(&b, ": AgentCube is already running there (process %d)", e.PID)
	case e.AgentCube:
		b.WriteString(": AgentCube is already running there")
	case e.PID != 0:
		fmt.Fprintf(&b, " by process %d (%s)", e.PID, e.Command)
	default:
		b.WriteString(" by a process that this user cannot see")
	}
	return b.String()
}

// Unwrap gives the error of the operating system.
func (e *AddrInUseError) Unwrap() error { return e.Err }

func describeHolder(ctx context.Context, addr string, err error) error {
	out := &AddrInUseError{Addr: addr, Err: err}
	_, portText, splitErr := net.SplitHostPort(addr)
	port, convErr := strconv.ParseUint(portText, 10, 16)
	if splitErr != nil || convErr != nil {
		return out
	}
	out.PID, out.Command = portHolder("/proc", uint16(port))
	out.AgentCube = answersAsAgentCube(ctx, addr)
	return out
}

// portHolder finds a process that listens on a TCP port: the sockets are in
// proc/net/tcp, their owners among the open files of all processes.
func portHolder(proc string, port uint16) (pid int, command string) {
	inodes := map[string]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		data, err := os.ReadFile(filepath.Join(proc, table)) //nolint:gosec // a fixed path of the kernel
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if inode, ok := listeningInode(line, port); ok {
				inodes["socket:["+inode+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		n, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		return n, commandOf(dir)
	}
	return 0, ""
}

// listeningInode reads one line of net/tcp: "sl local rem st ... inode".
func listeningInode(line string, port uint16) (string, bool) {
	const stateListen = "0A"
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != stateListen {
		return "", false
	}
	_, hexPort, ok := strings.Cut(f[1], ":")
	if !ok {
		return "", false
	}
	p, err := strconv.ParseUint(hexPort, 16, 16)
	return f[9], err == nil && uint16(p) == port
}

// commandOf is the program and first argument of a process: enough to know it
// by, without the secrets that a whole command line may hold.
func commandOf(procDir string) string {
	data, err := os.ReadFile(filepath.Join(procDir, "cmdline")) //nolint:gosec // a path of the kernel
	if err != nil || len(data) == 0 {
		name, _ := os.ReadFile(filepath.Join(procDir, "comm")) //nolint:gosec // as above
		return strings.TrimSpace(string(name))
	}
	args := strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
	if len(args) > 2 {
		args = append(args[:2:2], "...")
	}
	return strings.Join(args, " ")
}

func answersAsAgentCube(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	host, port, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/health/live", nil)
	if err != nil {
		return false
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 256))
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK && string(body) == `{"status":"alive"}`
}
