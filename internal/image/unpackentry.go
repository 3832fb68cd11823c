package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// create makes the file system object of one entry. Nothing is at name, unless
// it and the entry are directories.
func (u *unpacker) create(ctx context.Context, name string, hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return u.dir(name, hdr)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(ctx, name, hdr, r)
	case tar.TypeSymlink:
		return u.symlink(name, hdr)
	case tar.TypeLink:
		return u.link(name, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.skipped++
		return nil
	default:
		return &Error{Code: CodeUnsupported, Text: "entry is of an unknown kind"}
	}
}

func (u *unpacker) dir(name string, hdr *tar.Header) error {
	if name != "." {
		err := u.root.Mkdir(name, 0o755)
		if err == nil {
			err = u.checkDepth(name)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	u.times[name] = entryTime(hdr)
	return errors.Join(own(f, hdr), f.Close())
}

func (u *unpacker) file(ctx context.Context, name string, hdr *tar.Header, r io.Reader) error {
	if hdr.Size > u.limits.FileBytes {
		return tooLarge("entry %q: file has %d bytes, at most %d are allowed", clip(name), hdr.Size, u.limits.FileBytes)
	}
	if hdr.Size > u.limits.Bytes-u.bytes {
		return tooLarge("image unpacks to more than %d bytes", u.limits.Bytes)
	}
	u.bytes += hdr.Size
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyContent(ctx, f, r, hdr.Size)
	// The owner first: changing it takes set-uid bits away.
	err = errors.Join(err, own(f, hdr), f.Close())
	if err != nil {
		return err
	}
	return u.root.Chtimes(name, entryTime(hdr), entryTime(hdr))
}

func copyContent(ctx context.Context, f *os.File, r io.Reader, size int64) error {
	n, err := io.Copy(f, meterReader{ctx: ctx, r: r})
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (u *unpacker) symlink(name string, hdr *tar.Header) error {
	if hdr.Linkname == "" || strings.IndexByte(hdr.Linkname, 0) >= 0 {
		return unsafef(hdr.Name, "links to nothing")
	}
	if len(hdr.Linkname) > 4095 {
		return tooLarge("entry %q: link has more than 4095 bytes", clip(name))
	}
	// Where it points is not looked at: what matters is what goes through it.
	if err := u.root.Symlink(hdr.Linkname, name); err != nil {
		return err
	}
	if err := u.root.Lchown(name, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	return u.linkTime(name, entryTime(hdr))
}

// linkTime sets the time of a symbolic link itself, which os.Root cannot.
func (u *unpacker) linkTime(name string, t time.Time) error {
	dir, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i], name[i+1:]
	}
	f, err := u.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(int(f.Fd()), base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) link(name string, hdr *tar.Header) error {
	target, err := u.clean(hdr.Linkname)
	if err != nil {
		return err
	}
	info, err := u.root.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return unsafef(hdr.Name, "is a hard link to %q, which is not there", clip(hdr.Linkname))
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return unsafef(hdr.Name, "is a hard link to a directory")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink >= 65535 {
		return tooLarge("entry %q: file has more than 65,535 hard links", clip(name))
	}
	return u.root.Link(target, name)
}

// own sets the owner and the mode of an open file or directory.
func own(f *os.File, hdr *tar.Header) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return &os.PathError{Op: "chown", Path: hdr.Name, Err: err}
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return &os.PathError{Op: "chmod", Path: hdr.Name, Err: err}
	}
	return nil
}

// entryTime is the entry's time in whole seconds, between 1970 and latestTime,
// which are the times that every EROFS reader understands.
func entryTime(hdr *tar.Header) time.Time {
	return time.Unix(min(max(hdr.ModTime.Unix(), 0), latestTime), 0)
}
