package zygote

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/internal/picod/proc"
)

// helpers are the processes of the zygote, from outside.
func (w *world) helpers() []int {
	w.t.Helper()
	var pids []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if strings.HasPrefix(string(line), "python3\x00-c\x00\x00") && strings.Contains(string(env), w.dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestHarm: whatever is done to the interpreters and the spare, a run gives what
// it gives without them, once, and new ones come.
func TestHarm(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"kill": unix.SIGKILL, "stop": unix.SIGSTOP, "interrupt": unix.SIGINT, "end": unix.SIGTERM} {
		for kind, code := range map[string]string{"plain": "print(1)", "preloaded": "import decimal; print(1)"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				w := begin(t, "decimal")
				first := w.forked(w.command("python3", "-c", code))
				pids := w.helpers()
				if len(pids) == 0 {
					t.Fatal("no process of the zygote is found")
				}
				for _, pid := range pids {
					if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
						t.Fatal(err)
					}
				}
				for range 3 {
					if got := w.run(w.command("python3", "-c", code), true); got != first {
						t.Errorf("got %+v, want %+v", got, first)
					}
				}
				w.forked(w.command("python3", "-c", code))
			})
		}
	}
}

// TestHarmFromInside: the same by what runs in a forked process, as far as it can.
func TestHarmFromInside(t *testing.T) {
	w := begin(t)
	script := `
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
for name in os.listdir("/proc"):
    if not name.isdigit() or int(name) == os.getpid():
        continue
    try:
        if open("/proc/%s/cmdline" % name, "rb").read() != b"python3\0-c\0\0":
            continue
    except OSError:
        continue
    for what in ("mem", "environ", "fd", "maps"):
        try:
            os.listdir("/proc/%s/fd" % name) if what == "fd" else open("/proc/%s/%s" % (name, what), "rb").read(1)
            print("read", what)
        except OSError:
            pass
    if libc.ptrace(16, int(name), 0, 0) == 0:
        print("traced")
    print("tried")
`
	got := w.forked(w.command("python3", "-c", script))
	if got.Code != 0 || strings.ReplaceAll(got.Stdout, "tried\n", "") != "" || got.Stdout == "" {
		t.Errorf("a run got at the zygote: %+v", got)
	}
}

// TestOnce: a spare that is stopped when it gets its job has the job done by
// another process, and does not do it when it goes on.
func TestOnce(t *testing.T) {
	w := begin(t)
	s := <-w.zygote.plain.spares
	if err := unix.Kill(s.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cmd := w.command("python3", "-c", "open('times', 'a').write('x'); print('done')")
	cmd.Forker = given{w.zygote, s}
	res := w.runner.Run(t.Context(), cmd)
	defer res.Release()
	if res.Stdout.Text() != "done\n" || res.ExitCode != 0 {
		t.Errorf("got %q, %d", res.Stdout.Text(), res.ExitCode)
	}
	_ = unix.Kill(s.pid, unix.SIGCONT)
	text, err := os.ReadFile(w.dir + "/times")
	if err != nil || string(text) != "x" {
		t.Errorf("ran %q times: %v", text, err)
	}
}

// given is a Forker with one spare.
type given struct {
	zygote *Zygote
	spare  *spare
}

func (g given) Fork(cmd proc.Command, file string) proc.Spare {
	g.spare.job, _ = g.zygote.plain.serving.Load().job(cmd, file)
	return g.spare
}

// TestTimeout: the whole tree of a forked run ends with its time, from whichever
// interpreter it comes.
func TestTimeout(t *testing.T) {
	for kind, first := range map[string]string{"plain": "", "preloaded": "import decimal"} {
		t.Run(kind, func(t *testing.T) {
			w := begin(t, "decimal")
			cmd := w.command("python3", "-c", first+`
import os, subprocess, time
subprocess.Popen(["sleep", "7654.25"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "7654.25"])
    os._exit(0)
print("started", flush=True)
time.sleep(100)`)
			cmd.Timeout = 2 * time.Second
			got := w.forked(cmd)
			if !got.TimedOut || got.Stdout != "started\n" || got.Code != 124 {
				t.Errorf("got %+v", got)
			}
			if out := w.run(w.command("pgrep", "-f", "^sleep 7654.25"), false); out.Stdout != "" {
				t.Errorf("left behind: %s", out.Stdout)
			}
		})
	}
}

// TestBomb: a forked run that forks without end is held to the limit of processes
// and ends with its time, and the next run has room.
func TestBomb(t *testing.T) {
	for kind, first := range map[string]string{"plain": "", "preloaded": "import decimal\n"} {
		t.Run(kind, func(t *testing.T) {
			w := beginWith(t, proc.Config{MaxProcesses: 20}, "decimal")
			cmd := w.command("python3", "-c", first+`
import os
while True:
    try:
        os.fork()
    except OSError:
        pass`)
			cmd.Timeout = 2 * time.Second
			if got := w.forked(cmd); !got.TimedOut || got.Stdout != "" {
				t.Errorf("got %+v", got)
			}
			after := w.command("python3", "-c", first+"import subprocess; print(subprocess.run(['echo', 'fine'], capture_output=True).stdout)")
			if got := w.forked(after); got != (outcome{Stdout: "b'fine\\n'\n"}) {
				t.Errorf("after it: %+v", got)
			}
		})
	}
}

// TestFresh: what one run does to its interpreter, no other finds.
func TestFresh(t *testing.T) {
	w := begin(t, "json", "random")
	w.forked(w.command("python3", "-c", "import builtins, json, os, sys; builtins.x = json.x = 1; sys.path.append('x'); os.environ['x'] = '1'; os.umask(0)"))
	got := w.forked(w.command("python3", "-c", "import builtins, json, os, sys; print(hasattr(builtins, 'x'), hasattr(json, 'x'), 'x' in sys.path, 'x' in os.environ, os.umask(0))"))
	if want := "False False False False 18\n"; got.Stdout != want {
		t.Errorf("got %+v, want %q", got, want)
	}
}

// TestSeeds: two runs, and two that were forked from a spare in one state, do
// not draw the same numbers.
func TestSeeds(t *testing.T) {
	w := begin(t, "random", "tempfile", "uuid")
	seen := map[string]bool{}
	for range 8 {
		got := w.forked(w.command("python3", "-c", "import random, tempfile, uuid; print(random.random(), random.getrandbits(64)); print(next(tempfile._get_candidate_names())); print(uuid.uuid4())"))
		for line := range strings.Lines(got.Stdout) {
			if seen[line] {
				t.Errorf("drawn twice: %s", line)
			}
			seen[line] = true
		}
	}
	if len(seen) != 24 {
		t.Errorf("%d lines, want 24", len(seen))
	}
}

// TestPreload: modules are there, what cannot be imported is left out, and a
// module of the run's own directory comes before a preloaded one.
func TestPreload(t *testing.T) {
	w := begin(t, "json", "no_such_module", "decimal")
	got := w.forked(w.command("python3", "-c", "import sys; print('json' in sys.modules, 'decimal' in sys.modules, 'no_such_module' in sys.modules)"))
	if got.Stdout != "True True False\n" || got.Stderr != "" {
		t.Errorf("got %+v", got)
	}
	w.write("json.py", "here = True")
	w.write("main.py", "import json; print(json.here)")
	for _, argv := range [][]string{{"python3", "main.py"}, {"python3", "-c", "import json; print(json.here)"}} {
		if got := w.run(w.command(argv...), true); got.Stdout != "True\n" {
			t.Errorf("%v: got %+v", argv, got)
		}
	}
}

// TestInstalled: a module that came to a directory of modules is found.
func TestInstalled(t *testing.T) {
	w := begin(t)
	w.forked(w.command("python3", "-c", "pass"))
	w.write(".local/lib/python3.11/site-packages/usercustomize.py", "import builtins; builtins.custom = 1")
	if got := w.run(w.command("python3", "-c", "print(custom)"), true); got.Stdout != "1\n" {
		t.Errorf("got %+v", got)
	}
}

// TestMany: many runs at a time all end as they should.
func TestMany(t *testing.T) {
	w := begin(t)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			got := w.run(w.command("python3", "-c", fmt.Sprintf("print(%d); raise SystemExit(%d)", i, i)), true)
			if want := (outcome{Stdout: fmt.Sprintln(i), Code: i}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
	wg.Wait()
}

// TestUnsupported: with another interpreter nothing is prepared, and nobody waits for it.
func TestUnsupported(t *testing.T) {
	w := begin(t)
	fake := w.dir + "/bin/python3"
	w.write("bin/python3", "#!/bin/sh\nprintf unsupported >&3\n")
	if err := os.Chmod(fake, 0o755); err != nil {
		t.Fatal(err)
	}
	z := New(Config{Env: []string{"PATH=" + w.dir + "/bin:/bin"}, Dir: w.dir}, w.runner, w.zygote.plain.log)
	z.Open(t.Context())
	defer z.Close()
	if err := z.Prepared(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := z.Fork(w.command("python3", "-c", "pass"), fake); s != nil || z.plain.serving.Load() != nil {
		t.Error("something was prepared")
	}
}
