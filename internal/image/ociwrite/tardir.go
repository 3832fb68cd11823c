// Package ociwrite writes OCI images without any daemon: TarDir turns a
// directory into a layer whose bytes depend on its content alone, GzipLayer
// makes a compressed layer of it, and WriteArchive packs layers and a
// configuration as an OCI archive (a tar file of an OCI image layout).
//
// The same tree, names and time give the same bytes with the same Go release;
// TarDir's output does not depend on the release.
package ociwrite

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// TarOptions says how TarDir writes a tree.
type TarOptions struct {
	// Latest, when not zero, is the latest modification time written; later
	// ones become Latest, so that files made during a build do not differ from
	// one build to the next.
	Latest time.Time
	// Skip, when set, is asked for every path below the root (slash-separated,
	// without a leading slash). A path it says yes to is left out with all below.
	Skip func(name string) bool
}

type fileID struct{ dev, ino uint64 }

type dirTar struct {
	root  *os.Root
	tw    *tar.Writer
	opts  TarOptions
	dev   uint64
	links map[fileID]string
}

// TarDir writes the tree at dir to w as an uncompressed tar stream: sorted by
// path, numeric owners, whole seconds, hard links kept, no extended attributes.
// Device nodes, FIFOs and sockets are left out, and of other file systems
// mounted inside the tree only the mount point is written. A file that changes
// while it is read is an error.
func TarDir(ctx context.Context, w io.Writer, dir string, opts TarOptions) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open tree: %w", err)
	}
	defer root.Close()
	info, err := root.Lstat(".")
	if err != nil {
		return fmt.Errorf("stat tree: %w", err)
	}
	st, err := sysStat(info)
	if err != nil {
		return err
	}
	d := &dirTar{root: root, tw: tar.NewWriter(w), opts: opts, dev: st.Dev, links: map[fileID]string{}}
	err = d.walk(ctx, ".")
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	if err := d.tw.Close(); err != nil {
		return fmt.Errorf("finish layer: %w", err)
	}
	return nil
}

// walk writes name and what is below it. It does not use fs.WalkDir, which
// refuses names that are not UTF-8.
func (d *dirTar) walk(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if name != "." && d.opts.Skip != nil && d.opts.Skip(name) {
		return nil
	}
	descend, err := d.add(ctx, name)
	if err != nil || !descend {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := d.walk(ctx, path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

// add writes one entry; descend says that it is a directory to go into.
func (d *dirTar) add(ctx context.Context, name string) (descend bool, err error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return false, err
	}
	st, err := sysStat(info)
	if err != nil {
		return false, err
	}
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: d.clamp(info.ModTime()),
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		hdr.Typeflag, hdr.Name = tar.TypeDir, path.Clean(name)+"/"
		return st.Dev == d.dev, d.tw.WriteHeader(hdr)
	case fs.ModeSymlink:
		hdr.Typeflag = tar.TypeSymlink
		if hdr.Linkname, err = d.root.Readlink(name); err != nil {
			return false, err
		}
		return false, d.tw.WriteHeader(hdr)
	case 0:
		return false, d.addFile(ctx, name, info, st, hdr)
	default:
		return false, nil
	}
}

func (d *dirTar) addFile(ctx context.Context, name string, info fs.FileInfo, st *syscall.Stat_t, hdr *tar.Header) error {
	id := fileID{st.Dev, st.Ino}
	if first, ok := d.links[id]; ok {
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
		return d.tw.WriteHeader(hdr)
	}
	if st.Nlink > 1 {
		d.links[id] = name
	}
	// Not blocking, and compared after opening: the name may have become a FIFO
	// or a link to something else since it was looked at.
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, now) {
		return fmt.Errorf("read %q: %w", name, errChanged)
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, info.Size()
	if err := d.tw.WriteHeader(hdr); err != nil {
		return err
	}
	n, err := io.Copy(d.tw, io.LimitReader(ctxReader{ctx, f}, hdr.Size))
	if err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	if n != hdr.Size {
		return fmt.Errorf("read %q: %w", name, errChanged)
	}
	return nil
}

var errChanged = errors.New("file changed while it was read")

func (d *dirTar) clamp(t time.Time) time.Time {
	if !d.opts.Latest.IsZero() && t.After(d.opts.Latest) {
		t = d.opts.Latest
	}
	return time.Unix(t.Unix(), 0)
}

func sysStat(info fs.FileInfo) (*syscall.Stat_t, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("stat %q: no owner information on this system", filepath.Base(info.Name()))
	}
	return st, nil
}

// ctxReader ends a copy when its context does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
