package image

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/erofs"
)

// readEROFS reads a whole image with the reader that sandboxes use. It fails on
// files that gVisor could not map into memory.
func readEROFS(t testing.TB, name string) map[string]node {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := erofs.OpenImage(f)
	if err != nil {
		t.Fatalf("open EROFS image: %v", err)
	}
	defer img.Close()
	nodes := map[string]node{}
	if err := readNode(img, img.RootNid(), ".", nodes); err != nil {
		t.Fatalf("read EROFS image: %v", err)
	}
	return nodes
}

func readNode(img *erofs.Image, nid uint64, name string, into map[string]node) error {
	ino, err := img.Inode(nid)
	if err != nil {
		return fmt.Errorf("inode of %q: %w", name, err)
	}
	n := node{perm: uint32(ino.Mode()) & 0o7777, uid: ino.UID(), gid: ino.GID(), nlink: ino.Nlink(), mtime: ino.Mtime(), nid: nid}
	switch {
	case ino.IsDir():
		n.mode = fs.ModeDir
		into[name] = n
		return ino.IterDirents(func(child string, _ uint8, nid uint64) error {
			if child == "." || child == ".." {
				return nil
			}
			return readNode(img, nid, path.Join(name, child), into)
		})
	case ino.IsSymlink():
		n.mode = fs.ModeSymlink
		if n.body, err = ino.Readlink(); err != nil {
			return err
		}
	case ino.IsRegular():
		if _, err := ino.DataOffset(); err != nil {
			return fmt.Errorf("%q cannot be mapped: %w", name, err)
		}
		ranges, err := ino.DataRanges()
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, r := range ranges {
			b.Write(r.Bytes)
		}
		n.body = b.String()
	default:
		n.mode = fs.ModeIrregular
	}
	into[name] = n
	return nil
}
