package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// forkBomb counts, by a pipe, what the bomb has become before it says so.
const forkBomb = `
r, w = os.pipe()
subprocess.Popen(["bash", "-c", f"bomb() {{ echo >&{w}; bomb | bomb & }}; bomb; sleep 1000"], pass_fds=[w], stderr=subprocess.DEVNULL)
for _ in range(20):
    os.read(r, 1)
print("forked 20", flush=True)
time.sleep(1000)
`

// forkBombOfItsOwn is one in which every process forks, also while others are
// killed; the first looks on until there are enough.
const forkBombOfItsOwn = `
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
r, w = os.pipe()
os.set_blocking(w, False)
def bomb():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
                os.write(w, b".")
        except OSError:
            pass
if os.fork() == 0:
    bomb()
for _ in range(20):
    os.read(r, 1)
print("forked 20", flush=True)
bomb()
`

// memoryBomb takes all there is; b"x" * n is memory that was written to.
const memoryBomb = `
kept = []
while True:
    kept.append(b"x" * (8 << 20) + os.urandom(1))
    if len(kept) == 8:
        print("took 64 MiB", flush=True)
`

// memoryBombs is many processes that take a little each. The first takes nothing,
// sees what becomes of them, and ends like the first of them that ends.
const memoryBombs = `
r, w = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        kept = []
        while len(kept) < 25:
            kept.append(b"x" * (4 << 20) + os.urandom(1))
            if len(kept) == 4:
                os.write(w, b".")
        time.sleep(1000)
for _ in range(4):
    os.read(r, 1)
print("took 64 MiB", flush=True)
_, status = os.wait()
os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else 99)
`

// attributeBomb takes memory of gVisor's kernel, with what no limit on the content of
// files sees.
const attributeBomb = `
open("file", "w").close()
for made in range(100000000):
    os.setxattr("file", f"user.{made}", b"x" * 65536)
    if made == 1024:
        print("took 64 MiB", flush=True)
`

// exhaustion are attempts to use up what others need.
func exhaustion() []hostile {
	return []hostile{
		// gVisor can take minutes to get rid of a fork bomb: what is promised is
		// an answer, the others' well-being, and that deletion removes it all.
		{name: "fork bomb", template: "simple-codeinterpreter", dies: true, python: forkBomb, timeout: bombTime, check: wantBombed},
		{name: "fork bomb that forks as it is killed", template: "simple-codeinterpreter", dies: true, python: forkBombOfItsOwn, timeout: bombTime, check: wantBombed},
		{name: "thread bomb", python: `
import threading
started = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        started += 1
except RuntimeError as e:
    print("started 20", started >= 20)
    print("refused", flush=True)
    print(started, e, file=sys.stderr, flush=True)
os._exit(0)
`, want: []string{"started 20 True", "refused"}},
		{name: "limit of processes lifted", python: `
import resource
def lift(soft, hard):
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    except ValueError as e:
        raise OSError(str(e))
limit = resource.getrlimit(resource.RLIMIT_NPROC)
print("limited", 64 <= limit[0] == limit[1] < 128, file=sys.stdout, flush=True)
refused("lift", lift, -1, -1)
refused("lift a little", lift, limit[0] + 1, limit[1] + 1)
`, want: []string{"limited True", "lift refused", "lift a little refused"}},
		{name: "memory bomb in one process", dies: true, python: memoryBomb, check: wantOutOfMemory("took 64 MiB")},
		{name: "memory bomb in many processes", dies: true, python: memoryBombs, check: wantOutOfMemory("took 64 MiB")},
		{name: "attributes without number", dies: true, python: attributeBomb, check: wantOutOfMemory("took 64 MiB")},
		{name: "files without number", python: `
def fill():
    global made
    for made in range(100000000):
        with open(f"/tmp/{made}", "w") as f:
            f.write("x" * 256)
refused("fill", fill)
print("made 10000", made >= 10000)
`, want: []string{"fill refused", "made 10000 True"}, api: func(t *testing.T, _ *battlefield, s *client.Session) {
			output(t, s, "find /tmp -type f -delete")
		}},
		{name: "disk filler", python: `
def fill(path):
    with open(path, "wb", 0) as f:
        while True:
            f.write(b"x" * (1 << 20))
refused("fill", fill, "/workspace/filler")
print("wrote", os.path.getsize("/workspace/filler") >= 64 << 20)
`, want: []string{"fill refused", "wrote True"}, api: fullDisk},
		{name: "output flood", python: `
block = b"0123456789abcdef" * 65536
for _ in range(256):
    os.write(1, block)
    os.write(2, block)
os.write(1, b"THE END\n")
`, check: func(t *testing.T, _ *battlefield, s *client.Session, res client.ExecResult, err error) {
			if err != nil || res.ExitCode != 0 || !res.StdoutTruncated || !res.StderrTruncated {
				t.Fatalf("ended with %d, truncated %t and %t, %v", res.ExitCode, res.StdoutTruncated, res.StderrTruncated, err)
			}
			if len(res.Stdout) > 16<<20 || len(res.Stderr) > 16<<20 || !bytes.Contains(res.Stdout, []byte("THE END\n")) {
				t.Errorf("kept %d and %d bytes, ending in %q", len(res.Stdout), len(res.Stderr), res.Stdout[max(0, len(res.Stdout)-80):])
			}
		}},
		{name: "output flood without end", template: "simple-codeinterpreter", timeout: 3 * time.Second, check: wantTimedOutAndGone, python: `
block = b"\xff" * 65536
while True:
    os.write(1, block)
`},
		{name: "zombie maker", template: "simple-codeinterpreter", python: `
made = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.2)
            os._exit(0)
        made += 1
    except OSError:
        time.sleep(0.01)
print("made 20", made >= 20, flush=True)
os._exit(0)
`, want: []string{"made 20 True"}, api: func(t *testing.T, _ *battlefield, s *client.Session) { awaitProcesses(t, s) }},
		{name: "ignore signals and hide", timeout: 2 * time.Second, check: wantTimedOutAndGone, python: `
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            os.execve("/bin/sleep", ["kworker/0:1"[:0] or "sleep", "100000"], {})
        os._exit(0)
time.sleep(100000)
`},
		{name: "stop oneself", timeout: 2 * time.Second, check: wantTimedOutAndGone, python: `
os.kill(os.getpid(), signal.SIGSTOP)
`},
		{name: "files and pipes kept open", python: `
held = []
try:
    while True:
        held.extend(os.pipe())
except OSError as e:
    print("held 100", len(held) >= 100)
    print("refused", flush=True)
`, want: []string{"held 100 True", "refused"}},
		{name: "commands without number", api: manyCommands},
	}
}

// fullDisk: what does not fit is refused with a clear error and leaves no half
// file; a disk that was cleared can be used again.
func fullDisk(t *testing.T, _ *battlefield, s *client.Session) {
	content := bytes.Repeat([]byte("y"), 3<<20)
	_, err := s.Upload(t.Context(), "uploaded", bytes.NewReader(content), client.UploadOptions{Size: int64(len(content))})
	var answer *client.APIError
	if !errors.As(err, &answer) || answer.Status < 400 || !strings.Contains(strings.ToLower(answer.Error()), "space") {
		t.Errorf("upload onto a full disk: %v", err)
	}
	if got := leftovers(t, s); got != "filler\n" {
		t.Errorf("after the upload that failed there are %q", got)
	}
	output(t, s, "rm filler")
	if err := s.WriteFile(t.Context(), "uploaded", content); err != nil {
		t.Errorf("upload onto a cleared disk: %v", err)
	}
	if got := output(t, s, "stat -c %s uploaded"); got != "3145728\n" {
		t.Errorf("uploaded %s bytes", got)
	}
}

// manyCommands asks for more commands at a time than are allowed.
func manyCommands(t *testing.T, _ *battlefield, s *client.Session) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	ran, busy := 0, 0
	for range 100 {
		wg.Go(func() {
			res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"sleep", "2"}})
			var answer *client.APIError
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && res.ExitCode == 0:
				ran++
			case err == nil && strings.Contains(string(res.Stderr), "process"):
				busy++ // the limit of processes comes first
			case errors.As(err, &answer) && answer.Status == 429 && answer.RetryAfter > 0 && answer.Text != "":
				busy++
			default:
				t.Errorf("got %d %q, %v", res.ExitCode, res.Stderr, err)
			}
		})
	}
	wg.Wait()
	if ran == 0 || busy == 0 || ran+busy != 100 {
		t.Errorf("%d commands ran, %d were refused", ran, busy)
	}
}

const (
	// bombTime is enough for a bomb to go off on a machine that is busy.
	bombTime = 20 * time.Second
	// afterBomb is how long the session may have nothing but clear refusals.
	afterBomb = 30 * time.Second
)

// wantBombed: the bomb has gone off and was ended at its time-out, or with its
// session. Whoever asks for something after that gets it, or a clear answer, and
// the session can be deleted.
func wantBombed(t *testing.T, f *battlefield, s *client.Session, res client.ExecResult, err error) {
	t.Helper()
	if err == nil && !strings.Contains(string(res.Stdout), "forked 20\n") {
		t.Errorf("the bomb has not gone off: it ended with %d, %.500q, %.500q", res.ExitCode, res.Stdout, res.Stderr)
	}
	if err == nil {
		wantTimedOut(t, f, s, res, err)
		err = answers(t, s)
	}
	if errors.Is(err, client.ErrSessionEnded) {
		if rec := awaitEnd(t, f.c, s.ID); rec.Fate == "" || rec.Reason == "" {
			t.Errorf("the session ended as %+v", rec)
		}
	} else if err != nil {
		t.Errorf("there is no clear answer: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Delete(ctx); err != nil {
		t.Errorf("the session was not deleted: %v", err)
	}
}

// answers asks a session for something until it does it, or enough time has gone
// by with nothing but answers that say why not.
func answers(t *testing.T, s *client.Session) error {
	t.Helper()
	for deadline := time.Now().Add(afterBomb); ; time.Sleep(100 * time.Millisecond) {
		res, err := s.Execute(t.Context(), client.ExecRequest{Command: []string{"bash", "-c", "echo $(echo fine)"}, Timeout: afterBomb})
		switch {
		case err != nil:
			return err
		case res.ExitCode == 0 && string(res.Stdout) == "fine\n":
			return nil
		case !clearRefusal(res):
			return fmt.Errorf("the command ended with %d: %.500q, %.500q", res.ExitCode, res.Stdout, res.Stderr)
		case time.Now().After(deadline):
			t.Logf("after %s commands are still refused: %.200q", afterBomb, res.Stderr)
			return nil
		}
	}
}

// clearRefusal: there are too many processes, or there was no time, and it is said.
func clearRefusal(res client.ExecResult) bool {
	said := string(res.Stderr)
	return res.ExitCode != 0 && (strings.Contains(said, "too many processes") || strings.Contains(said, "fork: ")) ||
		res.ExitCode == client.TimedOutExitCode && strings.Contains(said, "timed out")
}
