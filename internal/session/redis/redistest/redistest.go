// Package redistest starts real Redis and Valkey servers for tests: single ones,
// clusters, and masters that a sentinel watches. They listen on the loopback
// interface, keep their files in a folder of the test, and end with it.
//
// The programs come from Debian's redis-tools or redis-server, and valkey-tools or
// valkey-server. A machine that has none fails the test.
package redistest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guard bounds how long a server may take to start or end.
const guard = 30 * time.Second

// Program is a server program.
type Program struct {
	// Name is "redis" or "valkey".
	Name string
	path string
}

// Programs are those that this machine has, at least one.
func Programs(t testing.TB) []Program {
	t.Helper()
	var found []Program
	for _, name := range []string{"redis", "valkey"} {
		// In Debian the server is the program that checks database files, by another
		// name; the package with that other name starts a service too.
		for _, file := range []string{name + "-server", name + "-check-rdb"} {
			if path, err := exec.LookPath(file); err == nil {
				found = append(found, Program{Name: name, path: path})
				break
			}
		}
	}
	if len(found) == 0 {
		t.Fatal("there is neither Redis nor Valkey here: make deps installs Debian's redis-tools")
	}
	return found
}

// Any is one of Programs, for tests that need only one.
func Any(t testing.TB) Program {
	t.Helper()
	return Programs(t)[0]
}

// Server is a running server.
type Server struct {
	// Port is on 127.0.0.1; it speaks TLS if the options have made it so.
	Port int
	// Dir holds the files of the server.
	Dir string

	program Program
	config  string // a file that comes before args, or ""
	args    []string
	mu      sync.Mutex
	running *process
}

type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	output *output
}

// output is what a server has printed, for when it does not start.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start starts a server that keeps nothing on disk, with more options of
// its configuration: "--appendonly", "yes", and so on. It ends with the test.
func (p Program) Start(t testing.TB, options ...string) *Server {
	t.Helper()
	s := &Server{Dir: t.TempDir(), program: p}
	s.begin(t, func(port int) []string {
		return append(append([]string{"--port", strconv.Itoa(port)}, inMemory()...), options...)
	})
	return s
}

// inMemory are options by which nothing is kept on disk.
func inMemory() []string { return []string{"--save", "", "--appendonly", "no"} }

// begin starts a server on a port that nobody has; should somebody have been
// faster, on another one.
func (s *Server) begin(t testing.TB, options func(port int) []string) {
	t.Helper()
	t.Cleanup(func() { s.Kill(t) })
	for range 5 {
		s.Port = FreePort(t)
		s.args = append([]string{"--bind", "127.0.0.1", "--dir", s.Dir, "--daemonize", "no"}, options(s.Port)...)
		err := s.start()
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "in use") {
			t.Fatal(err)
		}
	}
	t.Fatal("no free port for a server")
}

func (s *Server) start() error {
	args := s.args
	if s.config != "" {
		args = append([]string{s.config}, args...)
	}
	p := &process{cmd: exec.CommandContext(context.Background(), s.program.path, args...), ended: make(chan struct{}), output: &output{}}
	p.cmd.Args[0] = s.program.Name + "-server"
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = s.Dir, p.output, p.output
	// Should the test be killed, its servers go with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.program.path, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	s.mu.Lock()
	s.running = p
	s.mu.Unlock()
	for deadline := time.Now().Add(guard); ; {
		select {
		case <-p.ended:
			return fmt.Errorf("start %s: it ended by itself: %s", s.program.Name, p.output)
		case <-time.After(2 * time.Millisecond):
		}
		conn, err := s.dial()
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("start %s: it does not listen: %s", s.program.Name, p.output)
		}
	}
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

func (s *Server) dial() (net.Conn, error) {
	return (&net.Dialer{Timeout: guard}).DialContext(context.Background(), "tcp", s.Addr())
}

// Kill ends the server as kill -9 does; one that has ended it leaves alone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	p := s.running
	s.running = nil
	s.mu.Unlock()
	if p == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill %s: %v", s.program.Name, err)
	}
	<-p.ended
}

// Restart starts a server that was killed, on its port and its files; options come
// after those that it had.
func (s *Server) Restart(t testing.TB, options ...string) {
	t.Helper()
	s.args = append(s.args, options...)
	if err := s.start(); err != nil {
		t.Error(err)
	}
}

// Freeze stops the server without ending it; connections to it stay. Thaw lets it
// go on.
func (s *Server) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.running.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// FreePort is one that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Do sends a command past every client library, without TLS and password, and
// returns its answer: of an array, the elements by lines. An answer that is an
// error fails the test.
func (s *Server) Do(t testing.TB, args ...string) string {
	t.Helper()
	answer, err := s.ask(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}

func (s *Server) ask(args ...string) (string, error) {
	conn, err := s.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(guard)); err != nil {
		return "", err
	}
	text := fmt.Sprintf("*%d\r\n", len(args))
	for _, arg := range args {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return "", err
	}
	return read(bufio.NewReader(conn))
}

// read takes apart one answer.
func read(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	kind, rest := line[:1], line[1:]
	switch kind {
	case "+", ":":
		return rest, nil
	case "-":
		return "", errors.New(rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return "", err
	}
	if kind == "$" {
		data := make([]byte, n+2)
		_, err := io.ReadFull(r, data)
		return string(data[:n]), err
	}
	var elements []string
	for range n {
		element, err := read(r)
		if err != nil {
			return "", err
		}
		elements = append(elements, element)
	}
	return strings.Join(elements, "\n"), nil
}

// await repeats a question until the answer is as it should be.
func (s *Server) await(t testing.TB, good func(string) bool, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(guard); ; time.Sleep(20 * time.Millisecond) {
		answer, err := s.ask(args...)
		if err == nil && good(answer) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v: %s, %v", args, answer, err)
		}
	}
}

// Cluster starts a cluster of as many masters as it is told.
func (p Program) Cluster(t testing.TB, masters int, options ...string) []*Server {
	t.Helper()
	const slots = 16384
	all := make([]*Server, masters)
	bus := make([]int, masters)
	for i := range all {
		all[i] = &Server{Dir: t.TempDir(), program: p}
		all[i].begin(t, func(port int) []string {
			bus[i] = FreePort(t)
			return append([]string{
				"--port", strconv.Itoa(port), "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus[i]),
				"--cluster-node-timeout", "2000", "--save", "",
			}, options...)
		})
		all[i].Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/masters), strconv.Itoa((i+1)*slots/masters-1))
		all[i].Do(t, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i > 0 {
			all[i].Do(t, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(all[0].Port), strconv.Itoa(bus[0]))
		}
	}
	for _, s := range all {
		s.await(t, func(info string) bool {
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", masters))
		}, "CLUSTER", "INFO")
	}
	return all
}

// Sentinel starts a master with a replica, and a sentinel that knows them by the
// name "cube" and makes the replica the master soon after the master is gone.
func (p Program) Sentinel(t testing.TB) (sentinel, master, replica *Server) {
	t.Helper()
	master = p.Start(t)
	replica = p.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(master.Port))
	replica.await(t, func(info string) bool { return strings.Contains(info, "master_link_status:up") }, "INFO", "replication")
	sentinel = &Server{Dir: t.TempDir(), program: p}
	config := filepath.Join(sentinel.Dir, "sentinel.conf")
	sentinel.begin(t, func(port int) []string {
		text := fmt.Sprintf("port %d\nsentinel monitor cube 127.0.0.1 %d 1\nsentinel down-after-milliseconds cube 500\n"+
			"sentinel failover-timeout cube 5000\n", port, master.Port)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sentinel.config = config
		return []string{"--sentinel"}
	})
	return sentinel, master, replica
}
