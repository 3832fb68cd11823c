package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// patience guards against waiting for ever; nothing is expected to need it.
const patience = 3 * time.Minute

// world is what all tests share: the program and one server.
type world struct {
	bin, image, python string
	root               string // the repository
	dir                string // removed at the end
	url                string
	server             *exec.Cmd
}

// env is set by TestMain before any test runs, and never changed.
var env world

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "documentation tests: %v\n", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	for variable, to := range map[string]*string{
		"AGENTCUBE_BIN": &env.bin, "AGENTCUBE_IMAGE": &env.image, "AGENTCUBE_PYTHON": &env.python,
	} {
		if *to = os.Getenv(variable); *to == "" {
			return 1, fmt.Errorf("%s is not set; run them with: make test-e2e", variable)
		}
	}
	if env.root, err = filepath.Abs("../.."); err != nil {
		return 1, err
	}
	// The name is short because sockets of sandboxes are below it.
	if env.dir, err = os.MkdirTemp("", "acd"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(env.dir)) }()
	if err := env.start(); err != nil {
		return 1, err
	}
	code = m.Run()
	if err := env.stop(); err != nil {
		return 1, err
	}
	return code, nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// environ lets nothing of the machine's own settings in.
func (w *world) environ() []string {
	return []string{
		"PATH=" + w.path("bin") + ":" + filepath.Dir(w.python) + ":" + os.Getenv("PATH"), "LANG=C.UTF-8",
		"HOME=" + w.dir, "XDG_CONFIG_HOME=" + w.path("x"), "PYTHONUNBUFFERED=1",
		"AGENTCUBE_DATA_DIR=" + w.path("d"), "AGENTCUBE_TEMPLATE_DIR=" + w.path("t"),
		"WORKLOAD_MANAGER_URL=" + w.url, "ROUTER_URL=" + w.url,
	}
}

// start starts a server on a free port and returns when it is ready.
func (w *world) start() error {
	for _, name := range []string{"bin", "d", "t", "x"} {
		if err := os.Mkdir(w.path(name), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(w.bin, w.path("bin/agentcube")); err != nil {
		return err
	}
	// The agent that pages talk to.
	agent, err := os.ReadFile(filepath.Join(w.root, "sdk/python/examples/agent.yaml"))
	if err == nil {
		err = os.WriteFile(w.path("t/agent.yaml"), agent, 0o600)
	}
	if err != nil {
		return err
	}
	// Files, not pipes: a sandbox may outlive a server that failed.
	stdout, err := os.Create(w.path("out"))
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := os.Create(w.path("log"))
	if err != nil {
		return err
	}
	defer stderr.Close()
	w.server = exec.Command(w.bin, "up", "--output", "json", "--no-progress", "--listen", "127.0.0.1:0", "--image-archive", w.image)
	w.server.Env, w.server.Stdout, w.server.Stderr = w.environ(), stdout, stderr
	if err := w.server.Start(); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	var ready struct{ URL string }
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if raw, err := os.ReadFile(w.path("out")); err == nil && json.Unmarshal(raw, &ready) == nil {
			w.url = ready.URL
			return nil
		}
		if syscall.Kill(w.server.Process.Pid, 0) != nil || ended(w.server.Process.Pid) {
			break
		}
	}
	err = errors.Join(w.server.Process.Kill(), w.server.Wait())
	log, _ := os.ReadFile(w.path("log"))
	return fmt.Errorf("start server: %w\n%s", err, log)
}

// ended reports whether a child has ended, without collecting it.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	var id int
	var name, state string
	_, err = fmt.Sscan(string(stat), &id, &name, &state)
	return err != nil || state == "Z"
}

// stop ends the server as Ctrl-C would; it must end well and leave no sandbox.
func (w *world) stop() error {
	kill := time.AfterFunc(patience, func() { _ = w.server.Process.Kill() })
	defer kill.Stop()
	if err := w.server.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	if err := w.server.Wait(); err != nil {
		return fmt.Errorf("stop server: %w", err)
	}
	left, err := os.ReadDir(w.path("d/sandboxes"))
	if err != nil || len(left) > 0 {
		return fmt.Errorf("stop server: sandboxes left: %v, %w", left, err)
	}
	return nil
}
