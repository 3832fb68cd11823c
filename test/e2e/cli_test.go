package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/api"
)

// commandLine runs agentcube as who uses an installation would.
type commandLine struct {
	t   *testing.T
	at  *installation
	dir string // working directory
}

type ran struct {
	code           int
	stdout, stderr string
}

func newCommandLine(t *testing.T) commandLine { return commandLine{t: t, at: at(t), dir: t.TempDir()} }

func (c commandLine) run(args ...string) ran { return c.feed("", args...) }

func (c commandLine) feed(stdin string, args ...string) ran {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), env.bin, args...)
	cmd.Dir, cmd.Stdin = c.dir, strings.NewReader(stdin)
	cmd.Env = c.at.environ
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok is run for what has to succeed; it returns standard output.
func (c commandLine) ok(args ...string) string {
	c.t.Helper()
	got := c.run(args...)
	if got.code != 0 {
		c.t.Fatalf("agentcube %q ended with %d: %s%s", args, got.code, got.stdout, got.stderr)
	}
	return got.stdout
}

func (c commandLine) write(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c commandLine) read(name string) string {
	c.t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(raw)
}

// session makes a session that is removed when the test ends.
func (c commandLine) session() string {
	id := strings.TrimSpace(c.ok("session", "create"))
	c.t.Cleanup(func() {
		cmd := exec.Command(env.bin, "session", "rm", id)
		cmd.Env = c.at.environ
		if out, err := cmd.CombinedOutput(); err != nil {
			c.t.Errorf("session rm: %v: %s", err, out)
		}
	})
	return id
}

// TestExitCodes: the code, standard output and standard error of a command in
// a sandbox are those of agentcube.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	c := newCommandLine(t)
	c.write("script.py", "import sys\nprint('args', *sys.argv[1:])\nsys.exit(5)\n")
	c.write("script.sh", "echo from $0; [[ -e script.sh ]]\n")
	const gone = "00000000-0000-4000-8000-000000000000"
	id := c.session()
	for _, tt := range []struct {
		args           []string
		stdin          string
		code           int
		stdout, stderr string // stderr has to hold this
	}{
		{args: []string{"run", "--", "python3", "-c", "print(1)"}, stdout: "1\n"},
		{args: []string{"run", "--", "bash", "-c", "echo out; echo err >&2; exit 7"}, code: 7, stdout: "out\n", stderr: "err\n"},
		{args: []string{"run", "script.py", "--its-own", "flag"}, code: 5, stdout: "args --its-own flag\n"},
		{args: []string{"run", "script.sh"}, stdout: "from ./script.sh\n"},
		{args: []string{"run", "--stdin", "--", "wc", "-c"}, stdin: "hello", stdout: "5\n"},
		{args: []string{"run", "-e", "A=b", "-w", "sub", "--", "bash", "-c", "echo $A $PWD"}, stdout: "b /workspace/sub\n"},
		{args: []string{"run", "--timeout", "1s", "--", "sleep", "100"}, code: 124, stderr: "timed out"},
		{args: []string{"run", "--", "bash", "-c", "kill -9 $$"}, code: 137},
		{args: []string{"run", "--", "no-such-program"}, code: 127, stderr: "no-such-program"},
		{args: []string{"run", "missing.py"}, code: 125, stderr: "missing.py"},
		{args: []string{"run", "-t", "default/no-such-template", "--", "true"}, code: 125, stderr: "no-such-template"},
		{args: []string{"run", "--server", "http://127.0.0.1:1", "--", "true"}, code: 125, stderr: "127.0.0.1:1"},
		{args: []string{"session", "exec", id, "--", "bash", "-c", "echo x; exit 9"}, code: 9, stdout: "x\n"},
		{args: []string{"session", "exec", gone, "--", "true"}, code: 125, stderr: gone},
		{args: []string{"session", "get", gone}, code: 4, stderr: gone},
		{args: []string{"session", "rm", gone}, code: 4, stderr: gone},
		{args: []string{"session", "ls", "--server", "http://127.0.0.1:1"}, code: 3, stderr: "127.0.0.1:1"},
		{args: []string{"session", "cp", id + ":missing", "."}, code: 4, stderr: "missing"},
		{args: []string{"session", "cp", "missing", id + ":x"}, code: 1, stderr: "missing"},
		{args: []string{"session", "cp", "one-side-only", "another"}, code: 2},
		{args: []string{"no-such-command"}, code: 2},
	} {
		t.Run(strings.ReplaceAll(strings.Join(tt.args, " "), "/", "_"), func(t *testing.T) {
			c := commandLine{t: t, at: c.at, dir: c.dir}
			got := c.feed(tt.stdin, tt.args...)
			if got.code != tt.code || got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("ended with %d, stdout %q, stderr %q; want %d, %q, %q", got.code, got.stdout, got.stderr, tt.code, tt.stdout, tt.stderr)
			}
			if (got.code != 0 && tt.stderr != "") && strings.TrimSpace(got.stderr) == "" {
				t.Error("failed without a word")
			}
		})
	}
}

func TestFilesInAndOut(t *testing.T) {
	t.Parallel()
	c := newCommandLine(t)
	c.write("data.csv", "a\n1\n3\n")
	c.write("mean.py", "import pandas as pd\npd.read_csv('data.csv').describe().to_csv('summary.csv')\n")
	c.ok("run", "--in", "data.csv", "--out", "summary.csv", "mean.py")
	if got := c.read("summary.csv"); !strings.Contains(got, "mean,2.0") {
		t.Errorf("summary.csv holds %q", got)
	}

	id := c.session()
	if err := os.MkdirAll(filepath.Join(c.dir, "tree", "a b"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.write("tree/a b/ü?#%.txt", "odd")
	c.write("tree/empty", "")
	c.ok("session", "cp", "tree", id+":copy")
	c.ok("session", "cp", id+":copy", "back")
	if got := c.read("back/a b/ü?#%.txt") + c.read("back/empty"); got != "odd" {
		t.Errorf("came back as %q", got)
	}
	if got := c.feed("typed", "session", "cp", "-", id+":typed"); got.code != 0 {
		t.Error(got.stderr)
	}
	if got := c.ok("session", "cp", id+":typed", "-"); got != "typed" {
		t.Errorf("came back as %q", got)
	}

	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	c.write("random", string(content))
	c.ok("session", "cp", "random", id+":random")
	c.ok("session", "cp", id+":random", "random.back")
	if c.read("random.back") != string(content) {
		t.Error("random bytes came back changed")
	}
}

func TestOutputForPrograms(t *testing.T) {
	t.Parallel()
	c := newCommandLine(t)
	id := c.session()
	var rec api.Session
	c.decode(&rec, "session", "get", id)
	if rec.SessionID != id || rec.State != api.StateRunning || rec.Isolation != c.at.Isolation || rec.Auth != api.AuthManaged {
		t.Errorf("session get: %+v", rec)
	}
	var list api.SessionList
	for _, args := range [][]string{{"session", "ls"}, {"session", "ls", "--all"}} {
		c.decode(&list, args...)
		found := false
		for _, s := range list.Sessions {
			found = found || s.SessionID == id
		}
		if !found {
			t.Errorf("%q does not list %s: %+v", args, id, list)
		}
	}
	for _, args := range [][]string{{"version"}, {"template", "ls"}, {"config", "print"}} {
		var any any
		c.decode(&any, args...)
	}
	if table := c.ok("session", "ls"); !strings.Contains(table, id) || !strings.HasPrefix(table, "SESSION") {
		t.Errorf("session ls printed %q", table)
	}
}

func (c commandLine) decode(into any, args ...string) {
	c.t.Helper()
	out := c.ok(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		c.t.Errorf("%q printed no JSON: %v: %s", args, err, out)
	}
}
