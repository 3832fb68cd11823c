package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// defaultAddr is where an SDK without settings looks.
const defaultAddr = "127.0.0.1:8080"

// newDefaultServer starts a server where the SDK finds it by itself.
func newDefaultServer(t *testing.T) *server {
	t.Helper()
	if conn, err := net.Dial("tcp", defaultAddr); err == nil {
		conn.Close()
		t.Fatalf("%s is taken: these tests need it, because an SDK without settings connects there; stop what listens and run them again", defaultAddr)
	}
	s := stoppedServer(t, "--listen", defaultAddr)
	s.restart(t)
	return s
}

// python runs the SDK's interpreter in a folder, as the server's owner.
func (s *server) python(t *testing.T, python, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), python, args...)
	cmd.Dir, cmd.Env = dir, s.environ("PYTHONDONTWRITEBYTECODE=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Logf("%q printed to standard error:\n%s", args, stderr.String())
	}
	return string(out)
}

// TestPythonSDK: what the SDK's README promises happens against a server with
// all defaults.
func TestPythonSDK(t *testing.T) {
	srv := newDefaultServer(t)
	readme, err := os.ReadFile(env.readme)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```python\n(.*?)^```").FindAllStringSubmatch(string(readme), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) != 4 {
		t.Fatalf("%s has %d blocks of Python; these tests know 4", env.readme, len(blocks))
	}
	// What a block takes over from the ones before it.
	const prelude = "from agentcube import CodeInterpreterClient\n"
	run := func(t *testing.T, block, more string) string {
		return srv.python(t, env.python, t.TempDir(), "-W", "error", "-c", prelude+block+more)
	}

	t.Run("quick start", func(t *testing.T) {
		out := run(t, blocks[0], "")
		if !strings.HasPrefix(out, "User: whoami\nagent\n") || !strings.Contains(out, "Result: Pi is approximately 3.1416\n") {
			t.Errorf("printed %q", out)
		}
		// The session is gone after the with block, and its client says so.
		out = run(t, blocks[0], "\nprint('id', client.session_id)\n")
		var ended int
		c := srv.client(t)
		for _, rec := range listAll(t, c) {
			if rec.State == "ended" && rec.Fate == "deleted" {
				ended++
			} else {
				t.Errorf("after the with block the session is %s, %s; the block printed %q", rec.State, rec.Fate, out)
			}
		}
		if ended != 2 {
			t.Errorf("%d sessions ended, want those of both runs", ended)
		}
	})
	t.Run("files", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "data.csv"), []byte("a,b\n1,2\n3,4\n5,9\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		srv.python(t, env.python, dir, "-W", "error", "-c", prelude+blocks[1])
		summary, err := os.ReadFile(filepath.Join(dir, "summary.csv"))
		if err != nil || !strings.HasPrefix(string(summary), ",a,b\ncount,3.0,3.0\nmean,3.0,5.0\n") {
			t.Errorf("summary.csv holds %q, %v", summary, err)
		}
	})
	t.Run("manual lifecycle", func(t *testing.T) {
		// The block throws the output away: the same call prints it here.
		shown := strings.Replace(blocks[2], "client.execute_command(", "print(client.execute_command(", 1)
		shown = strings.Replace(shown, "'Session started'\")", "'Session started'\"))", 1)
		if out := run(t, shown, ""); out != "Session started\n\n" {
			t.Errorf("printed %q", out)
		}
		run(t, blocks[2], "")
	})
	t.Run("customizing", func(t *testing.T) {
		out := run(t, blocks[3], "\nprint(client.execute_command('echo custom'))\nclient.stop()\n")
		if out != "custom\n\n" {
			t.Errorf("printed %q", out)
		}
	})
	for _, rec := range listAll(t, srv.client(t)) {
		if rec.State != "ended" {
			t.Errorf("session %s from %s/%s is still %s", rec.SessionID, rec.Namespace, rec.Name, rec.State)
		}
	}

	// As a user gets it: built, installed into an environment of its own.
	t.Run("built package", func(t *testing.T) {
		dir := t.TempDir()
		sh(t, env.root, "make", "build-python-sdk")
		dist := filepath.Join(env.root, "sdk", "python", "dist")
		wheel, sdist := only(t, filepath.Join(dist, "*.whl")), only(t, filepath.Join(dist, "*.tar.gz"))
		if !strings.HasPrefix(filepath.Base(wheel), "agentcube_sdk-") || !strings.HasPrefix(filepath.Base(sdist), "agentcube_sdk-") {
			t.Errorf("built %s and %s", wheel, sdist)
		}
		sh(t, dir, env.python, "-m", "venv", "venv")
		python := filepath.Join(dir, "venv", "bin", "python")
		sh(t, dir, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
		if out := srv.python(t, python, dir, "-c", blocks[0]); !strings.Contains(out, "Result: Pi is approximately 3.1416\n") {
			t.Errorf("printed %q", out)
		}
	})
}

// TestSDKItself: the SDK's own end-to-end tests, which run the README's code, too.
func TestSDKItself(t *testing.T) {
	t.Parallel()
	at := at(t)
	args := []string{"-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/e2e"}
	sleeps := "yes"
	if !at.Sleeps {
		args, sleeps = append(args, "--ignore", "tests/e2e/test_sleep_live.py"), "no"
	}
	cmd := exec.CommandContext(t.Context(), env.python, args...)
	cmd.Dir = filepath.Join(env.root, "sdk", "python")
	cmd.Env = append(slices.Clone(at.environ), "AGENTCUBE_E2E_SLEEPS="+sleeps, "AGENTCUBE_SDK_README="+env.readme, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
}

// sh runs a program of this machine that has to succeed.
func sh(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// only is the one file that matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s matches %v, %v; want one file", pattern, found, err)
	}
	return found[0]
}
