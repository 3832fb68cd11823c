package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// patience guards against waiting for ever; nothing is expected to need it.
const patience = 90 * time.Second

// server is one `agentcube up` with folders of its own.
type server struct {
	dir   string // everything of this server is below it
	data  string
	flags []string
	// wrap, when set, is a command that ends in executing its arguments.
	wrap  []string
	addr  string // host:port; the port is kept over restarts
	url   string
	token string

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
}

// prepareServer makes the folders of a server that listens on a free port of
// loopback.
func prepareServer(dir string, flags ...string) (*server, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, data: filepath.Join(dir, "d"), flags: flags, addr: addr}
	for _, sub := range []string{s.data, s.path("x"), s.path("tmp"), s.path("t")} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
	}
	if err := writeTemplates(s.path("t")); err != nil {
		return nil, err
	}
	if env.seed != "" {
		if err := shareImages(env.seed, filepath.Join(s.data, "images")); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// freeAddress is an address that stays free while a server is down: the kernel gives
// ports from 32768 on to connections that are made meanwhile.
func freeAddress() (string, error) {
	const lowest, highest = 18000, 32000
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest)))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("find a free port: none of 100 was")
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// environ is the environment of the server and of the programs that find it by
// themselves. Nothing of the machine's own configuration gets in.
func (s *server) environ(more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.path("x"), "TMPDIR=" + s.path("tmp"),
	}, more...)
}

// start starts the process and returns when it is ready.
func (s *server) start() error {
	args := append(slices.Clone(s.wrap),
		env.bin, "up", "--output", "json", "--no-progress", "--listen", s.addr, "--data-dir", s.data, "--template-dir", s.path("t"))
	args = append(args, s.flags...)
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env = s.environ()
	// Files, not pipes: sandboxes outlive a server that is killed.
	stdout, err := os.Create(s.path("out"))
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close()
	s.cmd.Stdout, s.cmd.Stderr = stdout, stderr
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		s.err = cmd.Wait()
		close(done)
	}(s.cmd, s.done)
	return s.awaitReady()
}

func (s *server) awaitReady() error {
	var ready struct{ URL, TokenFile string }
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		raw, err := os.ReadFile(s.path("out"))
		if err == nil && json.Unmarshal(raw, &ready) == nil {
			break
		}
		select {
		case <-s.done:
			return fmt.Errorf("start server: %w\n%s", s.err, s.log())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("start server: not ready after %s\n%s", patience, s.log())
		}
	}
	at, err := url.Parse(ready.URL)
	if err != nil {
		return err
	}
	s.addr = net.JoinHostPort("127.0.0.1", at.Port())
	s.url = "http://" + s.addr
	token, err := os.ReadFile(ready.TokenFile)
	s.token = strings.TrimSpace(string(token))
	return err
}

// signal sends a signal and returns when the process has ended.
func (s *server) signal(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		return fmt.Errorf("server is still there %s after %v\n%s", patience, sig, s.log())
	}
}

// stop ends the server as Ctrl-C would; that it has to succeed.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if s.err != nil {
		return fmt.Errorf("stop server: %w\n%s", s.err, s.log())
	}
	return nil
}

// kill ends the server as kill -9 does.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// restart starts the server again, on the same port.
func (s *server) restart(t *testing.T) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// remove deletes the folders of a stopped server, and fails when the server
// has left anything else behind.
func (s *server) remove() error {
	left := s.census()
	left.files = 0
	var err error
	if left != (census{}) {
		err = fmt.Errorf("a stopped server left behind: %v", left)
		for _, pid := range s.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// log is the end of what the server has logged, without the requests that were
// served.
func (s *server) log() string {
	raw, err := os.ReadFile(s.path("log"))
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(raw), "\n"), func(line string) bool {
		return strings.Contains(line, `msg="request served"`)
	})
	const most = 100
	return strings.Join(lines[max(0, len(lines)-most):], "")
}

// newServer starts a server for one test, and stops and checks it at the end.
// Its templates have no pools, and the snapshot that sessions of the default
// one begin from is there.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := stoppedServer(t, flags...)
	for _, shipped := range []string{client.DefaultTemplate, "my-interpreter"} {
		s.template(t, shipped, "", "resources: {limits: {memory: 1Gi, ephemeral-storage: 2Gi}}")
	}
	s.restart(t)
	s.prepare(t, client.DefaultTemplate)
	return s
}

// stoppedServer is newServer before the start, with the templates that are
// shipped.
func stoppedServer(t *testing.T, flags ...string) *server {
	t.Helper()
	dir, err := os.MkdirTemp(env.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is made ahead, so that what is on the machine can be counted.
	s, err := prepareServer(dir, append([]string{"--standby", "0"}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", s.log())
		}
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// prepare makes what the sessions of templates begin from, so that it is not
// made while a test counts.
func (s *server) prepare(t *testing.T, names ...string) {
	t.Helper()
	c := s.client(t)
	for _, name := range names {
		if err := c.PrepareTemplate(t.Context(), client.DefaultNamespace, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
}

// client connects to the server as its owner.
func (s *server) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{BaseURL: s.url, LocalToken: s.token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// shareImages fills an image store with the images of another one. What never
// changes is linked.
func shareImages(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			info, err := e.Info()
			if err != nil {
				return err
			}
			return os.MkdirAll(target, info.Mode().Perm())
		case strings.HasSuffix(path, "lock"):
			return nil
		case strings.HasSuffix(path, ".json"):
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, raw, 0o644)
		}
		return os.Link(path, target)
	})
}

// writeTemplates writes the templates that the tests need besides the shipped
// ones.
func writeTemplates(dir string) error {
	texts, err := Templates(env.root, localImage)
	if err != nil {
		return err
	}
	texts["default-keeper.yaml"] = interpreterText("default", "keeper", localImage, "", keeperTemplate)
	texts["default-dozy.yaml"] = interpreterText("default", "dozy", localImage, "pauseAfter: 1s\n  sessionTimeout: 6s", small)
	texts["default-as-root.yaml"] = interpreterText("default", "as-root", localImage, "", "runAsRoot: true\n    "+small)
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// template adds a template, or replaces one, before the server starts.
func (s *server) template(t *testing.T, name, spec, template string) {
	t.Helper()
	text := interpreterText(client.DefaultNamespace, name, localImage, spec, template)
	if err := os.WriteFile(filepath.Join(s.path("t"), client.DefaultNamespace+"-"+name+".yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
