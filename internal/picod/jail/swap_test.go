package jail

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// beside is a workspace with a folder d, and a link l to a folder outside that holds
// a secret.
func beside(t *testing.T) (w *Workspace, dir, outside string) {
	t.Helper()
	base := t.TempDir()
	dir, outside = filepath.Join(base, "workspace"), filepath.Join(base, "outside")
	for _, err := range []error{
		os.Mkdir(dir, 0o755), os.Mkdir(outside, 0o755), os.WriteFile(outside+"/f", []byte("secret"), 0o600),
		os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/f", []byte("mine"), 0o600), os.Symlink(outside, dir+"/l"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w, dir, outside
}

// TestSwappedFolders: a program exchanges a folder and a link that leads out, as fast
// as it can, while files are read, written and put into new folders below it. What
// decides where that happens is the moment of the operation itself.
func TestSwappedFolders(t *testing.T) {
	w, dir, outside := beside(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/d", unix.AT_FDCWD, dir+"/l", unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() {
		close(stop)
		<-done
	}()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && !t.Failed(); {
		// The moment that matters is short: there are many of those that cost little.
		for range 20 {
			if file, _, err := w.OpenFile("d/f"); err == nil {
				if text, _ := io.ReadAll(file); string(text) == "secret" {
					t.Error("what is outside was read")
				}
				file.Close()
			}
			_ = w.MkdirAll("d/folder")
			if _, err := os.Lstat(outside + "/folder"); err == nil {
				t.Fatal("a folder was made outside")
			}
			_ = os.Remove(dir + "/d/folder")
		}
		for _, name := range []string{"d/new", "d/folder/new"} {
			if p, err := w.Create(name); err == nil {
				_, _ = p.Write([]byte("mine"))
				_, _ = p.Commit(name, nil)
			}
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
			t.Errorf("outside are %v, %v", left, err)
		}
		for _, name := range []string{"/d/folder", "/l/folder"} {
			_ = os.RemoveAll(dir + name)
		}
	}
}

// TestSwapAfterTheLook: also when a folder is exchanged after all has been looked at,
// and new content is about to get its name.
func TestSwapAfterTheLook(t *testing.T) {
	w, dir, outside := beside(t)
	p, err := w.Create("d/new")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Discard()
	if err := unix.Renameat2(unix.AT_FDCWD, dir+"/d", unix.AT_FDCWD, dir+"/l", unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if err := w.place(p, "d/new"); err == nil {
		t.Error("it was placed")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside are %v, %v", left, err)
	}
}

// TestAdoptsItsOwnFolders: a folder that somebody else put in the place of one that
// was just made is not given away, and not opened.
func TestAdoptsItsOwnFolders(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir, &Owner{UID: 1000, GID: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, tt := range []struct {
		name     string
		uid      int
		mode     os.FileMode
		adopted  bool
		wantMode os.FileMode
	}{
		{"just made", 0, 0o700, true, 0o755},
		{"of another owner", 2000, 0o700, false, 0o700},
		{"of the daemon, and there before", 0, 0o750, false, 0o750},
	} {
		path := filepath.Join(dir, tt.name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, tt.uid, tt.uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := w.adopt(tt.name); err != nil {
			t.Error(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if (st.Uid == 1000) != tt.adopted || os.FileMode(st.Mode&0o777) != tt.wantMode {
			t.Errorf("%s: it belongs to %d with mode %o", tt.name, st.Uid, st.Mode&0o777)
		}
	}
}
