package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/volcano-sh/agentcube/api"
	"github.com/volcano-sh/agentcube/client"
)

// factsProgram tells what a session is, knows and draws. It begins with what
// was imported before it.
const factsProgram = `
import sys
imported = sorted(m for m in ("numpy", "pandas") if m in sys.modules)
import hashlib, json, os, platform, random, secrets, socket, tempfile, time, uuid
import numpy as np
names = hashlib.sha256()
for top, folders, files in os.walk("/usr"):
    folders.sort()
    for name in sorted(files):
        names.update(os.path.join(top, name).encode())
with open("/proc/stat") as f:
    booted = [int(line.split()[1]) for line in f if line.startswith("btime")][0]
with open("/proc/uptime") as f:
    uptime = float(f.read().split()[0])
with open("/dev/urandom", "rb") as f:
    raw = f.read(16).hex()
with open("/etc/machine-id") as f:
    machine = f.read().strip()
with open("/etc/os-release") as f:
    system = f.read()
print(json.dumps({
    "own": [raw, os.getrandom(16).hex(), repr(random.random()), repr(np.random.rand()), repr(np.random.default_rng().random()),
            str(uuid.uuid4()), secrets.token_hex(8), os.path.basename(tempfile.mktemp()), socket.gethostname(), machine],
    "same": [platform.python_version(), np.__version__, names.hexdigest(), system, sys.path, imported, os.getcwd(),
             sorted(os.environ.items()), os.uname().release, os.listdir(".")],
    "now": time.time(), "monotonic": time.monotonic(), "booted": booted, "uptime": uptime,
}))
`

type facts struct {
	Own       []string        `json:"own"`
	Same      json.RawMessage `json:"same"`
	Now       float64         `json:"now"`
	Monotonic float64         `json:"monotonic"`
	Booted    float64         `json:"booted"`
	Uptime    float64         `json:"uptime"`
}

// factsOf also holds the clocks of the session to those of the machine.
func factsOf(t *testing.T, s *client.Session) (f facts) {
	t.Helper()
	const fuzz = 0.25 // seconds that two clocks may be apart, or rounded by
	from := seconds(time.Now())
	res := run(t, s, "python3", "-c", factsProgram)
	to := seconds(time.Now())
	if err := json.Unmarshal(res.Stdout, &f); err != nil {
		t.Fatalf("the program printed %q %q: %v", res.Stdout, res.Stderr, err)
	}
	if f.Now < from-fuzz || f.Now > to+fuzz {
		t.Errorf("in the session it is %.3f, outside it was %.3f to %.3f", f.Now, from, to)
	}
	if f.Uptime < 0 || f.Monotonic < 0 || f.Booted > to+1 || f.Booted < from-24*3600 {
		t.Errorf("the session has been up for %.2f s, since %.0f; now is %.0f", f.Uptime, f.Booted, to)
	}
	return f
}

func seconds(at time.Time) float64 { return float64(at.UnixNano()) / 1e9 }

// wantFresh checks that sessions differ in all that has to be their own, and
// agree in all else.
func wantFresh(t *testing.T, sessions ...*client.Session) {
	t.Helper()
	seen := map[string]int{}
	var first facts
	for i, s := range sessions {
		f := factsOf(t, s)
		if i == 0 {
			first = f
		} else if string(f.Same) != string(first.Same) {
			t.Errorf("session %d is\n%s\nwhile session 0 is\n%s", i, f.Same, first.Same)
		}
		for what, value := range f.Own {
			if other, taken := seen[value]; taken || len(value) < 4 {
				t.Errorf("sessions %d and %d both have %q (%d)", other, i, value, what)
			}
			seen[value] = i
		}
	}
}

// TestRestoredSessionsShareNothing: sessions of one template, taken from its
// pool or restored from its snapshot, differ in all that must be a session's
// own, and agree in what the template gives them.
func TestRestoredSessionsShareNothing(t *testing.T) {
	t.Parallel()
	srv := stoppedServer(t)
	srv.template(t, client.DefaultTemplate, "", small)
	srv.template(t, "my-interpreter", "", small)
	srv.template(t, "pooled", "warmPoolSize: 2", "preload: [numpy]\n    "+small)
	srv.template(t, "restored", "", "preload: [numpy]\n    resources: {limits: {memory: 300Mi}}")
	srv.restart(t)
	srv.prepare(t, "pooled", "restored")
	c := srv.client(t)
	for _, template := range []string{"pooled", "restored"} {
		t.Run(template, func(t *testing.T) {
			var sessions []*client.Session
			var keys []string
			for range 2 {
				s := createFrom(t, srv, c, client.CreateOptions{Template: template}, template == "pooled")
				sessions = append(sessions, s)
				keys = append(keys, s.ID)
			}
			wantFresh(t, sessions...)
			if !slices.Contains(preloaded(t, sessions[0]), "numpy") {
				t.Errorf("numpy was not imported before")
			}
			for i, s := range sessions {
				key, err := client.NewKey()
				if err != nil {
					t.Fatal(err)
				}
				stranger, err := c.Attach(t.Context(), keys[i], key)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stranger.ListFiles(t.Context(), ""); err == nil {
					t.Errorf("session %s opens to another key", s.ID)
				}
			}
		})
	}
}

// createFrom makes a session; with waiting, one whose sandbox was there before.
func createFrom(t *testing.T, srv *server, c *client.Client, opts client.CreateOptions, waiting bool) *client.Session {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		before := srv.sandboxes()
		s := create(t, c, opts)
		if !waiting || slices.Contains(before, srv.sandboxOf(t, s.ID)) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("no session had a sandbox that waited")
		}
		discard(t, s)
	}
}

// sandboxOf is the process of a session's sandbox.
func (s *server) sandboxOf(t *testing.T, session string) int {
	t.Helper()
	pid, _ := s.placeOf(t, session)
	return pid
}

// runOf is the folder in which a session runs.
func (s *server) runOf(t *testing.T, session string) string {
	t.Helper()
	_, run := s.placeOf(t, session)
	return run
}

func (s *server) placeOf(t *testing.T, session string) (pid int, run string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.data, "sandboxes", "s-"+session, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rec struct {
		At struct {
			PID int
			Run string
		}
	}
	if err := json.Unmarshal(raw, &rec); err != nil || rec.At.PID == 0 {
		t.Fatalf("record %s, %v", raw, err)
	}
	return rec.At.PID, rec.At.Run
}

func preloaded(t *testing.T, s *client.Session) []string {
	t.Helper()
	res := run(t, s, "python3", "-c", "import sys; print('\\n'.join(m for m in sys.modules if m in ('numpy', 'pandas')))")
	return strings.Fields(string(res.Stdout))
}

// TestClocksAfterSleep: the time asleep has passed when a session wakes, also
// when the machine's own count of time has begun anew, or is far ahead, as
// after a restart of the machine.
func TestClocksAfterSleep(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	c := srv.client(t)
	s := create(t, c, client.CreateOptions{Managed: true})
	output(t, s, "(sleep 2; date +%s > slept) >/dev/null 2>&1 &")
	last := factsOf(t, s)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	// The clocks of a namespace cannot begin before zero.
	back := strconv.FormatInt(-now.Sec*9/10, 10)
	for _, offset := range []string{"", "100000", back} {
		pause(t, s)
		if offset == "" {
			time.Sleep(3 * time.Second)
		} else {
			// A namespace gives the processes in it another time since boot.
			srv.wrap = []string{"unshare", "--time", "--monotonic", offset, "--boottime", offset, "--"}
			if err := srv.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			srv.restart(t)
			wantState(t, c, s.ID, api.StatePaused)
		}
		now := factsOf(t, s)
		if now.Monotonic <= last.Monotonic {
			t.Errorf("with offset %q the steady clock went from %.3f to %.3f", offset, last.Monotonic, now.Monotonic)
		}
		last = now
	}
	// What slept has woken up, and not before its time.
	awaitFile(t, s, "slept")
	discard(t, s)
}
