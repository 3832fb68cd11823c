package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layerFile is a layer on disk, as stored.
type layerFile struct {
	path   string
	size   int64
	diffID v1.Hash
}

// buildRootfs makes the EROFS file of an image from its layers in w and returns
// its path there.
func (s *Store) buildRootfs(ctx context.Context, w *work, layers []layerFile, m *meter) (string, error) {
	tree, out := w.path("tree"), w.path("rootfs.erofs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", classify(err, CodeBuildFailed, "make work directory")
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return "", classify(err, CodeBuildFailed, "open work directory")
	}
	defer root.Close()
	// Whatever the umask of this process.
	if err := root.Chmod(".", 0o755); err != nil {
		return "", classify(err, CodeBuildFailed, "open work directory")
	}
	u := newUnpacker(root, s.limits)
	if err := u.applyAll(ctx, layers, m); err != nil {
		return "", err
	}
	if err := furnish(root, s.opts.Agent); err != nil {
		return "", classify(err, CodeSourceInvalid, "add mount points to image")
	}
	if err := u.finish(ctx); err != nil {
		return "", classify(err, CodeBuildFailed, "set times")
	}
	if u.skipped > 0 {
		s.log.InfoContext(ctx, "left devices and FIFOs out of image", "count", u.skipped)
	}
	m.begin("build", u.bytes)
	if err := WriteEROFS(ctx, s.opts.Mkfs, tree, out); err != nil {
		return "", err
	}
	m.add(u.bytes)
	return out, nil
}

func (u *unpacker) applyAll(ctx context.Context, layers []layerFile, m *meter) error {
	var total int64
	for _, l := range layers {
		total += l.size
	}
	m.begin("unpack", total)
	left := u.limits.Bytes
	for i, l := range layers {
		n, err := u.applyFile(ctx, l, left, m)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		left -= n
	}
	return nil
}

// applyFile unpacks one layer, of at most so many bytes plain, and checks that
// it is the one its image means.
func (u *unpacker) applyFile(ctx context.Context, l layerFile, most int64, m *meter) (int64, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return 0, classify(err, CodeStoreCorrupt, "open layer")
	}
	defer f.Close()
	plain, _, err := decompress(m.reader(ctx, f))
	if err != nil {
		return 0, classify(err, CodeSourceInvalid, "decompress layer")
	}
	defer plain.Close()
	sum := newDigester(io.Discard)
	limited := &limitReader{r: plain, left: u.limits.ratioLimit(l.size, most)}
	if err := u.apply(ctx, io.TeeReader(limited, sum)); err != nil {
		return 0, err
	}
	if got := sum.hash(); got != l.diffID {
		return 0, errorf(CodeDigestMismatch, "layer unpacks to %s, its image says %s", got, l.diffID)
	}
	return sum.n, nil
}

// furnish adds the mount points and the agent.
func furnish(root *os.Root, agent *Agent) error {
	for _, d := range []struct {
		name string
		mode fs.FileMode
	}{
		{".agentcube", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"proc", 0o755}, {"sys", 0o755},
		{"tmp", 0o777 | fs.ModeSticky}, {"workspace", 0o755},
	} {
		if err := mountPoint(root, d.name, d.mode); err != nil {
			return err
		}
	}
	for _, name := range []string{"etc/hostname", "etc/hosts", "etc/resolv.conf"} {
		if err := addFile(root, name, 0o644, nil); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if agent == nil {
		return nil
	}
	// Nothing of the image may stand where the agent goes, or lead it elsewhere.
	if !fs.ValidPath(agent.Path) || agent.Path == "." {
		return fmt.Errorf("agent path %q is not a path in an image", agent.Path)
	}
	dir := path.Dir(agent.Path)
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := root.RemoveAll(agent.Path); err != nil {
		return err
	}
	return addFile(root, agent.Path, 0o755, agent.Data)
}

func mountPoint(root *os.Root, name string, mode fs.FileMode) error {
	info, err := root.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &Error{Code: CodeUnsupported, Text: fmt.Sprintf("image has a %q that is not a directory", name),
			Hint: "a sandbox mounts something there: rebuild the image with a directory of that name"}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}

// addFile makes a file of root's with the mode, whatever the umask.
func addFile(root *os.Root, name string, mode fs.FileMode, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return root.Chtimes(name, time.Unix(0, 0), time.Unix(0, 0))
}
