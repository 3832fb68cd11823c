package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// TestOutput feeds streams in pieces of every size and compares with what
// a plain cut would keep.
func TestOutput(t *testing.T) {
	for _, size := range []int{0, 1, 9, 10, 11, 14, 15, 16, 99, 1000} {
		for _, piece := range []int{1, 3, 7, 10, 64} {
			t.Run(fmt.Sprintf("%d by %d", size, piece), func(t *testing.T) {
				var b budget
				b.left.Store(budgetStep)
				o := newOutput(11, &b)
				all := make([]byte, size)
				for i := range all {
					all[i] = byte('a' + i%26)
				}
				for rest := all; len(rest) > 0; {
					n := min(piece, len(rest))
					o.write(rest[:n])
					rest = rest[n:]
				}
				want := all
				if size > 11 {
					want = append(append([]byte{}, all[:6]...), all[size-5:]...)
				}
				if !bytes.Equal(o.Bytes(), want) || o.Truncated() != (size > 11) || o.Total() != int64(size) {
					t.Errorf("kept %q of %d, want %q", o.Bytes(), o.Total(), want)
				}
				o.release()
				if b.left.Load() != budgetStep {
					t.Errorf("%d bytes were not given back", budgetStep-b.left.Load())
				}
			})
		}
	}
}

// TestTruncatedCharacters: a cut inside a character does not make text binary.
func TestTruncatedCharacters(t *testing.T) {
	for limit := 8; limit < 24; limit++ {
		var b budget
		b.left.Store(budgetStep)
		o := newOutput(limit, &b)
		o.write([]byte(strings.Repeat("aé€𝄞", 20)))
		if !o.Valid() || !utf8.ValidString(o.Text()) {
			t.Errorf("limit %d: text is not valid: %q", limit, o.Text())
		}
		o.write([]byte{0xff, 'x'})
		if o.Valid() {
			t.Errorf("limit %d: binary output passes for text", limit)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		stat string
		want process
		ok   bool
	}{
		{"12 (bash) S 1 12 11 0 -1", process{12, 1, 12, 11, false}, true},
		{"12 (a) b) Z) Z 3 4 5 0", process{12, 3, 4, 5, true}, true},
		{"12 (x) S 1", process{}, false},
		{"12 (x) S a b c", process{}, false},
		{"", process{}, false},
	} {
		if got, ok := parseStat(12, tt.stat); ok != tt.ok || got != tt.want {
			t.Errorf("%q: got %+v %v", tt.stat, got, ok)
		}
	}
}

// TestReaper: orphans are collected, and statuses of owned children are not
// stolen although they end in between.
func TestReaper(t *testing.T) {
	r := open(t, Config{ReapOrphans: true})
	for i := range 30 {
		res := r.Run(t.Context(), shell(fmt.Sprintf("(sleep 0.01 &) ; (setsid true &) ; exit %d", i)))
		if res.ExitCode != i {
			t.Errorf("exit code %d, want %d", res.ExitCode, i)
		}
		res.Release()
	}
	for end := time.Now().Add(guard); ; time.Sleep(5 * time.Millisecond) {
		var zombies []int
		for _, p := range processes() {
			if p.zombie && p.parent == os.Getpid() {
				zombies = append(zombies, p.pid)
			}
		}
		if len(zombies) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("zombies are left: %v", zombies)
		}
	}
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "tool": 0o755} {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, tt := range []struct{ name, path, want string }{
		{"tool", "/nowhere:" + dir, dir + "/tool"},
		{"tool", ".", ""}, {"tool", "", ""}, {"plain", dir, ""}, {"sub", dir, ""}, {"", dir, ""},
		{"./tool", "", "./tool"},
	} {
		got, err := lookup(tt.name, tt.path)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("lookup(%q, %q) = %q, %v", tt.name, tt.path, got, err)
		}
	}
}

// TestSiginfo: the layout is the kernel's.
func TestSiginfo(t *testing.T) {
	// Orphans of tests that had a reaper would be seen first.
	for pid := 1; pid > 0; {
		pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var info siginfo
	for end := time.Now().Add(guard); info.pid == 0 && time.Now().Before(end); {
		if err := info.peek(); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	if int(info.pid) != cmd.Process.Pid {
		t.Errorf("pid %d, want %d", info.pid, cmd.Process.Pid)
	}
}
