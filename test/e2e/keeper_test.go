package e2e

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/volcano-sh/agentcube/client"
)

// keeperProgram holds state of many kinds in memory, and answers questions
// about it: what it tells is lost with the process. Arguments: how many MiB of
// random bytes it holds.
const keeperProgram = `
import hashlib, json, os, subprocess, sys, threading, time
import numpy as np, pandas as pd

frame = pd.DataFrame(np.random.default_rng().normal(size=(20000, 6)), columns=list("abcdef"))
blob = os.urandom(int(sys.argv[1]) << 20)
with open("book.txt", "w") as f:
    f.writelines(f"line {n}\n" for n in range(10000))
book = open("book.txt")
count, notes = 0, []

def counting():
    global count
    while True:
        count += 1
        time.sleep(0.01)

threading.Thread(target=counting, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", """
import sys, threading, time
count = 0
def counting():
    global count
    while True:
        count += 1
        time.sleep(0.01)
threading.Thread(target=counting, daemon=True).start()
for line in sys.stdin:
    print(count, flush=True)
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

os.mkfifo("ask"), os.mkfifo("answer")
open("ready", "w").close()
while True:
    with open("ask") as f:
        said = f.read().strip()
    if said:
        notes.append(said)
    child.stdin.write("?\n"), child.stdin.flush()
    told = {
        "pid": os.getpid(), "frame": hashlib.sha256(frame.to_numpy().tobytes()).hexdigest(), "sum": float(frame["a"].sum()),
        "blob": hashlib.sha256(blob).hexdigest(), "line": book.readline().strip(), "offset": book.tell(),
        "count": count, "child": int(child.stdout.readline()), "notes": notes,
    }
    with open("answer", "w") as f:
        json.dump(told, f)
`

// keeper is a session in which keeperProgram runs.
type keeper struct {
	s      *client.Session
	key    *rsa.PrivateKey // of the session
	secret string          // hash of a file
	last   keeperState
}

// keeperState is what the program tells.
type keeperState struct {
	PID    int      `json:"pid"`
	Frame  string   `json:"frame"`
	Sum    float64  `json:"sum"`
	Blob   string   `json:"blob"`
	Line   string   `json:"line"`
	Offset int      `json:"offset"`
	Count  int      `json:"count"`
	Child  int      `json:"child"`
	Notes  []string `json:"notes"`
}

// keeperTemplate is enough for keeperProgram with 200 MiB, twice.
const keeperTemplate = "resources: {limits: {cpu: \"1\", memory: 640Mi, ephemeral-storage: 256Mi}}"

func newKeeper(t *testing.T, c *client.Client, mib int) *keeper {
	t.Helper()
	key, err := client.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s := create(t, c, client.CreateOptions{Template: "keeper", Key: key})
	upload(t, s, "keeper.py", keeperProgram)
	k := &keeper{s: s, key: key, secret: output(t, s, fmt.Sprintf(
		"head -c 1000 /dev/urandom | tee secret | sha256sum; nohup python3 keeper.py %d >keeper.log 2>&1 & until [ -e ready ] || ! kill -0 $!; do sleep 0.05; done; cat keeper.log >&2", mib))}
	k.last = k.ask(t, "")
	return k
}

func upload(t *testing.T, s *client.Session, name, text string) {
	t.Helper()
	if _, err := s.Upload(t.Context(), name, strings.NewReader(text), client.UploadOptions{Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
}

// ask has the program tell its state; what is said to it, it notes.
func (k *keeper) ask(t *testing.T, say string) (got keeperState) {
	t.Helper()
	text := output(t, k.s, "timeout 60 sh -c 'echo "+say+" > ask; cat answer' || { cat keeper.log >&2; exit 1; }")
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("the program answers %q: %v", text, err)
	}
	return got
}

// same asks, and checks that nothing is other than it has to be: what stands
// still stands still, and what goes on has gone on from where it was.
func (k *keeper) same(t *testing.T) {
	t.Helper()
	want, got := k.last, k.ask(t, "")
	k.last = got
	if got.Count <= want.Count || got.Child <= want.Child {
		t.Errorf("the counters are at %d and %d, they were at %d and %d", got.Count, got.Child, want.Count, want.Child)
	}
	var number int
	if _, err := fmt.Sscanf(want.Line, "line %d", &number); err != nil {
		t.Errorf("the program read %q: %v", want.Line, err)
	}
	if next := fmt.Sprintf("line %d", number+1); got.Line != next || got.Offset != want.Offset+len(next)+1 {
		t.Errorf("the open file gave %q and is at %d, want %q after %d", got.Line, got.Offset, next, want.Offset)
	}
	got.Count, got.Child, got.Line, got.Offset = want.Count, want.Child, want.Line, want.Offset
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the state is\n%+v\nit was\n%+v", got, want)
	}
	if secret := output(t, k.s, "sha256sum < secret"); secret != k.secret {
		t.Errorf("the file has hash %s, it had %s", secret, k.secret)
	}
}
