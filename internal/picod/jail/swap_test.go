package jail

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSwappedFolders: a program exchanges a folder and a link that leads out, as fast
// as it can, while files are read, written and put into new folders below it. What
// decides where that happens is the moment of the operation itself.
func TestSwappedFolders(t *testing.T) {
	base := t.TempDir()
	dir, outside := filepath.Join(base, "workspace"), filepath.Join(base, "outside")
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
	defer w.Close()
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
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end) && !t.Failed(); {
		if file, _, err := w.OpenFile("d/f"); err == nil {
			if text, _ := io.ReadAll(file); string(text) == "secret" {
				t.Error("what is outside was read")
			}
			file.Close()
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
		for _, folder := range []string{"/d/folder", "/l/folder"} {
			_ = os.RemoveAll(dir + folder)
		}
	}
	close(stop)
	<-done
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
