package zygote

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// guard is how long a test waits for something that must happen at all.
const guard = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Runner with a zygote, and a workspace.
type world struct {
	t      testing.TB
	runner *proc.Runner
	zygote *Zygote
	dir    string
	env    map[string]string
	taken  atomic.Int64 // runs that got a spare
}

// counting counts the runs that the zygote took.
type counting struct{ *world }

func (c counting) Fork(cmd proc.Command, file string) proc.Spare {
	s := c.zygote.Fork(cmd, file)
	if s != nil {
		c.taken.Add(1)
	}
	return s
}

// begin makes a world that a real interpreter lives in, as another user where
// the test may do that.
func begin(t testing.TB, modules ...string) *world {
	t.Helper()
	return beginWith(t, proc.Config{}, modules...)
}

// beginWith is begin with limits for commands.
func beginWith(t testing.TB, limits proc.Config, modules ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests need control groups, and so root")
	}
	dir, err := os.MkdirTemp("/tmp", "zygote-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: filepath.Join(dir, "workspace")}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(w.dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	w.env = map[string]string{"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": w.dir, "PWD": w.dir}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	limits.User, limits.CgroupDir, limits.ReapOrphans = &proc.User{UID: 1000, GID: 1000}, t.TempDir(), true
	w.runner = proc.New(limits, log)
	if err := w.runner.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.runner.Close)
	w.zygote = New(Config{Modules: modules, Env: w.list(nil), Dir: w.dir}, w.runner, log)
	w.zygote.Open(t.Context())
	t.Cleanup(w.zygote.Close)
	w.prepared()
	return w
}

// prepared waits for the zygote and sees to it that there is one.
func (w *world) prepared() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), guard)
	defer cancel()
	if err := w.zygote.Prepared(ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, k := range w.zygote.keepers() {
		if k.serving.Load() == nil {
			w.t.Fatal("there is no zygote")
		}
	}
}

func (w *world) list(extra map[string]string) []string {
	env := maps.Clone(w.env)
	maps.Copy(env, extra)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// outcome is all that is to be seen of a run.
type outcome struct {
	Stdout, Stderr string
	Code           int
	TimedOut       bool
}

func (w *world) command(argv ...string) proc.Command {
	return proc.Command{Argv: argv, Dir: w.dir, Env: w.list(nil), Timeout: guard, MaxOutput: 1 << 20}
}

// run runs a command, through the zygote or not.
func (w *world) run(cmd proc.Command, through bool) outcome {
	w.t.Helper()
	if through {
		cmd.Forker = counting{w}
	}
	res := w.runner.Run(w.t.Context(), cmd)
	defer res.Release()
	return outcome{Stdout: res.Stdout.Text(), Stderr: res.Stderr.Text() + res.StartError, Code: res.ExitCode, TimedOut: res.TimedOut}
}

// forked runs a command and fails if the zygote does not take it; one that finds
// no spare in time tries again.
func (w *world) forked(cmd proc.Command) outcome {
	w.t.Helper()
	for end := time.Now().Add(guard); time.Now().Before(end); {
		before := w.taken.Load()
		got := w.run(cmd, true)
		if w.taken.Load() > before {
			return got
		}
	}
	w.t.Fatalf("the zygote does not take %q", cmd.Argv)
	return outcome{}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}
