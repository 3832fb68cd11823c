package jail

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// known reports whether an error is one that there are words for.
func known(err error) bool {
	for _, is := range []error{ErrEscapes, ErrInvalid, ErrIsDir, ErrNotDir, ErrNotRegular, ErrDiskFull, ErrLoop, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// FuzzRel: a name becomes a clean path within the workspace, or nothing.
func FuzzRel(f *testing.F) {
	for _, name := range []string{"", ".", "/", "..", "../x", "a/../../b", "/etc/passwd", "/w/a", "/w", "/w/../x", "/wx", "//w//a", "a\x00b", "a/./b/", "...", strings.Repeat("a/", 2100)} {
		f.Add(name)
	}
	dir := f.TempDir()
	w, err := Open(dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Close() })
	f.Fuzz(func(t *testing.T, name string) {
		name = strings.ReplaceAll(name, "/w", dir)
		rel, err := w.Rel(name)
		if err != nil {
			if !known(err) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if !filepath.IsLocal(rel) || path.Clean(rel) != rel || strings.Contains(rel, "\x00") {
			t.Errorf("%q is %q", name, rel)
		}
		if again, err := w.Rel(rel); err != nil || again != rel {
			t.Errorf("%q is %q, and that is %q, %v", name, rel, again, err)
		}
		if abs, err := w.Rel(filepath.Join(dir, rel)); err != nil && !errors.Is(err, ErrInvalid) || err == nil && abs != rel {
			t.Errorf("%q is %q, and as an absolute path %q, %v", name, rel, abs, err)
		}
	})
}

// FuzzFiles: with links of any kind in the workspace, and any name, nothing outside
// is read or written, and what is read back is what was written.
func FuzzFiles(f *testing.F) {
	for _, seed := range [][3]string{
		{"a", "../outside/secret", "a"}, {"a", "..", "a/outside/secret"}, {"d/l", "/W/d", "d/l/x"}, {"l", "l", "l"}, {"l", "l/x", "l/y"}, {"a", ".", "a/a/a/b"},
		{"a", "/etc/passwd", "a"}, {"a", "b", "a"}, {"a", "/W/../outside/secret", "a"}, {"x", "/W", "x/x/new"}, {"dir", "../workspace/y", "dir"}, {"a/b", "../c", "a/b/d"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, link, target, name string) {
		base := t.TempDir()
		dir, outside := filepath.Join(base, "workspace"), filepath.Join(base, "outside")
		for _, d := range []string{dir, outside} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if filepath.IsLocal(link) && link != "." && !strings.Contains(link, "\x00") {
			_ = os.MkdirAll(filepath.Dir(filepath.Join(dir, link)), 0o755)
			_ = os.Symlink(strings.ReplaceAll(target, "/W", dir), filepath.Join(dir, link))
		}
		if rel, err := w.Rel(name); err == nil {
			use(t, w, name, rel)
		}
		left, err := os.ReadDir(outside)
		if text, readErr := os.ReadFile(filepath.Join(outside, "secret")); err != nil || readErr != nil || string(text) != "secret" || len(left) != 1 {
			t.Errorf("outside are %v, and the secret is %q (%v, %v)", left, text, err, readErr)
		}
		if all, err := os.ReadDir(base); err != nil || len(all) != 2 {
			t.Errorf("beside the workspace are %v, %v", all, err)
		}
	})
}

// use does what a client can do with a name.
func use(t *testing.T, w *Workspace, name, rel string) {
	if file, _, err := w.OpenFile(rel); err == nil {
		text := make([]byte, 6)
		n, _ := file.Read(text)
		if string(text[:n]) == "secret" {
			t.Errorf("%q reads what is outside", name)
		}
		file.Close()
	} else if !known(err) {
		t.Logf("%q: open: %v", name, err)
	}
	if entries, _, err := w.List(rel); err == nil {
		for _, e := range entries {
			if e.Name == "secret" {
				t.Errorf("%q lists what is outside", name)
			}
		}
	}
	resolved, _, err := w.Resolve(rel)
	if err == nil && !filepath.IsLocal(resolved) {
		t.Errorf("%q resolves to %q", name, resolved)
	}
	p, err := w.Create(rel)
	if err != nil {
		return
	}
	defer p.Discard()
	if _, err := p.Write([]byte("mine")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Commit(rel, nil); err != nil {
		return
	}
	text, err := os.ReadFile(filepath.Join(w.Dir(), resolved))
	if err != nil || string(text) != "mine" {
		t.Errorf("%q was written, and %q is %q, %v", name, resolved, text, err)
	}
	if err := w.Remove(rel); err != nil && !known(err) {
		t.Logf("%q: remove: %v", name, err)
	}
}
