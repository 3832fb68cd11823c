package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// battlefield is what hostile code is let loose in: a session of its own on
// a server where another session lives, and things of the host that it must
// not get at.
type battlefield struct {
	srv     *server
	c       *client.Client
	witness *client.Session
	base    census // with the witness, and without the hostile session
	secret  string // content of a file of the host
	file    string // path of that file
	host    net.Listener
	reached chan struct{} // gets an element when the host is reached
}

// hostile is one attack from inside a sandbox.
type hostile struct {
	name     string
	template string // small unless said
	// python is the program that attacks. HOSTFILE, HOSTPORT are set in its
	// environment.
	python  string
	timeout time.Duration
	// want are lines that it prints, in this order; what else it prints does
	// not matter, unless exact.
	want []string
	// code is its exit code, unless check is set.
	code int
	// check, when set, looks at the outcome itself.
	check func(t *testing.T, f *battlefield, s *client.Session, res client.ExecResult, err error)
	// api, when set, attacks through the API after the program was run.
	api func(t *testing.T, f *battlefield, s *client.Session)
	// dies: the session does not outlive the attack.
	dies bool
}

// TestHostileCode: whatever code in one session does, the machine and the
// other sessions stay well, and whoever ran it gets a clear answer.
func TestHostileCode(t *testing.T) {
	f := newBattlefield(t)
	for _, list := range [][]hostile{escapes(), agentAttacks(), exhaustion(), fileAttacks()} {
		for _, h := range list {
			t.Run(h.name, func(t *testing.T) { f.fight(t, h) })
		}
	}
}

func newBattlefield(t *testing.T) *battlefield {
	f := &battlefield{srv: newServer(t), secret: "secret-of-the-host-5309", reached: make(chan struct{}, 1024)}
	f.file = f.srv.path("secret")
	if err := os.WriteFile(f.file, []byte(f.secret), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.host, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.host.Close() })
	go func() {
		for {
			conn, err := f.host.Accept()
			if err != nil {
				return
			}
			conn.Close()
			f.reached <- struct{}{}
		}
	}()
	f.srv.prepare(t, "small", "as-root")
	f.c = f.srv.client(t)
	f.witness = create(t, f.c, client.CreateOptions{})
	output(t, f.witness, "echo well > file; sleep 100000 >/dev/null 2>&1 & echo $! > pid")
	// What the first session of a template makes stays: not to be counted.
	s := create(t, f.c, client.CreateOptions{Template: "small"})
	output(t, s, "true")
	discard(t, s)
	f.c.Close()
	f.base = f.srv.census()
	return f
}

// fight runs one attack and looks at the battlefield afterwards.
func (f *battlefield) fight(t *testing.T, h hostile) {
	template := h.template
	if template == "" {
		template = "small"
	}
	s, err := f.c.CreateSession(t.Context(), client.CreateOptions{Template: template})
	if err != nil {
		t.Fatal(err)
	}
	defer discard(t, s)
	if h.python != "" {
		f.attack(t, s, h)
	}
	if h.api != nil {
		h.api(t, f, s)
	}
	if !h.dies {
		// The session that was attacked from inside goes on, too.
		if got := output(t, s, "echo still here"); got != "still here\n" {
			t.Errorf("the attacked session answers %q", got)
		}
	}
	discard(t, s)
	if got := output(t, f.witness, "cat file; kill -0 $(cat pid) && echo alive"); got != "well\nalive\n" {
		t.Errorf("the other session answers %q", got)
	}
	select {
	case <-f.reached:
		t.Error("the host was reached")
	default:
	}
	f.c.Close()
	f.srv.settled(t, f.base)
}

func (f *battlefield) attack(t *testing.T, s *client.Session, h hostile) {
	t.Helper()
	_, port, err := net.SplitHostPort(f.host.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	timeout := h.timeout
	if timeout == 0 {
		timeout = patience
	}
	res, err := s.Execute(t.Context(), client.ExecRequest{
		Command: []string{"python3", "-c", prelude + h.python}, Timeout: timeout,
		Env: map[string]string{"HOSTFILE": f.file, "HOSTPORT": port},
	})
	for _, secret := range []string{f.secret, f.srv.token, "PRIVATE KEY"} {
		if strings.Contains(string(res.Stdout)+string(res.Stderr), secret) {
			t.Errorf("the sandbox printed %q", secret)
		}
	}
	if h.check != nil {
		h.check(t, f, s, res, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	rest := string(res.Stdout)
	for _, line := range h.want {
		_, after, found := strings.Cut(rest, line+"\n")
		if !found {
			t.Errorf("the program did not print %q; it printed %q, %q", line, res.Stdout, res.Stderr)
			break
		}
		rest = after
	}
	if res.ExitCode != h.code {
		t.Errorf("the program ended with %d, want %d; it printed %.2000q, %.2000q", res.ExitCode, h.code, res.Stdout, res.Stderr)
	}
}

// prelude is what the attacking programs share: refused prints what became of
// an attempt, and fails the program when it succeeded.
const prelude = `
import ctypes, errno, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def refused(what, attempt, *args):
    try:
        got = attempt(*args)
    except OSError as e:
        print(what, "refused", flush=True)
        print(what, e, file=sys.stderr, flush=True)
        return
    print(what, "SUCCEEDED", repr(got)[:200], flush=True)
    sys.exit(77)
def syscall(number, *args):
    got = libc.syscall(number, *args)
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got
def read(path):
    with open(path, "rb") as f:
        return f.read(4096)
def connect(host, port, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(20)
        s.connect((host, int(port)))
        s.send(b"x")
`

// wantOutOfMemory: the program came as far as the milestone, and did not get all
// the memory it wanted. It was refused more, was killed, or its session has ended
// and everybody who asks is told why, which says that there was no more.
func wantOutOfMemory(milestone string) func(*testing.T, *battlefield, *client.Session, client.ExecResult, error) {
	return func(t *testing.T, f *battlefield, s *client.Session, res client.ExecResult, err error) {
		t.Helper()
		if err == nil {
			if !strings.Contains(string(res.Stdout), milestone+"\n") {
				t.Errorf("the program did not print %q: %.500q, %.500q", milestone, res.Stdout, res.Stderr)
			}
			killed := res.ExitCode == killedExitCode || res.ExitCode == killedStatus
			refused := res.ExitCode == 1 && strings.Contains(string(res.Stderr), "MemoryError")
			if !killed && !refused {
				t.Errorf("the program ended with %d: %.500q", res.ExitCode, res.Stderr)
			}
			_, err = s.Execute(t.Context(), client.ExecRequest{Command: []string{"true"}})
		}
		if err == nil {
			return // the session goes on
		}
		var answer *client.APIError
		if !errors.As(err, &answer) || answer.Text == "" {
			t.Errorf("the request got no clear answer: %v", err)
		}
		if rec := awaitEnd(t, f.c, s.ID); rec.Fate != api.FateOutOfMemory {
			t.Errorf("session ended as %s: %s", rec.Fate, rec.Reason)
		}
		wantGone(t, s, api.FateOutOfMemory)
	}
}

const (
	// killedExitCode is what is said of a program that a signal ended.
	killedExitCode = -1
	// killedStatus is what programs end with that saw another one be killed.
	killedStatus = 128 + 9
)

// wantTimedOut: the program was ended at its time-out, with all it started.
func wantTimedOut(t *testing.T, _ *battlefield, _ *client.Session, res client.ExecResult, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != client.TimedOutExitCode || !strings.Contains(string(res.Stderr), "timed out") {
		t.Errorf("the program ended with %d: %.500q", res.ExitCode, res.Stderr)
	}
}

// wantTimedOutAndGone is wantTimedOut with nothing left running.
func wantTimedOutAndGone(t *testing.T, f *battlefield, s *client.Session, res client.ExecResult, err error) {
	t.Helper()
	wantTimedOut(t, f, s, res, err)
	awaitProcesses(t, s)
}

// awaitProcesses waits until nothing runs in the sandbox but PicoD, the shell
// that looks, and the two interpreters that PicoD keeps ready, which are known
// by being closed to their own user.
func awaitProcesses(t *testing.T, s *client.Session) {
	t.Helper()
	const look = "closed=0; for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || { " +
		"grep -sq '^State:.[RSDT]' $p/status && ! readlink $p/exe >/dev/null && [ $((++closed)) -le 2 ]; } || echo $p; done"
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"bash", "-c", look}})
		if err == nil && res.ExitCode == 0 && len(res.Stdout) == 0 {
			return
		}
		if errors.Is(err, client.ErrSessionEnded) || time.Now().After(deadline) {
			t.Fatalf("processes are left: %.500q, %v", res.Stdout, err)
		}
	}
}

// wantStatus checks that an error is an answer with a status and a text.
func wantStatus(t *testing.T, what string, err error, status int) {
	t.Helper()
	var answer *client.APIError
	if !errors.As(err, &answer) || answer.Status != status || answer.Text == "" {
		t.Errorf("%s: %v, want an answer %d", what, err, status)
	}
}

// leftovers are the names in the workspace, hidden ones too.
func leftovers(t *testing.T, s *client.Session) string {
	t.Helper()
	return output(t, s, "ls -A "+filepath.Join("/", "workspace"))
}
