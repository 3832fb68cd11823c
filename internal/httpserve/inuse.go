package httpserve

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
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
	out.PID, out.Command = portHolder(ctx, "/proc", uint16(port))
	out.AgentCube = answersAsAgentCube(ctx, addr)
	return out
}

// holderTimeout bounds the search for who holds an address.
const holderTimeout = 10 * time.Second

// portHolder finds a process that listens on a TCP port: the sockets are in
// proc/net/tcp, their owners among the open files of all processes. Of processes
// that hold none nothing else is read: what lies in the memory of one, such as its
// arguments, can be kept from readers for long.
func portHolder(ctx context.Context, proc string, port uint16) (pid int, command string) {
	ctx, cancel := context.WithTimeout(ctx, holderTimeout)
	defer cancel()
	sockets := listeningSockets(proc, port)
	if len(sockets) == 0 {
		return 0, ""
	}
	processes, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return 0, ""
	}
	// Who listens has usually begun with it: first the few files that each process
	// opened first, as some have thousands.
	for _, most := range []int{64, math.MaxInt} {
		for _, process := range processes {
			if ctx.Err() != nil {
				return 0, ""
			}
			pid, err := strconv.Atoi(filepath.Base(process))
			if err == nil && hasSocket(process, sockets, most) {
				return pid, commandOf(ctx, process)
			}
		}
	}
	return 0, ""
}

// listeningSockets are the sockets that listen on a port, as links to open
// files name them.
func listeningSockets(proc string, port uint16) map[string]bool {
	sockets := map[string]bool{}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(filepath.Join(proc, table))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if inode, ok := listeningInode(lines.Text(), port); ok {
				sockets["socket:["+inode+"]"] = true
			}
		}
		f.Close()
	}
	return sockets
}

// hasSocket reports whether one of the sockets is among the open files of a
// process, of which most are looked at, the lowest numbers first.
func hasSocket(process string, sockets map[string]bool, most int) bool {
	dir, err := os.Open(filepath.Join(process, "fd"))
	if err != nil {
		return false
	}
	defer dir.Close()
	for most > 0 {
		names, err := dir.Readdirnames(min(most, 100))
		for _, name := range names {
			if target, err := os.Readlink(filepath.Join(dir.Name(), name)); err == nil && sockets[target] {
				return true
			}
		}
		if err != nil {
			return false
		}
		most -= len(names)
	}
	return false
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
// by, without the secrets that a whole command line may hold. It is the name alone
// when the arguments, which lie in the memory of the process, are not to be had
// before ctx ends; what waits for them then ends when the kernel lets it.
func commandOf(ctx context.Context, process string) string {
	read := make(chan []byte, 1)
	go func() {
		data, _ := readStart(filepath.Join(process, "cmdline"))
		read <- data
	}()
	var data []byte
	select {
	case data = <-read:
	case <-ctx.Done():
	}
	if len(data) == 0 {
		name, _ := readStart(filepath.Join(process, "comm"))
		return strings.TrimSpace(string(name))
	}
	args := strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
	if len(args) > 2 {
		args = append(args[:2:2], "...")
	}
	return strings.Join(args, " ")
}

// readStart reads a file of the kernel's, but not more of it than can be shown.
func readStart(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4<<10))
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
