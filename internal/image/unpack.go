package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// unpacker applies layers, one on top of the other, to a directory. Every
// access goes through an os.Root, so nothing outside the directory can be
// reached whatever the names and links say; the checks before it are there to
// refuse such images with a clear error instead of half following them.
type unpacker struct {
	root   *os.Root
	limits Limits
	bytes  int64 // of file content so far
	// entries so far, and how many of them were left out as devices or FIFOs.
	entries, skipped int
	names            int // bytes of all names so far, which times and layer keep
	// times of directories are set last: files put into one change its time.
	times map[string]time.Time
	// layer holds the names that the layer under way wrote; true for directories.
	layer map[string]bool
}

func newUnpacker(root *os.Root, limits Limits) *unpacker {
	return &unpacker{root: root, limits: limits, times: map[string]time.Time{}}
}

// apply unpacks one layer from an uncompressed tar stream, which it reads to
// its end. Errors have CodeArchiveUnsafe, CodeTooLarge, CodeSourceInvalid,
// CodePermission or CodeDiskFull.
func (u *unpacker) apply(ctx context.Context, r io.Reader) error {
	u.layer = map[string]bool{}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return classify(err, CodeSourceInvalid, "read layer")
		}
		if err := u.entry(ctx, hdr, tr); err != nil {
			return u.entryError(hdr.Name, err)
		}
	}
	// What follows the end mark counts for the digest of the layer.
	_, err := io.Copy(io.Discard, r)
	return classify(err, CodeSourceInvalid, "read layer")
}

// entryError tells a name that the image chose badly from a failure of ours.
func (u *unpacker) entryError(name string, err error) error {
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.Is(err, syscall.ELOOP):
		return unsafef(name, "its path is a loop of links")
	case errors.Is(err, syscall.ENOTDIR):
		return unsafef(name, "its path leads through something that is no directory")
	case errors.As(err, &pathErr) && pathErr.Err.Error() == escapes,
		errors.As(err, &linkErr) && linkErr.Err.Error() == escapes:
		return unsafef(name, "its path leads through a link out of the image")
	}
	return classify(err, CodeSourceInvalid, fmt.Sprintf("unpack %q", clip(name)))
}

// escapes is what os.Root says of a path that leaves it; the error has no name.
const escapes = "path escapes from parent"

const whiteout, opaque = ".wh.", ".wh..wh..opq"

func (u *unpacker) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := u.count(hdr.Name); err != nil {
		return err
	}
	name, err := u.clean(hdr.Name)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	switch {
	case base == opaque:
		return u.hideBelow(dir)
	case strings.HasPrefix(base, whiteout+whiteout):
		return nil // bookkeeping of aufs
	case strings.HasPrefix(base, whiteout):
		hidden := strings.TrimPrefix(base, whiteout)
		if hidden == "" || hidden == "." || hidden == ".." {
			return unsafef(hdr.Name, "is a whiteout of nothing or of its own directory")
		}
		return u.hide(path.Join(dir, hidden))
	}
	if name == "." && hdr.Typeflag != tar.TypeDir {
		return unsafef(hdr.Name, "would replace the root directory")
	}
	isDir := hdr.Typeflag == tar.TypeDir
	if wasDir, twice := u.layer[name]; twice && (!wasDir || !isDir) {
		return unsafef(hdr.Name, "is in one layer twice")
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= 1<<32-1 || int64(hdr.Gid) >= 1<<32-1 {
		return unsafef(hdr.Name, "has an impossible owner")
	}
	if err := u.parents(dir); err != nil {
		return err
	}
	if err := u.makeRoom(name, isDir); err != nil {
		return err
	}
	u.layer[name] = isDir
	return u.create(ctx, name, hdr, r)
}

// count holds the number of entries, and the memory that their names take,
// against the limits.
func (u *unpacker) count(name string) error {
	u.entries++
	u.names += len(name)
	if u.entries > u.limits.Entries {
		return tooLarge("image has more than %d entries", u.limits.Entries)
	}
	if u.names > maxNames {
		return tooLarge("names in the image take more than %d bytes", maxNames)
	}
	return nil
}

// maxNames is what a million entries need with room to spare.
const maxNames = 256 << 20

// checkDepth holds where a new directory really is against the limits: links
// can lead a short name deep down, too deep for others to follow.
func (u *unpacker) checkDepth(dir string) error {
	base, err := u.whereIs(".")
	if err != nil {
		return err
	}
	where, err := u.whereIs(dir)
	if err != nil && !errors.Is(err, syscall.ENAMETOOLONG) {
		return err
	}
	where = strings.TrimPrefix(where, base)
	if err != nil || len(where) > u.limits.PathBytes || strings.Count(where, "/") > u.limits.PathDepth {
		return tooLarge("entry %q: directory is too deep", clip(dir))
	}
	return nil
}

// whereIs returns the path of a directory on this machine, without links.
func (u *unpacker) whereIs(dir string) (string, error) {
	f, err := u.root.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// clean checks a name and returns it relative to the root, "." for the root.
func (u *unpacker) clean(name string) (string, error) {
	if len(name) > u.limits.PathBytes {
		return "", tooLarge("entry %q: path has %d bytes, at most %d are allowed", clip(name), len(name), u.limits.PathBytes)
	}
	if strings.HasPrefix(name, "/") {
		return "", unsafef(name, "is an absolute path")
	}
	if strings.IndexByte(name, 0) >= 0 || name == "" {
		return "", unsafef(name, "is not a path")
	}
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", unsafef(name, "leads out of its directory")
		case len(part) > 255:
			return "", tooLarge("entry %q: a name has more than 255 bytes", clip(name))
		case part != "" && part != ".":
			depth++
		}
	}
	if depth > u.limits.PathDepth {
		return "", tooLarge("entry %q: path is deeper than %d", clip(name), u.limits.PathDepth)
	}
	return path.Clean(name), nil
}

// parents makes the directories above an entry that no layer has described.
func (u *unpacker) parents(dir string) error {
	if dir == "." {
		return nil
	}
	info, err := u.root.Stat(dir) // follows links inside the image
	switch {
	case err == nil:
		if !info.IsDir() {
			return syscall.ENOTDIR
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := u.parents(path.Dir(dir)); err != nil {
			return err
		}
		// Mkdir fails on a dangling link: it is there, and leads nowhere.
		if err := u.root.Mkdir(dir, 0o755); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return syscall.ENOTDIR
			}
			return err
		}
		if err := errors.Join(u.count(dir), u.checkDepth(dir)); err != nil {
			return err
		}
	default:
		return err
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if _, known := u.layer[dir]; known {
			break
		}
		u.layer[dir] = true
	}
	return nil
}

// makeRoom removes what a lower layer has at name, unless both are directories.
func (u *unpacker) makeRoom(name string, isDir bool) error {
	if name == "." {
		return nil
	}
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() && isDir {
		return nil
	}
	return u.remove(name)
}

func (u *unpacker) remove(name string) error {
	delete(u.times, name)
	return u.root.RemoveAll(name)
}

// hide applies a whiteout: it removes what lower layers have at name, and
// leaves what this layer put there.
func (u *unpacker) hide(name string) error {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, ours := u.layer[name]; !ours {
		return u.remove(name)
	}
	if info.IsDir() {
		return u.hideBelow(name)
	}
	return nil
}

func (u *unpacker) hideBelow(dir string) error {
	f, err := u.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if err := u.hide(path.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// finish sets the times of all directories. Those that no layer described, and
// those that only the image store made, are of 1970.
func (u *unpacker) finish(ctx context.Context) error { return u.finishDir(ctx, ".") }

// finishDir does not use fs.WalkDir, which refuses names that are not UTF-8.
func (u *unpacker) finishDir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := u.root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := u.finishDir(ctx, path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	t, ok := u.times[dir]
	if !ok {
		t = time.Unix(0, 0)
	}
	return u.root.Chtimes(dir, t, t)
}
