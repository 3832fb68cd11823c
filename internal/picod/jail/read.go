package jail

import (
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxEntries bounds one listing.
const MaxEntries = 100_000

// Entry is one name in a directory.
type Entry struct {
	Name     string
	Size     int64
	Mode     fs.FileMode
	Modified time.Time
}

// OpenFile opens a regular file for reading. It never blocks on a FIFO and never
// opens a device.
func (w *Workspace) OpenFile(rel string) (*os.File, fs.FileInfo, error) {
	resolved, _, err := w.Resolve(rel)
	if err != nil {
		return nil, nil, err
	}
	info, err := w.root.Lstat(resolved)
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		return nil, nil, public(err)
	}
	f, err := w.root.OpenFile(resolved, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, public(err)
	}
	if info, err = f.Stat(); err == nil {
		err = regular(info) // it may have been swapped since the first look
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, public(err)
	}
	return f, info, nil
}

func regular(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return ErrIsDir
	case !info.Mode().IsRegular():
		return ErrNotRegular
	}
	return nil
}

// List returns the entries of a directory sorted by name; links are not
// followed. more says that there were more than MaxEntries.
func (w *Workspace) List(rel string) (entries []Entry, more bool, err error) {
	resolved, _, err := w.Resolve(rel)
	if err != nil {
		return nil, false, err
	}
	dir, err := w.root.OpenFile(resolved, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, public(err)
	}
	defer dir.Close()
	entries = []Entry{}
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, tempMark) {
				continue
			}
			if len(entries) == MaxEntries {
				more = true
				break
			}
			if e, ok := stat(int(dir.Fd()), name); ok {
				entries = append(entries, e)
			}
		}
		if err == io.EOF || more {
			break
		}
		if err != nil {
			return nil, false, public(err)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, more, nil
}

// stat describes one name; a name that has gone is left out.
func stat(dir int, name string) (Entry, bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Entry{}, false
	}
	return Entry{Name: name, Size: st.Size, Mode: fileMode(st.Mode), Modified: time.Unix(st.Mtim.Unix())}, true
}

// fileMode turns the kernel's mode bits into Go's.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
