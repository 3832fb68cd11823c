package proc

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// guard is how long a test waits for something that must happen at all.
const guard = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a Runner that is closed at the end of the test.
func open(t testing.TB, cfg Config) *Runner {
	t.Helper()
	r := New(cfg, slog.New(slog.DiscardHandler))
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// kinds runs a test with control groups and with the walk of /proc.
func kinds(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Run("cgroup", func(t *testing.T) { test(t, Config{CgroupDir: t.TempDir()}) })
	t.Run("walk", func(t *testing.T) { test(t, Config{}) })
}

func shell(script string) Command {
	return Command{
		Argv: []string{"/bin/bash", "-c", script}, Dir: "/",
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}, Timeout: guard, MaxOutput: 1 << 20,
	}
}

// gone waits until no process has the given argument in its command line.
func gone(t *testing.T, mark string) {
	t.Helper()
	for end := time.Now().Add(guard); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if len(marked(mark)) == 0 {
			return
		}
	}
	t.Fatalf("processes are left: %v", marked(mark))
}

// marked lists living processes whose command line holds mark.
func marked(mark string) []int {
	var pids []int
	for _, p := range processes() {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/cmdline")
		if !p.zombie && p.pid != os.Getpid() && bytes.Contains(line, []byte(mark)) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

func TestResults(t *testing.T) {
	kinds(t, func(t *testing.T, cfg Config) {
		r := open(t, cfg)
		for _, tt := range []struct {
			name       string
			cmd        Command
			out, err   string
			code       int
			timedOut   bool
			startError string
		}{
			{name: "output", cmd: shell("echo out; echo err >&2"), out: "out\n", err: "err\n"},
			{name: "exit code", cmd: shell("exit 7"), code: 7},
			{name: "signal", cmd: shell("kill -9 $$"), code: -1},
			{name: "no input", cmd: shell("cat; echo end"), out: "end\n"},
			{name: "input", cmd: Command{Argv: []string{"/bin/cat"}, Stdin: []byte("hello"), Timeout: guard, MaxOutput: 100}, out: "hello"},
			{name: "own session", cmd: shell(`read -r _ _ _ _ g s _ < /proc/self/stat; [ $g = $s ] && [ $g = $$ ] && echo yes`), out: "yes\n"},
			{name: "path of the command", cmd: Command{Argv: []string{"sh", "-c", "echo $0"}, Env: []string{"PATH=/bin"}, Timeout: guard, MaxOutput: 100}, out: "sh\n"},
			{name: "not found", cmd: Command{Argv: []string{"no-such-command"}, Env: []string{"PATH=/bin"}, Timeout: guard}, code: 1,
				startError: `exec: "no-such-command": executable file not found in $PATH`},
			{name: "not there", cmd: Command{Argv: []string{"/no/such"}, Timeout: guard}, code: 1, startError: "fork/exec /no/such: no such file or directory"},
			{name: "not executable", cmd: Command{Argv: []string{"/etc/passwd"}, Timeout: guard}, code: 1, startError: "fork/exec /etc/passwd: permission denied"},
			{name: "no directory", cmd: Command{Argv: []string{"/bin/true"}, Dir: "/no/such", Timeout: guard}, code: 1, startError: "fork/exec /bin/true: no such file or directory"},
			{name: "no time", cmd: Command{Argv: []string{"/bin/true"}}, code: 124, timedOut: true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				res := r.Run(t.Context(), tt.cmd)
				defer res.Release()
				if res.Stdout.Text() != tt.out || res.Stderr.Text() != tt.err || res.ExitCode != tt.code ||
					res.TimedOut != tt.timedOut || res.StartError != tt.startError {
					t.Errorf("got %q %q %d %v %q", res.Stdout.Text(), res.Stderr.Text(), res.ExitCode, res.TimedOut, res.StartError)
				}
			})
		}
	})
}

// TestTrees starts trees that try to get away in every way known, and ends them.
func TestTrees(t *testing.T) {
	trees := map[string]string{
		"pipe holder":  "sleep %s & sleep %s",
		"setsid":       "setsid sleep %s & setsid sleep %s",
		"double fork":  "(setsid bash -c 'setsid sleep %s & setsid sleep %s &' &) ; sleep 1000",
		"no signals":   "trap '' TERM INT HUP; sleep %s; sleep %s; sleep 1000",
		"nohup":        "nohup sleep %s >/dev/null 2>&1 & sleep %s",
		"grandparents": "bash -c 'bash -c \"sleep %s & wait\" & bash -c \"sleep %s\"'",
	}
	ends := map[string]func(*Runner, Command) *Result{
		"timeout": func(r *Runner, c Command) *Result {
			c.Timeout = 300 * time.Millisecond
			return r.Run(context.Background(), c)
		},
		"client gone": func(r *Runner, c Command) *Result {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			return r.Run(ctx, c)
		},
	}
	kinds(t, func(t *testing.T, cfg Config) {
		r := open(t, cfg)
		n := 0
		for name, script := range trees {
			for how, end := range ends {
				t.Run(name+"/"+how, func(t *testing.T) {
					n++
					mark := fmt.Sprintf("%d.%d", 100000+os.Getpid(), n)
					res := end(r, shell(fmt.Sprintf(script, mark, mark)))
					defer res.Release()
					if res.TimedOut == res.Canceled {
						t.Errorf("timed out %v, canceled %v", res.TimedOut, res.Canceled)
					}
					gone(t, mark)
				})
			}
		}
	})
}

// TestBackground: the answer does not wait for what holds the pipes, and what
// is left runs on and can write.
func TestBackground(t *testing.T) {
	kinds(t, func(t *testing.T, cfg Config) {
		r := open(t, cfg)
		file := filepath.Join(t.TempDir(), "alive")
		res := r.Run(t.Context(), shell("(sleep 0.2; for i in $(seq 20000); do echo a long line of log output; done; echo yes > "+file+"; sleep 1234.5) & echo done"))
		defer res.Release()
		if res.Stdout.Text() != "done\n" || res.ExitCode != 0 {
			t.Fatalf("got %q %d", res.Stdout.Text(), res.ExitCode)
		}
		for end := time.Now().Add(guard); ; time.Sleep(5 * time.Millisecond) {
			if text, err := os.ReadFile(file); err == nil && string(text) == "yes\n" {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the background process did not get its output away")
			}
		}
		again := r.Run(t.Context(), shell("echo more"))
		defer again.Release()
		for end := time.Now().Add(guard); len(marked("1234.5")) == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the background process was ended")
			}
		}
		r.Close()
		gone(t, "1234.5")
	})
}

func TestFlood(t *testing.T) {
	r := open(t, Config{})
	cmd := shell("head -c 200000000 /dev/zero | tr '\\0' x; echo END; head -c 3000000 /dev/zero | tr '\\0' y >&2")
	res := r.Run(t.Context(), cmd)
	defer res.Release()
	if res.Stdout.Total() != 200_000_004 || res.Stderr.Total() != 3_000_000 {
		t.Errorf("counted %d and %d bytes", res.Stdout.Total(), res.Stderr.Total())
	}
	for _, o := range []*Output{res.Stdout, res.Stderr} {
		if held := cap(o.head) + cap(o.tail); !o.Truncated() || len(o.Bytes()) != cmd.MaxOutput || held > 2*cmd.MaxOutput {
			t.Errorf("kept %d bytes in %d bytes of memory", len(o.Bytes()), held)
		}
	}
	if text := res.Stdout.Text(); !strings.Contains(text, "xEND\n\n[output truncated: 1048576 of 200000004 bytes kept]\n") || text[0] != 'x' {
		t.Errorf("the end of the text is %q", text[len(text)-100:])
	}
	if got := r.cfg.OutputBudget - r.budget.left.Load(); got < 2<<20 || got > 3<<20 {
		t.Errorf("%d bytes are reserved", got)
	}
}

// TestBudget: all commands together cannot make the daemon large.
func TestBudget(t *testing.T) {
	r := open(t, Config{OutputBudget: 256 << 10})
	first := r.Run(t.Context(), shell("head -c 1000000 /dev/zero"))
	if n := len(first.Stdout.Bytes()); n == 0 || n > 256<<10 {
		t.Errorf("kept %d bytes", n)
	}
	second := r.Run(t.Context(), shell("echo hello"))
	if !second.Stdout.Truncated() || second.Stdout.Total() != 6 || second.Stdout.Text() != "\n[output truncated: 0 of 6 bytes kept]\n" {
		t.Errorf("got %q", second.Stdout.Text())
	}
	first.Release()
	second.Release()
	third := r.Run(t.Context(), shell("echo hello"))
	defer third.Release()
	if third.Stdout.Text() != "hello\n" {
		t.Errorf("got %q after the memory was given back", third.Stdout.Text())
	}
}

// TestCloseLeavesNothing: what is in the background when the daemon ends ends
// too, and its groups with it. An open membership file used to show old lists.
func TestCloseLeavesNothing(t *testing.T) {
	kinds(t, func(t *testing.T, cfg Config) {
		if cfg.CgroupDir != "" {
			cfg.MaxProcesses = 60
		}
		r := open(t, cfg)
		mark := fmt.Sprintf("%d.25", 200000+os.Getpid())
		for range 3 {
			r.Run(t.Context(), shell("for i in $(seq 5); do sleep "+mark+" & setsid sleep "+mark+" & done")).Release()
		}
		for end := time.Now().Add(guard); len(marked(mark)) != 30; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d processes run in the background", len(marked(mark)))
			}
		}
		groups := r.cgroups
		r.Close()
		gone(t, mark)
		if groups == nil {
			return
		}
		dir := t.TempDir()
		if err := mountCgroup(dir, "pids"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(groups.base))); err == nil {
			t.Errorf("%s is left", groups.base)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestProcessLimit(t *testing.T) {
	r := open(t, Config{CgroupDir: t.TempDir(), MaxProcesses: 20, ReapOrphans: true})
	t.Run("bomb", func(t *testing.T) {
		cmd := shell("bomb() { bomb | bomb & }; bomb; sleep 1000")
		cmd.Timeout = time.Second
		res := r.Run(t.Context(), cmd)
		defer res.Release()
		if !res.TimedOut {
			t.Errorf("exit %d %q", res.ExitCode, res.Stderr.Text())
		}
	})
	t.Run("after the bomb", func(t *testing.T) {
		res := r.Run(t.Context(), shell("echo $(echo fine)"))
		defer res.Release()
		if res.Stdout.Text() != "fine\n" {
			t.Errorf("got %q %q %q", res.Stdout.Text(), res.Stderr.Text(), res.StartError)
		}
	})
	t.Run("background counts", func(t *testing.T) {
		left := r.Run(t.Context(), shell("for i in $(seq 17); do sleep 1000 & done"))
		defer left.Release()
		cmd := shell("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo no limit")
		cmd.Argv = []string{"/bin/dash", "-c", cmd.Argv[2]} // bash would try again and again
		res := r.Run(t.Context(), cmd)
		defer res.Release()
		if strings.Contains(res.Stdout.Text(), "no limit") || !strings.Contains(res.Stderr.Text(), "fork") {
			t.Errorf("got %q %q %q", res.Stdout.Text(), res.Stderr.Text(), res.StartError)
		}
	})
}

// TestNoProcessLimit: a limit that cannot be held is no reason to run without.
// Before, a line in the log of a sandbox, which nobody reads, was all.
func TestNoProcessLimit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"nowhere": "", "below a file": file} {
		r := New(Config{CgroupDir: dir, MaxProcesses: 20}, slog.New(slog.DiscardHandler))
		if err := r.Open(); err == nil || !strings.Contains(err.Error(), "limit processes") {
			t.Errorf("%s: Open = %v", name, err)
			r.Close()
		}
	}
	r := open(t, Config{CgroupDir: file})
	res := r.Run(t.Context(), shell("echo fine"))
	defer res.Release()
	if res.Stdout.Text() != "fine\n" {
		t.Errorf("without a limit: %q %q", res.Stdout.Text(), res.StartError)
	}
}

func TestUser(t *testing.T) {
	r := open(t, Config{User: &User{UID: 1000, GID: 1001}, CgroupDir: t.TempDir()})
	res := r.Run(t.Context(), shell("id -u; id -g; id -G; grep CapEff /proc/self/status; grep CapPrm /proc/self/status; kill -9 "+strconv.Itoa(os.Getpid())+" && echo killed"))
	defer res.Release()
	if got, want := res.Stdout.Text(), "1000\n1001\n1001\nCapEff:\t0000000000000000\nCapPrm:\t0000000000000000\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestGroupsAreReused: commands one after the other do not leave groups behind.
func TestGroupsAreReused(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Config{CgroupDir: dir})
	for range 50 {
		r.Run(t.Context(), shell("true")).Release()
	}
	if r.cgroups.next > 3 {
		t.Errorf("%d groups were made", r.cgroups.next)
	}
	r.Close()
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCloseEndsRunning(t *testing.T) {
	kinds(t, func(t *testing.T, cfg Config) {
		r := open(t, cfg)
		done := make(chan *Result)
		go func() { done <- r.Run(context.Background(), shell("sleep 1357.9")) }()
		for end := time.Now().Add(guard); len(marked("1357.9")) == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		r.Close()
		select {
		case res := <-done:
			res.Release()
		case <-time.After(guard):
			t.Fatal("the command goes on")
		}
		gone(t, "1357.9")
	})
}

func BenchmarkTrue(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, cfg := range map[string]Config{
		"walk": {}, "cgroup": {CgroupDir: b.TempDir(), MaxProcesses: 500},
		"all": {CgroupDir: b.TempDir(), MaxProcesses: 500, User: &User{1000, 1000}},
	} {
		b.Run(name, func(b *testing.B) {
			r := open(b, cfg)
			for b.Loop() {
				res := r.Run(b.Context(), Command{Argv: []string{"/bin/true"}, Timeout: guard, MaxOutput: 1 << 20})
				if res.ExitCode != 0 {
					b.Fatal(res.StartError)
				}
				res.Release()
			}
		})
	}
}
