package picod

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostileFiles: what a command prepares in the workspace never leads out of
// it, never blocks, and leaves what is outside as it was.
func TestHostileFiles(t *testing.T) {
	b := start(t, nil)
	outside := filepath.Join(filepath.Dir(b.dir), "outside")
	script := `set -e; mkdir -p ` + outside + ` sub; echo secret > ` + outside + `/secret
		ln -s ` + outside + ` out; ln -s ` + outside + `/secret file; ln -s ` + outside + `/new dangling; ln -s ../outside rel; ln -s ../../outside/secret sub/rel
		ln -s loop loop; ln -s out chain; mkfifo pipe; ln -s pipe to-pipe; mknod device c 1 5; ln -s /dev/zero zero; ln -s . self
		echo inner > inner; ln -s inner good; ln -s ` + b.dir + `/inner good-abs; ln -s ` + b.dir + `/made good-dangling; ln -s sub good-dir`
	if got := b.shell(script); got.ExitCode != 0 {
		t.Fatal(got.Stderr)
	}
	before := b.tree()
	escapes := [3]any{400, "Invalid path: path escapes workspace jail", "PATH_ESCAPES_WORKSPACE"}
	notRegular := [3]any{400, "Path is not a regular file", "NOT_A_REGULAR_FILE"}
	invalid := [3]any{400, "Invalid path", "INVALID_PATH"}
	for path, want := range map[string][3]any{
		"out/new": escapes, "out/a/b/new": escapes, "file": escapes, "dangling": escapes, "dangling/x": escapes, "rel/new": escapes,
		"sub/rel": escapes, "chain/new": escapes, "zero": escapes, "out": escapes, "self/out/x": escapes,
		"loop": invalid, "loop/x": invalid, "pipe": notRegular, "to-pipe": notRegular, "device": notRegular,
	} {
		t.Run(path, func(t *testing.T) {
			b.post("/api/files", map[string]any{"path": path, "content": "eA=="}).expect(t, want[0].(int), want[1].(string), want[2].(string))
			b.postForm(nil, field{"path", "", path}, field{"file", "f", "x"}).expect(t, want[0].(int), want[1].(string), want[2].(string))
			b.postForm(nil, field{"file", "f", "x"}, field{"path", "", path}).expect(t, want[0].(int), want[1].(string), want[2].(string))
			b.get("/api/files/"+path).expect(t, want[0].(int), want[1].(string), want[2].(string))
		})
	}
	if after := b.tree(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the workspace changed from %v to %v", before, after)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v %v", left, err)
	}
	if text, _ := os.ReadFile(outside + "/secret"); string(text) != "secret\n" {
		t.Errorf("the secret is now %q", text)
	}
	for path, want := range map[string]string{"good": "inner\n", "good-abs": "inner\n", "self/self/good": "inner\n"} {
		if got := b.get("/api/files/" + path); string(got.body) != want {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	for path, lands := range map[string]string{"good-dangling": "made", "good-dir/x": "sub/x", "good": "inner"} {
		if got := b.post("/api/files", map[string]any{"path": path, "content": "eA=="}); got.StatusCode != 200 {
			t.Errorf("%s: %s", path, got.body)
		}
		if text, err := os.ReadFile(filepath.Join(b.dir, lands)); err != nil || string(text) != "x" {
			t.Errorf("%s: %q %v", lands, text, err)
		}
	}
}

// TestSwaps: a command that exchanges directories and links all the time wins
// nothing; what is outside stays as it was.
func TestSwaps(t *testing.T) {
	b := start(t, nil)
	outside := filepath.Join(filepath.Dir(b.dir), "outside")
	for _, err := range []error{os.Mkdir(outside, 0o777), os.WriteFile(outside+"/f", []byte("secret"), 0o644), os.Mkdir(b.dir+"/d", 0o755),
		os.WriteFile(b.dir+"/d/f", []byte("mine"), 0o644), os.Symlink(outside, b.dir+"/l")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, b.dir+"/d", unix.AT_FDCWD, b.dir+"/l", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 300 {
		if got := b.get("/api/files/d/f"); bytes.Contains(got.body, []byte("secret")) {
			t.Error("read from outside")
		}
		b.post("/api/files", map[string]any{"path": "d/f", "content": "bWluZQ=="})
		b.post("/api/files", map[string]any{"path": "d/new/f", "content": "bWluZQ=="})
		b.postForm(nil, field{"file", "f", "mine"}, field{"path", "", "d/form"})
	}
	close(stop)
	<-done
	if text, _ := os.ReadFile(outside + "/f"); string(text) != "secret" {
		t.Errorf("outside now holds %q", text)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside: %v %v", left, err)
	}
}

// TestHardLink: an upload never writes into a file that has another name.
func TestHardLink(t *testing.T) {
	b := start(t, nil)
	secret := filepath.Join(filepath.Dir(b.dir), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(secret, b.dir+"/x"); err != nil {
		t.Fatal(err)
	}
	b.post("/api/files", map[string]any{"path": "x", "content": "bWluZQ==", "mode": "0666"})
	text, _ := os.ReadFile(secret)
	if info, err := os.Stat(secret); err != nil || string(text) != "secret" || info.Mode().Perm() != 0o600 {
		t.Errorf("the other name holds %q", text)
	}
}

func TestDiskFull(t *testing.T) {
	base := t.TempDir()
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(base, unix.MNT_DETACH)
	b := start(t, func(c *Config) { c.Workspace = base + "/w" })
	defer b.close()
	big := strings.Repeat("x", 4<<20)
	if got := b.post("/api/files", map[string]any{"path": "old", "content": "b2xk"}); got.StatusCode != 200 {
		t.Fatal(string(got.body))
	}
	for _, path := range []string{"new", "old"} {
		b.post("/api/files", map[string]any{"path": path, "content": base64.StdEncoding.EncodeToString([]byte(big))}).
			expect(t, http.StatusInsufficientStorage, "No space left", "DISK_FULL")
		b.postForm(nil, field{"path", "", path}, field{"file", "f", big}).
			expect(t, http.StatusInsufficientStorage, "No space left", "DISK_FULL")
	}
	if left := b.tree(); len(left) != 1 || left[0] != "old" {
		t.Errorf("left behind: %v", left)
	}
	if got := b.get("/api/files/old"); string(got.body) != "old" {
		t.Errorf("the old content is now %q", got.body[:min(10, len(got.body))])
	}
}

// TestOtherFileSystem: a file that came before its path reaches a directory on
// another file system too.
func TestOtherFileSystem(t *testing.T) {
	b := start(t, nil)
	if err := os.Mkdir(b.dir+"/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", b.dir+"/mnt", "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(b.dir+"/mnt", unix.MNT_DETACH)
	got := b.postForm(nil, field{"file", "f", "content"}, field{"mode", "", "0640"}, field{"path", "", "mnt/sub/x"})
	if got.StatusCode != 200 {
		t.Fatal(string(got.body))
	}
	text, _ := os.ReadFile(b.dir + "/mnt/sub/x")
	if info, err := os.Stat(b.dir + "/mnt/sub/x"); err != nil || string(text) != "content" || info.Mode().Perm() != 0o640 {
		t.Errorf("stored %q %v", text, err)
	}
	if left := b.tree(); len(left) != 3 {
		t.Errorf("left behind: %v", left)
	}
}
