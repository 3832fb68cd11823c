package e2e

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

const forkBomb = `
os.execvp("bash", ["bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000"])
`

// exhaustion are attempts to use up what others need.
func exhaustion() []hostile {
	return []hostile{
		// gVisor can take minutes to get rid of a fork bomb: what is promised is
		// an answer, the others' well-being, and that deletion removes it all.
		{name: "fork bomb", template: "simple-codeinterpreter", dies: true, python: forkBomb, timeout: 3 * time.Second, check: wantTimedOut},
		{name: "fork bomb that forks as it is killed", template: "simple-codeinterpreter", dies: true, timeout: 3 * time.Second, check: wantTimedOutOrEnded, python: `
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
`},
		{name: "thread bomb", python: `
import threading
started = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        started += 1
except RuntimeError as e:
    print("refused", flush=True)
    print(started, e, file=sys.stderr, flush=True)
os._exit(0)
`, want: []string{"refused"}},
		{name: "memory bomb in one process", dies: true, check: wantOutOfMemory, python: `
kept = []
while True:
    kept.append(b"x" * (8 << 20) + os.urandom(1))
`},
		{name: "memory bomb in many processes", dies: true, check: wantOutOfMemory, python: `
for _ in range(20):
    if os.fork() == 0:
        break
kept = []
try:
    while len(kept) < 25:
        kept.append(b"x" * (4 << 20) + os.urandom(1))
except MemoryError:
    pass
time.sleep(1000)
`, timeout: 20 * time.Second},
		{name: "disk filler", python: `
def fill(path):
    with open(path, "wb", 0) as f:
        while True:
            f.write(b"x" * (1 << 20))
refused("fill", fill, "/workspace/filler")
print("wrote", os.path.getsize("/workspace/filler") >= 64 << 20)
`, want: []string{"fill refused", "wrote True"}, api: fullDisk},
		{name: "file filler", timeout: 20 * time.Second, dies: true, check: wantOutOfMemory, python: `
for made in range(100000000):
    with open(f"/tmp/{made}", "w") as f:
        f.write("x" * 256)
`},
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
		{name: "output flood without end", timeout: 3 * time.Second, check: wantTimedOutAndGone, python: `
block = b"\xff" * 65536
while True:
    os.write(1, block)
`},
		{name: "zombie maker", template: "simple-codeinterpreter", python: `
for _ in range(200):
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.2)
            os._exit(0)
    except OSError:
        time.sleep(0.01)
print("made", flush=True)
os._exit(0)
`, want: []string{"made"}, api: func(t *testing.T, _ *battlefield, s *client.Session) { awaitProcesses(t, s) }},
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
    print("refused", flush=True)
`, want: []string{"refused"}},
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
