// Package jail is PicoD's only way to files: everything happens beneath one
// directory, whatever names, symbolic links or swaps a hostile command prepares.
//
// A name is first resolved to a path without symbolic links, and then opened
// through [os.Root], which refuses to leave the directory at the moment of the
// operation itself. The resolution only decides which links are followed (those
// that point back inside, absolute ones too); a link that is swapped in between
// makes the operation fail, never escape.
//
// New content always goes to a temporary file that is renamed into place, so no
// existing file is ever written, chowned or chmodded through a name, and readers
// see the old content or the new.
package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What can be wrong with a path. Errors of this package wrap one of these or
// one of the errors of io/fs.
var (
	ErrEscapes    = errors.New("path escapes workspace jail")
	ErrInvalid    = errors.New("path is not valid")
	ErrIsDir      = errors.New("path is a directory")
	ErrNotDir     = errors.New("path is not a directory")
	ErrNotRegular = errors.New("path is not a regular file")
	ErrDiskFull   = errors.New("no space left in the workspace")
	ErrLoop       = errors.New("too many symbolic links")
)

const (
	maxPath  = 4096
	maxLinks = 40
	tempMark = ".picod-upload-"
)

// Owner is who new files and directories belong to.
type Owner struct{ UID, GID int }

// Workspace is an open directory. It is safe for concurrent use.
type Workspace struct {
	root  *os.Root
	dir   string
	owner *Owner
}

// Open opens dir, an existing directory with an absolute path. New files belong
// to owner, or to the daemon's user if it is nil.
func Open(dir string, owner *Owner) (*Workspace, error) {
	dir = filepath.Clean(dir)
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open workspace: %w: not absolute", ErrInvalid)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open workspace: %w", err)
	}
	return &Workspace{root: root, dir: dir, owner: owner}, nil
}

// Close closes the directory.
func (w *Workspace) Close() error { return w.root.Close() }

// Dir returns the absolute path of the workspace.
func (w *Workspace) Dir() string { return w.dir }

// Rel turns a path that a client gave into a clean one relative to the
// workspace. An absolute path inside the workspace means just that; any other
// absolute path is taken as rooted at the workspace.
func (w *Workspace) Rel(name string) (string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return "", ErrInvalid
	}
	if path.IsAbs(name) {
		name = path.Clean(name)
		if rest, ok := w.inside(name); ok {
			return rest, nil
		}
		return path.Clean(strings.TrimLeft(name, "/")), nil
	}
	name = path.Clean(name)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", ErrEscapes
	}
	return name, nil
}

// inside returns the part of a clean absolute path that lies in the workspace.
func (w *Workspace) inside(name string) (string, bool) {
	if name == w.dir {
		return ".", true
	}
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(w.dir, "/")+"/")
	if ok && rest == "" {
		return ".", true
	}
	return rest, ok
}

// Resolve follows the symbolic links of a path from Rel, as long as they stay
// inside. What does not exist is kept as it is. left is how many components of
// the path came after the one at which an error occurred.
func (w *Workspace) Resolve(rel string) (resolved string, left int, err error) {
	todo := strings.Split(rel, "/")
	done, missing := ".", false
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if done == "." {
				return "", len(todo), ErrEscapes
			}
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, name)
		if missing {
			done = next
			continue
		}
		info, err := w.root.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			done, missing = next, true
			continue
		}
		if err != nil {
			return "", len(todo), public(err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", len(todo), ErrLoop
		}
		target, err := w.root.Readlink(next)
		if err != nil {
			return "", len(todo), public(err)
		}
		if path.IsAbs(target) {
			rest, ok := w.inside(path.Clean(target))
			if !ok {
				return "", len(todo), ErrEscapes
			}
			done, target = ".", rest
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, 0, nil
}

// public maps what the system says to the errors of this package and strips
// the paths from it.
func public(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		return fs.ErrPermission
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return ErrDiskFull
	case errors.Is(err, unix.EISDIR):
		return ErrIsDir
	case errors.Is(err, unix.ENOTDIR):
		return ErrNotDir
	case errors.Is(err, unix.ELOOP):
		return ErrLoop
	case errors.Is(err, unix.ENAMETOOLONG):
		return ErrInvalid
	case strings.Contains(err.Error(), "path escapes"):
		return ErrEscapes
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
