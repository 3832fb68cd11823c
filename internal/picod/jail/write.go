package jail

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Pending is new content that is not in its place yet. End it with Commit or
// with Discard.
type Pending struct {
	ws   *Workspace
	dir  *os.Root
	name string // of the temporary file, in dir
	file *os.File
	size int64
}

// Create makes a temporary file in the directory in which rel will be, making
// that directory too, or in the workspace itself when rel is "".
func (w *Workspace) Create(rel string) (*Pending, error) {
	parent := "."
	if rel != "" {
		target, err := w.target(rel)
		if err != nil {
			return nil, err
		}
		parent = path.Dir(target)
		if err := w.mkdirAll(parent); err != nil {
			return nil, err
		}
	}
	dir, err := w.root.OpenRoot(parent)
	if err != nil {
		return nil, public(err)
	}
	var random [12]byte
	_, _ = rand.Read(random[:]) // never fails
	p := &Pending{ws: w, dir: dir, name: tempMark + hex.EncodeToString(random[:])}
	p.file, err = dir.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		_ = dir.Close()
		return nil, public(err)
	}
	return p, nil
}

// target resolves where content for rel goes, and refuses what cannot be
// replaced by a file.
func (w *Workspace) target(rel string) (string, error) {
	resolved, _, err := w.Resolve(rel)
	if err != nil {
		return "", err
	}
	if resolved == "." {
		return "", ErrIsDir
	}
	info, err := w.root.Lstat(resolved)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return resolved, nil
	case err != nil:
		return "", public(err)
	case info.IsDir():
		return "", ErrIsDir
	case !info.Mode().IsRegular():
		return "", ErrNotRegular
	}
	return resolved, nil
}

// Write adds content.
func (p *Pending) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.size += int64(n)
	return n, public(err)
}

// Commit puts the content in its place. mode is the permission bits to set; nil
// keeps those of a file that is replaced, and means 0644 for a new one.
func (p *Pending) Commit(rel string, mode *fs.FileMode) (fs.FileInfo, error) {
	defer p.Discard()
	target, err := p.ws.target(rel)
	if err != nil {
		return nil, err
	}
	perm := fs.FileMode(0o644)
	if mode != nil {
		perm = *mode
	} else if info, err := p.ws.root.Lstat(target); err == nil {
		perm = info.Mode().Perm()
	}
	if o := p.ws.owner; o != nil {
		if err := p.file.Chown(o.UID, o.GID); err != nil {
			return nil, fmt.Errorf("own file: %w", public(err))
		}
	}
	if err := p.file.Chmod(perm); err != nil {
		return nil, fmt.Errorf("set mode: %w", public(err))
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, public(err)
	}
	if err := p.ws.place(p, target); err != nil {
		return nil, err
	}
	return info, nil
}

// place renames the temporary file to target, through a copy when the target
// is on another file system.
func (w *Workspace) place(p *Pending, target string) error {
	parent := path.Dir(target)
	if err := w.mkdirAll(parent); err != nil {
		return err
	}
	dir, err := w.root.OpenRoot(parent)
	if err != nil {
		return public(err)
	}
	defer dir.Close()
	from, err := p.dir.Open(".")
	if err != nil {
		return public(err)
	}
	defer from.Close()
	to, err := dir.Open(".")
	if err != nil {
		return public(err)
	}
	defer to.Close()
	err = unix.Renameat(int(from.Fd()), p.name, int(to.Fd()), path.Base(target))
	if errors.Is(err, unix.EXDEV) {
		return w.copyTo(p, target)
	}
	if err != nil {
		return public(err)
	}
	p.name = ""
	return nil
}

// copyTo moves the content into a temporary file beside the target.
func (w *Workspace) copyTo(p *Pending, target string) error {
	info, err := p.file.Stat()
	if err != nil {
		return public(err)
	}
	beside, err := w.Create(target)
	if err != nil {
		return err
	}
	if _, err := io.Copy(beside, io.NewSectionReader(p.file, 0, p.size)); err != nil {
		beside.Discard()
		return err
	}
	perm := info.Mode().Perm()
	_, err = beside.Commit(target, &perm)
	return err
}

// Discard removes the temporary file if it was not put in its place, and frees
// what p holds. It may be called more than once.
func (p *Pending) Discard() {
	if p.dir == nil {
		return
	}
	if p.name != "" {
		_ = p.dir.Remove(p.name)
	}
	_ = p.file.Close()
	_ = p.dir.Close()
	p.dir = nil
}

// Remove removes a file, or a link itself. Missing files are fs.ErrNotExist.
func (w *Workspace) Remove(rel string) error { return public(w.root.Remove(rel)) }

// MkdirAll makes a directory and its parents, mode 0755.
func (w *Workspace) MkdirAll(rel string) error {
	resolved, _, err := w.Resolve(rel)
	if err != nil {
		return err
	}
	return w.mkdirAll(resolved)
}

// mkdirAll is MkdirAll for a resolved path.
func (w *Workspace) mkdirAll(dir string) error {
	if dir == "." {
		return nil
	}
	info, err := w.root.Lstat(dir)
	if err == nil {
		if !info.IsDir() {
			return ErrNotDir
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return public(err)
	}
	if err := w.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	if err := w.root.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil // somebody was faster
	} else if err != nil {
		return public(err)
	}
	return w.adopt(dir)
}

// adopt gives a directory that was just made its mode and its owner. Only
// a directory that still belongs to the daemon and was closed to all others is
// touched: anything else was put there by somebody else meanwhile.
func (w *Workspace) adopt(dir string) error {
	f, err := w.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return public(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return public(err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return nil
	}
	if err := f.Chmod(0o755); err != nil {
		return public(err)
	}
	if w.owner == nil {
		return nil
	}
	return public(f.Chown(w.owner.UID, w.owner.GID))
}
